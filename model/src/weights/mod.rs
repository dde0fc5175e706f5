//! Weights from files and back: safetensors and msgpack, read by slice, written tensor by tensor.

mod atomic_file;
mod export;
mod flax_tree;
mod load;
mod msgpack_read;
mod msgpack_write;
mod safetensors_dir;
mod scratch;
mod source;
mod vocabulary;

pub use atomic_file::AtomicFile;
pub use export::{export_hf, export_order};
pub use load::{assemble, holders, Weights};
pub use msgpack_read::MsgpackState;
pub use msgpack_write::{msgpack_order, write_msgpack_state};
pub use safetensors_dir::SafetensorsDir;
pub use scratch::FromScratch;
pub use source::{Source, WeightsError};
pub use vocabulary::VocabInit;
