//! Weight files that are wrong: each is refused by name, none is taken for another model.

mod common;

use std::path::Path;

use sft_model::config::ModelConfig;
use sft_model::layout::{params, Vocab};
use sft_model::mesh::Mesh;
use sft_model::weights::{
    export_hf, write_msgpack_state, FromScratch, MsgpackState, SafetensorsDir, Source, VocabInit, Weights, WeightsError,
};
use sft_tensor::DType;

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

fn replace_after(bytes: &mut [u8], place: &str, from: &str, to: &str) {
    let at = bytes.windows(place.len()).position(|w| w == place.as_bytes()).unwrap();
    replace(&mut bytes[at..], from, to);
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

    let (dir, config) = broken(|b| b[..8].fill(0xff)).unwrap();
    let error = load_error(dir.path(), &config);
    assert!(error.contains("model.safetensors: not a complete safetensors file"), "{error}");

    let (dir, config) = broken(|b| replace(b, "{\"__metadata__\"", "{\"__metadata__:")).unwrap();
    let error = load_error(dir.path(), &config);
    assert!(error.contains("model.safetensors: not a complete safetensors file"), "{error}");

    let (dir, config) = broken(|b| replace_after(b, "layers.1.mlp.up_proj", "\"F32\"", "\"I32\"")).unwrap();
    let error = load_error(dir.path(), &config);
    assert!(error.contains("model.layers.1.mlp.up_proj.weight: has elements of type I32"), "{error}");
    assert!(error.contains("model.safetensors"), "{error}");
}

#[test]
fn folders_without_usable_weights_say_what_to_do() {
    let text = r#"{"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    let config = ModelConfig::parse(text, Path::new("config.json")).unwrap();
    for (files, expected) in [
        (&[][..], "train_from_scratch"),
        (&[("pytorch_model.bin", "")], "safe_serialization"),
        (&[("a.safetensors", ""), ("b.safetensors", "")], "holds 2 safetensors files and no model.safetensors.index"),
        (&[("model.safetensors", "version https://git-lfs.github.com/spec/v1\n")], "git lfs pull"),
        (&[("model.safetensors.index.json", "{")], "index.json: not JSON"),
        (&[("model.safetensors.index.json", "{}")], "index.json: has no map \"weight_map\""),
        (&[("model.safetensors.index.json", r#"{"weight_map": {"w": "model-1.safetensors"}}"#)], "model-1.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let error = load_error(dir.path(), &config);
        assert!(error.contains(expected) && error.contains(dir.path().to_str().unwrap()), "{error}");
    }
}

/// A state of a small model with weights of its own for the head.
fn small_state(path: &Path) -> ModelConfig {
    let text = r#"{"model_type": "qwen2", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}"#;
    let config = ModelConfig::parse(text, Path::new("config.json")).unwrap();
    let params = params(&config, Vocab::padded(30, &Mesh::SINGLE));
    let source = FromScratch::new(&params, 30, 3);
    write_msgpack_state::<WeightsError>(path, &params, 1, |param, part| {
        source.read(&param.part_name(part), &param.part_shape().iter().map(|&n| 0..n).collect::<Vec<_>>())
    })
    .unwrap();
    config
}

#[test]
fn a_head_of_its_own_is_not_lost_by_tying_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.msgpack");
    let mut config = small_state(&path);
    let state = MsgpackState::open(&path).unwrap();
    let vocab = Vocab::padded(30, &Mesh::SINGLE);
    assert!(Weights::new(&config, vocab, &state, VocabInit::Mean, 1).is_ok());
    config.tie_word_embeddings = true;
    let error = Weights::new(&config, vocab, &state, VocabInit::Mean, 1).err().expect("refused").to_string();
    assert!(error.contains("lm_head.weight: differs from the embedding") && error.contains("jax_plugin"), "{error}");
}

#[test]
fn damaged_states_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.msgpack");
    small_state(&path);
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

#[test]
fn a_wrong_byte_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state.msgpack");
    let config = small_state(&state);
    let vocab = Vocab::padded(30, &Mesh::SINGLE);
    let params = params(&config, vocab);
    let source = FromScratch::new(&params, 30, 3);
    export_hf::<WeightsError>(dir.path(), &config, &params, 30, DType::F32, |param, part| {
        source.read(&param.part_name(part), &param.part_shape().iter().map(|&n| 0..n).collect::<Vec<_>>())
    })
    .unwrap();
    let weights = dir.path().join("model.safetensors");
    let load = |source: &dyn Source| -> Result<(), WeightsError> {
        let weights = Weights::new(&config, vocab, source, VocabInit::Mean, 1)?;
        params.iter().try_for_each(|param| weights.shard(param, &Mesh::SINGLE, 0).map(|_| ()))
    };
    for path in [&state, &weights] {
        let good = std::fs::read(path).unwrap();
        // every byte of the head, and some of the data with the structure between them
        for at in (0..good.len().min(2000)).chain((2000..good.len()).step_by(13)) {
            let mut bad = good.clone();
            bad[at] ^= [0x01, 0x80, 0xff][at % 3];
            std::fs::write(path, &bad).unwrap();
            let _ = match path == &state {
                true => MsgpackState::open(path).and_then(|source| load(&source)),
                false => SafetensorsDir::open(dir.path()).and_then(|source| load(&source)),
            };
        }
    }
}
