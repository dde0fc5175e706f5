//! Logits of the goldens' models against those of transformers.

mod common;
#[path = "common/golden.rs"]
mod golden;

use std::io::Read;

use common::Runner;
use golden::Model;
use sft_model::graph::Graph;
use sft_model::layout::params;
use sft_model::mesh::Mesh;
use sft_model::program::Program;
use sft_model::transformer::Transformer;
use sft_tensor::{DType, HostTensor};

/// An array of NumPy's `.npz`, as f64.
fn npz(path: &std::path::Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    let array = npyz::NpyFile::new(&bytes[..]).unwrap();
    let shape = array.shape().iter().map(|&n| n as usize).collect();
    let values = match array.dtype().descr().as_str() {
        "'<f4'" => array.into_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
        "'<i8'" => array.into_vec::<i64>().unwrap().into_iter().map(|v| v as f64).collect(),
        other => panic!("{name}: {other}"),
    };
    (shape, values)
}

fn logits(model: &Model, mesh: Mesh, tokens: &[i32]) -> Vec<Vec<f32>> {
    let graph = Graph::new(mesh);
    let vocab = model.vocab(&mesh);
    let params = params(&model.config, vocab);
    let inputs: Vec<_> = params.iter().map(|p| graph.input(&p.name, DType::F32, &p.shard_shape(&mesh))).collect();
    let shape = [1, tokens.len()];
    let ports = ["tokens", "positions", "segments"].map(|name| graph.input(name, DType::S32, &shape));
    let transformer = Transformer::new(&model.config, vocab, DType::F32, &params, &inputs);
    let embedding = transformer.embedding();
    let hidden = transformer.final_norm(transformer.forward(embedding, ports[0], ports[1], ports[2]));
    let logits = transformer.logits(hidden, transformer.head(embedding));
    let runner = Runner::new(Program::new("logits", &graph, &[("logits", logits)], 0));
    let positions: Vec<i32> = (0..tokens.len() as i32).collect();
    let inputs: Vec<_> = (0..mesh.devices())
        .map(|replica| {
            let mut inputs = model.shards(&mesh, replica);
            inputs.push(HostTensor::from_i32(&shape, tokens));
            inputs.push(HostTensor::from_i32(&shape, &positions));
            inputs.push(HostTensor::from_i32(&shape, &vec![0; tokens.len()]));
            inputs
        })
        .collect();
    let cut = |t: &HostTensor| {
        let tokens = t.slice(&[0..1, 0..tokens.len(), 0..vocab.tokens]);
        tokens.to_f32_vec().unwrap()
    };
    runner.run(&inputs).iter().map(|outputs| cut(&outputs[0])).collect()
}

#[test]
fn logits_are_those_of_transformers_on_every_mesh() {
    let Some(root) = common::shared("golden") else { return };
    for name in ["tiny-qwen2", "tiny-qwen2-tied"] {
        let model = Model::read(&root.join("models").join(name));
        let file = root.join(format!("b_logits_{name}.npz"));
        for prompt in 0..2 {
            let (_, ids) = npz(&file, &format!("input_ids_{prompt}"));
            let ids: Vec<i32> = ids.iter().map(|&v| v as i32).collect();
            let (_, expected) = npz(&file, &format!("logits_{prompt}"));
            for (dp, fsdp, tp) in [(1, 1, 1), (1, 4, 1), (2, 2, 1), (1, 1, 2), (1, 3, 2)] {
                for got in logits(&model, Mesh { dp, fsdp, tp }, &ids) {
                    assert_eq!(got.len(), expected.len());
                    let worst = got.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-4, "{name}, prompt {prompt}, {dp}×{fsdp}×{tp}: logits differ by {worst}");
                }
            }
        }
    }
}
