//! The random numbers of the peers: Python's `random`, NumPy's `default_rng` and its legacy `RandomState`.

mod numpy;
mod python;

pub use numpy::{default_rng_permutation, legacy_choice};
pub use python::PythonRandom;
