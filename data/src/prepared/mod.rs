//! A prepared data set: token shards that are mapped into memory, a catalogue, a tokenizer, and a manifest that says
//! what they were made of.
//!
//! ```text
//! manifest.json          what it was made of; length and hash of every file below
//! catalogue.json         SIDs with their tokens and items, titles
//! train.shard            training examples
//! valid.shard            validation examples
//! valid_prompts.shard    evaluation prompts, with …
//! valid_prompts.json     … their targets
//! test_prompts.shard, test_prompts.json
//! tokenizer/             the extended tokenizer in HF's form
//! ```

mod catalogue;
mod manifest;
mod reader;
mod shard;
mod writer;

use std::path::{Path, PathBuf};

pub use catalogue::{Catalogue, Sid};
pub use manifest::{FileStamp, Manifest, Vocabulary, MANIFEST};
pub use reader::{Prepared, Prompts};
pub use shard::{Example, Shard};
pub use writer::{PromptTarget, ShardWriter, Writer};

/// A prepared data set that cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum PreparedError {
    /// Nothing is there.
    #[error("{path}: there is no prepared data; run `sft-prep --config …` first")]
    Absent {
        /// The manifest.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("{path}: {problem}; run `sft-prep --force` again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The data were prepared otherwise than is asked for.
    #[error("{path}: was prepared with another {what} (prepared: {prepared}; now: {now}); run `sft-prep` again")]
    Mismatch {
        /// The manifest.
        path: PathBuf,
        /// What differs.
        what: String,
        /// As prepared.
        prepared: String,
        /// As configured.
        now: String,
    },
}

impl PreparedError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}
