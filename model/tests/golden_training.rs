//! Twenty optimizer steps of the goldens: losses, gradient norms and final weights against torch.

mod common;
#[path = "common/golden.rs"]
mod golden;

use std::collections::HashMap;
use std::path::Path;

use common::Runner;
use golden::{read_safetensors, Model};
use sft_model::graph::Remat;
use sft_model::layout::params;
use sft_model::mesh::Mesh;
use sft_model::train::{train_step, BatchShape, Clip, Decay, Optimizer, StepOptions};
use sft_tensor::{DType, HostTensor};

/// Relative to the value: torch's and XLA's kernels add in different orders.
const LOSS_TOLERANCE: f64 = 1e-4;
const WEIGHT_TOLERANCE: f32 = 1e-4;

struct Step {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    micro_batches: usize,
}

fn steps(golden: &serde_json::Value) -> Vec<Step> {
    let step = |s: &serde_json::Value| Step {
        loss: s["loss"].as_f64().unwrap(),
        grad_norm: s["grad_norm_preclip"].as_f64().unwrap(),
        learning_rate: s["lr"].as_f64().unwrap(),
        micro_batches: s["micro_losses"].as_array().unwrap().len(),
    };
    golden["steps"].as_array().unwrap().iter().map(step).collect()
}

/// One replica's share of a step: `[micro][row]` of left-padded tokens with the start of the text and of the labels.
struct Rows(Vec<Vec<(Vec<i32>, usize)>>);

impl Rows {
    fn read(batches: &HashMap<String, HostTensor>, step: usize, micro_batches: usize) -> Self {
        let micro = |k: usize| {
            let tensor = |what: &str| &batches[&format!("step{step:02}_micro{k}_{what}")];
            let width = tensor("input_ids").shape()[1];
            let [ids, mask, labels] =
                ["input_ids", "attention_mask", "labels"].map(|what| tensor(what).to_i32_vec().unwrap());
            let row = |r: usize| {
                let range = r * width..(r + 1) * width;
                let real = mask[range.clone()].iter().filter(|&&m| m == 1).count();
                let supervised = labels[range.clone()].iter().filter(|&&l| l != -100).count();
                (ids[range][width - real..].to_vec(), real - supervised)
            };
            (0..ids.len() / width).map(row).collect()
        };
        Self((0..micro_batches).map(micro).collect())
    }

    /// Every `of`-th row of each micro-batch.
    fn share(&self, index: usize, of: usize) -> Self {
        let rows = self.0.iter().map(|m| m.iter().skip(index).step_by(of).cloned().collect());
        Self(rows.collect())
    }

    fn supervised(&self) -> usize {
        self.0.iter().flatten().map(|(tokens, from)| tokens.len() - from).sum()
    }

    fn inputs(&self, shape: &BatchShape, total: usize) -> Vec<HostTensor> {
        let cells = shape.micro_batches * shape.rows * shape.seq;
        let (mut tokens, mut positions, mut segments) = (vec![0; cells], vec![0; cells], vec![-1; cells]);
        let count = shape.micro_batches * shape.supervised;
        let (mut sources, mut targets, mut weights) = (vec![0; count], vec![0; count], vec![0f32; count]);
        for (m, rows) in self.0.iter().enumerate() {
            let mut next = m * shape.supervised;
            for (r, (row, supervised_from)) in rows.iter().enumerate() {
                let start = (m * shape.rows + r) * shape.seq;
                for (i, &token) in row.iter().enumerate() {
                    (tokens[start + i], positions[start + i], segments[start + i]) = (token, i as i32, 0);
                    if i >= *supervised_from {
                        (sources[next], targets[next]) = ((r * shape.seq + i - 1) as i32, token);
                        weights[next] = 1.0 / total as f32;
                        next += 1;
                    }
                }
            }
        }
        let rows = [shape.micro_batches, shape.rows, shape.seq];
        let flat = [shape.micro_batches, shape.supervised];
        let mut inputs = [tokens, positions, segments].map(|v| HostTensor::from_i32(&rows, &v)).to_vec();
        inputs.extend([sources, targets].map(|v| HostTensor::from_i32(&flat, &v)));
        inputs.push(HostTensor::from_f32(&flat, &weights));
        inputs
    }
}

