//! The configurations that are shipped.

use std::path::Path;

use sft_settings::Config;

#[test]
fn every_shipped_configuration_loads() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let mut loaded = 0;
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.extension().is_some_and(|e| e == "yaml") {
            let config = Config::load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert!(config.output_dir.starts_with("runs"), "{}", path.display());
            loaded += 1;
        }
    }
    assert_eq!(loaded, 12);
}
