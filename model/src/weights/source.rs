use std::ops::Range;
use std::path::{Path, PathBuf};

use sft_tensor::HostTensor;

/// Where weights come from: named tensors in HF's names and `[out, in]` layout, one per layer. Threads may share one.
pub trait Source: Send + Sync {
    /// The file or folder, for errors.
    fn path(&self) -> &Path;

    /// The file that holds a tensor, for errors; [`Source::path`] unless there are several.
    fn file(&self, _name: &str) -> &Path {
        self.path()
    }

    /// Shape of a tensor, or `None` if there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The block `ranges` (one range per dimension, within the shape) of a tensor, in the float type of the file,
    /// reading nothing else. An error if the tensor is missing, smaller, or not of a float type.
    fn read(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError>;
}

/// A weight file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what would do.
        problem: String,
    },
    /// A tensor is missing, of another shape or of another type.
    #[error("{path}: tensor {tensor}: {problem}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// HF's name of the tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl WeightsError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), problem: problem.into() }
    }
}