/// The 20 losses, after comparing everything with the golden `tag`.
fn train(root: &Path, tag: &str, mesh: Mesh) -> Vec<f64> {
    let text = std::fs::read_to_string(root.join(format!("c_train_{tag}.json"))).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let model = Model::read(&root.join(golden["model"].as_str().unwrap()));
    let accum = if tag == "untied_accum" { "_accum" } else { "" };
    let batches = read_safetensors(&root.join(format!("c_train_untied{accum}_batches.safetensors")));
    let decay = Decay { rate: golden["optimizer"]["weight_decay"].as_f64().unwrap(), vectors: false };
    let optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, decay };
    let options = StepOptions {
        compute: DType::F32,
        moments: DType::F32,
        optimizer,
        clip: Some(Clip { max_norm: 1.0, eps: 1e-6 }),
        // computed again or kept: both must give the golden numbers
        remat: if mesh.devices() == 2 { Remat::Steps } else { Remat::Elementwise },
    };
    let steps = steps(&golden);
    let shards = mesh.batch_shards();
    let shape = BatchShape {
        micro_batches: steps[0].micro_batches,
        rows: (8 / steps[0].micro_batches).div_ceil(shards),
        seq: 512,
        supervised: 272, // the most of any step is 271
    };
    let vocab = model.vocab(&mesh);
    let runner = Runner::new(train_step(mesh, &model.config, vocab, &options, &shape));
    let params = params(&model.config, vocab);
    let mut states: Vec<Vec<HostTensor>> = (0..mesh.devices())
        .map(|replica| {
            let values = model.shards(&mesh, replica);
            let zeros = values.iter().map(|v| HostTensor::zeros(DType::F32, v.shape()));
            let moments: Vec<_> = zeros.clone().chain(zeros).collect();
            values.into_iter().chain(moments).collect()
        })
        .collect();
    let mut losses = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let rows = Rows::read(&batches, number, step.micro_batches);
        let total = rows.supervised();
        let inputs: Vec<Vec<HostTensor>> = states
            .iter()
            .enumerate()
            .map(|(replica, state)| {
                let mut inputs = state.clone();
                inputs.push(HostTensor::from_f32(&[3], &optimizer.hyper(number + 1, step.learning_rate)));
                inputs.extend(rows.share(mesh.batch_shard(replica), shards).inputs(&shape, total));
                inputs
            })
            .collect();
        for (replica, mut outputs) in runner.run(&inputs).into_iter().enumerate() {
            let scalars = outputs.split_off(outputs.len() - 2);
            let [loss, norm] = [0, 1].map(|i: usize| f64::from(scalars[i].to_f32_vec().unwrap()[0]));
            let relative = |got: f64, expected: f64| (got - expected).abs() / expected.abs();
            assert!(relative(loss, step.loss) < LOSS_TOLERANCE, "{tag} {mesh}, step {number}: {loss} {}", step.loss);
            let norms = (norm, step.grad_norm);
            assert!(relative(norms.0, norms.1) < LOSS_TOLERANCE, "{tag} {mesh}, step {number}: norms {norms:?}");
            if replica == 0 {
                losses.push(loss);
            }
            states[replica] = outputs;
        }
    }
    let expected = Model {
        config: model.config.clone(),
        weights: read_safetensors(&root.join(format!("c_train_{tag}_final.safetensors"))),
    };
    for (replica, state) in states.iter().enumerate() {
        for ((param, got), expected) in params.iter().zip(state).zip(expected.shards(&mesh, replica)) {
            let (got, expected) = (got.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
            let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < WEIGHT_TOLERANCE, "{tag} {mesh}: {} differs by {worst}", param.name);
        }
    }
    losses
}

#[test]
fn twenty_steps_are_torchs() {
    let Some(root) = common::shared("golden") else { return };
    for tag in ["untied", "tied", "untied_accum", "untied_wd", "untied_const", "tied_const", "untied_cosine"] {
        train(&root, tag, Mesh::SINGLE);
    }
}

#[test]
fn the_mesh_does_not_change_the_losses() {
    let Some(root) = common::shared("golden") else { return };
    let single = train(&root, "tied", Mesh::SINGLE);
    for (dp, fsdp, tp) in [(1, 4, 1), (2, 2, 1), (1, 1, 2), (1, 2, 2)] {
        for (a, b) in single.iter().zip(train(&root, "tied", Mesh { dp, fsdp, tp })) {
            assert!((a - b).abs() < 1e-5 * a.abs(), "{dp}×{fsdp}×{tp}: {a} {b}");
        }
    }
}
