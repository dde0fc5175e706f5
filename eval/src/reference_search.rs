//! Constrained beam search on the host, one prompt at a time: the oracle that the compiled search is tested against.
//!
//! It is what beam search of Hugging Face transformers computes under a constraint mask (no sampling, no length
//! penalty), without the masked candidates. The width stays `beams` at every step even when the first has fewer
//! candidates. Scores are sums of full-vocabulary log-probabilities and are never renormalised over the allowed tokens.

use std::cmp::Ordering;

use anyhow::{bail, ensure, Result};

use crate::trie::Trie;

/// A SID found by the search.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamHit {
    /// Index of the SID in the list that the trie was built from.
    pub sid: usize,
    /// Sum of the log-probabilities of the SID's tokens and the suffix, in nats.
    pub score: f32,
}

/// Returns up to `beams` SIDs, best score first; of equal scores the one from the better beam, then of the lower token.
///
/// * `suffix`: the tokens that close every SID, such as newline and end of sequence; they are scored too.
/// * `log_probs`: given the tokens generated so far (none at first), the log-probabilities of the next one over the
///   whole vocabulary. `[vocab]`, f32, nats.
///
/// With SIDs of different lengths a step ranks beams of equal token count, whichever part of SID or suffix they are in;
/// one that completes is kept when it ranks among the best `beams` of its step.
///
/// # Errors
/// `beams` is 0, or `log_probs` returns too few values or a NaN.
pub fn reference_search(
    trie: &Trie,
    beams: usize,
    suffix: &[u32],
    log_probs: &mut dyn FnMut(&[u32]) -> Vec<f32>,
) -> Result<Vec<BeamHit>> {
    ensure!(beams > 0, "a search needs at least one beam");
    let mut running = vec![Beam { tokens: Vec::new(), node: 0, suffix_done: 0, score: 0.0 }];
    let mut finished: Vec<BeamHit> = Vec::new();
    while !running.is_empty() {
        let mut candidates = Vec::new();
        for beam in &running {
            let scores = log_probs(&beam.tokens);
            for next in beam.continuations(trie, suffix) {
                match scores.get(next.tokens[beam.tokens.len()] as usize) {
                    Some(log_prob) if !log_prob.is_nan() => {
                        candidates.push(Beam { score: beam.score + log_prob, ..next });
                    }
                    Some(_) => bail!("the log-probability of {:?} is NaN", next.tokens),
                    None => bail!("{} log-probabilities do not cover token {:?}", scores.len(), next.tokens.last()),
                }
            }
        }
        // Candidates stand in the order of (beam, token); a stable sort keeps it among equal scores.
        candidates.sort_by(|a, b| descending(a.score, b.score));
        running.clear();
        for (rank, candidate) in candidates.into_iter().enumerate() {
            match candidate.complete(trie, suffix) {
                Some(sid) if rank < beams => finished.push(BeamHit { sid, score: candidate.score }),
                Some(_) => {}
                None if running.len() < beams => running.push(candidate),
                None => {}
            }
        }
    }
    finished.sort_by(|a, b| descending(a.score, b.score));
    finished.truncate(beams);
    Ok(finished)
}

/// Neither is NaN.
fn descending(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

#[derive(Debug, Clone)]
struct Beam {
    /// Generated so far: part of a SID, or a SID and part of the suffix.
    tokens: Vec<u32>,
    node: usize,
    suffix_done: usize,
    score: f32,
}

impl Beam {
    /// The beam with each token that may follow, in ascending order of the token, its score unchanged.
    fn continuations(&self, trie: &Trie, suffix: &[u32]) -> Vec<Beam> {
        let with = |token: u32, node, suffix_done| {
            let tokens = self.tokens.iter().copied().chain([token]).collect();
            Beam { tokens, node, suffix_done, score: self.score }
        };
        if trie.sid_at(self.node).is_none() {
            return trie.children(self.node).map(|(token, node)| with(token, node, 0)).collect();
        }
        suffix.get(self.suffix_done).map(|&token| with(token, self.node, self.suffix_done + 1)).into_iter().collect()
    }

    /// The SID, if nothing is left to generate.
    fn complete(&self, trie: &Trie, suffix: &[u32]) -> Option<usize> {
        trie.sid_at(self.node).filter(|_| self.suffix_done == suffix.len())
    }
}
