//! The model of a run: its configuration, vocabulary and starting weights.

use std::path::Path;

use anyhow::{bail, Context, Result};
use sft_data::prepared::Prepared;
use sft_model::config::ModelConfig;
use sft_model::layout::{self, Vocab};
use sft_model::mesh::Mesh;
use sft_model::params::Param;
use sft_model::weights::{FromScratch, MsgpackState, SafetensorsDir, Source, VocabInit, Weights};
use sft_runtime::Buffer;
use sft_settings::{Config, Semantics};
use sft_tensor::DType;

use crate::devices::Devices;

/// What is trained and evaluated.
pub struct Model {
    /// HF's configuration, with the head untied where the semantics ask for it.
    pub config: ModelConfig,
    /// Rows of the tables.
    pub vocab: Vocab,
    /// Rows of the tables before tokens were added.
    pub original_rows: usize,
    /// Parameters in the order of the programs.
    pub params: Vec<Param>,
    /// Type of the products.
    pub compute: DType,
}

impl Model {
    /// Reads the model's configuration and fits it to the prepared data and the mesh.
    pub fn read(config: &Config, prepared: &Prepared, mesh: &Mesh) -> Result<Self> {
        let mut model = ModelConfig::read(&config.model_dir()?)?;
        layout::check_mesh(&model, mesh)?;
        if config.train.semantics == Semantics::JaxPlugin {
            model.tie_word_embeddings = false;
        }
        let original_rows = model.vocab_size;
        // rows are never taken away: Qwen2.5 has more of them than tokens
        let vocab = Vocab::padded(original_rows.max(prepared.manifest().vocabulary.size), mesh);
        let params = layout::params(&model, vocab);
        let compute = config.jax.compute_dtype.parse().context("jax.compute_dtype")?;
        Ok(Self { config: model, vocab, original_rows, params, compute })
    }

    /// Number of weights, padding left out.
    pub fn weights(&self) -> usize {
        let rows = |p: &Param| if p.is_vocabulary() { self.vocab.tokens * p.shape[1] } else { p.elements() };
        self.params.iter().map(rows).sum()
    }
}

/// The parameters on this host's devices: `[local replica][parameter]`, f32 shards.
pub struct Parameters(pub Vec<Vec<Buffer>>);

impl Parameters {
    /// Loads the weights that the run starts from: a checkpoint, random ones, or the base model's.
    pub fn load(config: &Config, model: &Model, devices: &Devices) -> Result<Self> {
        let source = source(config, model)?;
        let init = match config.train.semantics {
            Semantics::Upstream => VocabInit::Mean,
            Semantics::JaxPlugin => VocabInit::Normal,
        };
        let weights = Weights::new(&model.config, model.vocab, source.as_ref(), init, config.seed)?;
        let mut replicas = Vec::new();
        for (index, replica) in devices.local_replicas().enumerate() {
            let mut buffers = Vec::new();
            for param in &model.params {
                // one at a time: the host never holds more than one parameter's shard
                let shard = weights.shard(param, devices.mesh(), replica)?;
                buffers.extend(devices.upload(index, &[shard])?);
            }
            replicas.push(buffers);
        }
        Ok(Self(replicas))
    }
}

fn source(config: &Config, model: &Model) -> Result<Box<dyn Source>> {
    if let Some(path) = &config.train.resume_from_checkpoint {
        return checkpoint(path);
    }
    if config.train.train_from_scratch {
        return Ok(Box::new(FromScratch::new(&model.params, model.vocab.tokens, config.seed)));
    }
    Ok(Box::new(SafetensorsDir::open(&config.model_dir()?)?))
}

/// A state file, or a folder in HF's form.
fn checkpoint(path: &Path) -> Result<Box<dyn Source>> {
    if path.is_dir() {
        return Ok(Box::new(SafetensorsDir::open(path)?));
    }
    if path.extension().is_some_and(|e| e == "msgpack") || path.is_file() {
        return Ok(Box::new(MsgpackState::open(path)?));
    }
    bail!("train.resume_from_checkpoint: {} is neither a .msgpack state nor a folder", path.display())
}
