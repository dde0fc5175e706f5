use std::ops::Range;

use sft_tensor::{DType, HostTensor};

use super::vocabulary::{new_rows, VocabInit};
use super::{Source, WeightsError};
use crate::config::ModelConfig;
use crate::layout::{self, Vocab};
use crate::mesh::Mesh;
use crate::params::Param;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Rows compared at a time to tell a tied head from one of its own.
const TIED_SAMPLE_ROWS: usize = 64;

/// The weights of a model out of a [`Source`], checked, with rows for new tokens.
pub struct Weights<'a> {
    source: &'a dyn Source,
    vocab: Vocab,
    init: VocabInit,
    seed: u64,
    head_is_embedding: bool,
}

impl<'a> Weights<'a> {
    /// Checks that `source` has every tensor of the model, in the right shape. Rows of tables beyond the source's and
    /// below `vocab.tokens` start as `init` says; a head that the source ties to the embedding starts as a copy of it.
    pub fn new(
        config: &ModelConfig,
        vocab: Vocab,
        source: &'a dyn Source,
        init: VocabInit,
        seed: u64,
    ) -> Result<Self, WeightsError> {
        let file_ties = config.raw.get("tie_word_embeddings").and_then(|v| v.as_bool()).unwrap_or(false);
        let head_is_embedding = file_ties && source.shape(HEAD).is_none();
        let weights = Self { source, vocab, init, seed, head_is_embedding };
        for param in layout::params(config, vocab) {
            for part in 0..param.parts() {
                weights.check(&param, weights.name_in_source(&param.part_name(part)))?;
            }
        }
        if config.tie_word_embeddings && source.shape(HEAD).is_some() {
            weights.check_tied_head()?;
        }
        Ok(weights)
    }

