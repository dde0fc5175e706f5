//! Input that is wrong: one clear error, a failing exit code on every rank, nothing half-written.

use std::fs;
use std::path::Path;
use std::process::Command;

use sft_tests::{host, program, run, shared, Ran, Workspace};

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(text)).unwrap();
}

fn prep(workspace: &Workspace, settings: &[&str]) -> Ran {
    run(Command::new(program("sft-prep")).args(workspace.arguments(settings)))
}

/// Two hosts fail together, before they write anything.
#[track_caller]
fn hosts_refuse(workspace: &Workspace, settings: &[&str], parts: &[&str]) {
    let mut arguments = workspace.arguments(settings);
    arguments.extend(["--devices-per-host", "2"].map(str::to_owned));
    host(2, &arguments).failure(parts);
    let left: Vec<_> = fs::read_dir(workspace.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["prepared"]);
}

#[test]
fn a_missing_file() {
    let workspace = Workspace::new();
    prep(&workspace, &["data.train_file=/nowhere/train.csv"]).failure(&["/nowhere/train.csv", "No such file"]);
    assert!(!workspace.path("out").exists());
    // hosts that find no prepared data say how to make them
    let arguments = workspace.arguments(&[]);
    host(2, &arguments).failure(&["manifest.json", "sft-prep"]);
    let mut arguments = arguments;
    arguments[1] = "/nowhere/config.yaml".into();
    host(2, &arguments).failure(&["/nowhere/config.yaml"]);
}

#[test]
fn a_row_with_a_broken_list() {
    let workspace = Workspace::new();
    edit(&workspace.path("data/train/Sample.csv"), |text| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[4] = lines[4].replace(">']", ">'");
        lines.join("\n") + "\n"
    });
    prep(&workspace, &[]).failure(&["train/Sample.csv, line 5", "history_item_sid", "']'"]);
    assert!(!workspace.path("out/prepared").exists());
}

#[test]
fn an_index_token_outside_the_tokenizer() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let extended = format!("tokenizer={}", workspace.path("out/prepared/tokenizer").display());
    edit(&workspace.path("data/index/Sample.index.json"), |text| text.replacen("<c_", "<c_9", 1));
    let other = format!("output_dir={}", workspace.path("other").display());
    prep(&workspace, &[&extended, &other]).failure(&["Sample.index.json", "item \"0\"", "<c_9", "another index"]);
}

#[test]
fn a_missing_or_misshapen_tensor() {
    let Some(model) = shared("golden/models/tiny-qwen2-tied") else { return };
    let workspace = Workspace::new();
    let copy = workspace.path("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&model).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    // the sample's own tokenizer: the golden's knows the SIDs of another index
    let base = format!("base_model={}", copy.display());
    let tokenizer = format!("tokenizer={}", workspace.path("data/model").display());
    let settings = [base.as_str(), &tokenizer, "train.train_from_scratch=false"];
    workspace.prepare(&settings);
    let weights = copy.join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    let name = b"model.layers.3.mlp.down_proj.weight";
    let mut bad = good.clone();
    let at = bad.windows(name.len()).position(|w| w == name).unwrap();
    bad[at + 6..at + 12].copy_from_slice(b"LAYERS");
    fs::write(&weights, &bad).unwrap();
    hosts_refuse(&workspace, &settings, &["model.layers.3.mlp.down_proj.weight", "missing"]);
    fs::write(&weights, &good[..good.len() - 100]).unwrap();
    hosts_refuse(&workspace, &settings, &["model.safetensors", "not a complete safetensors file"]);
    fs::write(&weights, &good).unwrap();
    edit(&copy.join("config.json"), |text| text.replace("\"intermediate_size\": 176", "\"intermediate_size\": 192"));
    hosts_refuse(&workspace, &settings, &["gate_proj.weight", "[176, 64]", "[192, 64]"]);
}

#[test]
fn a_shard_with_a_flipped_byte() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let path = workspace.path("out/prepared/train.shard");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    hosts_refuse(&workspace, &[], &["train.shard", "damaged", "sft-prep --force"]);
}

#[test]
fn data_of_another_tokenizer() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    edit(&workspace.path("data/model/tokenizer.json"), |text| text + "\n");
    hosts_refuse(&workspace, &[], &["manifest.json", "another tokenizer", "sft-prep"]);
}

#[test]
fn a_mesh_that_does_not_fit_the_devices() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    hosts_refuse(&workspace, &["jax.mesh_shape=1,3,1"], &["jax.mesh_shape \"1,3,1\"", "4 devices"]);
    hosts_refuse(&workspace, &["jax.mesh_shape=two"], &["not a mesh shape", "dp,fsdp,tp"]);
}

#[test]
fn a_plugin_that_is_none() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    let text = workspace.path("data/model/config.json");
    let plugin = format!("runtime.plugin={}", text.display());
    hosts_refuse(&workspace, &[&plugin], &["config.json"]);
    hosts_refuse(&workspace, &["runtime.plugin=/nowhere/plugin.so"], &["/nowhere/plugin.so"]);
}

#[test]
fn a_prompt_longer_than_the_largest_bucket() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    hosts_refuse(
        &workspace,
        &["eval.length_buckets=[32, 48]"],
        &["eval.length_buckets (48)", "add a bucket of at least"],
    );
    hosts_refuse(&workspace, &["eval.num_beams=500"], &["eval.num_beams is 500", "239"]);
}

#[test]
fn hosts_that_are_told_different_things() {
    let workspace = Workspace::new();
    workspace.prepare(&[]);
    // the second host sees another seed through the environment
    edit(&workspace.path("config.yaml"), |text| text + "seed: ${OMPI_COMM_WORLD_RANK}\n");
    workspace.prepare(&["seed=0"]);
    host(2, &workspace.arguments(&[])).failure(&["the configuration differs between hosts", "rank 1"]);
}

#[test]
fn an_unknown_setting() {
    let workspace = Workspace::new();
    host(2, &workspace.arguments(&["train.max_step=1"]))
        .failure(&["train.max_step", "did you mean \"train.max_steps\"?"]);
}
