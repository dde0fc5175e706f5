//! Weight files: the goldens' models on every mesh, round trips, new tokens.

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

#[test]
fn an_untied_head_starts_as_the_embedding_and_draws_its_own_new_rows() {
    let Some(root) = common::shared("golden/models") else { return };
    let mut config = ModelConfig::read(&root.join("tiny-qwen2-tied")).unwrap();
    config.tie_word_embeddings = false;
    let source = SafetensorsDir::open(&root.join("tiny-qwen2-tied")).unwrap();
    let old = config.vocab_size;
    let vocab = Vocab { tokens: old + 40, rows: old + 41 };
    let weights = Weights::new(&config, vocab, &source, VocabInit::Normal, 7).unwrap();
    let table = |name: &str| {
        let params = params(&config, vocab);
        weights.shard(params.iter().find(|p| p.name == name).unwrap(), &Mesh::SINGLE, 0).unwrap()
    };
    let (embedding, head) = (table("model.embed_tokens.weight"), table("lm_head.weight"));
    let stored = whole(&source, "model.embed_tokens.weight");
    for table in [&embedding, &head] {
        assert_eq!(table.slice(&[0..old, 0..64]), stored);
        let new = table.slice(&[old..old + 40, 0..64]).to_f32_vec().unwrap();
        let square = new.iter().map(|v| v * v).sum::<f32>() / new.len() as f32;
        assert!((square.sqrt() - 0.02).abs() < 0.002, "standard deviation {}", square.sqrt());
    }
    assert_ne!(embedding.slice(&[old..old + 40, 0..64]), head.slice(&[old..old + 40, 0..64]));
}

#[test]
fn rows_beyond_the_tokens_are_dropped() {
    let Some(root) = common::shared("golden/models") else { return };
    let config = ModelConfig::read(&root.join("tiny-qwen2")).unwrap();
    let source = SafetensorsDir::open(&root.join("tiny-qwen2")).unwrap();
    let vocab = Vocab { tokens: 2600, rows: 2604 };
    round_trip(&config, &source, vocab, Mesh { dp: 1, fsdp: 4, tp: 1 }, |part, tensor| {
        if part == "lm_head.weight" {
            assert_eq!(tensor.slice(&[0..2600, 0..64]), whole(&source, part).slice(&[0..2600, 0..64]));
            assert!(tensor.slice(&[2600..2604, 0..64]).to_f32_vec().unwrap().iter().all(|&v| v == 0.0));
        }
    });
}

#[test]
fn narrow_types_are_widened() {
    let Some(root) = common::shared("golden/models") else { return };
    let config = ModelConfig::read(&root.join("tiny-llama")).unwrap();
    let source = SafetensorsDir::open(&root.join("tiny-llama")).unwrap();
    let vocab = Vocab::padded(config.vocab_size, &Mesh::SINGLE);
    for dtype in [DType::BF16, DType::F16] {
        let dir = tempfile::tempdir().unwrap();
        export_hf::<WeightsError>(dir.path(), &config, &params(&config, vocab), vocab.tokens, dtype, |param, part| {
            Ok(whole(&source, &param.part_name(part)))
        })
        .unwrap();
        assert_eq!(ModelConfig::read(dir.path()).unwrap().raw["dtype"], dtype.name());
        let narrow = SafetensorsDir::open(dir.path()).unwrap();
        let name = "model.layers.1.mlp.down_proj.weight";
        assert_eq!(narrow.read(name, &[0..1, 0..1]).unwrap().dtype(), dtype);
        // the goldens' weights are exact in every type
        round_trip(&config, &narrow, vocab, Mesh { dp: 1, fsdp: 2, tp: 2 }, |part, tensor| {
            assert_eq!(tensor, whole(&source, part), "{part} as {dtype}");
        });
    }
}
