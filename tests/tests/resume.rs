//! Checkpoints: a run that is killed and started again ends as if nothing had happened.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;
use sft_tests::{host, host_command, repository, Workspace};

fn summary(out: &Path) -> Value {
    let text = std::fs::read_to_string(out.join("run_summary.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn losses(out: &Path) -> Vec<f64> {
    serde_json::from_value(summary(out)["losses"].clone()).unwrap()
}

/// Settings of a run of `steps` steps into `out`, with the data of the workspace.
fn settings(workspace: &Workspace, out: &str, steps: usize) -> Vec<String> {
    [
        format!("output_dir={}", workspace.path(out).display()),
        format!("data.prepared_dir={}", workspace.path("out/prepared").display()),
        format!("train.max_steps={steps}"),
        "eval.enabled=false".to_owned(),
    ]
    .to_vec()
}

fn arguments(workspace: &Workspace, settings: &[String], more: &[&str]) -> Vec<String> {
    let all: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
    workspace.arguments(&all)
}

/// Starts `hosts` processes and kills one of them as soon as `step` is printed.
fn kill_after(step: usize, hosts: usize, arguments: &[String]) {
    let mut child = host_command(hosts, arguments)
        .current_dir(repository())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    for line in stdout.lines() {
        if line.unwrap().contains(&format!("[sft] step={step}/")) {
            let victim = if hosts == 1 { child.id() as i32 } else { last_child_of(child.id()) };
            kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
            break;
        }
    }
    assert!(!child.wait().unwrap().success(), "the run ended before it was killed");
}

fn last_child_of(parent: u32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_killed_run_goes_on_bit_by_bit() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    for hosts in [1, 2] {
        let saving = ["train.save_steps=5", "train.resume_from_checkpoint=auto", "train.eval_steps=20"];
        let name = |what: &str| format!("{what}{hosts}");
        let whole = settings(&workspace, &name("whole"), 60);
        host(hosts, &arguments(&workspace, &whole, &saving)).success();
        let killed = settings(&workspace, &name("killed"), 60);
        kill_after(7, hosts, &arguments(&workspace, &killed, &saving));
        let out = workspace.path(&name("killed"));
        assert!(!out.join("run_summary.json").exists());
        let ran = host(hosts, &arguments(&workspace, &killed, &saving)).success();
        assert!(ran.stdout.contains("[sft] resumed after step "), "{}", ran.stdout);
        let expected = workspace.path(&name("whole"));
        for file in ["sft_state_last.msgpack", "final_checkpoint/model.safetensors"] {
            assert_eq!(std::fs::read(out.join(file)).unwrap(), std::fs::read(expected.join(file)).unwrap(), "{file}");
        }
        assert_eq!(losses(&out), losses(&expected));
        assert_eq!(summary(&out)["validation_losses"], summary(&expected)["validation_losses"]);
        let steps = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        assert_eq!(steps.lines().filter(|l| l.contains("grad_norm")).count(), 60);
    }
}

#[test]
fn another_mesh_goes_on_to_rounding() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let devices = |settings: Vec<String>, count: &str, more: &[&str]| {
        let mut all = arguments(&workspace, &settings, more);
        all.extend(["--devices-per-host".to_owned(), count.to_owned()]);
        all
    };
    let saving = ["train.save_steps=4", "train.save_total_limit=0"];
    host(2, &devices(settings(&workspace, "a", 8), "2", &saving)).success();
    let state = workspace.path("a/sft_state_step4.msgpack");
    let from = format!("train.resume_from_checkpoint={}", state.display());
    host(1, &devices(settings(&workspace, "b", 8), "4", &[&from])).success();
    for (a, b) in losses(&workspace.path("a")).iter().zip(losses(&workspace.path("b"))) {
        assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
    }
    assert_eq!(losses(&workspace.path("b")).len(), 8);

    // a checkpoint that is damaged, and one of another run
    let other = "train.learning_rate=0.5";
    host(2, &arguments(&workspace, &settings(&workspace, "c", 8), &[&from, other]))
        .failure(&["another run", "step4.json"]);
    let moments = workspace.path("a/sft_state_step4.nu.msgpack");
    let mut bytes = std::fs::read(&moments).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&moments, bytes).unwrap();
    let same = ["train.per_device_train_batch_size=4", from.as_str()];
    host(2, &arguments(&workspace, &settings(&workspace, "d", 8), &same)).failure(&["step4.nu.msgpack", "damaged"]);
}

#[test]
fn training_stops_when_the_validation_loss_rises() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let settings = settings(&workspace, "a", 40);
    let more = [
        "train.eval_steps=2",
        "train.early_stopping_patience=2",
        "train.learning_rate=0.05",
        "train.lr_schedule=constant",
        "train.per_device_eval_batch_size=16",
    ];
    let ran = host(1, &arguments(&workspace, &settings, &more)).success();
    assert!(ran.stdout.contains("stopped early after step"), "{}", ran.stdout);
    assert!(ran.stdout.contains("the result is the state after step"), "{}", ran.stdout);
    let summary = summary(&workspace.path("a"));
    let validations: Vec<(usize, f64)> = serde_json::from_value(summary["validation_losses"].clone()).unwrap();
    let best = validations.iter().map(|v| v.1).fold(f64::MAX, f64::min);
    assert!(validations.len() >= 3 && validations[validations.len() - 3].1 == best, "{validations:?}");
    let read = |name: &str| std::fs::read(workspace.path("a").join(name)).unwrap();
    // the files differ in the step that they name, the last bytes
    let (best, last) = (read("sft_state_best.msgpack"), read("sft_state_last.msgpack"));
    assert!(best[..best.len() - 6] == last[..best.len() - 6]);
}
