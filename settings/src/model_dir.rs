use std::path::{Path, PathBuf};

use crate::{Config, SettingsError};

impl Config {
    /// The folder of `base_model`: the path itself, or the newest snapshot in the local Hugging Face cache.
    pub fn model_dir(&self) -> Result<PathBuf, SettingsError> {
        find(&self.base_model, &cache_dir())
    }

    /// The folder of the tokenizer: `tokenizer` if given, else the model's.
    pub fn tokenizer_dir(&self) -> Result<PathBuf, SettingsError> {
        find(self.tokenizer.as_ref().unwrap_or(&self.base_model), &cache_dir())
    }
}

fn cache_dir() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || from("HF_HOME").unwrap_or_else(|| from("HOME").unwrap_or_default().join(".cache/huggingface"));
    from("HF_HUB_CACHE").unwrap_or_else(|| home().join("hub"))
}

fn find(name: &str, cache: &Path) -> Result<PathBuf, SettingsError> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let snapshots = cache.join(format!("models--{}", name.replace('/', "--"))).join("snapshots");
    let modified = |p: &PathBuf| p.metadata().and_then(|m| m.modified()).ok();
    let newest = std::fs::read_dir(snapshots)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.join("config.json").exists())
        .max_by_key(modified);
    newest.ok_or_else(|| SettingsError::Model { name: name.to_owned(), cache: cache.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_model_is_a_folder_or_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = cache.path().join("models--Qwen--Qwen2.5-0.5B/snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        assert_eq!(find("Qwen/Qwen2.5-0.5B", cache.path()).unwrap(), snapshot);
        assert_eq!(find(snapshot.to_str().unwrap(), cache.path()).unwrap(), snapshot);
        let error = find("Qwen/Other", cache.path()).unwrap_err().to_string();
        assert!(error.contains("download Qwen/Other"), "{error}");
    }
}
