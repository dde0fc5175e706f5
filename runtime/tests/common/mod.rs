//! What the tests share: a client, programs with collectives, and data for them.
#![allow(dead_code)] // Each test file uses its part.

use sft_runtime::{Client, ClientOptions, Platform, Plugin};
use sft_tensor::HostTensor;

/// The CPU plugin; without it nothing here can be tested.
pub fn plugin() -> Plugin {
    Plugin::discover(Platform::Cpu, None).unwrap_or_else(|error| panic!("run `make setup` first: {error}"))
}

/// A client of `devices` devices in this process alone.
pub fn local_client(devices: usize) -> Client {
    let options = ClientOptions { process_count: Some(1), ..ClientOptions::cpu(devices) };
    Client::new(&plugin(), &options).unwrap()
}

/// Values that differ in every element and device, of very different sizes, so that sums depend on their order.
pub fn noise(shape: &[usize], device: usize) -> HostTensor {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(device as u64 + 1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        unit * f32::powi(2.0, (state >> 36) as i32 % 12)
    };
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| next()).collect();
    HostTensor::from_f32(shape, &values)
}

/// A collective over 4 replicas and the shape of its result for an argument `tensor<{n}xf32>`.
pub struct Collective {
    pub name: &'static str,
    /// Elements of the argument of each replica.
    pub len: usize,
    pub program: String,
}

const SUM: &str = "({ ^bb0(%a: tensor<f32>, %b: tensor<f32>):
        %ab = stablehlo.add %a, %b : tensor<f32>
        stablehlo.return %ab : tensor<f32> })";

fn main_with(len: usize, result_len: usize, body: &str) -> String {
    format!("func.func @main(%x: tensor<{len}xf32>) -> tensor<{result_len}xf32> {{\n{body}\n}}")
}

fn all_reduce(name: &'static str, len: usize, groups: &str, group_type: &str) -> Collective {
    let body = format!(
        "%y = \"stablehlo.all_reduce\"(%x) {SUM} {{
            replica_groups = dense<{groups}> : tensor<{group_type}xi64>,
            channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>,
            use_global_device_ids
        }} : (tensor<{len}xf32>) -> tensor<{len}xf32>
        return %y : tensor<{len}xf32>"
    );
    // Global device ids are numbers of replicas here: there is one partition.
    Collective { name, len, program: main_with(len, len, &body) }
}

/// Every kind of collective that FSDP uses, over all replicas and over groups, short and long.
pub fn collectives() -> Vec<Collective> {
    let all = "[[0, 1, 2, 3]]";
    let reduce_scatter = |name, len: usize, groups: &str, group_type: &str, members: usize| {
        let part = len / members;
        let body = format!(
            "%y = \"stablehlo.reduce_scatter\"(%x) {SUM} {{
                scatter_dimension = 0 : i64,
                replica_groups = dense<{groups}> : tensor<{group_type}xi64>
            }} : (tensor<{len}xf32>) -> tensor<{part}xf32>
            return %y : tensor<{part}xf32>"
        );
        Collective { name, len, program: main_with(len, part, &body) }
    };
    let all_gather = |name, len: usize, groups: &str, group_type: &str, members: usize| {
        let whole = len * members;
        let body = format!(
            "%y = \"stablehlo.all_gather\"(%x) {{
                all_gather_dim = 0 : i64,
                replica_groups = dense<{groups}> : tensor<{group_type}xi64>
            }} : (tensor<{len}xf32>) -> tensor<{whole}xf32>
            return %y : tensor<{whole}xf32>"
        );
        Collective { name, len, program: main_with(len, whole, &body) }
    };
    vec![
        all_reduce("all_reduce", 7, all, "1x4"),
        all_reduce("all_reduce_long", 40_003, all, "1x4"),
        all_reduce("all_reduce_rows", 64, "[[0, 1], [2, 3]]", "2x2"),
        all_reduce("all_reduce_columns", 10_000, "[[0, 2], [1, 3]]", "2x2"),
        reduce_scatter("reduce_scatter", 40_000, all, "1x4", 4),
        reduce_scatter("reduce_scatter_columns", 10, "[[0, 2], [1, 3]]", "2x2", 2),
        all_gather("all_gather", 5, all, "1x4", 4),
        all_gather("all_gather_columns", 30_001, "[[0, 2], [1, 3]]", "2x2", 2),
        permute(),
        loop_of_collectives(),
    ]
}

/// Replica i sends to i + 1.
fn permute() -> Collective {
    let body = "%y = \"stablehlo.collective_permute\"(%x) {
            source_target_pairs = dense<[[0, 1], [1, 2], [2, 3], [3, 0]]> : tensor<4x2xi64>
        } : (tensor<33xf32>) -> tensor<33xf32>
        return %y : tensor<33xf32>";
    Collective { name: "collective_permute", len: 33, program: main_with(33, 33, body) }
}

/// Fifty turns of what a layer of FSDP does: gather, compute, reduce-scatter, and an all-reduce of a scalar, each turn
/// using the result of the one before.
fn loop_of_collectives() -> Collective {
    let body = format!(
        "%zero = stablehlo.constant dense<0> : tensor<i32>
        %one = stablehlo.constant dense<1> : tensor<i32>
        %turns = stablehlo.constant dense<50> : tensor<i32>
        %r:2 = stablehlo.while(%i = %zero, %v = %x) : tensor<i32>, tensor<12xf32>
        cond {{
            %c = stablehlo.compare LT, %i, %turns : (tensor<i32>, tensor<i32>) -> tensor<i1>
            stablehlo.return %c : tensor<i1>
        }} do {{
            %g = \"stablehlo.all_gather\"(%v) {{
                all_gather_dim = 0 : i64, replica_groups = dense<[[0, 1, 2, 3]]> : tensor<1x4xi64>
            }} : (tensor<12xf32>) -> tensor<48xf32>
            %t = stablehlo.tanh %g : tensor<48xf32>
            %s = \"stablehlo.reduce_scatter\"(%t) {SUM} {{
                scatter_dimension = 0 : i64, replica_groups = dense<[[0, 1, 2, 3]]> : tensor<1x4xi64>
            }} : (tensor<48xf32>) -> tensor<12xf32>
            %init = stablehlo.constant dense<0.0> : tensor<f32>
            %n = stablehlo.reduce(%v init: %init) applies stablehlo.add across dimensions = [0]
                : (tensor<12xf32>, tensor<f32>) -> tensor<f32>
            %total = \"stablehlo.all_reduce\"(%n) {SUM} {{
                replica_groups = dense<[[0, 2], [1, 3]]> : tensor<2x2xi64>
            }} : (tensor<f32>) -> tensor<f32>
            %b = stablehlo.broadcast_in_dim %total, dims = [] : (tensor<f32>) -> tensor<12xf32>
            %w = stablehlo.add %s, %b : tensor<12xf32>
            %wave = stablehlo.sine %w : tensor<12xf32>
            %next = stablehlo.add %i, %one : tensor<i32>
            stablehlo.return %next, %wave : tensor<i32>, tensor<12xf32>
        }}
        return %r#1 : tensor<12xf32>"
    );
    Collective { name: "collectives_in_a_loop", len: 12, program: main_with(12, 12, &body) }
}
