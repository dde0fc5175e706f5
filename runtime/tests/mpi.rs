//! Collectives between processes: the tests start themselves under `mpirun`.
//!
//! The processes run the tests marked as ignored here, and write what they have computed to a folder that the test
//! which started them reads.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use common::{collectives, local_client, noise, plugin};
use mpi::environment::Universe;
use mpi::topology::Communicator;
use mpi::Threading;
use sft_runtime::{Argument, Buffer, Client, ClientOptions, CompileOptions, Executable};
use sft_tensor::HostTensor;

const FOLDER: &str = "SFT_TEST_FOLDER";
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the ignored test `worker` of this file in `processes` processes that have `devices` devices each.
fn mpirun(processes: usize, devices: usize, worker: &str, folder: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none", "-n", &processes.to_string()]);
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root {
        command.arg("--allow-run-as-root");
    }
    command.arg(env::current_exe().unwrap()).args(["--exact", worker, "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).env("SFT_TEST_DEVICES", devices.to_string()).envs(variables.iter().copied());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start mpirun ({error}); run `make setup`"));
    // The output is small, so that the pipes cannot fill up before the end.
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{worker} hangs: {}", String::from_utf8_lossy(&output.stderr));
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

#[track_caller]
fn assert_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}

fn result_file(folder: &Path, name: &str, replica: usize) -> PathBuf {
    folder.join(format!("{name}.{replica}"))
}

fn execute(client: &Client, executable: &Executable, inputs: &[HostTensor]) -> Vec<Vec<Buffer>> {
    let buffers: Vec<Buffer> =
        inputs.iter().enumerate().map(|(device, tensor)| client.upload(tensor, device).unwrap()).collect();
    executable.execute(buffers.into_iter().map(|buffer| vec![Argument::Donate(buffer)]).collect()).unwrap()
}

/// What a worker finds out first. MPI outlives the client: fields are dropped in order.
struct Worker {
    client: Client,
    rank: usize,
    devices: usize,
    folder: PathBuf,
    universe: Universe,
}

fn worker() -> Worker {
    let folder = env::var_os(FOLDER).expect("run by the other tests, under mpirun").into();
    let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple).unwrap();
    assert_eq!(threading, Threading::Multiple);
    let rank = universe.world().rank() as usize;
    let devices = env::var("SFT_TEST_DEVICES").unwrap().parse().unwrap();
    let client = Client::new(&plugin(), &ClientOptions::cpu(devices)).unwrap();
    Worker { client, rank, devices, folder, universe }
}

/// The devices of all processes, process by process.
fn global_ids(processes: usize, devices: usize) -> Vec<i64> {
    (0..processes as i64).flat_map(|process| (0..devices as i64).map(move |local| process * 2048 + local)).collect()
}

#[test]
#[ignore = "run under mpirun by the tests below"]
fn collectives_worker() {
    let Worker { client, rank, devices, folder, universe } = &worker();
    let processes = universe.world().size() as usize;
    assert_eq!(client.process_index(), *rank);
    assert_eq!(client.local_devices()[0].id, *rank as i64 * 2048);
    for collective in collectives() {
        let options = CompileOptions::replicated(global_ids(processes, *devices));
        let executable = client.compile(&collective.program, &options).unwrap();
        let first = rank * devices;
        let inputs: Vec<HostTensor> =
            (first..first + devices).map(|replica| noise(&[collective.len], replica)).collect();
        for turn in 0..3 {
            for (device, list) in execute(client, &executable, &inputs).iter().enumerate() {
                let bytes = list[0].download().unwrap().into_bytes();
                let file = result_file(folder, collective.name, first + device);
                if turn == 0 {
                    fs::write(file, bytes).unwrap();
                } else {
                    assert_eq!(fs::read(file).unwrap(), bytes, "{}, turn {turn}", collective.name);
                }
            }
        }
    }
    let moved = client.plugin().collective_bytes().unwrap();
    let of = |name: &str| moved.iter().find(|kind| kind.collective == name).unwrap();
    assert!(of("all_gather").between_processes > 0 && of("all_reduce").between_processes > 0);
    assert_eq!(of("all_gather").within_process > 0, *devices > 1);
}

