//! The reference search against exhaustive scoring and against a masked search over the whole vocabulary.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sft_eval::{reference_search, BeamHit, Trie};

const VOCAB: u32 = 40;
const NEWLINE: u32 = 38;
const EOS: u32 = 39;
const SUFFIX: [u32; 2] = [NEWLINE, EOS];

/// A random language model: log-probabilities that depend on the whole prefix.
fn model(seed: u64, sharpness: f32) -> impl FnMut(&[u32]) -> Vec<f32> {
    move |prefix| {
        let seed = prefix.iter().fold(seed, |seed, &token| (seed ^ u64::from(token + 1)).wrapping_mul(0x100_0000_01b3));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let logits: Vec<f32> = (0..VOCAB).map(|_| sharpness * rng.random_range(-1.0f32..1.0)).collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f32>().ln();
        logits.iter().map(|logit| logit - log_sum).collect()
    }
}

/// Distinct SIDs of three tokens with `first` first tokens.
fn catalogue(seed: u64, first: u32, count: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sids = BTreeSet::new();
    while sids.len() < count {
        sids.insert(vec![rng.random_range(0..first), rng.random_range(10..20), rng.random_range(20..30)]);
    }
    // An order of its own, so that an index cannot be mistaken for a rank in the trie.
    let mut sids: Vec<_> = sids.into_iter().collect();
    sids.sort_by_key(|sid| sid.iter().rev().copied().collect::<Vec<_>>());
    sids
}

/// SIDs of two to four tokens, none a prefix of another: the last token is from a range of its own.
fn uneven_catalogue(seed: u64, count: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sids = BTreeSet::new();
    while sids.len() < count {
        let mut sid: Vec<u32> = (0..rng.random_range(1..4)).map(|_| rng.random_range(0..4)).collect();
        sid.push(rng.random_range(20..24));
        sids.insert(sid);
    }
    sids.into_iter().collect()
}

/// Every SID with its score, best first.
fn exhaustive(sids: &[Vec<u32>], log_probs: &mut dyn FnMut(&[u32]) -> Vec<f32>) -> Vec<BeamHit> {
    let mut hits: Vec<BeamHit> = sids
        .iter()
        .enumerate()
        .map(|(sid, tokens)| {
            let full: Vec<u32> = tokens.iter().copied().chain(SUFFIX).collect();
            let score = (0..full.len()).fold(0.0, |score, at| score + log_probs(&full[..at])[full[at] as usize]);
            BeamHit { sid, score }
        })
        .collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score));
    hits
}

/// Beam search as transformers runs it: `beams` hypotheses from the start, a mask of -1e6 on what the catalogue does
/// not allow, the best `2 * beams` of all continuations, ended ones kept when among the best `beams`.
fn masked(sids: &[Vec<u32>], beams: usize, log_probs: &mut dyn FnMut(&[u32]) -> Vec<f32>) -> Vec<BeamHit> {
    let full: Vec<Vec<u32>> = sids.iter().map(|sid| sid.iter().copied().chain(SUFFIX).collect()).collect();
    let longest = full.iter().map(Vec::len).max().unwrap();
    let mut running = vec![(Vec::new(), 0.0f32)];
    running.resize(beams, (Vec::new(), -1e9));
    let mut finished: Vec<BeamHit> = Vec::new();
    for _ in 0..longest {
        let mut flat: Vec<(Vec<u32>, f32)> = Vec::new();
        for (prefix, score) in &running {
            for (token, log_prob) in (0u32..).zip(log_probs(prefix)) {
                let tokens: Vec<u32> = prefix.iter().copied().chain([token]).collect();
                let allowed = full.iter().any(|sid| sid.starts_with(&tokens));
                flat.push((tokens, score + (log_prob + if allowed { 0.0 } else { -1e6 })));
            }
        }
        flat.sort_by(|a, b| b.1.total_cmp(&a.1));
        flat.truncate(2 * beams);
        running.clear();
        for (rank, (tokens, score)) in flat.into_iter().enumerate() {
            if tokens.ends_with(&[EOS]) {
                if let Some(sid) = full.iter().position(|sid| *sid == tokens).filter(|_| rank < beams) {
                    finished.push(BeamHit { sid, score });
                }
            } else if running.len() < beams {
                running.push((tokens, score));
            }
        }
    }
    finished.sort_by(|a, b| b.score.total_cmp(&a.score));
    finished.truncate(beams);
    finished
}

