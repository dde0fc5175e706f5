use std::io::Write;
use std::path::Path;

use serde_json::{json, Map, Value};
use sft_tensor::{DType, HostTensor};

use super::{AtomicFile, WeightsError};
use crate::config::ModelConfig;
use crate::params::Param;

/// The order in which [`export_hf`] asks for parts, as (index into `params`, part).
pub fn export_order(params: &[Param]) -> Vec<(usize, usize)> {
    params.iter().enumerate().flat_map(|(i, p)| (0..p.parts()).map(move |part| (i, part))).collect()
}

/// Writes `model.safetensors` and `config.json` into `dir` as `transformers` saves and loads them, f32, one part after
/// the other: `part(param, number)` gives each whole, in the order of [`export_order`]. Tables are cut to `tokens` rows.
pub fn export_hf<E: From<WeightsError>>(
    dir: &Path,
    config: &ModelConfig,
    params: &[Param],
    tokens: usize,
    mut part: impl FnMut(&Param, usize) -> Result<HostTensor, E>,
) -> Result<(), E> {
    std::fs::create_dir_all(dir).map_err(WeightsError::io(dir, "creating the folder"))?;
    let path = dir.join("model.safetensors");
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut offset = 0;
    for (i, number) in export_order(params) {
        let shape = exported_shape(&params[i], tokens);
        let end = offset + shape.iter().product::<usize>() * DType::F32.size_bytes();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]});
        header.insert(params[i].part_name(number), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // the format asks for data aligned to eight bytes
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = AtomicFile::create(&path)?;
    let io = |e| E::from(WeightsError::io(&path, "writing")(e));
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(&header).map_err(io)?;
    for (i, number) in export_order(params) {
        let ranges: Vec<_> = exported_shape(&params[i], tokens).into_iter().map(|n| 0..n).collect();
        let tensor = part(&params[i], number)?.slice(&ranges);
        debug_assert_eq!(tensor.dtype(), DType::F32);
        file.write_all(tensor.bytes()).map_err(io)?;
    }
    file.commit()?;

    let config_path = dir.join("config.json");
    let mut json = config.raw.clone();
    json.insert("vocab_size".into(), tokens.into());
    json.insert("tie_word_embeddings".into(), config.tie_word_embeddings.into());
    let dtype_key = if json.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    json.insert(dtype_key.into(), "float32".into());
    let mut file = AtomicFile::create(&config_path)?;
    // a map of plain values always has a JSON form
    let text = serde_json::to_string_pretty(&json).expect("config serializes") + "\n";
    file.write_all(text.as_bytes()).map_err(|e| E::from(WeightsError::io(&config_path, "writing")(e)))?;
    file.commit().map_err(E::from)
}

fn exported_shape(param: &Param, tokens: usize) -> Vec<usize> {
    let mut shape = param.part_shape().to_vec();
    if param.is_vocabulary() {
        shape[0] = tokens;
    }
    shape
}
