//! Constrained search over semantic IDs, ranking metrics and prediction files.
//!
//! An item is named by a semantic ID (SID), a short token sequence such as `<a_12><b_3><c_7>`. [`Trie`] holds the
//! SIDs that exist, [`metrics`] scores ranked SIDs, [`predictions`] reads and writes the files that other tools
//! exchange, [`Popularity`] is the baseline every model has to beat, [`search`] is the beam search as a
//! compiled program and [`mod@reference_search`] the one written for the eye that it is tested against.

pub mod breakdown;
pub mod metrics;
mod numpy_text;
pub mod popularity;
pub mod predictions;
pub mod python_json;
pub mod reference_search;
pub mod search;
pub mod trie;

pub use breakdown::{breakdown, GroupMetrics};
pub use metrics::{
    score_jax_plugin, score_upstream, InvalidPrediction, ItemSids, RankingMetrics, Sample, Scored, Target, DEFAULT_TOPK,
};
pub use popularity::Popularity;
pub use predictions::{
    parse_predictions, read_predictions, write_jax_plugin, write_upstream, Output, PredictionRow, Recommendation,
};
pub use reference_search::{reference_search, BeamHit};
pub use trie::{Trie, TrieTables};
