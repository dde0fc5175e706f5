//! The settings of a run: the JAX plugin's YAML, unchanged, with a few keys of our own.
//!
//! ```
//! let yaml = "base_model: models/tiny\ntrain: {learning_rate: 1e-3}";
//! let overrides = ["train.max_steps=20".to_owned()];
//! let config = sft_settings::Config::parse(yaml, "example.yaml", &overrides, &|_| None).unwrap();
//! assert_eq!((config.train.learning_rate, config.train.max_steps), (1e-3, 20));
//! ```

mod dotenv;
mod expand;
mod load;
mod model_dir;
mod schema;
mod validate;

use std::path::PathBuf;

pub use dotenv::load_dotenv;
pub use schema::{
    Adam, Config, Data, Eval, Jax, LrSchedule, PlatformChoice, PredictionFormat, Remat, Runtime, Semantics, Split,
    Tasks, Train, Wandb,
};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not YAML, or not a map.
    #[error("{origin}: not a YAML map of settings: {reason}")]
    Yaml {
        /// Where the text came from.
        origin: String,
        /// What the parser says.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key {key:?}{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n:?}?")))]
    UnknownKey {
        /// Where the key was given.
        origin: String,
        /// The key with its path.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// Where the value was given.
        origin: String,
        /// The key with its path.
        key: String,
        /// What is wrong with it and what would do.
        problem: String,
    },
    /// `--set` without `=`.
    #[error("--set {0:?}: write KEY=VALUE, as in --set train.max_steps=20")]
    Override(String),
    /// The model's folder cannot be found.
    #[error(
        "base_model {name:?} is neither a folder nor in the local Hugging Face cache ({cache}); download it with \
             `huggingface-cli download {name}` or give the path of its folder"
    )]
    Model {
        /// As configured.
        name: String,
        /// The cache that was searched.
        cache: PathBuf,
    },
}
