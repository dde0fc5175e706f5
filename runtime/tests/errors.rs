//! Wrong input: each is an error that says what is wrong, and the client works on.

mod common;

use std::fs;
use std::path::Path;

use common::{local_client, plugin};
use sft_runtime::{Argument, Client, ClientOptions, CompileOptions, Error, ErrorCode, OptionValue, Platform, Plugin};
use sft_tensor::{DType, HostTensor};

const ADD: &str = "func.func @main(%x: tensor<2xf32>, %y: tensor<2xf32>) -> tensor<2xf32> {
    %z = stablehlo.add %x, %y : tensor<2xf32>
    return %z : tensor<2xf32>
}";

#[track_caller]
fn assert_mentions(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_missing_plugin_names_the_path_and_the_remedy() {
    for platform in [Platform::Cpu, Platform::Auto] {
        let error = Plugin::discover(platform, Some(Path::new("/nowhere/plugin.so"))).unwrap_err();
        assert_mentions(&error, &["/nowhere/plugin.so", "make setup"]);
    }
    let error = Plugin::load(Path::new("/nowhere/plugin.so")).unwrap_err();
    assert_mentions(&error, &["/nowhere/plugin.so", "make setup"]);
}

#[test]
fn a_file_that_is_no_plugin_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "this is not a shared library").unwrap();
    let error = Plugin::discover(Platform::Cpu, Some(&text)).unwrap_err();
    assert_mentions(&error, &["text.so", "not a PJRT plugin", "make setup"]);
    let empty = folder.path().join("empty.so");
    fs::write(&empty, "").unwrap();
    assert_mentions(&Plugin::load(&empty).unwrap_err(), &["empty.so", "make setup"]);
    assert!(Plugin::load(folder.path()).is_err());
}

#[test]
fn a_library_that_is_no_plugin_is_named() {
    // Any library will do; this one is loaded in every process.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.split_whitespace().find(|part| part.contains("/libc.so")).unwrap();
    let error = Plugin::load(Path::new(libc)).unwrap_err();
    assert_mentions(&error, &["libc.so", "GetPjrtApi", "make setup"]);
}

#[test]
fn a_truncated_plugin_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.so");
    let bytes = fs::read(plugin().path()).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    assert_mentions(&Plugin::load(&cut).unwrap_err(), &["cut.so", "make setup"]);
}

#[test]
fn options_are_checked() {
    let plugin = plugin();
    let unknown = ClientOptions {
        plugin_options: vec![("cpu_devices".to_owned(), OptionValue::Int(2))],
        ..ClientOptions::default()
    };
    assert_mentions(&Client::new(&plugin, &unknown).unwrap_err(), &["cpu_devices", "cpu_device_count"]);
    let too_many = ClientOptions::cpu(5000);
    assert_mentions(&Client::new(&plugin, &too_many).unwrap_err(), &["5000", "cpu_device_count"]);
    let no_mpi = ClientOptions { process_count: Some(2), ..ClientOptions::cpu(1) };
    assert_mentions(&Client::new(&plugin, &no_mpi).unwrap_err(), &["MPI", "initialized"]);
    let outside = ClientOptions { process_index: Some(2), process_count: Some(2), ..ClientOptions::cpu(1) };
    assert_mentions(&Client::new(&plugin, &outside).unwrap_err(), &["no process 2 among 2"]);
}

#[test]
fn a_bad_program_is_refused_with_the_reason() {
    let client = local_client(1);
    let single = CompileOptions::single(0);
    let syntax = client.compile("func.func @main(", &single).unwrap_err();
    assert_mentions(&syntax, &["PJRT_Client_Compile"]);
    let types = "func.func @main(%x: tensor<2xf32>) -> tensor<3xf32> { return %x : tensor<2xf32> }";
    assert!(matches!(
        client.compile(types, &single).unwrap_err(),
        Error::Plugin { code: ErrorCode::InvalidArgument | ErrorCode::Internal | ErrorCode::Unknown, .. }
    ));
    assert!(client.compile("", &single).is_err());
    let no_main = "func.func @other(%x: tensor<2xf32>) -> tensor<2xf32> { return %x : tensor<2xf32> }";
    assert!(client.compile(no_main, &single).is_err());
    assert!(client.compile(ADD, &single).is_ok());
}

