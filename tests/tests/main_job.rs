//! The main job on a small sample: prepare, launch, train, evaluate.

use std::process::Command;

use serde_json::Value;
use sft_tests::{host, program, run, Workspace};

fn json(path: std::path::PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

#[test]
fn the_launcher_does_what_mpirun_does_by_hand() {
    let workspace = Workspace::new();
    let launch = |out: &str| {
        let setting = format!("output_dir={}", workspace.path(out).display());
        let prepared = format!("data.prepared_dir={}", workspace.path("prepared").display());
        let mut command = Command::new(program("sft-launch"));
        command.args(["--local", "--hosts", "2"]).args(workspace.arguments(&[&setting, &prepared]));
        (command, workspace.arguments(&[&setting, &prepared]))
    };
    let ran = run(&mut launch("a").0).success();
    for line in ["[host 0] [sft] step=3/3 loss=", "effective_bs=4", "[host 0] summary_json=", "prepared: "] {
        assert!(ran.stdout.contains(line), "{line:?} is not in {}", ran.stdout);
    }
    host(2, &launch("b").1).success();
    let losses = |out: &str| json(workspace.path(out).join("run_summary.json"))["losses"].clone();
    assert_eq!(losses("a"), losses("b"));
    let read = |out: &str, name: &str| std::fs::read(workspace.path(out).join(name)).unwrap();
    for name in ["eval_predictions.json", "eval_predictions.metrics.json", "sft_state_last.msgpack"] {
        assert_eq!(read("a", name), read("b", name), "{name}");
    }
    assert_eq!(read("a", "final_checkpoint/model.safetensors"), read("b", "final_checkpoint/model.safetensors"));

    let out = workspace.path("a");
    let summary = json(out.join("run_summary.json"));
    assert_eq!((&summary["train"]["steps"], &summary["train"]["effective_batch_size"]), (&3.into(), &4.into()));
    assert_eq!(summary["eval"], json(out.join("eval_predictions.metrics.json")));
    assert_eq!(summary["eval"]["invalid_prediction_count"], 0);
    assert_eq!(summary["token_extension"]["added_tokens"].as_array().unwrap().len(), 31);
    for row in json(out.join("eval_predictions.json")).as_array().unwrap() {
        let mut predicted: Vec<&str> = row["predict"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        predicted.sort_unstable();
        predicted.dedup();
        assert_eq!(predicted.len(), 5, "distinct predictions");
    }
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        assert!(out.join("final_checkpoint").join(name).is_file(), "{name}");
    }
}

#[test]
fn a_state_and_an_export_evaluate_like_the_run_that_wrote_them() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    host(1, &workspace.arguments(&[])).success();
    let predictions = |out: &str| std::fs::read(workspace.path(out).join("eval_predictions.json")).unwrap();
    let prepared = format!("data.prepared_dir={}", workspace.path("out/prepared").display());
    for (checkpoint, out) in [("sft_state_last.msgpack", "state"), ("final_checkpoint", "export")] {
        let from = format!("train.resume_from_checkpoint={}", workspace.path("out").join(checkpoint).display());
        let to = format!("output_dir={}", workspace.path(out).display());
        let mut arguments = workspace.arguments(&[&from, &to, &prepared]);
        arguments.extend(["--run-mode", "eval", "--devices-per-host", "2"].map(str::to_owned));
        host(2, &arguments).success();
        assert_eq!(predictions(out), predictions("out"), "{checkpoint}");
        let summary = json(workspace.path(out).join("run_summary.json"));
        assert_eq!(summary["train"], Value::Null);
    }
}

#[test]
fn packing_and_micro_batches_do_not_change_the_losses() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let losses = |name: &str, settings: &[&str]| -> Vec<f64> {
        let out = format!("output_dir={}", workspace.path(name).display());
        let prepared = format!("data.prepared_dir={}", workspace.path("out/prepared").display());
        let mut all = vec![out.as_str(), prepared.as_str(), "eval.enabled=false"];
        all.extend(settings);
        host(1, &workspace.arguments(&all)).success();
        let summary = json(workspace.path(name).join("run_summary.json"));
        serde_json::from_value(summary["losses"].clone()).unwrap()
    };
    let reference = losses("a", &["train.pack=false", "train.per_device_train_batch_size=8"]);
    for settings in [
        ["train.pack=true", "train.per_device_train_batch_size=8", "train.gradient_accumulation_steps=1"],
        ["train.pack=true", "train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=4"],
        ["train.pack=false", "train.per_device_train_batch_size=4", "train.gradient_accumulation_steps=2"],
    ] {
        for (a, b) in reference.iter().zip(losses("b", &settings)) {
            assert!((a - b).abs() < 1e-5 * a, "{settings:?}: {a} {b}");
        }
    }
}

#[test]
fn lion_bf16_moments_and_the_plugins_semantics_run() {
    let workspace = Workspace::new();
    for (name, settings) in [
        ("lion", vec!["train.optimizer=lion", "train.learning_rate=1e-4"]),
        ("bf16", vec!["train.moments_dtype=bfloat16", "jax.compute_dtype=bfloat16"]),
        ("plugin", vec!["train.semantics=jax_plugin", "train.gradient_accumulation_steps=2"]),
    ] {
        let out = format!("output_dir={}", workspace.path(name).display());
        let mut all = vec![out.as_str()];
        all.extend(settings);
        workspace.prepare(&all);
        host(1, &workspace.arguments(&all)).success();
        let summary = json(workspace.path(name).join("run_summary.json"));
        let losses: Vec<f64> = serde_json::from_value(summary["losses"].clone()).unwrap();
        assert!(losses[2] < losses[0], "{name}: {losses:?}");
    }
}

#[test]
fn help_and_settings_are_printed() {
    let workspace = Workspace::new();
    for name in ["sft-host", "sft-prep", "sft-launch"] {
        let help = run(Command::new(program(name)).arg("--help")).success();
        assert!(help.stdout.contains("Examples:") && help.stdout.contains("--config"), "{}", help.stdout);
        let local: &[&str] = if name == "sft-launch" { &["--local"] } else { &[] };
        let mut command = Command::new(program(name));
        command.args(workspace.arguments(&["seed=7"])).arg("--print-config").args(local);
        assert!(run(&mut command).success().stdout.contains("\nseed: 7\n"));
    }
}
