//! Where the goldens are.
#![allow(dead_code)] // Each test file uses its part.

use std::path::PathBuf;

/// A file of the shared data; `None`, loudly, where there is none.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    if !root.exists() {
        eprintln!("SKIPPED: {} is absent", root.display());
        return None;
    }
    Some(root.join(path))
}

pub fn json(path: &str) -> Option<serde_json::Value> {
    let text = std::fs::read_to_string(shared(path)?).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}
