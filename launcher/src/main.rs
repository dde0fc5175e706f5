//! `sft-launch`: prepares the data, starts the hosts of a run through mpirun, shows their output and ends with their
//! exit code.

mod commands;
mod output;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::Parser;
use sft_settings::Config;

const EXAMPLES: &str = "\
Examples:
  sft-launch --local --config configs/quickstart.yaml                      one host on this machine
  sft-launch --local --hosts 2 --config configs/quickstart.yaml            two hosts with a device each
  sft-launch --local --hosts 2 --devices-per-host 2 --config C             a mesh of 2 × 2
  sft-launch --local --config C --run-mode eval --set train.resume_from_checkpoint=runs/x/sft_state_last.msgpack
  sft-launch --hostfile hosts.txt --hosts 4 --config C                     four machines, over ssh
  sft-launch --local --hosts 2 --config C --dry-run                        show what would be run";

/// Starts and watches the hosts of a run.
#[derive(Parser)]
#[command(name = "sft-launch", version, after_help = EXAMPLES)]
struct Cli {
    /// Start all hosts on this machine.
    #[arg(long, conflicts_with = "hostfile", required_unless_present = "hostfile")]
    local: bool,
    /// Start the hosts on the machines of this file (mpirun's format).
    #[arg(long, value_name = "FILE")]
    hostfile: Option<PathBuf>,
    /// Number of hosts: processes, each of which owns its devices.
    #[arg(long, default_value_t = 1, value_name = "N")]
    hosts: usize,
    /// Devices of each host; overrides runtime.devices_per_host.
    #[arg(long, value_name = "D")]
    devices_per_host: Option<usize>,
    /// Settings (YAML).
    #[arg(long)]
    config: PathBuf,
    /// What to do: train, eval or train_eval.
    #[arg(long, default_value = "train_eval", value_parser = ["train", "eval", "train_eval"])]
    run_mode: String,
    /// Change a setting: a.b=value. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Do not prepare the data first; they must be there.
    #[arg(long)]
    no_prep: bool,
    /// Print the settings as they are understood, and stop.
    #[arg(long)]
    print_config: bool,
    /// Print the commands, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Program of a host.
    #[arg(long, hide = true)]
    host_binary: Option<PathBuf>,
    /// Program that prepares.
    #[arg(long, hide = true)]
    prep_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    sft_settings::load_dotenv([".env", "/root/.env"])?;
    if cli.hosts == 0 || cli.devices_per_host == Some(0) {
        bail!("--hosts and --devices-per-host must be at least 1");
    }
    // settings are checked here, once, before any process starts
    let config = Config::load(&cli.config, &cli.overrides)?;
    if cli.print_config {
        print!("{}", config.to_yaml());
        return Ok(0);
    }
    let mut commands = Vec::new();
    if !cli.no_prep {
        commands.push(commands::prepare(cli)?);
    }
    commands.push(commands::hosts(cli)?);
    if cli.dry_run {
        commands.iter().for_each(|command| println!("{}", shell_words::join(command)));
        return Ok(0);
    }
    // the vector has the hosts' command at its end
    let hosts = commands.pop().expect("a command for the hosts");
    for prepare in commands {
        let code = watch::run_plain(&prepare)?;
        if code != 0 {
            return Ok(code);
        }
    }
    watch::run_hosts(&hosts)
}
