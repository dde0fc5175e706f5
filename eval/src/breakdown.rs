//! Metrics by group of samples: by history length, by popularity of the target, by whatever the caller can name.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};
use serde::Serialize;

use crate::metrics::sums_at;

/// Averages over the samples of one group; the formulas are those of [`crate::metrics`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupMetrics {
    /// Hit rate by K, a fraction of the group's samples.
    pub hr: BTreeMap<usize, f64>,
    /// Normalised discounted cumulative gain by K.
    pub ndcg: BTreeMap<usize, f64>,
    /// Number of samples in the group.
    pub n_samples: usize,
}

/// Groups samples by `keys` (one per sample, in the order of `ranks`) and averages within each group.
///
/// `ranks` are 0-based and `None` for a miss, as in [`crate::Scored::ranks`].
///
/// # Errors
/// More or fewer keys than ranks.
pub fn breakdown<K: Ord>(
    keys: impl IntoIterator<Item = K>,
    ranks: &[Option<usize>],
    topk: &[usize],
) -> Result<BTreeMap<K, GroupMetrics>> {
    let keys: Vec<K> = keys.into_iter().collect();
    ensure!(keys.len() == ranks.len(), "{} group keys for {} samples: each sample needs one", keys.len(), ranks.len());
    let mut groups: BTreeMap<K, Vec<Option<usize>>> = BTreeMap::new();
    for (key, &rank) in keys.into_iter().zip(ranks) {
        groups.entry(key).or_default().push(rank);
    }
    Ok(groups.into_iter().map(|(key, ranks)| (key, group_metrics(&ranks, topk))).collect())
}

fn group_metrics(ranks: &[Option<usize>], topk: &[usize]) -> GroupMetrics {
    let n = ranks.len() as f64;
    GroupMetrics {
        hr: topk.iter().map(|&k| (k, sums_at(ranks, k).0 / n)).collect(),
        ndcg: topk.iter().map(|&k| (k, (sums_at(ranks, k).1 / n) * 2f64.ln())).collect(),
        n_samples: ranks.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_within_groups() {
        let groups = breakdown([3, 1, 3, 3], &[Some(0), None, Some(2), None], &[1, 3]).unwrap();
        assert_eq!(groups.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!((groups[&1].n_samples, groups[&1].hr[&3], groups[&1].ndcg[&3]), (1, 0.0, 0.0));
        assert_eq!((groups[&3].n_samples, groups[&3].hr[&1], groups[&3].hr[&3]), (3, 1.0 / 3.0, 2.0 / 3.0));
        // A hit at rank 2 is worth ln 2 / ln 4 = 1/2.
        assert!((groups[&3].ndcg[&3] - 0.5).abs() < 1e-15);
    }

    #[test]
    fn every_sample_needs_a_key() {
        assert!(breakdown(["a"], &[None, None], &[1]).unwrap_err().to_string().contains("1 group keys for 2 samples"));
    }
}
