//! What a run prints and writes while it trains.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
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

    /// Tells of step `step` (from 1), now and then.
    pub fn step(&mut self, step: usize, loss: f64, took: Duration) {
        self.progress.set(step as u64);
        let due = self.every > 0 && (step % self.every == 0 || step == 1 || step == self.steps);
        if self.speaks && due {
            self.progress.line(&format!(
                "[sft] step={step}/{} loss={loss:.6} effective_bs={} dt={:.3}s t={:.1}s",
                self.steps,
                self.effective_batch,
                took.as_secs_f64(),
                self.started.elapsed().as_secs_f64()
            ));
        }
    }

    /// Ends the log.
    pub fn finish(&self) {
        self.progress.finish();
    }
}

/// `metrics.jsonl`: one line a step.
pub struct MetricsLog(Option<BufWriter<File>>);

impl MetricsLog {
    /// Starts the file anew on the rank that writes.
    pub fn create(config: &Config, writes: bool) -> Result<Self> {
        if !writes {
            return Ok(Self(None));
        }
        let path = config.output_dir.join("metrics.jsonl");
        let file = File::create(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(Self(Some(BufWriter::new(file))))
    }

    /// Appends a step: rates are of all replicas together, seconds of this host.
    #[allow(clippy::too_many_arguments)] // the columns of a line
    pub fn step(
        &mut self,
        step: usize,
        loss: f64,
        grad_norm: f64,
        learning_rate: f64,
        counts: &StepCounts,
        took: Duration,
        waited: Duration,
    ) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let seconds = took.as_secs_f64() + waited.as_secs_f64();
        let line = json!({
            "step": step,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "supervised_tokens": counts.supervised,
            "supervised_tokens_per_s": counts.supervised as f64 / seconds,
            "tokens_per_s": counts.tokens as f64 / seconds,
            "pad_fraction": 1.0 - counts.tokens as f64 / counts.cells.max(1) as f64,
            "step_s": took.as_secs_f64(),
            "data_wait_s": waited.as_secs_f64(),
        });
        writeln!(file, "{line}").context("metrics.jsonl: cannot be written")
    }

    /// Flushes what is left.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Some(mut file) => file.flush().context("metrics.jsonl: cannot be written"),
            None => Ok(()),
        }
    }
}
