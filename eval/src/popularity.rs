//! The popularity baseline: everybody is recommended what was bought most in training.

use std::cmp::Reverse;
use std::collections::HashMap;

use anyhow::{ensure, Result};

use crate::metrics::{score_jax_plugin, ItemSids, Sample, Scored, Target};

/// The SIDs of a catalogue, most frequent training target first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Popularity {
    /// `(SID, times it was a training target)`, by falling count, then by rising SID text; distinct.
    ranked: Vec<(String, usize)>,
    unknown_targets: usize,
}

impl Popularity {
    /// Ranks the SIDs of `catalogue`, which may repeat, by how often they occur among the targets of the training rows.
    /// SIDs that never do come last.
    pub fn rank<'a>(
        training_targets: impl IntoIterator<Item = &'a str>,
        catalogue: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut counts: HashMap<&str, usize> = catalogue.into_iter().map(|sid| (sid, 0)).collect();
        let mut unknown_targets = 0;
        for target in training_targets {
            match counts.get_mut(target) {
                Some(count) => *count += 1,
                None => unknown_targets += 1,
            }
        }
        let mut ranked: Vec<(String, usize)> = counts.into_iter().map(|(sid, count)| (sid.to_owned(), count)).collect();
        ranked.sort_by(|(a, count_a), (b, count_b)| (Reverse(count_a), a).cmp(&(Reverse(count_b), b)));
        Popularity { ranked, unknown_targets }
    }

    /// `(SID, times it was a training target)`, most popular first, ties by SID text.
    pub fn ranked(&self) -> &[(String, usize)] {
        &self.ranked
    }

    /// Training rows whose target is not in the catalogue; they say nothing about any SID that can be recommended.
    pub fn unknown_targets(&self) -> usize {
        self.unknown_targets
    }

    /// The list that every prompt gets: the `beams` most popular SIDs, or all when the catalogue has fewer.
    pub fn recommend(&self, beams: usize) -> Vec<String> {
        self.ranked.iter().take(beams).map(|(sid, _)| sid.clone()).collect()
    }

    /// Scores that list against the targets of the test rows, as [`score_jax_plugin`] scores a model.
    ///
    /// # Errors
    /// An empty catalogue, no targets, or no K in `topk` up to `beams` and the size of the catalogue.
    pub fn score<'a>(
        &self,
        test_targets: impl IntoIterator<Item = &'a str>,
        beams: usize,
        topk: &[usize],
    ) -> Result<Scored> {
        ensure!(!self.ranked.is_empty(), "the catalogue has no SIDs to rank by popularity");
        let predictions = self.recommend(beams);
        let items: ItemSids = self.ranked.iter().map(|(sid, _)| sid.as_str()).collect();
        let samples =
            test_targets.into_iter().map(|sid| Sample { predictions: &predictions, target: Target::Text(sid) });
        score_jax_plugin(samples, Some(&items), topk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_count_then_text() {
        let popularity = Popularity::rank(["c", "b", "c", "b", "a", "gone"], ["d", "c", "b", "a", "e", "a"]);
        let expected = [("b", 2), ("c", 2), ("a", 1), ("d", 0), ("e", 0)];
        assert_eq!(popularity.ranked(), expected.map(|(sid, count)| (sid.to_owned(), count)));
        assert_eq!(popularity.unknown_targets(), 1);
        assert_eq!(popularity.recommend(2), ["b", "c"]);
        assert_eq!(popularity.recommend(9).len(), 5);
    }

    #[test]
    fn scores_one_list_for_all() {
        let popularity = Popularity::rank(["c", "c", "b"], ["a", "b", "c"]);
        let scored = popularity.score(["b", "a", "c", "gone"], 2, &[1, 2, 3]).unwrap();
        assert_eq!(scored.ranks, [Some(1), None, Some(0), None]);
        assert_eq!((scored.metrics.topk, scored.metrics.invalid_prediction_count), (vec![1, 2], 0));
        assert_eq!((scored.metrics.hr[&1], scored.metrics.hr[&2]), (0.25, 0.5));
    }

    #[test]
    fn refuses_to_score_nothing() {
        let error = |result: Result<Scored>| result.unwrap_err().to_string();
        assert!(error(Popularity::rank([], []).score(["a"], 1, &[1])).contains("catalogue"));
        let popularity = Popularity::rank([], ["a"]);
        assert!(error(popularity.score([], 1, &[1])).contains("no predictions to score"));
        assert!(error(popularity.score(["a"], 1, &[5])).contains("[5]"));
    }
}
