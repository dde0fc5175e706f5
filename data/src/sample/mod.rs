//! A small synthetic catalogue with histories that can be learned, in the upstream formats, and a model to train on it:
//! enough to see the whole system run within minutes.

mod files;
mod history;
mod items;
mod model;

use std::path::{Path, PathBuf};

pub use history::Purchase;
pub use items::Item;
pub use model::{write_tokenizer, PROMPT_WORDS};

/// What to make.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Users.
    pub users: usize,
    /// Seed of everything.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { users: 1500, seed: 42 }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Items.
    pub items: usize,
    /// Rows of the training, validation and test files.
    pub rows: [usize; 3],
    /// Tokens of the tokenizer.
    pub tokens: usize,
}

/// A sample that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A file cannot be written.
    #[error("{path}: cannot be written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tokenizer cannot be trained.
    #[error("the sample's tokenizer cannot be trained: {0}")]
    Tokenizer(String),
}

/// Writes into `dir`: `train/`, `valid/`, `test/` (CSV), `info/`, `index/` as upstream lays them out, and `model/` with a
/// tokenizer and the `config.json` of a small Qwen2. The same options give the same bytes.
pub fn write_sample(dir: &Path, options: &SampleOptions) -> Result<Sample, SampleError> {
    let items = items::catalogue(options.seed);
    let splits = history::splits(&items, options);
    files::write(dir, &items, &splits)?;
    let tokens = model::write(&dir.join("model"), &items, &splits)?;
    Ok(Sample { items: items.len(), rows: splits.each_ref().map(Vec::len), tokens })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SampleError> {
    let io = |source| SampleError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let temporary = path.with_extension("part");
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(io)
}