#[test]
fn processes_compute_what_one_process_computes() {
    let client = local_client(4);
    let expected: Vec<Vec<HostTensor>> = collectives()
        .iter()
        .map(|collective| {
            let executable =
                client.compile(&collective.program, &CompileOptions::replicated(vec![0, 1, 2, 3])).unwrap();
            let inputs: Vec<HostTensor> = (0..4).map(|replica| noise(&[collective.len], replica)).collect();
            let results = execute(&client, &executable, &inputs);
            results.iter().map(|list| list[0].download().unwrap()).collect()
        })
        .collect();
    for (processes, devices) in [(2, 2), (4, 1)] {
        let folder = tempfile::tempdir().unwrap();
        assert_success(&mpirun(processes, devices, "collectives_worker", folder.path(), &[]));
        for (collective, expected) in collectives().iter().zip(&expected) {
            for (replica, tensor) in expected.iter().enumerate() {
                let bytes = fs::read(result_file(folder.path(), collective.name, replica)).unwrap();
                assert!(bytes == tensor.bytes(), "{} on {processes}x{devices}, replica {replica}", collective.name);
            }
        }
    }
}

#[test]
#[ignore = "run under mpirun by the tests below"]
fn missing_partner_worker() {
    let Worker { client, rank, devices, folder, universe } = worker();
    let collective = collectives().into_iter().find(|c| c.name == "all_reduce").unwrap();
    let executable = client.compile(&collective.program, &CompileOptions::replicated(global_ids(2, devices))).unwrap();
    if rank == 0 {
        let buffers: Vec<Buffer> =
            (0..devices).map(|device| client.upload(&noise(&[collective.len], device), device).unwrap()).collect();
        let error =
            executable.execute(buffers.iter().map(|buffer| vec![Argument::Borrow(buffer)]).collect()).unwrap_err();
        fs::write(folder.join("error"), error.to_string()).unwrap();
    } else {
        while !folder.join("error").exists() {
            thread::sleep(Duration::from_millis(20));
        }
    }
    drop((executable, client, universe));
}

#[test]
fn a_collective_that_the_others_do_not_join_fails_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("SFT_COLLECTIVE_TIMEOUT_SECONDS", "2")];
    assert_success(&mpirun(2, 2, "missing_partner_worker", folder.path(), &variables));
    let error = fs::read_to_string(folder.path().join("error")).unwrap();
    assert!(error.contains("all_reduce of 7 f32 between 4 devices: waited 2 s"), "{error}");
}

#[test]
#[ignore = "run under mpirun by the tests below"]
fn process_count_worker() {
    let Worker { client, rank, devices, folder, universe } = worker();
    drop(client);
    let create = |options: ClientOptions| Client::new(&plugin(), &options);
    let wrong = ClientOptions { process_index: Some(5), ..ClientOptions::cpu(devices) };
    let text = create(wrong).unwrap_err().to_string();
    assert!(text.contains("process_id is 5") && text.contains(&format!("rank {rank}")), "{text}");
    let alone = create(ClientOptions { process_count: Some(1), ..ClientOptions::cpu(2) }).unwrap();
    assert_eq!((alone.process_index(), alone.local_devices()[0].id), (0, 0));
    let one = "func.func @main() -> tensor<f32> {
        %x = stablehlo.constant dense<1.0> : tensor<f32>
        return %x : tensor<f32>
    }";
    let executable = alone.compile(one, &CompileOptions::replicated(global_ids(1, 2))).unwrap();
    assert_eq!(executable.execute(vec![vec![], vec![]]).unwrap().len(), 2);
    drop(executable);
    fs::write(folder.join(rank.to_string()), "").unwrap();
    drop((alone, universe));
}

#[test]
fn the_number_of_processes_can_be_given() {
    let folder = tempfile::tempdir().unwrap();
    assert_success(&mpirun(2, 1, "process_count_worker", folder.path(), &[]));
    assert!(folder.path().join("0").exists() && folder.path().join("1").exists());
}
