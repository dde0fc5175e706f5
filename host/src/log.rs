//! What a run prints and writes while it trains.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sft_settings::Config;

use crate::batching::{Plan, StepCounts};

/// A bar on a terminal, nothing elsewhere; lines print above it.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar of `len` units for the rank that speaks.
    pub fn new(speaks: bool, what: &str, len: u64) -> Self {
        let style = ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len} {eta}");
        Self((speaks && std::io::stderr().is_terminal()).then(|| {
            // the template is a constant that parses
            ProgressBar::new(len).with_style(style.expect("a valid template")).with_message(what.to_owned())
        }))
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    /// Moves on.
    pub fn set(&self, position: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// What is known of a step after it.
#[derive(Clone, Copy, Debug)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: usize,
    /// Loss of the effective batch.
    pub loss: f64,
    /// Norm of its gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
    /// Time from the batch to the new state.
    pub took: Duration,
    /// Time waited for the batch.
    pub waited: Duration,
}

/// The reference's lines about training.
pub struct TrainingLog {
    progress: Progress,
    speaks: bool,
    every: usize,
    steps: usize,
    effective_batch: usize,
    started: Instant,
}

impl TrainingLog {
    /// The log of a run over `plan`.
    pub fn new(config: &Config, speaks: bool, plan: &Plan) -> Self {
        Self {
            progress: Progress::new(speaks, "training", plan.len() as u64),
            speaks,
            every: config.train.logging_steps,
            steps: plan.len(),
            effective_batch: plan.effective_batch,
            started: Instant::now(),
        }
    }

    /// Tells of a step, now and then.
    pub fn step(&mut self, record: &StepRecord) {
        let step = record.step;
        self.progress.set(step as u64);
        if self.every > 0 && (step % self.every == 0 || step == 1 || step == self.steps) {
            self.line(&format!(
                "[sft] step={step}/{} loss={:.6} effective_bs={} dt={:.3}s t={:.1}s",
                self.steps,
                record.loss,
                self.effective_batch,
                record.took.as_secs_f64(),
                self.started.elapsed().as_secs_f64()
            ));
        }
    }

    /// Prints a line on the rank that speaks.
    pub fn line(&self, text: &str) {
        if self.speaks {
            self.progress.line(text);
        }
    }

    /// Ends the log.
    pub fn finish(&self) {
        self.progress.finish();
    }
}

/// `metrics.jsonl`: one line a step, in the file as soon as the step is over, so that a killed run has what it saw.
pub struct MetricsLog(Option<File>);

impl MetricsLog {
    /// Opens the file on the rank that writes: anew, or after the lines of the steps before `first`.
    pub fn create(config: &Config, writes: bool, first: usize) -> Result<Self> {
        if !writes {
            return Ok(Self(None));
        }
        let path = config.output_dir.join("metrics.jsonl");
        let context = || format!("{}: cannot be written", path.display());
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) if first > 0 => {
                text.lines().filter(|line| is_before(line, first)).map(|l| format!("{l}\n")).collect()
            }
            _ => String::new(),
        };
        let mut file = File::create(&path).with_context(context)?;
        file.write_all(kept.as_bytes()).with_context(context)?;
        Ok(Self(Some(file)))
    }

    /// Appends a step: rates are of all replicas together, seconds of this host.
    pub fn step(&mut self, record: &StepRecord, counts: &StepCounts) -> Result<()> {
        let (took, waited) = (record.took.as_secs_f64(), record.waited.as_secs_f64());
        self.line(&json!({
            "step": record.step,
            "loss": record.loss,
            "grad_norm": record.grad_norm,
            "learning_rate": record.learning_rate,
            "examples": counts.examples,
            "supervised_tokens": counts.supervised,
            "supervised_tokens_per_s": counts.supervised as f64 / (took + waited),
            "tokens_per_s": counts.tokens as f64 / (took + waited),
            "pad_fraction": 1.0 - counts.tokens as f64 / counts.cells.max(1) as f64,
            "step_s": took,
            "data_wait_s": waited,
        }))
    }

    /// Appends a validation.
    pub fn validation(&mut self, step: usize, loss: f64) -> Result<()> {
        self.line(&json!({"step": step, "eval_loss": loss}))
    }

    fn line(&mut self, line: &serde_json::Value) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes()).context("metrics.jsonl: cannot be written")
    }
}

/// Whether a line is of a step up to `last`.
fn is_before(line: &str, last: usize) -> bool {
    let step = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|l| l["step"].as_u64());
    step.is_some_and(|step| step as usize <= last)
}
