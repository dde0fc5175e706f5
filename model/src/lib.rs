//! The programs of a run, without a device in sight: a typed graph with reverse-mode differentiation that prints as
//! StableHLO, Qwen2 and Llama written over it, how their parameters are sharded over the mesh, and the weight files.

pub mod config;
pub mod graph;
pub mod layout;
pub mod mesh;
pub mod params;
pub mod program;
pub mod train;
pub mod transformer;
pub mod weights;
