//! Element types, host tensors and slices of them: what the programs (`model`, `eval`), the runtime and the
//! weight files have in common.

mod dtype;
mod host_tensor;

pub use dtype::{DType, ParseDTypeError};
pub use host_tensor::{HostTensor, TensorError};
