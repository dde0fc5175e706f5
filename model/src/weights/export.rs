use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use serde_json::{json, Map, Value};
use sft_tensor::{DType, HostTensor};

use super::safetensors_dir::{INDEX, SINGLE};
use super::{AtomicFile, WeightsError};
use crate::config::ModelConfig;
use crate::params::Param;

/// Tensors of a file, as `transformers` splits models: further files follow beyond this.
const MAX_FILE_BYTES: usize = 5_000_000_000;

/// The order in which [`export_hf`] asks for parts, as (index into `params`, part).
pub fn export_order(params: &[Param]) -> Vec<(usize, usize)> {
    params.iter().enumerate().flat_map(|(i, p)| (0..p.parts()).map(move |part| (i, part))).collect()
}

/// Writes the weights and `config.json` into `dir` as `transformers` saves and loads them, elements as `dtype` (f32,
/// bf16 or f16), one part after the other: `part(param, number)` gives each whole, in the order of [`export_order`].
/// Tables are cut to `tokens` rows; a tied model has no head. Weights of more than 5 GB come in several files with an
/// index. Files appear when all are complete; those of an earlier export are replaced.
pub fn export_hf<E: From<WeightsError>>(
    dir: &Path,
    config: &ModelConfig,
    params: &[Param],
    tokens: usize,
    dtype: DType,
    part: impl FnMut(&Param, usize) -> Result<HostTensor, E>,
) -> Result<(), E> {
    std::fs::create_dir_all(dir).map_err(WeightsError::io(dir, "creating the folder"))?;
    let files = plan(params, tokens, dtype, MAX_FILE_BYTES);
    write_weights(dir, params, &files, dtype, part)?;
    write_config(dir, config, tokens, dtype).map_err(E::from)
}

/// A tensor of the export.
struct Entry {
    param: usize,
    part: usize,
    name: String,
    shape: Vec<usize>,
    bytes: usize,
}

/// The tensors of each file, none above `max_bytes` unless it holds a single tensor.
fn plan(params: &[Param], tokens: usize, dtype: DType, max_bytes: usize) -> Vec<Vec<Entry>> {
    let mut files = vec![Vec::new()];
    let mut size = 0;
    for (param, part) in export_order(params) {
        let mut shape = params[param].part_shape().to_vec();
        if params[param].is_vocabulary() {
            shape[0] = tokens;
        }
        let bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        if size > 0 && size + bytes > max_bytes {
            files.push(Vec::new());
            size = 0;
        }
        size += bytes;
        let entry = Entry { param, part, name: params[param].part_name(part), shape, bytes };
        files.last_mut().expect("starts with a file").push(entry);
    }
    files
}

fn write_weights<E: From<WeightsError>>(
    dir: &Path,
    params: &[Param],
    files: &[Vec<Entry>],
    dtype: DType,
    mut part: impl FnMut(&Param, usize) -> Result<HostTensor, E>,
) -> Result<(), E> {
    let name = |i: usize| match files.len() {
        1 => SINGLE.to_owned(),
        n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
    };
    let mut complete = Vec::new();
    for (i, entries) in files.iter().enumerate() {
        let mut file = AtomicFile::create(&dir.join(name(i)))?;
        let path = file.path().to_owned();
        let io = |e| E::from(WeightsError::io(&path, "writing")(e));
        file.write_all(&header(entries, dtype)).map_err(io)?;
        for entry in entries {
            let tensor = part(&params[entry.param], entry.part)?;
            let ranges: Vec<_> = entry.shape.iter().map(|&n| 0..n).collect();
            let tensor = tensor.slice(&ranges).to_dtype(dtype);
            let tensor = tensor.map_err(|e| WeightsError::tensor(&path, &entry.name, e.to_string()))?;
            file.write_all(tensor.bytes()).map_err(io)?;
        }
        complete.push(file);
    }
    // Without an index the files of two exports can never be taken for one model, wherever this stops.
    remove(&dir.join(INDEX))?;
    complete.into_iter().try_for_each(AtomicFile::commit)?;
    if files.len() > 1 {
        write_json(&dir.join(INDEX), &index(files, name))?;
        // readers prefer the single file
        remove(&dir.join(SINGLE))?;
    }
    remove_other_files(dir, &(0..files.len()).map(name).collect()).map_err(E::from)
}