#[test]
fn a_bad_device_assignment_is_refused() {
    let client = local_client(2);
    assert_mentions(&client.compile(ADD, &CompileOptions::replicated(vec![0, 0])).unwrap_err(), &["device 0"]);
    assert_mentions(&client.compile(ADD, &CompileOptions::default()).unwrap_err(), &["0 replicas"]);
    assert!(client.compile(ADD, &CompileOptions::single(2)).is_err());
    assert!(client.compile(ADD, &CompileOptions::single(-1)).is_err());
    assert!(client.compile(ADD, &CompileOptions::single(2048)).is_err());
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let client = local_client(2);
    let executable = client.compile(ADD, &CompileOptions::replicated(vec![0, 1])).unwrap();
    let upload = |tensor: &HostTensor, device| client.upload(tensor, device).unwrap();
    let good =
        [upload(&HostTensor::from_f32(&[2], &[1.0, 2.0]), 0), upload(&HostTensor::from_f32(&[2], &[3.0, 4.0]), 1)];
    let run = |args: [Vec<&sft_runtime::Buffer>; 2]| {
        let args = args.into_iter().map(|list| list.into_iter().map(Argument::Borrow).collect()).collect();
        executable.execute(args)
    };
    let [a, b] = &good;

    assert_mentions(&executable.execute(vec![]).unwrap_err(), &["2 replicas", "for 0"]);
    assert_mentions(&run([vec![a, a], vec![b]]).unwrap_err(), &["got 2 arguments", "got 1"]);
    assert_mentions(&run([vec![a, b], vec![b, b]]).unwrap_err(), &["argument 1 of local replica 0", "local device 1"]);
    for (count, args) in [(1, [vec![a], vec![b]]), (3, [vec![a, a, a], vec![b, b, b]]), (0, [vec![], vec![]])] {
        assert_mentions(&run(args).unwrap_err(), &["takes 2 arguments", &format!("got {count}")]);
    }

    let ints = [upload(&HostTensor::from_i32(&[2], &[1, 2]), 0), upload(&HostTensor::from_i32(&[2], &[1, 2]), 1)];
    let error = run([vec![a, &ints[0]], vec![b, &ints[1]]]).unwrap_err();
    assert_mentions(&error, &["argument 1", "f32[2]", "s32[2]"]);
    assert_mentions(&run([vec![a, &ints[0]], vec![b, b]]).unwrap_err(), &["argument 1", "int32[2]", "float32[2]"]);

    let longer = [0, 1].map(|device| upload(&HostTensor::zeros(DType::F32, &[4]), device));
    let error = run([vec![a, &longer[0]], vec![b, &longer[1]]]).unwrap_err();
    assert_mentions(&error, &["argument 1", "f32[2]", "f32[4]"]);

    let donated = upload(&HostTensor::from_f32(&[2], &[1.0, 2.0]), 0);
    let mixed =
        vec![vec![Argument::Donate(donated), Argument::Borrow(a)], vec![Argument::Borrow(b), Argument::Borrow(b)]];
    assert_mentions(&executable.execute(mixed).unwrap_err(), &["argument 0", "donated"]);

    let stranger = local_client(2).upload(&HostTensor::from_f32(&[2], &[1.0, 2.0]), 0).unwrap();
    assert_mentions(&run([vec![&stranger, a], vec![b, b]]).unwrap_err(), &["another client"]);

    let results = run([vec![a, a], vec![b, b]]).unwrap();
    assert_eq!(results[1][0].download().unwrap().to_f32_vec().unwrap(), [6.0, 8.0]);
}

#[test]
fn a_device_that_does_not_exist_is_named() {
    let client = local_client(1);
    let error = client.upload(&HostTensor::from_f32(&[1], &[0.0]), 1).unwrap_err();
    assert_mentions(&error, &["local device 1", "has 1"]);
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    let client = local_client(1);
    let program = "func.func @main() -> tensor<70000x1000000xf32> {
        %x = stablehlo.iota dim = 0 : tensor<70000x1000000xf32>
        return %x : tensor<70000x1000000xf32>
    }";
    let executable = client.compile(program, &CompileOptions::single(0)).unwrap();
    assert_mentions(&executable.execute(vec![vec![]]).unwrap_err(), &["280000000000"]);
}
