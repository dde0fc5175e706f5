use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Catalogue, Example, Manifest, PreparedError, PromptTarget, Shard, MANIFEST};

/// A prepared data set, checked and mapped into memory.
pub struct Prepared {
    dir: PathBuf,
    manifest: Manifest,
    catalogue: Catalogue,
    train: Option<Shard>,
    valid: Option<Shard>,
    valid_prompts: Option<Prompts>,
    test_prompts: Option<Prompts>,
}

/// Evaluation prompts with their targets.
pub struct Prompts {
    shard: Shard,
    targets: Vec<PromptTarget>,
}

impl Prompts {
    /// Number of prompts.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// True without prompts.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Tokens of prompt `index` (of the file's order).
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> Example<'_> {
        self.shard.get(index)
    }

    /// What prompt `index` asks for.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn target(&self, index: usize) -> &PromptTarget {
        &self.targets[index]
    }

    /// Tokens of the longest prompt.
    pub fn max_len(&self) -> usize {
        self.shard.max_len()
    }
}

impl Prepared {
    /// Opens the data set in `dir`; every file is compared with the manifest.
    pub fn open(dir: &Path) -> Result<Self, PreparedError> {
        let manifest = Manifest::read(dir)?;
        let shard = |name: &str| match manifest.files.get(name) {
            Some(stamp) => Shard::open(&dir.join(name), stamp).map(Some),
            None => Ok(None),
        };
        let prompts = |split: &str| -> Result<Option<Prompts>, PreparedError> {
            let Some(shard) = shard(&format!("{split}_prompts.shard"))? else { return Ok(None) };
            let name = format!("{split}_prompts.json");
            let targets: Vec<PromptTarget> = read_json(dir, &name, &manifest)?;
            if targets.len() != shard.len() {
                let problem = format!("has {} targets for {} prompts", targets.len(), shard.len());
                return Err(PreparedError::damaged(&dir.join(name), problem));
            }
            Ok(Some(Prompts { shard, targets }))
        };
        let (train, valid) = (shard("train.shard")?, shard("valid.shard")?);
        for (name, shard) in [("train.shard", &train), ("valid.shard", &valid)] {
            check_tokens(&dir.join(name), shard.as_ref(), &manifest)?;
        }
        let (valid_prompts, test_prompts) = (prompts("valid")?, prompts("test")?);
        for (name, prompts) in [("valid_prompts.shard", &valid_prompts), ("test_prompts.shard", &test_prompts)] {
            check_tokens(&dir.join(name), prompts.as_ref().map(|p| &p.shard), &manifest)?;
        }
        let catalogue = read_json(dir, "catalogue.json", &manifest)?;
        Ok(Self { dir: dir.to_owned(), catalogue, train, valid, valid_prompts, test_prompts, manifest })
    }

    /// What the data were made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The items.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Training examples.
    pub fn train(&self) -> Option<&Shard> {
        self.train.as_ref()
    }

    /// Validation examples.
    pub fn valid(&self) -> Option<&Shard> {
        self.valid.as_ref()
    }

    /// Evaluation prompts of the validation file.
    pub fn valid_prompts(&self) -> Option<&Prompts> {
        self.valid_prompts.as_ref()
    }

    /// Evaluation prompts of the test file.
    pub fn test_prompts(&self) -> Option<&Prompts> {
        self.test_prompts.as_ref()
    }

    /// The extended tokenizer in HF's form.
    pub fn tokenizer_dir(&self) -> PathBuf {
        self.dir.join("tokenizer")
    }

    /// Checks that the data were prepared with the tokenizer and settings of a run (see
    /// [`crate::prepare::expected_origin`]).
    pub fn check_origin(&self, tokenizer: &str, settings: &serde_json::Value) -> Result<(), PreparedError> {
        let mismatch = |what: &str, prepared: String, now: String| {
            Err(PreparedError::Mismatch { path: self.dir.join(MANIFEST), what: what.to_owned(), prepared, now })
        };
        if self.manifest.tokenizer != tokenizer {
            let short = |hash: &str| format!("{}…", hash.get(..12).unwrap_or(hash));
            return mismatch("tokenizer", short(&self.manifest.tokenizer), short(tokenizer));
        }
        for (key, now) in settings.as_object().into_iter().flatten() {
            let prepared = self.manifest.settings.get(key).unwrap_or(&serde_json::Value::Null);
            if prepared != now {
                return mismatch(&format!("setting {key}"), prepared.to_string(), now.to_string());
            }
        }
        Ok(())
    }
}

/// Token ids beyond the vocabulary and labels beyond the row would read past tables later.
fn check_tokens(path: &Path, shard: Option<&Shard>, manifest: &Manifest) -> Result<(), PreparedError> {
    for (i, row) in shard.into_iter().flat_map(Shard::iter).enumerate() {
        if let Some(token) = row.tokens.iter().find(|&&t| t as usize >= manifest.vocabulary.size) {
            let problem = format!("row {i} has token {token}, the vocabulary {} tokens", manifest.vocabulary.size);
            return Err(PreparedError::damaged(path, problem));
        }
        if row.supervised_from > row.tokens.len() {
            return Err(PreparedError::damaged(path, format!("row {i} has labels beyond its end")));
        }
    }
    Ok(())
}

fn read_json<T: DeserializeOwned>(dir: &Path, name: &str, manifest: &Manifest) -> Result<T, PreparedError> {
    let path = dir.join(name);
    let stamp = manifest.files.get(name).ok_or_else(|| PreparedError::damaged(&path, "is not in the manifest"))?;
    let bytes = std::fs::read(&path).map_err(PreparedError::io(&path, "reading"))?;
    if blake3::hash(&bytes).to_hex().as_str() != stamp.blake3 {
        return Err(PreparedError::damaged(&path, "is damaged: its bytes are not those that were written"));
    }
    serde_json::from_slice(&bytes).map_err(|e| PreparedError::damaged(&path, format!("cannot be read: {e}")))
}