/// The head of a safetensors file: its length, then the tensors' types, shapes and places.
fn header(entries: &[Entry], dtype: DType) -> Vec<u8> {
    let type_name = match dtype {
        DType::BF16 => "BF16",
        DType::F16 => "F16",
        DType::F64 => "F64",
        _ => "F32",
    };
    let mut tensors = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut offset = 0;
    for entry in entries {
        let place = [offset, offset + entry.bytes];
        tensors.insert(entry.name.clone(), json!({"dtype": type_name, "shape": entry.shape, "data_offsets": place}));
        offset += entry.bytes;
    }
    let mut text = Value::Object(tensors).to_string().into_bytes();
    // the format asks for data aligned to eight bytes
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

fn index(files: &[Vec<Entry>], name: impl Fn(usize) -> String) -> Value {
    let size: usize = files.iter().flatten().map(|entry| entry.bytes).sum();
    let places = files.iter().enumerate().flat_map(|(i, entries)| entries.iter().map(move |entry| (i, entry)));
    let map: Map<_, _> = places.map(|(i, entry)| (entry.name.clone(), name(i).into())).collect();
    json!({"metadata": {"total_size": size}, "weight_map": map})
}

/// HF's keys as they were read, with what the export changes.
fn write_config(dir: &Path, config: &ModelConfig, tokens: usize, dtype: DType) -> Result<(), WeightsError> {
    let mut json = config.raw.clone();
    json.insert("vocab_size".into(), tokens.into());
    json.insert("tie_word_embeddings".into(), config.tie_word_embeddings.into());
    let dtype_key = if json.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    json.insert(dtype_key.into(), dtype.name().into());
    write_json(&dir.join("config.json"), &Value::Object(json))
}

fn write_json(path: &Path, json: &Value) -> Result<(), WeightsError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(format!("{json:#}\n").as_bytes()).map_err(WeightsError::io(path, "writing"))?;
    file.commit()
}

/// Removes what an earlier export of another number of files left.
fn remove_other_files(dir: &Path, ours: &BTreeSet<String>) -> Result<(), WeightsError> {
    for entry in std::fs::read_dir(dir).map_err(WeightsError::io(dir, "listing"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let numbers = name.strip_prefix("model-").and_then(|n| n.strip_suffix(".safetensors"));
        let numbered = numbers.and_then(|n| n.split_once("-of-")).is_some_and(|(i, n)| {
            [i, n].iter().all(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
        });
        if numbered && !ours.contains(&name) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), WeightsError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(WeightsError::io(path, "removing")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Init;
    use crate::weights::{SafetensorsDir, Source};

    fn write(dir: &Path, max_bytes: usize, fill: f32) -> Result<(), WeightsError> {
        let param = |name: &str, shape: &[usize]| Param {
            name: name.into(),
            shape: shape.to_vec(),
            fsdp_dim: None,
            tp_dim: None,
            init: Init::Zeros,
        };
        let params = [param("model.embed_tokens.weight", &[8, 2]), param("model.layers.*.w", &[3, 4])];
        let files = plan(&params, 7, DType::BF16, max_bytes);
        write_weights(dir, &params, &files, DType::BF16, |p, part| {
            let shape = p.part_shape();
            let fill = if p.is_stacked() { part as f32 } else { fill };
            Ok(HostTensor::from_f32(shape, &vec![fill; shape.iter().product()]))
        })
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn large_models_come_in_several_files_that_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let shards = |n: usize| (1..=n).map(move |i| format!("model-{i:05}-of-{n:05}.safetensors"));
        for (max_bytes, expected) in [
            (1000, vec![SINGLE.to_owned()]),
            (20, shards(3).chain([INDEX.to_owned()]).collect()),
            (28, shards(2).chain([INDEX.to_owned()]).collect()),
            (1000, vec![SINGLE.to_owned()]),
        ] {
            write(dir, max_bytes, max_bytes as f32).unwrap();
            assert_eq!(names(dir), expected, "{max_bytes}");
            let source = SafetensorsDir::open(dir).unwrap();
            let table = source.read("model.embed_tokens.weight", &[0..7, 0..2]).unwrap();
            assert_eq!((table.dtype(), table.to_f32_vec().unwrap()[13]), (DType::BF16, max_bytes as f32));
            assert_eq!(source.shape("model.embed_tokens.weight"), Some(vec![7, 2]));
            assert_eq!(
                source.read("model.layers.2.w", std::slice::from_ref(&(1..2))).unwrap().to_f32_vec().unwrap(),
                [2.0]
            );
        }
    }

    #[test]
    fn a_failed_export_leaves_the_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 20, 1.0).unwrap();
        let before = names(dir.path());
        let params = [Param {
            name: "model.norm.weight".into(),
            shape: vec![2],
            fsdp_dim: None,
            tp_dim: None,
            init: Init::Ones,
        }];
        let files = plan(&params, 7, DType::F32, 20);
        let lost = write_weights(dir.path(), &params, &files, DType::F32, |p, _| {
            Err(WeightsError::tensor(dir.path(), &p.name, "lost"))
        });
        assert!(lost.is_err());
        assert_eq!(names(dir.path()), before);
        assert!(SafetensorsDir::open(dir.path()).is_ok());
    }
}
