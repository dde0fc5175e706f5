use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::RngCore;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sft_tensor::HostTensor;

use super::{Source, WeightsError};
use crate::params::{Init, Param};

/// Weights as HF initialises them: matrices and embeddings from N(0, initializer_range²), norms one, biases zero.
///
/// Every element is a function of the seed, the tensor's name and the element's index, so that a host makes just its
/// own shards and the mesh does not change the model. (The numbers are not torch's.)
pub struct FromScratch {
    path: PathBuf,
    seed: u64,
    tensors: HashMap<String, (Vec<usize>, Init)>,
}

impl FromScratch {
    /// Weights for `params`, of which tables get `tokens` rows.
    pub fn new(params: &[Param], tokens: usize, seed: u64) -> Self {
        let mut tensors = HashMap::new();
        for param in params {
            for part in 0..param.parts() {
                let mut shape = param.part_shape().to_vec();
                if param.is_vocabulary() {
                    shape[0] = tokens;
                }
                tensors.insert(param.part_name(part), (shape, param.init));
            }
        }
        Self { path: "random weights".into(), seed, tensors }
    }
}

impl Source for FromScratch {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|(shape, _)| shape.clone())
    }

    fn read(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let missing = || WeightsError::tensor(&self.path, name, "is not part of the model");
        let (shape, init) = self.tensors.get(name).ok_or_else(missing)?;
        let block: Vec<usize> = ranges.iter().map(|r| r.len()).collect();
        let count = block.iter().product();
        let values = match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Normal(std) => {
                let mut normal = Normal::new(self.seed, name);
                // a run: the elements of the block that follow each other in the tensor
                let run = *block.last().unwrap_or(&1);
                let mut values = Vec::with_capacity(count);
                for row in 0..count.checked_div(run).unwrap_or(0) {
                    let mut rest = row;
                    let mut index = ranges.last().map_or(0, |r| r.start);
                    let mut stride = *shape.last().unwrap_or(&1);
                    for d in (0..shape.len().saturating_sub(1)).rev() {
                        index += (ranges[d].start + rest % block[d]) * stride;
                        rest /= block[d];
                        stride *= shape[d];
                    }
                    normal.fill(index, run, |z| values.push(z * std));
                }
                values
            }
        };
        Ok(HostTensor::from_f32(&block, &values))
    }
}

/// Standard normal numbers by index (Box and Muller 1958): a rejection method would need an unknown number of draws.
pub(super) struct Normal(ChaCha8Rng);

impl Normal {
    /// The sequence that belongs to `name`.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // FNV-1a: sequences of different names differ
        let stream =
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        rng.set_stream(stream);
        Self(rng)
    }

    /// The numbers `start..start + count` of the sequence.
    pub fn fill(&mut self, start: usize, count: usize, mut push: impl FnMut(f32)) {
        // two words of 32 bits each
        self.0.set_word_pos(2 * start as u128);
        for _ in 0..count {
            let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
            let (radius, angle) = (unit(self.0.next_u32()), unit(self.0.next_u32()));
            push(((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_cut_out_of_the_whole() {
        let param = Param {
            name: "model.layers.*.w".into(),
            shape: vec![2, 6, 50],
            fsdp_dim: None,
            tp_dim: None,
            init: Init::Normal(0.02),
        };
        let source = FromScratch::new(&[param], 0, 1);
        let whole = source.read("model.layers.1.w", &[0..6, 0..50]).unwrap();
        let block = source.read("model.layers.1.w", &[2..5, 10..20]).unwrap();
        assert_eq!(block, whole.slice(&[2..5, 10..20]));
        assert_ne!(whole, source.read("model.layers.0.w", &[0..6, 0..50]).unwrap());
        let values = whole.to_f32_vec().unwrap();
        let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!((square.sqrt() - 0.02).abs() < 0.003, "standard deviation {}", square.sqrt());
        assert_eq!(whole.dtype(), sft_tensor::DType::F32);
    }
}
