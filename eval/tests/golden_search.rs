//! The compiled search against HF's constrained beam search on the goldens' 64 prompts.

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "../../model/tests/common/golden.rs"]
mod golden;

use std::collections::HashMap;
use std::path::Path;

use common::Runner;
use golden::Model;
use serde_json::Value;
use sft_eval::search::{gather_program, search_program, Constraint, SearchShape};
use sft_eval::Trie;
use sft_model::layout::params;
use sft_model::mesh::Mesh;
use sft_tensor::{DType, HostTensor};

/// Scores this close may come in either order: torch's and XLA's kernels add in different orders.
const TIE: f64 = 1e-4;
const SCORE_TOLERANCE: f64 = 1e-3;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The distinct SIDs of the catalogue in the order of the index, as texts and tokens.
fn catalogue(root: &Path) -> (Vec<String>, Vec<Vec<u32>>) {
    let ids: HashMap<String, u32> =
        serde_json::from_value(json(&root.join("golden/models/tiny-qwen2/added_tokens.json"))).unwrap();
    let index = json(&root.join("data/Amazon/index/Industrial_and_Scientific.index.json"));
    let (mut texts, mut tokens): (Vec<String>, Vec<Vec<u32>>) = (Vec::new(), Vec::new());
    for parts in index.as_object().unwrap().values() {
        let parts: Vec<&str> = parts.as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        texts.push(parts.concat());
        tokens.push(parts.iter().map(|p| ids[*p]).collect());
    }
    (texts, tokens)
}

fn prompts(root: &Path) -> Vec<Vec<i32>> {
    let rows = &json(&root.join("golden/a_tokenized.json"))["EvalSidDataset"];
    rows.as_array().unwrap().iter().map(|row| serde_json::from_value(row["input_ids"].clone()).unwrap()).collect()
}

/// Ranked SIDs with their scores, for every prompt.
fn search(root: &Path, name: &str, beams: usize, train: Mesh, per_device: usize) -> Vec<Vec<(String, f64)>> {
    let model = Model::read(&root.join("golden/models").join(name));
    let vocab = model.vocab(&train);
    let devices = train.devices();
    let gathered = Runner::new(gather_program(train, &model.config, vocab, DType::F32));
    let shards: Vec<_> = (0..devices).map(|replica| model.shards(&train, replica)).collect();
    let weights = gathered.run(&shards);
    for (param, tensor) in params(&model.config, vocab).iter().zip(&weights[0]) {
        assert_eq!(tensor.shape(), param.shape);
    }

    let (texts, sids) = catalogue(root);
    let constraint = Constraint::new(Trie::build(&sids).unwrap(), &[198, 2048]).unwrap();
    constraint.check_beams(beams).unwrap();
    let prompts = prompts(root);
    let prompt_len = prompts.iter().map(Vec::len).max().unwrap();
    let shape = SearchShape { prompts: per_device, prompt_len, beams };
    let runner = Runner::new(search_program(devices, &model.config, vocab, DType::F32, &constraint, &shape));
    let mut ranked = Vec::new();
    for group in prompts.chunks(per_device * devices) {
        let inputs = group.chunks(per_device).zip(&weights).map(|(prompts, weights)| {
            let mut tokens = vec![0; per_device * prompt_len];
            for (row, prompt) in tokens.chunks_mut(prompt_len).zip(prompts) {
                row[..prompt.len()].copy_from_slice(prompt);
            }
            let lengths: Vec<i32> = prompts.iter().map(|p| p.len() as i32).collect();
            let mut inputs = weights.clone();
            inputs.extend(constraint.tables());
            inputs.push(HostTensor::from_i32(&[per_device, prompt_len], &tokens));
            inputs.push(HostTensor::from_i32(&[per_device], &lengths));
            inputs
        });
        for outputs in runner.run(&inputs.collect::<Vec<_>>()) {
            let (sids, scores) = (outputs[0].to_i32_vec().unwrap(), outputs[1].to_f32_vec().unwrap());
            for (sids, scores) in sids.chunks(beams).zip(scores.chunks(beams)) {
                let hit = |(&sid, &score): (&i32, &f32)| (texts[sid as usize].clone(), f64::from(score));
                ranked.push(sids.iter().zip(scores).map(hit).collect());
            }
        }
    }
    ranked
}

fn compare(got: &[Vec<(String, f64)>], golden: &Value, what: &str) {
    let golden = golden.as_array().unwrap();
    assert_eq!(got.len(), golden.len());
    for (i, (got, row)) in got.iter().zip(golden).enumerate() {
        let expected: Vec<&str> = row["predict"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        let scores: Vec<f64> = serde_json::from_value(row["sequences_scores"].clone()).unwrap();
        assert_eq!(got.len(), expected.len(), "{what}, prompt {i}");
        for (rank, ((_, score), golden)) in got.iter().zip(&scores).enumerate() {
            assert!((score - golden).abs() < SCORE_TOLERANCE, "{what}, prompt {i}, rank {rank}: {score} {golden}");
        }
        let mut start = 0;
        for end in 1..=expected.len() {
            if end < expected.len() && scores[end - 1] - scores[end] <= TIE {
                continue;
            }
            let mut ours: Vec<&str> = got[start..end].iter().map(|(sid, _)| sid.as_str()).collect();
            let mut theirs = expected[start..end].to_vec();
            ours.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(ours, theirs, "{what}, prompt {i}, ranks {start}..{end}");
            start = end;
        }
        let distinct: std::collections::HashSet<_> = got.iter().map(|(sid, _)| sid).collect();
        assert_eq!(distinct.len(), got.len(), "{what}, prompt {i}: a SID twice");
    }
}

#[test]
fn ranked_lists_are_those_of_transformers() {
    if common::shared("").is_none() {
        return;
    }
    let root = common::shared("").unwrap();
    for (name, beams) in [
        ("tiny-qwen2-sft", 10),
        ("tiny-qwen2-sft", 50),
        ("tiny-qwen2-tied-sft", 10),
        ("tiny-qwen2", 10),
        ("tiny-qwen2", 50),
    ] {
        let golden = json(&root.join(format!("golden/d_hf_{name}_k{beams}_float32.json")));
        compare(&search(&root, name, beams, Mesh::SINGLE, 8), &golden, &format!("{name}, {beams} beams"));
    }
}

#[test]
fn neither_devices_nor_batches_change_the_lists() {
    let Some(root) = common::shared("") else { return };
    let single = search(&root, "tiny-qwen2-sft", 10, Mesh::SINGLE, 8);
    for (mesh, per_device) in [(Mesh { dp: 2, fsdp: 2, tp: 1 }, 4), (Mesh { dp: 1, fsdp: 2, tp: 2 }, 16)] {
        for (i, (a, b)) in single.iter().zip(search(&root, "tiny-qwen2-sft", 10, mesh, per_device)).enumerate() {
            for (a, b) in a.iter().zip(b) {
                assert_eq!(a.0, b.0, "{mesh}, prompt {i}");
                assert!((a.1 - b.1).abs() < 1e-4, "{mesh}, prompt {i}: {} {}", a.1, b.1);
            }
        }
    }
}
