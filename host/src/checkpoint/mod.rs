//! Checkpoints: weights in flax's layout, and beside them what training needs to go on.
//!
//! ```text
//! sft_state_step7.msgpack      the parameters
//! sft_state_step7.mu.msgpack   the optimizer's moments, in the same layout
//! sft_state_step7.nu.msgpack
//! sft_state_step7.json         step, losses, hashes of the files: written last, so it vouches for them
//! ```

mod family;
mod snapshot;

pub use family::{Family, Progress};
pub use snapshot::Snapshot;
