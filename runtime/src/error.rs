use std::fmt;
use std::path::PathBuf;

/// Why a call of a plugin failed; the codes of `absl::Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The call was cancelled.
    Cancelled,
    /// No better code is known.
    Unknown,
    /// What the caller passed is wrong.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// Something that was named does not exist.
    NotFound,
    /// Something that was to be made exists.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// Out of memory, usually the device's.
    ResourceExhausted,
    /// The plugin or the device is not in the state for this.
    FailedPrecondition,
    /// The operation was aborted.
    Aborted,
    /// An index or offset lies outside of what exists.
    OutOfRange,
    /// The plugin does not do this.
    Unimplemented,
    /// A defect of the plugin.
    Internal,
    /// A device or another process cannot be reached.
    Unavailable,
    /// Data was lost or damaged.
    DataLoss,
    /// The caller is not known.
    Unauthenticated,
    /// A code that this crate does not know.
    Other(i32),
}

impl ErrorCode {
    pub(crate) fn from_c(code: i32) -> Self {
        match code {
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid argument",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::Unauthenticated => "unauthenticated",
            Self::Other(code) => return write!(f, "code {code}"),
        })
    }
}

/// Anything that can go wrong between this process and its devices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plugin refused a call or failed in it.
    #[error("{call} failed ({code}): {message}")]
    Plugin {
        /// The function of the C API.
        call: &'static str,
        /// The kind of failure.
        code: ErrorCode,
        /// What the plugin says.
        message: String,
    },
    /// No plugin for the platform was found; `remedy` says what to do.
    #[error("found no PJRT plugin for platform {platform}: {remedy}")]
    PluginNotFound {
        /// The platform asked for.
        platform: crate::Platform,
        /// Where it was looked for and how to get it.
        remedy: String,
    },
    /// The file cannot be loaded as a plugin.
    #[error("{} is not a PJRT plugin that can be used: {reason}", path.display())]
    NotAPlugin {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The plugin is older than the function.
    #[error("the plugin has no {0}; a newer one is needed")]
    MissingFunction(&'static str),
    /// The caller of this crate passed something that cannot be meant; nothing was done.
    #[error("{0}")]
    InvalidArgument(String),
    /// Bytes do not fit the shape and type they were given.
    #[error(transparent)]
    Tensor(#[from] sft_tensor::TensorError),
}

impl Error {
    /// True if the plugin says that it does not do this, or is too old to.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Plugin { code: ErrorCode::Unimplemented, .. } | Self::MissingFunction(_))
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
