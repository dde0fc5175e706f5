use std::time::Instant;

use anyhow::Result;
use sft_model::graph::{Graph, Tensor};
use sft_model::mesh::Mesh;
use sft_model::program::Program;
use sft_runtime::{Argument, Client, ClientOptions, CompileOptions, Platform, Plugin};
use sft_tensor::{DType, HostTensor};

const SIZE: usize = 2048;
const PRODUCTS: usize = 4;
const ROUNDS: usize = 5;

/// FLOP/s of products of f32 matrices of 2048 × 2048 on one device with all cores, the best of a few rounds.
pub fn flops_per_s() -> Result<f64> {
    let graph = Graph::new(Mesh::SINGLE);
    let x = graph.input("x", DType::F32, &[SIZE, SIZE]);
    let w = graph.input("w", DType::F32, &[SIZE, SIZE]);
    let y: Tensor<'_> = (0..PRODUCTS).fold(x, |y, _| y.linear(w));
    let program = Program::new("matmul", &graph, &[("y", y)], 0);

    let plugin = Plugin::discover(Platform::Cpu, None)?;
    let client = Client::new(&plugin, &ClientOptions::cpu(1))?;
    let executable = client.compile(&program.text, &CompileOptions::single(client.local_devices()[0].id))?;
    let values = vec![1.0 / SIZE as f32; SIZE * SIZE];
    let matrix = client.upload(&HostTensor::from_f32(&[SIZE, SIZE], &values), 0)?;
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        executable.execute(vec![vec![Argument::Borrow(&matrix), Argument::Borrow(&matrix)]])?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(PRODUCTS as f64 * 2.0 * (SIZE as f64).powi(3) / best)
}
