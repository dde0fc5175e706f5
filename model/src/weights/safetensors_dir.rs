use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::SafeTensors;
use sft_tensor::{DType, HostTensor};

use super::{Source, WeightsError};

/// A folder in HF's form: `model.safetensors`, or several files with `model.safetensors.index.json`, or one file of
/// any name. Files are mapped into memory, so that only what is used is read.
pub struct SafetensorsDir {
    dir: PathBuf,
    files: Vec<Mapped>,
    tensors: HashMap<String, Entry>,
}

struct Mapped {
    path: PathBuf,
    bytes: Mmap,
}

struct Entry {
    file: usize,
    /// The format's name of the type where it is no float type: only an error if the tensor is used.
    dtype: Result<DType, String>,
    shape: Vec<usize>,
    /// Bytes within the file.
    range: Range<usize>,
}

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const LFS_POINTER: &[u8] = b"version https://git-lfs";

impl SafetensorsDir {
    /// Maps the files of `dir` and reads their headers.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let mut source = Self { dir: dir.to_owned(), files: Vec::new(), tensors: HashMap::new() };
        for path in weight_files(dir)? {
            source.add(path)?;
        }
        Ok(source)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), WeightsError> {
        let file = File::open(&path).map_err(WeightsError::io(&path, "opening"))?;
        // SAFETY: the map is read-only; that nobody truncates a checkpoint while it is read is the user's part, as with
        // every program that maps weights.
        #[allow(unsafe_code)]
        let bytes = unsafe { Mmap::map(&file) }.map_err(WeightsError::io(&path, "mapping into memory"))?;
        let invalid = |reason: String| {
            WeightsError::file(&path, format!("not a complete safetensors file ({reason}); copy or download it again"))
        };
        if bytes.starts_with(LFS_POINTER) {
            return Err(WeightsError::file(&path, "is a pointer of Git LFS, not the weights; run `git lfs pull`"));
        }
        let header = SafeTensors::deserialize(&bytes).map_err(|e| invalid(e.to_string()))?;
        let start = bytes.as_ptr() as usize;
        for (name, view) in header.tensors() {
            let dtype = match view.dtype() {
                safetensors::Dtype::F32 => Ok(DType::F32),
                safetensors::Dtype::BF16 => Ok(DType::BF16),
                safetensors::Dtype::F16 => Ok(DType::F16),
                safetensors::Dtype::F64 => Ok(DType::F64),
                other => Err(format!("{other:?}")),
            };
            let from = view.data().as_ptr() as usize - start;
            let range = from..from + view.data().len();
            let entry = Entry { file: self.files.len(), dtype, shape: view.shape().to_vec(), range };
            self.tensors.insert(name, entry);
        }
        self.files.push(Mapped { path, bytes });
        Ok(())
    }
}

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX);
    if index.exists() {
        let text = std::fs::read_to_string(&index).map_err(WeightsError::io(&index, "reading"))?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| WeightsError::file(&index, format!("not JSON: {e}")))?;
        let map = json.get("weight_map").and_then(|m| m.as_object());
        let map = map.ok_or_else(|| WeightsError::file(&index, "has no map \"weight_map\""))?;
        let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        return Ok(names.into_iter().map(|name| dir.join(name)).collect());
    }
    let entries = std::fs::read_dir(dir).map_err(WeightsError::io(dir, "listing"))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    match found.len() {
        1 => Ok(vec![found.remove(0)]),
        0 if dir.join("pytorch_model.bin").exists() => Err(WeightsError::file(
            dir,
            "holds pytorch_model.bin and no model.safetensors; save the model with safe_serialization=True",
        )),
        0 => Err(WeightsError::file(
            dir,
            "holds no model.safetensors; give a folder with weights, or set train.train_from_scratch=true",
        )),
        n => {
            Err(WeightsError::file(dir, format!("holds {n} safetensors files and no {INDEX} that says which is which")))
        }
    }
}

impl Source for SafetensorsDir {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn file(&self, name: &str) -> &Path {
        self.tensors.get(name).map_or(&self.dir, |t| &self.files[t.file].path)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|t| t.shape.clone())
    }

    fn read(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let entry = self.tensors.get(name).ok_or_else(|| WeightsError::tensor(&self.dir, name, "is missing"))?;
        let file = &self.files[entry.file];
        let dtype = entry.dtype.as_ref().map_err(|found| {
            let problem = format!("has elements of type {found}; weights are F32, BF16, F16 or F64");
            WeightsError::tensor(&file.path, name, problem)
        })?;
        let within = entry.shape.len() == ranges.len() && ranges.iter().zip(&entry.shape).all(|(r, n)| r.end <= *n);
        if !within {
            let problem = format!("has shape {:?}; {ranges:?} lies outside", entry.shape);
            return Err(WeightsError::tensor(&file.path, name, problem));
        }
        Ok(HostTensor::copy_block(*dtype, &entry.shape, &file.bytes[entry.range.clone()], ranges))
    }
}
