//! Weight files: the goldens' models on every mesh, round trips, and files that are wrong.

mod common;

use std::path::Path;

use sft_model::config::ModelConfig;
use sft_model::layout::{params, Vocab};
use sft_model::mesh::Mesh;
use sft_model::weights::{
    assemble, export_hf, write_msgpack_state, FromScratch, MsgpackState, SafetensorsDir, Source, VocabInit, Weights,
    WeightsError,
};
use sft_tensor::{DType, HostTensor};

const MESHES: [(usize, usize, usize); 5] = [(1, 1, 1), (1, 4, 1), (2, 2, 1), (1, 2, 2), (1, 3, 1)];

/// Loads every shard, puts the parameters together again and hands each part to `check`.
fn round_trip(
    config: &ModelConfig,
    source: &dyn Source,
    vocab: Vocab,
    mesh: Mesh,
    mut check: impl FnMut(&str, HostTensor),
) {
    let weights = Weights::new(config, vocab, source, VocabInit::Mean, 1).unwrap();
    for param in params(config, vocab) {
        let shards: Vec<_> = (0..mesh.devices()).map(|r| weights.shard(&param, &mesh, r).unwrap()).collect();
        for part in 0..param.parts() {
            let block = |replica: usize| {
                let shard: &HostTensor = &shards[replica];
                if !param.is_stacked() {
                    return Ok::<_, WeightsError>(shard.clone());
                }
                let mut ranges: Vec<_> = shard.shape().iter().map(|&n| 0..n).collect();
                ranges[0] = part..part + 1;
                Ok(shard.slice(&ranges).reshaped(&shard.shape()[1..]))
            };
            check(&param.part_name(part), assemble(&param, &mesh, block).unwrap());
        }
    }
}

fn whole(source: &dyn Source, name: &str) -> HostTensor {
    let ranges: Vec<_> = source.shape(name).unwrap().into_iter().map(|n| 0..n).collect();
    source.read(name, &ranges).unwrap().to_dtype(DType::F32).unwrap()
}

#[test]
fn models_survive_sharding_on_every_mesh() {
    let Some(root) = common::shared("golden/models") else { return };
    for name in ["tiny-qwen2", "tiny-qwen2-tied", "tiny-llama", "tiny-llama-nobias"] {
        let config = ModelConfig::read(&root.join(name)).unwrap();
        let source = SafetensorsDir::open(&root.join(name)).unwrap();
        for (dp, fsdp, tp) in MESHES {
            let mesh = Mesh { dp, fsdp, tp };
            let vocab = Vocab::padded(config.vocab_size, &mesh);
            round_trip(&config, &source, vocab, mesh, |part, tensor| {
                let rows = tensor.slice(&source.shape(part).unwrap().iter().map(|&n| 0..n).collect::<Vec<_>>());
                assert_eq!(rows, whole(&source, part), "{name} on {mesh}: {part}");
            });
        }
    }
}

#[test]
fn exports_and_states_are_read_back() {
    let Some(root) = common::shared("golden/models") else { return };
    for name in ["tiny-qwen2", "tiny-qwen2-tied"] {
        let mut config = ModelConfig::read(&root.join(name)).unwrap();
        let source = SafetensorsDir::open(&root.join(name)).unwrap();
        let mesh = Mesh { dp: 1, fsdp: 4, tp: 1 };
        let vocab = Vocab::padded(config.vocab_size, &mesh);
        let params = params(&config, vocab);
        let weights = Weights::new(&config, vocab, &source, VocabInit::Mean, 1).unwrap();
        let part = |param: &sft_model::params::Param, part: usize| -> Result<HostTensor, WeightsError> {
            let tensor = weights.shard(param, &Mesh::SINGLE, 0)?;
            let stacked = usize::from(param.is_stacked());
            let mut ranges: Vec<_> = tensor.shape().iter().map(|&n| 0..n).collect();
            if stacked == 1 {
                ranges[0] = part..part + 1;
            }
            Ok(tensor.slice(&ranges).reshaped(param.part_shape()))
        };
        let dir = tempfile::tempdir().unwrap();
        export_hf(dir.path(), &config, &params, vocab.tokens, DType::F32, part).unwrap();
        let exported = SafetensorsDir::open(dir.path()).unwrap();
        let reread = ModelConfig::read(dir.path()).unwrap();
        assert_eq!((reread.vocab_size, reread.hidden_size), (2611, config.hidden_size));
        let path = dir.path().join("sft_state_last.msgpack");
        write_msgpack_state(&path, &params, 20, part).unwrap();
        let state = MsgpackState::open(&path).unwrap();
        assert_eq!(state.step(), 20);
        assert_eq!(state.shape("lm_head.weight"), Some(vec![2612, 64]), "rows are padded, a head is always there");
        for param in &params {
            for part in 0..param.parts() {
                let name = param.part_name(part);
                assert_eq!(whole(&exported, &name), whole(&source, &name));
            }
        }
        // another mesh has other padding
        config.raw.insert("tie_word_embeddings".into(), false.into());
        round_trip(&config, &state, Vocab::padded(2611, &Mesh::SINGLE), Mesh::SINGLE, |part, tensor| {
            assert_eq!(tensor, whole(&source, part), "{part}");
        });
    }
}

