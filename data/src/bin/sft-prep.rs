//! `sft-prep`: tokenises offline into shards that training and evaluation map into memory.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{bail, Context, Result};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sft_data::prepare::{prepare, Outcome};
use sft_data::prepared::{Example, Prepared};
use sft_data::sample::{write_sample, SampleOptions};
use sft_data::tasks::Task;
use sft_data::tokenizer::Tokenizer;
use sft_settings::Config;

const EXAMPLES: &str = "\
Examples:
  sft-prep --config configs/quickstart.yaml              tokenise what the config names, unless it is done
  sft-prep --config configs/quickstart.yaml --force      tokenise again
  sft-prep sample --out runs/quickstart/data             write a small synthetic catalogue to try things on
  sft-prep inspect --config configs/quickstart.yaml      show examples, their tokens and their labels";

/// Tokenises interactions and items into shards for training and evaluation.
#[derive(Parser)]
#[command(name = "sft-prep", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    prepare: PrepareArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Write a small synthetic catalogue with learnable histories, in the upstream formats, and a model to train on it.
    Sample {
        /// Folder to write.
        #[arg(long)]
        out: PathBuf,
        /// Number of users.
        #[arg(long, default_value_t = SampleOptions::default().users)]
        users: usize,
        /// Seed of everything.
        #[arg(long, default_value_t = SampleOptions::default().seed)]
        seed: u64,
    },
    /// Show prepared examples: text, tokens, where the labels start.
    Inspect {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Only this task (sid_next_item, sid_item_alignment, fusion_seq_rec, …, evaluation).
        #[arg(long)]
        task: Option<String>,
        /// Examples of each task.
        #[arg(short = 'n', long = "count", default_value_t = 1)]
        count: usize,
    },
}

#[derive(Args)]
struct SettingsArgs {
    /// Settings (YAML).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Change a setting: a.b=value. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Args)]
struct PrepareArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Prepare again even if nothing has changed.
    #[arg(long)]
    force: bool,
    /// Print the settings as they are understood, and stop.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let run = || {
        sft_settings::load_dotenv([".env", "/root/.env"]).context(".env cannot be read")?;
        match Cli::parse() {
            Cli { command: Some(Command::Sample { out, users, seed }), .. } => sample(&out, users, seed),
            Cli { command: Some(Command::Inspect { settings, task, count }), .. } => {
                inspect(&load(&settings)?, task.as_deref(), count)
            }
            Cli { prepare, .. } => prepare_command(&prepare),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(args: &SettingsArgs) -> Result<Config> {
    let Some(path) = &args.config else { bail!("--config is missing; see `sft-prep --help`") };
    Ok(Config::load(path, &args.overrides)?)
}

fn prepare_command(args: &PrepareArgs) -> Result<()> {
    let config = load(&args.settings)?;
    if args.print_config {
        print!("{}", config.to_yaml());
        return Ok(());
    }
    let progress = Progress::new();
    let started = std::time::Instant::now();
    let outcome = prepare(&config, args.force, &|name, done, all| progress.show(name, done, all))?;
    progress.finish();
    let dir = config.prepared_dir();
    match outcome {
        Outcome::UpToDate(_) => println!("prepared: {} is up to date", dir.display()),
        Outcome::Prepared(manifest, reasons) => {
            println!(
                "prepared: {} in {:.1} s, because {}",
                dir.display(),
                started.elapsed().as_secs_f64(),
                reasons.join("; ")
            );
            let vocabulary = &manifest.vocabulary;
            let (size, added) = (vocabulary.size, vocabulary.added_tokens.len());
            println!("  vocabulary {size} tokens, {added} of them added for SIDs");
            for (name, count) in &manifest.counts {
                println!("  {name} {count}");
            }
        }
    }
    Ok(())
}

fn sample(out: &std::path::Path, users: usize, seed: u64) -> Result<()> {
    if users == 0 {
        bail!("--users 0: there must be users");
    }
    let sample = write_sample(out, &SampleOptions { users, seed })?;
    let [train, valid, test] = sample.rows;
    println!(
        "sample: {} with {} items, {train} training, {valid} validation and {test} test rows, a tokenizer of {} tokens",
        out.display(),
        sample.items,
        sample.tokens
    );
    Ok(())
}

fn inspect(config: &Config, task: Option<&str>, count: usize) -> Result<()> {
    let prepared = Prepared::open(&config.prepared_dir())?;
    let tokenizer = Tokenizer::open(&prepared.tokenizer_dir())?;
    let known: Vec<&str> = Task::TRAINING.iter().chain([&Task::Evaluation]).map(|t| t.name()).collect();
    if let Some(unknown) = task.filter(|t| !known.contains(t)) {
        bail!("--task {unknown}: unknown; known: {}", known.join(", "));
    }
    let train = prepared.train().into_iter().flat_map(|shard| shard.iter());
    let prompts = prepared.test_prompts().into_iter().flat_map(|p| (0..p.len()).map(|i| p.get(i)));
    let mut shown: Vec<(u32, usize)> = Vec::new();
    for example in train.chain(prompts) {
        let name = Task::from_code(example.task).map_or("unknown", Task::name);
        if task.is_some_and(|t| t != name) {
            continue;
        }
        let slot = match shown.iter_mut().find(|(code, _)| *code == example.task) {
            Some((_, slot)) => slot,
            None => {
                shown.push((example.task, 0));
                // just pushed
                &mut shown.last_mut().expect("an element").1
            }
        };
        *slot += 1;
        if *slot <= count {
            show(name, &example, &tokenizer, config.data.max_len)?;
        }
    }
    if shown.is_empty() {
        bail!("there are no such examples in {}", config.prepared_dir().display());
    }
    Ok(())
}

fn show(name: &str, example: &Example<'_>, tokenizer: &Tokenizer, max_len: usize) -> Result<()> {
    let (context, labels) = example.tokens.split_at(example.supervised_from);
    let cut = if example.tokens.len() == max_len { ", cut at max_len" } else { "" };
    let supervised = labels.len();
    println!("── {name}, row {}: {} tokens, {supervised} supervised{cut}", example.source_row, example.tokens.len());
    println!("{}", tokenizer.decode(context)?);
    if !labels.is_empty() {
        println!("── labels\n{}", tokenizer.decode(labels)?);
    }
    println!("── tokens\n{context:?} ▸ {labels:?}\n");
    Ok(())
}

/// A bar on a terminal, a line for each file elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    current: Mutex<String>,
}

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:22} {wide_bar} {pos}/{len} {per_sec}");
        let bar = std::io::stderr().is_terminal().then(|| {
            // the template is a constant that parses
            ProgressBar::new(0).with_style(style.expect("a valid template"))
        });
        Self { bar, current: Mutex::new(String::new()) }
    }

    fn show(&self, name: &str, done: u64, all: u64) {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &self.bar {
            Some(bar) => {
                if *current != name {
                    bar.reset();
                    bar.set_length(all);
                    bar.set_message(name.to_owned());
                }
                bar.set_position(done);
            }
            None if done == all => eprintln!("prepared: {name}: {all} examples"),
            None => {}
        }
        *current = name.to_owned();
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
