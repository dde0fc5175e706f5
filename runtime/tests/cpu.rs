//! Programs on the CPU plugin, within one process.

mod common;

use std::thread;

use common::{collectives, local_client, noise};
use half::bf16;
use sft_runtime::{Argument, Buffer, Client, CompileOptions, Executable};
use sft_tensor::{DType, HostTensor};

const DOUBLE: &str = "func.func @main(%x: tensor<3xf32>) -> tensor<3xf32> {
    %y = stablehlo.add %x, %x : tensor<3xf32>
    return %y : tensor<3xf32>
}";

fn compile_on(client: &Client, program: &str, devices: usize) -> Executable {
    let ids = client.local_devices()[..devices].iter().map(|device| device.id).collect();
    client.compile(program, &CompileOptions::replicated(ids)).unwrap()
}

/// Executes with one argument a replica, and downloads the only result of each.
fn run(client: &Client, executable: &Executable, arguments: &[HostTensor]) -> Vec<HostTensor> {
    let buffers: Vec<Buffer> =
        arguments.iter().enumerate().map(|(device, tensor)| client.upload(tensor, device).unwrap()).collect();
    let arguments = buffers.iter().map(|buffer| vec![Argument::Borrow(buffer)]).collect();
    let results = executable.execute(arguments).unwrap();
    results.into_iter().map(|list| list[0].download().unwrap()).collect()
}