#[test]
fn new_tokens_start_at_the_mean_on_every_mesh() {
    let Some(root) = common::shared("golden/models") else { return };
    let config = ModelConfig::read(&root.join("tiny-qwen2-base")).unwrap();
    let source = SafetensorsDir::open(&root.join("tiny-qwen2-base")).unwrap();
    let name = "model.embed_tokens.weight";
    let old = source.shape(name).unwrap()[0];
    let tokens = old + 560;
    let mut tables = Vec::new();
    for (dp, fsdp, tp) in MESHES {
        let mesh = Mesh { dp, fsdp, tp };
        round_trip(&config, &source, Vocab::padded(tokens, &mesh), mesh, |part, tensor| {
            if part == name {
                let rows = tensor.shape()[0];
                let padding = tensor.slice(&[tokens..rows, 0..64]);
                assert!(padding.to_f32_vec().unwrap().iter().all(|&v| v == 0.0), "padding is zero");
                tables.push(tensor.slice(&[0..tokens, 0..64]));
            }
        });
    }
    assert!(tables.windows(2).all(|w| w[0] == w[1]), "the mesh changes the table");
    let stored = whole(&source, name).to_f32_vec().unwrap();
    let mean = |c: usize| stored.iter().skip(c).step_by(64).map(|&v| f64::from(v)).sum::<f64>() / old as f64;
    let new = tables[0].slice(&[old..tokens, 0..64]).to_f32_vec().unwrap();
    for (i, value) in new.iter().enumerate() {
        assert!((f64::from(*value) - mean(i % 64)).abs() < 1e-4, "row {}", i / 64);
    }
    assert_ne!(new[..64], new[64..128], "rows differ");
}

#[test]
fn random_weights_do_not_depend_on_the_mesh() {
    let text = r#"{"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true}"#;
    let config = ModelConfig::parse(text, Path::new("config.json")).unwrap();
    let mut all: Vec<Vec<(String, HostTensor)>> = Vec::new();
    for (dp, fsdp, tp) in MESHES {
        let mesh = Mesh { dp, fsdp, tp };
        let vocab = Vocab::padded(30, &mesh);
        let source = FromScratch::new(&params(&config, vocab), 30, 42);
        let mut parts = Vec::new();
        round_trip(&config, &source, vocab, mesh, |part, tensor| {
            let rows = if part.contains("embed") { tensor.slice(&[0..30, 0..16]) } else { tensor };
            parts.push((part.to_owned(), rows));
        });
        all.push(parts);
    }
    assert!(all.windows(2).all(|w| w[0] == w[1]));
}

/// A folder with the files of `tiny-qwen2-tied`, its weights changed by `change`.
fn broken(change: impl FnOnce(&mut Vec<u8>)) -> Option<(tempfile::TempDir, ModelConfig)> {
    let model = common::shared("golden/models/tiny-qwen2-tied")?;
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    change(&mut bytes);
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    Some((dir, ModelConfig::read(&model).unwrap()))
}

fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
}

fn load_error(dir: &Path, config: &ModelConfig) -> String {
    let vocab = Vocab::padded(config.vocab_size, &Mesh::SINGLE);
    let result = SafetensorsDir::open(dir)
        .and_then(|source| Weights::new(config, vocab, &source, VocabInit::Mean, 1).map(|_| ()));
    result.unwrap_err().to_string()
}

#[test]
fn wrong_files_are_refused_by_name() {
    let missing = broken(|b| replace(b, "layers.2.mlp.up_proj", "layers.2.mlp.up_pro_"));
    let Some((dir, config)) = missing else { return };
    let error = load_error(dir.path(), &config);
    assert!(error.contains("model.layers.2.mlp.up_proj.weight: is missing"), "{error}");

    let (dir, mut wide) = broken(|_| {}).unwrap();
    wide.intermediate_size = 180;
    let error = load_error(dir.path(), &wide);
    assert!(error.contains("mlp.gate_proj.weight: has shape [176, 64], config.json asks for [180, 64]"), "{error}");

    let (dir, config) = broken(|b| b.truncate(b.len() / 2)).unwrap();
    let error = load_error(dir.path(), &config);
    assert!(error.contains("model.safetensors: not a complete safetensors file"), "{error}");

    let (dir, config) = broken(|b| b.clear()).unwrap();
    assert!(load_error(dir.path(), &config).contains("model.safetensors"));

    let empty = tempfile::tempdir().unwrap();
    let error = load_error(empty.path(), &config);
    assert!(error.contains("holds no model.safetensors") && error.contains("train_from_scratch"), "{error}");
}

#[test]
fn damaged_states_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.msgpack");
    let text = r#"{"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    let config = ModelConfig::parse(text, Path::new("config.json")).unwrap();
    let params = params(&config, Vocab::padded(30, &Mesh::SINGLE));
    write_msgpack_state::<WeightsError>(&path, &params, 1, |p, _| Ok(HostTensor::zeros(DType::F32, p.part_shape())))
        .unwrap();
    let good = std::fs::read(&path).unwrap();
    MsgpackState::open(&path).unwrap();
    for bad in
        [&good[..good.len() - 3], &good[..10], &[][..], &[0xc0], b"\x93\x01\x02\x03", &[&good[..], b"x"].concat()]
    {
        std::fs::write(&path, bad).unwrap();
        let error = MsgpackState::open(&path).err().expect("refused").to_string();
        assert!(error.contains("state.msgpack"), "{error}");
    }
}
