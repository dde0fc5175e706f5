//! `sft-host`: one process of a run. Under `mpirun` all of them join one mesh; alone it is the whole run.

mod batching;
mod checkpoint;
mod devices;
mod evaluate;
mod log;
mod model;
mod results;
mod schedule;
mod train;
mod validate;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use sft_data::prepare::expected_origin;
use sft_data::prepared::Prepared;
use sft_settings::Config;

use checkpoint::Snapshot;
use devices::Devices;
use evaluate::Evaluation;
use model::{load_parameters, Model, Shards, Start};
use results::{write_predictions, write_summary, Artefacts, Run};
use train::Trainer;
use world::{Reported, World};

const EXAMPLES: &str = "\
Examples:
  sft-host --config configs/quickstart.yaml                       one host with one device
  mpirun -n 2 sft-host --config configs/quickstart.yaml           two hosts with a device each
  mpirun -n 2 sft-host --config C --devices-per-host 2            a mesh of 2 × 2
  sft-host --config C --run-mode eval --set train.resume_from_checkpoint=runs/x/sft_state_last.msgpack

The data must have been prepared: sft-prep --config C. `sft-launch` does that and starts all hosts.";

/// Trains and evaluates on the devices of all hosts.
#[derive(Parser)]
#[command(name = "sft-host", version, after_help = EXAMPLES)]
struct Cli {
    /// Settings (YAML).
    #[arg(long)]
    config: PathBuf,
    /// What to do.
    #[arg(long, value_enum, default_value = "train_eval")]
    run_mode: RunMode,
    /// Change a setting: a.b=value. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Devices of each host; overrides runtime.devices_per_host.
    #[arg(long, value_name = "D")]
    devices_per_host: Option<usize>,
    /// Print the settings as they are understood, and stop.
    #[arg(long)]
    print_config: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum RunMode {
    /// Train, write checkpoints.
    Train,
    /// Evaluate the base model, or train.resume_from_checkpoint.
    Eval,
    /// Train, then evaluate.
    TrainEval,
}

fn main() -> ExitCode {
    if let Err(error) = prepare_environment() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // all ranks read the same arguments: one answer is enough
            if launched_rank() == 0 {
                let _ = error.print();
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    if cli.print_config {
        return print_config(&cli);
    }
    let (universe, world) = match World::join() {
        Ok(joined) => joined,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let code = match run(&cli, &world) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Reported>() => ExitCode::FAILURE,
        Err(error) => world.abort(&error),
    };
    drop(universe);
    code
}

/// What must be set before the first thread and the first library call.
fn prepare_environment() -> Result<()> {
    sft_settings::load_dotenv([".env", "/root/.env"]).context(".env cannot be read")?;
    let default = |name: &str, value: String| {
        if std::env::var_os(name).is_none() {
            std::env::set_var(name, value);
        }
    };
    // threads of XLA's CPU backend: the cores, shared by the processes of this machine
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processes = std::env::var("OMPI_COMM_WORLD_LOCAL_SIZE").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    default("NPROC", (cores / processes).max(1).to_string());
    default("TF_ENABLE_ONEDNN_OPTS", "0".into());
    default("TF_CPP_MIN_LOG_LEVEL", "2".into());
    Ok(())
}

fn launched_rank() -> usize {
    std::env::var("OMPI_COMM_WORLD_RANK").ok().and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn load_config(cli: &Cli) -> Result<Config> {
    let mut overrides = cli.overrides.clone();
    overrides.extend(cli.devices_per_host.map(|d| format!("runtime.devices_per_host={d}")));
    Ok(Config::load(&cli.config, &overrides)?)
}

fn print_config(cli: &Cli) -> ExitCode {
    match load_config(cli) {
        Ok(config) => {
            print!("{}", config.to_yaml());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, world: &World) -> Result<()> {
    let config = world.agree(load_config(cli))?;
    world.same("the configuration", &config.to_json().to_string())?;
    let prepared = world.agree(open_data(&config))?;
    world.same("the prepared data", &serde_json::to_string(prepared.manifest())?)?;
    let devices = Devices::open(&config, world)?;
    let model = world.agree(Model::read(&config, &prepared, devices.mesh()))?;
    let evaluates = cli.run_mode != RunMode::Train && config.eval.enabled;
    let evaluation = match evaluates {
        true => Some(world.agree(Evaluation::new(&config, &prepared))?),
        false => None,
    };
    world.agree(make_output_dir(&config))?;
    if world.is_first() {
        introduce(&config, world, &devices, &model);
    }

    let mut artefacts = Artefacts::new();
    let start = world.agree(Start::of(&config))?;
    let mut parameters = world.agree(load_parameters(&config, &model, &devices, &start))?;
    let mut trained = None;
    if cli.run_mode != RunMode::Eval {
        let examples = world.agree(prepared.train().context("the prepared data have no training examples"))?;
        let data = prepared.manifest().fingerprint();
        let trainer = Trainer::new(&config, world, &devices, &model, examples, prepared.valid(), &data)?;
        let (updated, summary) = trainer.run(parameters, &start)?;
        parameters = updated;
        save(&config, world, &devices, &model, &prepared, &parameters, summary.steps, &mut artefacts)?;
        trained = Some(summary);
    }
    let mut scores = None;
    if let Some(evaluation) = &evaluation {
        let (ranked, timing) = evaluation.run(world, &devices, &model, &parameters)?;
        let written = ranked.map(|r| write_predictions(&config, &prepared, &r, timing, &mut artefacts)).transpose();
        scores = world.agree(written)?;
    }
    let peak_rss_kb = world.max(peak_rss_kb());
    world.agree(match world.is_first() {
        true => {
            let mesh = devices.mesh().to_string();
            let run = Run { mesh: &mesh, peak_rss_mb: peak_rss_kb / 1024 };
            write_summary(&config, &prepared, &model, run, trained.as_ref(), scores.as_ref(), &mut artefacts)
        }
        false => Ok(()),
    })?;
    if world.is_first() {
        results::print(scores.as_ref(), &artefacts);
    }
    Ok(())
}

fn open_data(config: &Config) -> Result<Prepared> {
    let prepared = Prepared::open(&config.prepared_dir())?;
    let (tokenizer, settings) = expected_origin(config)?;
    prepared.check_origin(&tokenizer, &settings)?;
    Ok(prepared)
}

/// The most memory that this process has had; 0 where the system does not tell.
fn peak_rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

fn make_output_dir(config: &Config) -> Result<()> {
    let dir = &config.output_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("output_dir {}: cannot be made", dir.display()))
}

fn introduce(config: &Config, world: &World, devices: &Devices, model: &Model) {
    for note in config.notes() {
        println!("note: {note}");
    }
    let mesh = devices.mesh();
    println!(
        "[sft] hosts={} devices={} platform={} mesh={mesh} weights={:.2}M",
        world.size(),
        mesh.devices(),
        devices.platform(),
        model.weights() as f64 / 1e6
    );
    let vocab = &model.vocab;
    if vocab.rows > vocab.tokens {
        let multiple = mesh.fsdp * mesh.tp;
        println!("[sft] pad_vocab_size {} -> {} (multiple={multiple})", vocab.tokens, vocab.rows);
    }
}

#[allow(clippy::too_many_arguments)] // what a checkpoint is made of
fn save(
    config: &Config,
    world: &World,
    devices: &Devices,
    model: &Model,
    prepared: &Prepared,
    parameters: &Shards,
    steps: usize,
    artefacts: &mut Artefacts,
) -> Result<()> {
    let snapshot = world.agree(Snapshot::take(world, devices, model, parameters, 0))?;
    let state = config.output_dir.join("sft_state_last.msgpack");
    snapshot.write_state(&state, steps as u64)?;
    let export = config.output_dir.join("final_checkpoint");
    snapshot.export(&export, prepared)?;
    artefacts.extend([("state", state), ("checkpoint", export)]);
    artefacts.push(("step metrics", config.output_dir.join("metrics.jsonl")));
    Ok(())
}
