use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};
use sft_model::config::ModelConfig;
use sft_model::layout::{params, Vocab};
use sft_model::mesh::Mesh;

use crate::data::{supervise_everything, write_model, Files};
use crate::matmul;

/// Steps before the clock starts: the first ones touch memory anew.
const WARM_UP: usize = 2;

struct Case {
    name: &'static str,
    hosts: usize,
    /// Rows a host: 32 in all where examples are real.
    rows: usize,
    pack: bool,
    /// Folder of the prepared data.
    prepared: &'static str,
}

const CASES: [Case; 5] = [
    Case { name: "packed_1x1", hosts: 1, rows: 32, pack: true, prepared: "real" },
    Case { name: "unpacked_1x1", hosts: 1, rows: 32, pack: false, prepared: "real" },
    Case { name: "packed_2x1", hosts: 2, rows: 16, pack: true, prepared: "real" },
    Case { name: "unpacked_2x1", hosts: 2, rows: 16, pack: false, prepared: "real" },
    Case { name: "all_supervised_1x1", hosts: 1, rows: 4, pack: false, prepared: "full" },
];

/// Runs the cases whose name holds `filter` and prints a JSON line each.
pub fn run(dir: &Path, steps: usize, filter: &str) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
    let files = Files::find(dir)?;
    let model = dir.join("model");
    write_model(&model, &files)?;
    let path = dir.join("config.yaml");
    let yaml = format!(
        "base_model: {}\nruntime: {{platform: cpu}}\njax: {{mesh_shape: auto, compute_dtype: float32}}\n\
         train: {{train_from_scratch: true, max_steps: {}, eval_steps: 0, save_steps: 0, logging_steps: 0}}\n\
         wandb: {{mode: disabled}}\n",
        model.display(),
        steps + WARM_UP
    );
    std::fs::write(&path, yaml).with_context(|| format!("{}: cannot be written", path.display()))?;
    let mut common = files.settings.clone();
    common.push(format!("data.prepared_dir={}", dir.join("real").display()));
    execute(Command::new(program("sft-prep")?).args(arguments(&path, &common)))?;
    supervise_everything(&dir.join("real"), &dir.join("full"))?;

    let config = ModelConfig::read(&model)?;
    let weights = params(&config, Vocab::padded(config.vocab_size, &Mesh::SINGLE));
    let head = weights.iter().find(|p| p.name == "lm_head.weight").map_or(0, |p| p.elements());
    let body: usize = weights.iter().filter(|p| p.is_stacked() && p.is_matrix()).map(|p| p.elements()).sum();
    let peak = matmul::flops_per_s()?;
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        let out = dir.join(case.name);
        let mut settings = files.settings.clone();
        settings.push(format!("data.prepared_dir={}", dir.join(case.prepared).display()));
        settings.push(format!("output_dir={}", out.display()));
        settings.push(format!("train.per_device_train_batch_size={}", case.rows));
        settings.push(format!("train.pack={}", case.pack));
        let mut command = Command::new(program("sft-launch")?);
        command.args(["--local", "--no-prep", "--run-mode", "train", "--hosts", &case.hosts.to_string()]);
        execute(command.args(arguments(&path, &settings)))?;
        let measured = Measured::read(&out)?;
        // of tokens alone, not of padding; attention's own products are left out
        let flop = 6.0 * (body as f64 * measured.tokens + head as f64 * measured.supervised);
        let line = json!({
            "bench": "train",
            "case": case.name,
            "data": files.name,
            "examples_per_s": measured.examples / measured.seconds,
            "supervised_tokens_per_s": measured.supervised / measured.seconds,
            "tokens_per_s": measured.tokens / measured.seconds,
            "pad_fraction": measured.pad_fraction,
            "matmul_fraction": flop / measured.seconds / peak,
            "matmul_gflops": peak / 1e9,
            "compile_s": measured.compile_s,
            "peak_rss_mb": measured.peak_rss_mb,
        });
        println!("{line}");
    }
    Ok(())
}

/// Sums over the steps after the warm-up.
struct Measured {
    examples: f64,
    supervised: f64,
    tokens: f64,
    seconds: f64,
    pad_fraction: f64,
    compile_s: f64,
    peak_rss_mb: f64,
}

impl Measured {
    fn read(out: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = out.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))
        };
        let number = |value: &Value, key: &str| value[key].as_f64().with_context(|| format!("no number {key:?}"));
        let steps: Vec<Value> =
            read("metrics.jsonl")?.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
        let timed = steps.get(WARM_UP..).filter(|s| !s.is_empty()).context("too few steps")?;
        let sum = |key: &str| timed.iter().map(|step| number(step, key)).sum::<Result<f64>>();
        let summary: Value = serde_json::from_str(&read("run_summary.json")?)?;
        let seconds = sum("step_s")? + sum("data_wait_s")?;
        let tokens =
            timed.iter().map(|s| Ok(number(s, "tokens_per_s")? * (number(s, "step_s")? + number(s, "data_wait_s")?)));
        Ok(Self {
            examples: sum("examples")?,
            supervised: sum("supervised_tokens")?,
            tokens: tokens.sum::<Result<f64>>()?,
            seconds,
            pad_fraction: sum("pad_fraction")? / timed.len() as f64,
            compile_s: number(&summary["timings"], "train_compile_s")?,
            peak_rss_mb: number(&summary, "peak_rss_mb")?,
        })
    }
}

fn arguments(config: &Path, settings: &[String]) -> Vec<String> {
    let changes = settings.iter().flat_map(|s| ["--set".to_owned(), s.clone()]);
    ["--config".to_owned(), config.display().to_string()].into_iter().chain(changes).collect()
}

/// A program that was built beside this one.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => bail!("{}: build first, with `make build`", path.display()),
    }
}

/// Runs a program; what it prints is shown only if it fails.
fn execute(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        bail!("{command:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr));
    }
    Ok(())
}
