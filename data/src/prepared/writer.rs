use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{FileStamp, Manifest, MANIFEST};
use super::shard::{section_bytes, HEADER_BYTES, MAGIC, VERSION};
use super::{Catalogue, PreparedError};

/// Writes a prepared data set into a folder beside its place, which it takes when it is complete.
pub struct Writer {
    target: PathBuf,
    folder: tempfile::TempDir,
    files: BTreeMap<String, FileStamp>,
}

/// What an evaluation prompt asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTarget {
    /// The SID that came next.
    pub sid: String,
    /// SIDs of the history, oldest first.
    pub history: Vec<String>,
    /// The question, as upstream's result files show it.
    pub input: String,
}

impl Writer {
    /// Starts the data set `target`; its parent folder is made if need be.
    pub fn create(target: &Path) -> Result<Self, PreparedError> {
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(PreparedError::io(parent, "creating the folder"))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let folder = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(parent);
        let folder = folder.map_err(PreparedError::io(target, "creating a folder beside it"))?;
        Ok(Self { target: target.to_owned(), folder, files: BTreeMap::new() })
    }

    /// Starts the shard `name`.
    pub fn shard(&self, name: &str) -> Result<ShardWriter, PreparedError> {
        ShardWriter::create(self.folder.path().join(name))
    }

    /// Adds a finished shard.
    pub fn add_shard(&mut self, shard: ShardWriter) -> Result<(), PreparedError> {
        let path = shard.finish()?;
        self.stamp(&path)
    }

    /// Writes the targets of the prompts in shard `{split}_prompts.shard`.
    pub fn targets(&mut self, split: &str, targets: &[PromptTarget]) -> Result<(), PreparedError> {
        self.json(&format!("{split}_prompts.json"), &targets)
    }

    /// Writes the catalogue.
    pub fn catalogue(&mut self, catalogue: &Catalogue) -> Result<(), PreparedError> {
        self.json("catalogue.json", catalogue)
    }

    /// The folder for the tokenizer's files, made empty.
    pub fn tokenizer_dir(&self) -> Result<PathBuf, PreparedError> {
        let path = self.folder.path().join("tokenizer");
        std::fs::create_dir_all(&path).map_err(PreparedError::io(&path, "creating the folder"))?;
        Ok(path)
    }

    fn json<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), PreparedError> {
        let path = self.folder.path().join(name);
        // strings, numbers, lists and maps by string always have a JSON form
        let text = serde_json::to_vec(value).expect("plain values serialize");
        std::fs::write(&path, text).map_err(PreparedError::io(&path, "writing"))?;
        self.stamp(&path)
    }

    fn stamp(&mut self, path: &Path) -> Result<(), PreparedError> {
        File::open(path).and_then(|f| f.sync_all()).map_err(PreparedError::io(path, "flushing to disk"))?;
        let stamp = FileStamp::of(path).map_err(PreparedError::io(path, "reading"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.files.insert(name, stamp);
        Ok(())
    }

    /// Writes the manifest (with the files as they are) and puts the folder in its place, where it replaces what was
    /// there.
    pub fn finish(self, mut manifest: Manifest) -> Result<Manifest, PreparedError> {
        let tokenizer = self.folder.path().join("tokenizer");
        manifest.files = self.files;
        if tokenizer.is_dir() {
            let entries = std::fs::read_dir(&tokenizer).map_err(PreparedError::io(&tokenizer, "listing"))?;
            for path in entries.flatten().map(|e| e.path()) {
                let stamp = FileStamp::of(&path).map_err(PreparedError::io(&path, "reading"))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                manifest.files.insert(format!("tokenizer/{name}"), stamp);
            }
        }
        let path = self.folder.path().join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest).expect("plain values serialize") + "\n";
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(PreparedError::io(&path, "writing"))?;
        let folder = self.folder.keep();
        set_usual_permissions(&folder).map_err(PreparedError::io(&folder, "setting permissions"))?;
        // a folder cannot be replaced in one step: what was there steps aside first
        let old = self.target.with_extension("old");
        if self.target.exists() {
            std::fs::rename(&self.target, &old).map_err(PreparedError::io(&self.target, "moving aside"))?;
        }
        std::fs::rename(&folder, &self.target).map_err(PreparedError::io(&self.target, "putting in place"))?;
        if old.exists() {
            std::fs::remove_dir_all(&old).map_err(PreparedError::io(&old, "removing"))?;
        }
        Ok(manifest)
    }
}

#[cfg(unix)]
fn set_usual_permissions(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Writes one shard; tokens go to disk at once, 20 bytes a row stay in memory.
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    tokens: u64,
    offsets: Vec<u64>,
    supervised: Vec<u32>,
    tasks: Vec<u32>,
    sources: Vec<u32>,
}

impl ShardWriter {
    fn create(path: PathBuf) -> Result<Self, PreparedError> {
        let file = File::create(&path).map_err(PreparedError::io(&path, "creating"))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER_BYTES]).map_err(PreparedError::io(&path, "writing"))?;
        let lists = (vec![0], Vec::new(), Vec::new(), Vec::new());
        let (offsets, supervised, tasks, sources) = lists;
        Ok(Self { path, file, tokens: 0, offsets, supervised, tasks, sources })
    }

    /// Appends a row of at least one token.
    ///
    /// # Panics
    /// On a row without tokens.
    pub fn push(
        &mut self,
        tokens: &[u32],
        supervised_from: usize,
        task: u32,
        source_row: u32,
    ) -> Result<(), PreparedError> {
        assert!(!tokens.is_empty(), "rows have tokens");
        self.words(tokens)?;
        self.tokens += tokens.len() as u64;
        self.offsets.push(self.tokens);
        self.supervised.push(supervised_from as u32);
        self.tasks.push(task);
        self.sources.push(source_row);
        Ok(())
    }

    fn words(&mut self, words: &[u32]) -> Result<(), PreparedError> {
        let write = words.iter().try_for_each(|w| self.file.write_all(&w.to_le_bytes()));
        write.map_err(PreparedError::io(&self.path, "writing"))
    }

    fn align(&mut self, items: usize, item: usize) -> Result<(), PreparedError> {
        let padding = section_bytes(items, item).unwrap_or(0).saturating_sub(items * item);
        self.file.write_all(&[0; 8][..padding]).map_err(PreparedError::io(&self.path, "writing"))
    }

    fn finish(mut self) -> Result<PathBuf, PreparedError> {
        let rows = self.supervised.len();
        self.align(self.tokens as usize, 4)?;
        let offsets = std::mem::take(&mut self.offsets);
        let write = offsets.iter().try_for_each(|o| self.file.write_all(&o.to_le_bytes()));
        write.map_err(PreparedError::io(&self.path, "writing"))?;
        let (supervised, tasks, sources) =
            (std::mem::take(&mut self.supervised), std::mem::take(&mut self.tasks), std::mem::take(&mut self.sources));
        for section in [supervised, tasks, sources] {
            self.words(&section)?;
            self.align(rows, 4)?;
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend([0; 4]);
        header.extend((rows as u64).to_le_bytes());
        header.extend(self.tokens.to_le_bytes());
        let io = PreparedError::io(&self.path, "writing");
        let mut end = || {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()
        };
        end().map_err(io)?;
        Ok(self.path)
    }
}
