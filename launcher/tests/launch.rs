//! The launcher over a host that is a shell script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

struct Workspace(tempfile::TempDir);

impl Workspace {
    fn new(host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.yaml"), "seed: 1\n").unwrap();
        let workspace = Self(dir);
        workspace.script("host", host);
        workspace.script("prep", "echo prepared \"$@\"");
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sft-launch"));
        let option = |name: &str, path: &Path| [name.to_owned(), path.display().to_string()];
        command
            .args(option("--config", &self.path("config.yaml")))
            .args(option("--host-binary", &self.path("host")))
            .args(option("--prep-binary", &self.path("prep")))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn hosts_run_after_preparing_and_their_lines_are_told_apart() {
    let workspace = Workspace::new("echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE: $@; echo warning >&2");
    let output = workspace.run(&["--local", "--hosts", "2", "--devices-per-host", "3", "--set", "seed=7"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.starts_with("prepared --config"), "{out}");
    for rank in 0..2 {
        assert!(out.contains(&format!("[host {rank}] rank {rank} of 2: --config")), "{out}");
        assert!(err.contains(&format!("[host {rank}] warning")), "{err}");
    }
    assert!(out.contains("--run-mode train_eval --devices-per-host 3 --set seed=7"), "{out}");
}

#[test]
fn a_failing_host_ends_all_and_its_code_is_passed_on() {
    let workspace = Workspace::new(
        "if [ $OMPI_COMM_WORLD_RANK = 1 ]; then echo 'error: no such shard' >&2; exit 7; fi; exec sleep 60",
    );
    let started = Instant::now();
    let output = workspace.run(&["--local", "--hosts", "2", "--no-prep"]);
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(7));
    let err = text(&output.stderr);
    assert!(err.contains("the run failed with exit code 7; host 1: no such shard"), "{err}");
    assert!(!err.contains("mpirun detected"), "{err}");
}

#[test]
fn a_signal_ends_the_hosts() {
    let workspace = Workspace::new("echo started; exec sleep 60");
    let mut child = workspace.command(&["--local", "--no-prep"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let started = Instant::now();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
}

#[test]
fn wrong_arguments_are_told_before_anything_starts() {
    let workspace = Workspace::new("echo started");
    let refused = |arguments: &[&str], reason: &str| {
        let output = workspace.run(arguments);
        let err = text(&output.stderr);
        assert!(!output.status.success() && err.contains(reason), "{arguments:?}: {err}");
        assert!(!text(&output.stdout).contains("started"));
    };
    refused(&["--local", "--hosts", "0"], "at least 1");
    refused(&["--local", "--set", "train.max_step=1"], "did you mean \"train.max_steps\"?");
    refused(&["--hostfile", "/nowhere"], "/nowhere: there is no such file");
    refused(&[], "--local");
    refused(&["--local", "--run-mode", "test"], "train_eval");
    workspace.script("prep", "echo 'error: broken row' >&2; exit 3");
    let output = workspace.run(&["--local"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), String::new()));
    let output = workspace.command(&["--local", "--no-prep"]).env("PATH", "/nowhere").output().unwrap();
    assert!(text(&output.stderr).contains("make setup"));
}

#[test]
fn a_dry_run_prints_the_commands() {
    let workspace = Workspace::new("echo started");
    let output = workspace.run(&["--local", "--hosts", "4", "--dry-run"]);
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].contains("prep --config") && lines[1].starts_with("mpirun -n 4 --oversubscribe"), "{out}");
}
