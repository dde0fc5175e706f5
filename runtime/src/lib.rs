//! Thin bindings to PJRT, the C interface through which XLA's compilers and devices are driven: find a plugin, make a
//! client of the devices, compile StableHLO for them, move tensors, execute.
//!
//! ```no_run
//! # use sft_runtime::*; use sft_tensor::HostTensor;
//! # fn main() -> Result<()> {
//! let plugin = Plugin::discover(Platform::Cpu, None)?;
//! let client = Client::new(&plugin, &ClientOptions::cpu(1))?;
//! let program = "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
//!     %y = stablehlo.add %x, %x : tensor<2xf32>
//!     return %y : tensor<2xf32>
//! }";
//! let executable = client.compile(program, &CompileOptions::single(client.local_devices()[0].id))?;
//! let x = client.upload(&HostTensor::from_f32(&[2], &[1.0, 2.0]), 0)?;
//! let results = executable.execute(vec![vec![Argument::Borrow(&x)]])?;
//! assert_eq!(results[0][0].download()?.to_f32_vec().unwrap(), [2.0, 4.0]);
//! # Ok(()) }
//! ```
//!
//! # Ownership
//!
//! A plugin stays loaded until the process ends. A [`Buffer`] or [`Executable`] keeps its [`Client`] alive; the
//! client's devices are released when the last of them is dropped. With collectives over MPI that must happen before
//! MPI is finalized.
//!
//! # Threads
//!
//! Everything here is `Send` and `Sync`: the C API may be called from any thread, its objects are reference counted
//! and locked by the plugin, and what they are asked here does not change once they exist.

mod api;
mod buffer;
mod client;
mod compile_options;
mod elf;
mod error;
mod executable;
mod options;
mod platform;
mod plugin;
mod program;
mod sys;
#[cfg(test)]
mod sys_tests;
mod topology;

pub use buffer::{Buffer, TensorSpec};
pub use client::{Client, ClientOptions, Device, DeviceMemoryStats};
pub use compile_options::CompileOptions;
pub use error::{Error, ErrorCode, Result};
pub use executable::{Argument, Executable};
pub use options::OptionValue;
pub use platform::Platform;
pub use plugin::{CollectiveBytes, Plugin};
pub use program::{CompiledMemoryStats, CompiledProgram, CostAnalysis, OptimizedProgram};
pub use topology::Topology;