    fn name_in_source<'n>(&self, name: &'n str) -> &'n str {
        if name == HEAD && self.head_is_embedding {
            EMBEDDING
        } else {
            name
        }
    }

    fn check(&self, param: &Param, name: &str) -> Result<(), WeightsError> {
        let wrong = |problem: String| Err(WeightsError::tensor(self.source.file(name), name, problem));
        let Some(found) = self.source.shape(name) else { return wrong("is missing".into()) };
        let mut expected = param.part_shape().to_vec();
        if param.is_vocabulary() {
            expected[0] = found.first().copied().unwrap_or(0);
            if found.is_empty() || found[0] == 0 {
                return wrong("has no rows".into());
            }
        }
        if found != expected {
            return wrong(format!("has shape {found:?}, config.json asks for {expected:?}"));
        }
        // an empty block: reads nothing, refuses what is no float type
        self.source.read(name, &vec![0..0; found.len()]).map(|_| ())
    }

    /// Refuses a head that was trained apart from the embedding it is to be tied to (the JAX plugin's states): without
    /// it the model would be another. Looks at rows from the beginning, the middle and the end.
    fn check_tied_head(&self) -> Result<(), WeightsError> {
        let rows = |name| self.source.shape(name).filter(|s| s.len() == 2).map_or(0, |s| s[0]);
        let common = rows(EMBEDDING).min(rows(HEAD)).min(self.vocab.tokens);
        let hidden = self.source.shape(EMBEDDING).map_or(0, |s| s[1]);
        let sample = common.min(TIED_SAMPLE_ROWS);
        for start in [0, (common - sample) / 2, common - sample] {
            let block = [start..start + sample, 0..hidden];
            if self.read(EMBEDDING, &block)? != self.read(HEAD, &block)? {
                let problem = "differs from the embedding, to which the model ties it; set train.semantics=jax_plugin \
                               for a state of the JAX plugin, or tie_word_embeddings to false in config.json";
                return Err(WeightsError::tensor(self.source.file(HEAD), HEAD, problem));
            }
        }
        Ok(())
    }

    /// What `replica` holds of `param`, f32, zero where padded; reads nothing else.
    pub fn shard(&self, param: &Param, mesh: &Mesh, replica: usize) -> Result<HostTensor, WeightsError> {
        let mut shard = HostTensor::zeros(DType::F32, &param.shard_shape(mesh));
        let ranges = param.shard_ranges(mesh, replica);
        if ranges.iter().any(|r| r.is_empty()) {
            return Ok(shard);
        }
        for part in 0..param.parts() {
            let name = param.part_name(part);
            let mut offsets = vec![0; param.shape.len()];
            if param.is_stacked() {
                offsets[0] = part;
                let block = self.read(&name, &ranges[1..])?;
                let shape = [&[1], block.shape()].concat();
                shard.write_block(&offsets, &block.reshaped(&shape));
            } else if param.is_vocabulary() {
                shard.write_block(&offsets, &self.table(&name, &ranges)?);
            } else {
                shard.write_block(&offsets, &self.read(&name, &ranges)?);
            }
        }
        Ok(shard)
    }

    fn read(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let name = self.name_in_source(name);
        let block = self.source.read(name, ranges)?;
        block.to_dtype(DType::F32).map_err(|e| WeightsError::tensor(self.source.file(name), name, e.to_string()))
    }

    /// A block of an embedding table or head: rows of the source, new rows, zero rows.
    fn table(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let (rows, columns) = (ranges[0].clone(), ranges[1].clone());
        let stored = self.source.shape(self.name_in_source(name)).map_or(0, |s| s[0]).min(self.vocab.tokens);
        let mut block = HostTensor::zeros(DType::F32, &[rows.len(), columns.len()]);
        let old = rows.start..rows.end.min(stored);
        if !old.is_empty() {
            block.write_block(&[0, 0], &self.read(name, &[old, columns.clone()])?);
        }
        let new = rows.start.max(stored)..rows.end.min(self.vocab.tokens);
        if !new.is_empty() {
            let source_name = self.name_in_source(name);
            // head and embedding draw numbers of their own even where they start from the same rows
            let seed = if name == HEAD { self.seed.wrapping_add(1) } else { self.seed };
            let values = new_rows(self.source, source_name, stored, new.start, new.len(), self.init, seed)?;
            let hidden = values.len() / new.len();
            let whole = HostTensor::from_f32(&[new.len(), hidden], &values);
            block.write_block(&[new.start - rows.start, 0], &whole.slice(&[0..new.len(), columns]));
        }
        Ok(block)
    }
}

/// Part `part` of a parameter, whole, out of the shards of one data-parallel group: `block(replica)` gives what that
/// replica holds of the part (its shard without the layer dimension). Padded vocabulary rows are part of the result.
pub fn assemble<E>(
    param: &Param,
    mesh: &Mesh,
    mut block: impl FnMut(usize) -> Result<HostTensor, E>,
) -> Result<HostTensor, E> {
    let mut whole: Option<HostTensor> = None;
    for replica in holders(param, mesh) {
        let ranges = &param.shard_ranges(mesh, replica)[usize::from(param.is_stacked())..];
        let block = block(replica)?;
        let within: Vec<_> = ranges.iter().map(|r| 0..r.len()).collect();
        let offsets: Vec<_> = ranges.iter().map(|r| r.start).collect();
        let whole = whole.get_or_insert_with(|| HostTensor::zeros(block.dtype(), param.part_shape()));
        whole.write_block(&offsets, &block.slice(&within));
    }
    // replica 0 holds a first block of every parameter
    Ok(whole.expect("a parameter has a first shard"))
}

/// The replicas whose blocks make up a parameter, each block once.
pub fn holders(param: &Param, mesh: &Mesh) -> Vec<usize> {
    let mut seen = Vec::new();
    let first = |&replica: &usize| {
        let ranges = param.shard_ranges(mesh, replica);
        let new = ranges.iter().all(|r| !r.is_empty()) && !seen.contains(&ranges);
        if new {
            seen.push(ranges);
        }
        new
    };
    (0..mesh.fsdp * mesh.tp).filter(first).collect()
}
