use rand::{Rng, RngCore};
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::scratch::Normal;
use super::{Source, WeightsError};

/// How rows for new tokens start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabInit {
    /// HF's `mean_resizing`: samples around the mean of the old rows, with 1e-9 of their covariance.
    Mean,
    /// The JAX plugin's: independent N(0, 0.02²).
    Normal,
}

const NORMAL_STD: f32 = 0.02;
/// HF's factor of the covariance.
const COVARIANCE_SCALE: f64 = 1e-9;
/// Old rows that a sample mixes. A sum of centred rows with normal weights over √n has the rows' covariance, without
/// the `hidden × hidden` matrix; at this scale more rows change nothing that a weight of 1e-2 would show.
const MIXED_ROWS: usize = 32;
/// Rows read at a time.
const CHUNK_ROWS: usize = 4096;

/// Rows `from..from + count` of a table beyond the `old` rows that `source` has, `[count, hidden]`.
pub(super) fn new_rows(
    source: &dyn Source,
    name: &str,
    old: usize,
    from: usize,
    count: usize,
    init: VocabInit,
    seed: u64,
) -> Result<Vec<f32>, WeightsError> {
    let hidden = source.shape(name).map_or(0, |shape| shape[1]);
    let mut rows = Vec::with_capacity(count * hidden);
    match init {
        VocabInit::Normal => {
            let mut normal = Normal::new(seed, &format!("{name} new rows"));
            normal.fill((from - old) * hidden, count * hidden, |z| rows.push(z * NORMAL_STD));
        }
        VocabInit::Mean => {
            let mean = mean_row(source, name, old, hidden)?;
            for row in from..from + count {
                rows.extend(sample_around(source, name, old, &mean, row, seed)?);
            }
        }
    }
    Ok(rows)
}

fn mean_row(source: &dyn Source, name: &str, rows: usize, hidden: usize) -> Result<Vec<f64>, WeightsError> {
    let mut sum = vec![0f64; hidden];
    let mut start = 0;
    while start < rows {
        let end = (start + CHUNK_ROWS).min(rows);
        for row in read_f32(source, name, start..end, hidden)?.chunks_exact(hidden) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        }
        start = end;
    }
    Ok(sum.into_iter().map(|s| s / rows.max(1) as f64).collect())
}

/// A function of seed, name and row alone, so that every host makes the same.
fn sample_around(
    source: &dyn Source,
    name: &str,
    old: usize,
    mean: &[f64],
    row: usize,
    seed: u64,
) -> Result<Vec<f32>, WeightsError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut normal = Normal::new(rng.next_u64(), name);
    let mut weights = Vec::with_capacity(MIXED_ROWS);
    normal.fill(0, MIXED_ROWS, |z| weights.push(f64::from(z)));
    let scale = (COVARIANCE_SCALE / MIXED_ROWS as f64).sqrt();
    let mut sample = mean.to_vec();
    for weight in weights {
        let picked = rng.random_range(0..old);
        let values = read_f32(source, name, picked..picked + 1, mean.len())?;
        for ((s, v), m) in sample.iter_mut().zip(values).zip(mean) {
            *s += scale * weight * (f64::from(v) - m);
        }
    }
    Ok(sample.into_iter().map(|v| v as f32).collect())
}

fn read_f32(
    source: &dyn Source,
    name: &str,
    rows: std::ops::Range<usize>,
    hidden: usize,
) -> Result<Vec<f32>, WeightsError> {
    let block = source.read(name, &[rows, 0..hidden])?;
    block.to_f32_vec().map_err(|e| WeightsError::tensor(source.path(), name, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Init, Param};
    use crate::weights::FromScratch;

    const NAME: &str = "model.embed_tokens.weight";
    const HIDDEN: usize = 8;

    fn source(rows: usize) -> FromScratch {
        let shape = vec![rows, HIDDEN];
        let init = Init::Normal(1.0);
        FromScratch::new(&[Param { name: NAME.into(), shape, fsdp_dim: None, tp_dim: None, init }], rows, 5)
    }

    #[test]
    fn samples_have_the_mean_and_the_scaled_covariance_of_the_old_rows() {
        let source = source(400);
        let old = read_f32(&source, NAME, 0..400, HIDDEN).unwrap();
        let new = new_rows(&source, NAME, 400, 400, 2000, VocabInit::Mean, 1).unwrap();
        let column =
            |rows: &[f32], c: usize| rows.iter().skip(c).step_by(HIDDEN).map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        for c in 0..HIDDEN {
            let (old, new) = (column(&old, c), column(&new, c));
            let spread = |v: &[f64]| v.iter().map(|x| (x - mean(&old)).powi(2)).sum::<f64>() / v.len() as f64;
            assert!((mean(&new) - mean(&old)).abs() < 3e-6, "mean of column {c}");
            let ratio = spread(&new) / (COVARIANCE_SCALE * spread(&old));
            assert!((ratio - 1.0).abs() < 0.15, "variance of column {c}: {ratio}");
        }
    }

    #[test]
    fn a_row_is_the_same_whichever_rows_are_asked_for() {
        let source = source(20);
        for init in [VocabInit::Mean, VocabInit::Normal] {
            let all = new_rows(&source, NAME, 20, 20, 10, init, 1).unwrap();
            let some = new_rows(&source, NAME, 20, 24, 3, init, 1).unwrap();
            assert_eq!(some, all[4 * HIDDEN..7 * HIDDEN], "{init:?}");
            assert_ne!(all, new_rows(&source, NAME, 20, 20, 10, init, 2).unwrap(), "{init:?}: the seed counts");
        }
    }
}