#[test]
fn devices_have_global_ids() {
    let client = local_client(3);
    assert_eq!(client.platform_name(), "cpu");
    assert_eq!(client.process_index(), 0);
    assert_eq!(client.local_devices().iter().map(|device| device.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(client.devices().iter().all(|device| device.process_index == 0 && device.kind == "cpu"));
}

#[test]
fn a_program_runs_on_one_device() {
    let client = local_client(2);
    let executable = client.compile(DOUBLE, &CompileOptions::single(1)).unwrap();
    assert_eq!(executable.local_device_indices(), [1]);
    assert_eq!(executable.outputs()[0].shape, [3]);
    let x = client.upload(&HostTensor::from_f32(&[3], &[1.0, 2.0, -0.5]), 1).unwrap();
    let results = executable.execute(vec![vec![Argument::Borrow(&x)]]).unwrap();
    assert_eq!(results[0][0].local_device_index(), 1);
    assert_eq!(results[0][0].download().unwrap().to_f32_vec().unwrap(), [2.0, 4.0, -1.0]);
}

#[test]
fn results_of_several_types_are_untupled() {
    let client = local_client(1);
    let program =
        "func.func @main(%x: tensor<2x3xf32>) -> (tensor<3x2xf32>, tensor<i32>, tensor<2x3xi1>, tensor<0x4xbf16>) {
        %t = stablehlo.transpose %x, dims = [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32>
        %n = stablehlo.constant dense<7> : tensor<i32>
        %zero = stablehlo.constant dense<0.0> : tensor<2x3xf32>
        %p = stablehlo.compare GT, %x, %zero : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xi1>
        %e = stablehlo.constant dense<0.0> : tensor<0x4xbf16>
        return %t, %n, %p, %e : tensor<3x2xf32>, tensor<i32>, tensor<2x3xi1>, tensor<0x4xbf16>
    }";
    let executable = compile_on(&client, program, 1);
    let specs: Vec<String> = executable.outputs().iter().map(|spec| spec.to_string()).collect();
    assert_eq!(specs, ["float32[3, 2]", "int32[]", "bool[2, 3]", "bfloat16[0, 4]"]);
    let x = client.upload(&HostTensor::from_f32(&[2, 3], &[1.0, -2.0, 3.0, -4.0, 5.0, -6.0]), 0).unwrap();
    let results = executable.execute(vec![vec![Argument::Borrow(&x)]]).unwrap();
    let host: Vec<HostTensor> = results[0].iter().map(|buffer| buffer.download().unwrap()).collect();
    assert_eq!(host[0].to_f32_vec().unwrap(), [1.0, -4.0, -2.0, 5.0, 3.0, -6.0]);
    assert_eq!(host[1].to_i32_vec().unwrap(), [7]);
    assert_eq!(host[2].bytes(), [1, 0, 1, 0, 1, 0]);
    assert!(host[3].is_empty());
}

#[test]
fn tensors_of_every_type_survive_a_round_trip() {
    let client = local_client(2);
    let bf16_bytes = [1.5f32, -3.0, 0.0, 1e30].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let tensors = [
        HostTensor::from_f32(&[2, 2], &[1.0, f32::NEG_INFINITY, -0.0, 1e-40]),
        HostTensor::from_i32(&[4], &[i32::MIN, -1, 0, i32::MAX]),
        HostTensor::new(DType::BF16, vec![4, 1], bf16_bytes).unwrap(),
        HostTensor::new(DType::Pred, vec![3], vec![1, 0, 1]).unwrap(),
        HostTensor::new(DType::S64, vec![2], (0..16).collect()).unwrap(),
        HostTensor::new(DType::U32, vec![2], (100..108).collect()).unwrap(),
        HostTensor::new(DType::F16, vec![2], vec![0, 0x3c, 1, 0x40]).unwrap(),
        HostTensor::new(DType::F64, vec![], (0..8).collect()).unwrap(),
        HostTensor::zeros(DType::F32, &[3, 0, 2]),
        noise(&[257, 33], 0),
    ];
    for tensor in &tensors {
        let buffer = client.upload(tensor, 1).unwrap();
        assert_eq!((buffer.dtype(), buffer.shape()), (tensor.dtype(), tensor.shape()));
        assert_eq!(buffer.download().unwrap().bytes(), tensor.bytes(), "{}", buffer.spec());
    }
}

#[test]
fn an_uploaded_tensor_may_change_afterwards() {
    let client = local_client(1);
    let mut tensor = noise(&[1 << 20], 0);
    let before = tensor.clone();
    let buffer = client.upload(&tensor, 0).unwrap();
    tensor.bytes_mut().fill(0);
    assert_eq!(buffer.download().unwrap(), before);
}

#[test]
fn collectives_exchange_between_four_devices() {
    let client = local_client(4);
    for collective in collectives() {
        let n = collective.len;
        let executable = compile_on(&client, &collective.program, 4);
        let inputs: Vec<HostTensor> = (0..4).map(|device| noise(&[n], device)).collect();
        let values: Vec<Vec<f32>> = inputs.iter().map(|tensor| tensor.to_f32_vec().unwrap()).collect();
        let sum =
            |members: &[usize], i: usize| members.iter().map(|&member| values[member][i]).reduce(|a, b| a + b).unwrap();
        let rows = |device: usize| if device < 2 { vec![0, 1] } else { vec![2, 3] };
        let columns = |device: usize| vec![device % 2, device % 2 + 2];
        let results = run(&client, &executable, &inputs);
        for (device, result) in results.iter().enumerate() {
            let expected: Vec<f32> = match collective.name {
                "all_reduce" | "all_reduce_long" => (0..n).map(|i| sum(&[0, 1, 2, 3], i)).collect(),
                "all_reduce_rows" => (0..n).map(|i| sum(&rows(device), i)).collect(),
                "all_reduce_columns" => (0..n).map(|i| sum(&columns(device), i)).collect(),
                "reduce_scatter" => (0..n / 4).map(|i| sum(&[0, 1, 2, 3], device * n / 4 + i)).collect(),
                "reduce_scatter_columns" => (0..n / 2).map(|i| sum(&columns(device), device / 2 * n / 2 + i)).collect(),
                "all_gather" => values.concat(),
                "all_gather_columns" => columns(device).iter().flat_map(|&member| values[member].clone()).collect(),
                "collective_permute" => values[(device + 3) % 4].clone(),
                // Too long to follow by hand; compared between processes in tests/mpi.rs.
                "collectives_in_a_loop" => {
                    assert!(result.to_f32_vec().unwrap().iter().all(|value| value.abs() <= 1.0));
                    continue;
                }
                other => panic!("no expectation for {other}"),
            };
            assert_eq!(result.to_f32_vec().unwrap(), expected, "{} on device {device}", collective.name);
        }
    }
}

#[test]
fn results_come_in_the_order_of_the_replicas() {
    let client = local_client(3);
    let program = "func.func @main() -> tensor<ui32> {
        %r = stablehlo.replica_id : tensor<ui32>
        return %r : tensor<ui32>
    }";
    let executable = client.compile(program, &CompileOptions::replicated(vec![2, 0])).unwrap();
    assert_eq!(executable.local_device_indices(), [2, 0]);
    let results = executable.execute(vec![vec![], vec![]]).unwrap();
    for (replica, device) in [(0u8, 2), (1, 0)] {
        let buffer = &results[usize::from(replica)][0];
        assert_eq!(buffer.local_device_index(), device);
        assert_eq!(buffer.download().unwrap().bytes(), [replica, 0, 0, 0]);
    }
}

const UPDATE: &str = "func.func @main(%w: tensor<4096xf32> {tf.aliasing_output = 0 : i32}, %g: tensor<4096xf32>)
    -> tensor<4096xf32> {
    %y = stablehlo.subtract %w, %g : tensor<4096xf32>
    return %y : tensor<4096xf32>
}";

#[test]
fn a_donated_buffer_becomes_the_result() {
    let client = local_client(2);
    let executable = compile_on(&client, UPDATE, 2);
    assert_eq!(executable.memory_stats().unwrap().aliased, 4096 * 4);
    let weights: Vec<Buffer> = (0..2).map(|device| client.upload(&noise(&[4096], device), device).unwrap()).collect();
    let gradients: Vec<Buffer> =
        (0..2).map(|device| client.upload(&noise(&[4096], device + 2), device).unwrap()).collect();
    let addresses: Vec<usize> = weights.iter().map(|buffer| buffer.device_address().unwrap()).collect();
    let arguments =
        weights.into_iter().zip(&gradients).map(|(w, g)| vec![Argument::Donate(w), Argument::Borrow(g)]).collect();
    let results = executable.execute(arguments).unwrap();
    for (device, list) in results.iter().enumerate() {
        assert_eq!(list[0].device_address().unwrap(), addresses[device]);
        let (w, g) = (noise(&[4096], device).to_f32_vec().unwrap(), noise(&[4096], device + 2).to_f32_vec().unwrap());
        let expected: Vec<f32> = w.iter().zip(&g).map(|(w, g)| w - g).collect();
        assert_eq!(list[0].download().unwrap().to_f32_vec().unwrap(), expected);
        assert_eq!(gradients[device].download().unwrap(), noise(&[4096], device + 2));
    }
}

#[test]
fn a_borrowed_buffer_survives_a_program_that_could_reuse_it() {
    let client = local_client(1);
    let executable = compile_on(&client, UPDATE, 1);
    let weights = client.upload(&noise(&[4096], 0), 0).unwrap();
    for _ in 0..2 {
        let results = executable.execute(vec![vec![Argument::Borrow(&weights), Argument::Borrow(&weights)]]).unwrap();
        assert_ne!(results[0][0].device_address().unwrap(), weights.device_address().unwrap());
        assert!(results[0][0].download().unwrap().bytes().iter().all(|&byte| byte == 0));
        assert_eq!(weights.download().unwrap(), noise(&[4096], 0));
    }
}

#[test]
fn a_serialized_program_computes_the_same() {
    let client = local_client(4);
    let collective = collectives().into_iter().find(|c| c.name == "collectives_in_a_loop").unwrap();
    let executable = compile_on(&client, &collective.program, 4);
    let inputs: Vec<HostTensor> = (0..4).map(|device| noise(&[collective.len], device)).collect();
    let expected = run(&client, &executable, &inputs);
    let bytes = executable.serialize().unwrap();
    drop(executable);
    let other_client = local_client(4);
    let loaded = other_client.deserialize(&bytes).unwrap();
    assert_eq!(loaded.local_device_indices(), [0, 1, 2, 3]);
    assert_eq!(run(&other_client, &loaded, &inputs), expected);
    let error = other_client.deserialize(&bytes[..bytes.len() / 2]).unwrap_err().to_string();
    assert!(error.contains("PJRT_Executable_DeserializeAndLoad"), "{error}");
    assert!(other_client.deserialize(b"").is_err());
}

#[test]
fn a_program_tells_its_cost() {
    let client = local_client(1);
    let program = "func.func @main(%x: tensor<64x32xf32>, %y: tensor<32x16xf32>) -> tensor<64x16xf32> {
        %z = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
            : (tensor<64x32xf32>, tensor<32x16xf32>) -> tensor<64x16xf32>
        return %z : tensor<64x16xf32>
    }";
    let executable = compile_on(&client, program, 1);
    let cost = executable.cost_analysis().unwrap();
    assert_eq!(cost.flops, Some(f64::from(2 * 64 * 32 * 16)));
    assert!(cost.bytes_accessed.unwrap() >= f64::from(4 * (64 * 32 + 32 * 16 + 64 * 16)));
    let memory = executable.memory_stats().unwrap();
    assert_eq!((memory.arguments, memory.outputs), (4 * (64 * 32 + 32 * 16), 4 * 64 * 16));
    let optimized = executable.program().optimized().unwrap();
    assert_eq!(optimized.format, "hlo_with_config");
    assert!(!optimized.code.is_empty());
}

#[test]
fn everything_may_be_used_from_several_threads() {
    let client = local_client(2);
    let executable = compile_on(&client, DOUBLE, 2);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (client, executable) = (&client, &executable);
            scope.spawn(move || {
                for turn in 0..20 {
                    let value = (thread * 100 + turn) as f32;
                    let inputs = vec![HostTensor::from_f32(&[3], &[value; 3]); 2];
                    for result in run(client, executable, &inputs) {
                        assert_eq!(result.to_f32_vec().unwrap(), [2.0 * value; 3]);
                    }
                }
            });
        }
    });
}

#[test]
fn buffers_and_programs_keep_their_client_alive() {
    let client = local_client(1);
    let executable = compile_on(&client, DOUBLE, 1);
    let x = client.upload(&HostTensor::from_f32(&[3], &[1.0; 3]), 0).unwrap();
    drop(client);
    let results = executable.execute(vec![vec![Argument::Donate(x)]]).unwrap();
    drop(executable);
    assert_eq!(results[0][0].download().unwrap().to_f32_vec().unwrap(), [2.0; 3]);
}
