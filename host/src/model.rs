//! The model of a run: its configuration, vocabulary and starting weights.

use std::path::PathBuf;

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

use crate::checkpoint::Family;
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

/// Where a run starts from.
pub enum Start {
    /// The base model's weights, or random ones.
    Base,
    /// Weights alone: a state file or a folder in HF's form.
    Weights(PathBuf),
    /// A checkpoint of this system, from which training goes on.
    Checkpoint(Family),
}

impl Start {
    /// What `train.resume_from_checkpoint` asks for.
    pub fn of(config: &Config) -> Result<Self> {
        let Some(path) = &config.train.resume_from_checkpoint else { return Ok(Self::Base) };
        if path.as_os_str() == "auto" {
            return Ok(Family::all(&config.output_dir).pop().map_or(Self::Base, Self::Checkpoint));
        }
        if !path.exists() {
            bail!("train.resume_from_checkpoint: {} does not exist", path.display());
        }
        Ok(Family::of_state(path).map_or_else(|| Self::Weights(path.clone()), Self::Checkpoint))
    }
}

/// Tensors on this host's devices: `[local replica][tensor]`, for each the shard that its replica holds.
pub type Shards = Vec<Vec<Buffer>>;

/// Loads the parameters (f32) that the run starts from.
pub fn load_parameters(config: &Config, model: &Model, devices: &Devices, start: &Start) -> Result<Shards> {
    let source: Box<dyn Source> = match start {
        Start::Checkpoint(family) => Box::new(MsgpackState::open(&family.state_path())?),
        Start::Weights(path) if path.is_dir() => Box::new(SafetensorsDir::open(path)?),
        Start::Weights(path) => Box::new(MsgpackState::open(path)?),
        Start::Base if config.train.train_from_scratch => {
            Box::new(FromScratch::new(&model.params, model.vocab.tokens, config.seed))
        }
        Start::Base => Box::new(SafetensorsDir::open(&config.model_dir()?)?),
    };
    load_shards(config, model, devices, source.as_ref(), DType::F32)
}

/// Loads every device's shards of all parameters (or of a moment, which has the parameters' names) as `dtype`.
pub fn load_shards(
    config: &Config,
    model: &Model,
    devices: &Devices,
    source: &dyn Source,
    dtype: DType,
) -> Result<Shards> {
    let init = match config.train.semantics {
        Semantics::Upstream => VocabInit::Mean,
        Semantics::JaxPlugin => VocabInit::Normal,
    };
    let weights = Weights::new(&model.config, model.vocab, source, init, config.seed)?;
    let mut replicas = Vec::new();
    for (index, replica) in devices.local_replicas().enumerate() {
        let mut buffers = Vec::new();
        for param in &model.params {
            // one at a time: the host never holds more than one parameter's shard
            let shard = weights.shard(param, devices.mesh(), replica)?.to_dtype(dtype)?;
            buffers.extend(devices.upload(index, &[shard])?);
        }
        replicas.push(buffers);
    }
    Ok(replicas)
}
