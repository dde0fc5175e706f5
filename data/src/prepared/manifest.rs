use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PreparedError;

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Version of the folder's format.
pub(super) const VERSION: u32 = 1;

/// Length and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub blake3: String,
}

impl FileStamp {
    /// Reads the file once.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(path)?;
        let bytes = std::io::copy(&mut file, &mut hasher)?;
        Ok(Self { bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// The vocabulary that tokens are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Tokens before the SIDs' were added.
    pub original_size: usize,
    /// Tokens now: `len(tokenizer)`.
    pub size: usize,
    /// Added tokens in the order of their ids.
    pub added_tokens: Vec<String>,
    /// Beginning of sequence, if there is one.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: u32,
    /// Padding.
    pub pad: u32,
    /// What follows a SID in a completion: newline and end of sequence.
    pub suffix: Vec<u32>,
}

/// What a prepared data set was made of and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub version: u32,
    /// Settings that shaped the data.
    pub settings: Value,
    /// Hash of the tokenizer's files.
    pub tokenizer: String,
    /// Input files by their path.
    pub inputs: BTreeMap<String, FileStamp>,
    /// The vocabulary.
    pub vocabulary: Vocabulary,
    /// Number of examples by task, of rows, of SIDs and the like, for people.
    pub counts: BTreeMap<String, u64>,
    /// Files of the data set by name.
    pub files: BTreeMap<String, FileStamp>,
}

impl Manifest {
    /// Reads `dir/manifest.json`.
    pub fn read(dir: &Path) -> Result<Self, PreparedError> {
        let path = dir.join(MANIFEST);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(PreparedError::Absent { path }),
            Err(e) => return Err(PreparedError::io(&path, "reading")(e)),
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| PreparedError::damaged(&path, format!("is not a manifest: {e}")))?;
        let version = value.get("version").and_then(Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let problem = format!("has format version {version:?}, this program reads {VERSION}");
            return Err(PreparedError::damaged(&path, problem));
        }
        serde_json::from_value(value).map_err(|e| PreparedError::damaged(&path, format!("is not a manifest: {e}")))
    }

    /// A short name of the data: what they were made of, and of which files they consist.
    pub fn fingerprint(&self) -> String {
        // plain values always have a JSON form
        let text =
            serde_json::to_string(&(&self.settings, &self.tokenizer, &self.files)).expect("plain values serialize");
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }

    /// What differs between two data sets' origins, in words; nothing if they were made of the same.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.tokenizer != other.tokenizer {
            found.push("the tokenizer has changed".to_owned());
        }
        if self.settings != other.settings {
            let keys = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
            let changed = keys(&other.settings).into_iter().filter(|k| self.settings.get(k) != other.settings.get(k));
            let changed: Vec<String> = changed.collect();
            found.push(format!("settings have changed: {}", changed.join(", ")));
        }
        for (path, stamp) in &other.inputs {
            match self.inputs.get(path) {
                None => found.push(format!("{path} is new")),
                Some(old) if old != stamp => found.push(format!("{path} has changed")),
                Some(_) => {}
            }
        }
        found.extend(self.inputs.keys().filter(|p| !other.inputs.contains_key(*p)).map(|p| format!("{p} is not used")));
        found
    }
}
