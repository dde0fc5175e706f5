//! `sft-bench`: measures the programs as a user runs them and prints a JSON line a case.

mod data;
mod matmul;
mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the programs as a user runs them; prints a JSON line a case.
#[derive(Parser)]
#[command(name = "sft-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Training: hidden 512 × 8 layers, vocabulary 32k, f32, effective batch 32.
    Train {
        /// Folder for data and results.
        #[arg(long, default_value = "runs/bench/train")]
        dir: PathBuf,
        /// Timed steps of a case.
        #[arg(long, default_value_t = 6)]
        steps: usize,
        /// Only cases whose name holds this.
        #[arg(long, default_value = "")]
        case: String,
    },
}

fn main() -> ExitCode {
    let Command::Train { dir, steps, case } = Cli::parse().command;
    match train::run(&dir, steps, &case) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