fn search(sids: &[Vec<u32>], beams: usize, log_probs: &mut dyn FnMut(&[u32]) -> Vec<f32>) -> Vec<BeamHit> {
    reference_search(&Trie::build(sids).unwrap(), beams, &SUFFIX, log_probs).unwrap()
}

#[test]
fn wide_enough_a_search_ranks_the_whole_catalogue() {
    for seed in 0..20 {
        for sids in [catalogue(seed, 8, 60), uneven_catalogue(seed, 60)] {
            let found = search(&sids, 100, &mut model(seed, 3.0));
            assert_eq!(found, exhaustive(&sids, &mut model(seed, 3.0)), "seed {seed}");
        }
    }
}

#[test]
fn equals_the_masked_search_with_more_and_with_fewer_first_tokens_than_beams() {
    let mut narrower_differs = false;
    for seed in 0..20 {
        for (first, beams) in [(9, 4), (9, 9), (3, 8), (1, 8), (9, 1)] {
            let sids = catalogue(seed, first, 80);
            let found = search(&sids, beams, &mut model(seed, 2.0));
            assert_eq!(found, masked(&sids, beams, &mut model(seed, 2.0)), "seed {seed}, {first} first, {beams} beams");
            assert_eq!(found.len(), beams);
            // The bug this guards against: the width cut to the number of first tokens at every level.
            let clamped = search(&sids, beams.min(first as usize), &mut model(seed, 2.0));
            narrower_differs |= clamped[..] != found[..clamped.len()];
        }
    }
    assert!(narrower_differs, "no case tells the full width from a clamped one");
}

#[test]
fn equals_the_masked_search_on_sids_of_different_lengths() {
    for seed in 0..40 {
        let sids = uneven_catalogue(seed, 50);
        for beams in [1, 3, 8] {
            let found = search(&sids, beams, &mut model(seed, 2.0));
            assert_eq!(found, masked(&sids, beams, &mut model(seed, 2.0)), "seed {seed}, {beams} beams");
        }
    }
}

#[test]
fn returns_every_sid_once_when_there_are_fewer_than_beams() {
    let sids = catalogue(1, 2, 5);
    let found = search(&sids, 50, &mut model(1, 2.0));
    assert_eq!(found.iter().map(|hit| hit.sid).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(found.len(), 5);
}

#[test]
fn equal_scores_go_to_the_lower_token() {
    let sids = vec![vec![7, 1], vec![3, 9], vec![3, 2], vec![7, 0]];
    let found = search(&sids, 3, &mut |_| vec![-1.0; VOCAB as usize]);
    assert_eq!(found.iter().map(|hit| hit.sid).collect::<Vec<_>>(), [2, 1, 3]);
    assert!(found.iter().all(|hit| hit.score == -4.0));
}

#[test]
fn an_empty_suffix_ends_a_sid_at_its_last_token() {
    let trie = Trie::build(&[vec![1, 2], vec![3, 4]]).unwrap();
    let found = reference_search(&trie, 2, &[], &mut |_| (0..5).map(|token| -(token as f32)).collect()).unwrap();
    assert_eq!(found, [BeamHit { sid: 0, score: -3.0 }, BeamHit { sid: 1, score: -7.0 }]);
}

#[test]
fn refuses_what_cannot_be_searched() {
    let trie = Trie::build(&[vec![1, 2]]).unwrap();
    let error = |beams, value: f32, vocab: usize| {
        reference_search(&trie, beams, &SUFFIX, &mut |_| vec![value; vocab]).unwrap_err().to_string()
    };
    assert!(error(0, -1.0, 40).contains("at least one beam"));
    assert!(error(1, f32::NAN, 40).contains("NaN"));
    assert!(error(1, -1.0, 2).contains("2 log-probabilities do not cover token"));
}
