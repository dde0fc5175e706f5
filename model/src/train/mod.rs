//! The training step as one program per replica: forward, backward, FSDP's collectives, clipping, optimizer.

mod batch;
mod loss;
mod optimizer;
mod step;

pub use batch::{BatchInputs, BatchShape};
pub use loss::loss_program;
pub use optimizer::{Decay, Optimizer, SLOT_NAMES};
pub use step::{train_step, Clip, StepOptions};
