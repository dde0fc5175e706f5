//! The training loop.

use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use crossbeam_channel::{bounded, Receiver, Sender};
use sft_data::prepared::Shard;
use sft_model::graph::Remat;
use sft_model::train::{train_step, Clip, Decay, Optimizer, StepOptions};
use sft_model::weights::MsgpackState;
use sft_runtime::Argument;
use sft_settings::{self as settings, Config, Semantics};
use sft_tensor::HostTensor;

use crate::batching::{Plan, PlanOptions};
use crate::checkpoint::{Family, Progress, Snapshot};
use crate::devices::{Compiled, Devices};
use crate::log::{MetricsLog, StepRecord, TrainingLog};
use crate::model::{load_shards, Model, Shards, Start};
use crate::schedule::Schedule;
use crate::validate::Validation;
use crate::world::World;

/// What `run_summary.json` says about training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSummary {
    /// Optimizer steps.
    pub steps: usize,
    /// Micro-batches.
    pub micro_steps: usize,
    /// Examples of a step.
    pub effective_batch_size: usize,
    /// Losses of all steps, those before a restart included, and of the validations.
    pub progress: Progress,
    /// Wall time of this process, compiling included.
    pub seconds: f64,
    /// Time that compiling took.
    pub compile_seconds: f64,
}

/// Batches made ahead of the step that reads them.
const PREFETCHED_STEPS: usize = 3;

/// Training, ready to run.
pub struct Trainer<'a> {
    config: &'a Config,
    world: &'a World,
    devices: &'a Devices,
    model: &'a Model,
    examples: &'a Shard,
    plan: Plan,
    options: StepOptions,
    schedule: Schedule,
    programs: Vec<Compiled>,
    validation: Option<Validation<'a>>,
    /// What must be the same for a checkpoint to be of this run.
    run: String,
}

impl<'a> Trainer<'a> {
    /// Plans all batches and compiles all programs. `data` names the prepared data.
    pub fn new(
        config: &'a Config,
        world: &'a World,
        devices: &'a Devices,
        model: &'a Model,
        examples: &'a Shard,
        validation: Option<&'a Shard>,
        data: &str,
    ) -> Result<Self> {
        let planned = Plan::training(examples, &PlanOptions::new(config, devices.mesh().batch_shards()));
        let plan = world.agree(planned)?;
        let options = world.agree(step_options(config, model, devices))?;
        let train = &config.train;
        let schedule = Schedule {
            peak: train.learning_rate,
            kind: config.lr_schedule(),
            warmup_steps: train.warmup_steps,
            total_steps: plan.len(),
        };
        let run = format!(
            "data {data}, {} steps of {}, {} {:?} from {} warm-up steps, {:?}, {:?}, products in {:?}, seed {}",
            plan.len(),
            plan.effective_batch,
            train.learning_rate,
            schedule.kind,
            train.warmup_steps,
            options.optimizer,
            options.clip,
            options.compute,
            config.seed
        );
        let programs = compile(world, devices, model, &options, &plan)?;
        let validates = train.eval_steps > 0 && train.eval_steps <= plan.len();
        let validation = match validation.filter(|_| validates) {
            Some(examples) => Some(Validation::new(config, world, devices, model, examples)?),
            None => None,
        };
        Ok(Self { config, world, devices, model, examples, plan, options, schedule, programs, validation, run })
    }

    /// Trains from `parameters`, or on from the checkpoint of `start`, and gives the trained parameters.
    pub fn run(&self, parameters: Shards, start: &Start) -> Result<(Shards, TrainSummary)> {
        let started = Instant::now();
        let mut progress = self.world.agree(self.progress_at(start))?;
        let mut state = self.world.agree(self.add_moments(parameters, start))?;
        let mut log = TrainingLog::new(self.config, self.world.is_first(), &self.plan);
        let mut metrics = MetricsLog::create(self.config, self.world.is_first(), progress.step)?;
        if self.world.is_first() && progress.step > 0 {
            log.line(&format!("[sft] resumed after step {} of {}", progress.step, self.plan.len()));
        }
        std::thread::scope(|scope| -> Result<()> {
            let first = progress.step;
            let (sender, batches) = bounded(PREFETCHED_STEPS);
            let (plan, examples) = (&self.plan, self.examples);
            let mesh = self.devices.mesh();
            let shards: Vec<usize> = self.devices.local_replicas().map(|replica| mesh.batch_shard(replica)).collect();
            scope.spawn(move || prefetch(plan, examples, &shards, first, &sender));
            for step in first..self.plan.len() {
                let (batch, waited) = next(&batches)?;
                let begun = Instant::now();
                let learning_rate = self.schedule.learning_rate(step);
                let (loss, grad_norm) = self.step(step, learning_rate, &mut state, &batch)?;
                self.check_finite(loss, step)?;
                progress.step = step + 1;
                progress.losses.push(loss);
                let counts = self.plan.counts(self.examples, step);
                let record =
                    StepRecord { step: step + 1, loss, grad_norm, learning_rate, took: begun.elapsed(), waited };
                log.step(&record);
                metrics.step(&record, &counts)?;
                self.validate(&state, &mut progress, &log, &mut metrics)?;
                self.save(&state, &progress)?;
                if self.is_out_of_patience(&progress) {
                    log.line(&format!(
                        "[sft] stopped early after step {}: the validation loss does not fall",
                        step + 1
                    ));
                    break;
                }
            }
            Ok(())
        })?;
        log.finish();
        let parameters = self.world.agree(self.result(state, &progress))?;
        let validation = self.validation.as_ref().map_or(0.0, Validation::compile_seconds);
        let summary = TrainSummary {
            steps: progress.step,
            micro_steps: self.plan.micro_steps(progress.step),
            effective_batch_size: self.plan.effective_batch,
            progress,
            seconds: started.elapsed().as_secs_f64(),
            compile_seconds: self.programs.iter().map(|p| p.compile_seconds).sum::<f64>() + validation,
        };
        Ok((parameters, summary))
    }

    fn progress_at(&self, start: &Start) -> Result<Progress> {
        match start {
            Start::Checkpoint(family) => family.read(&self.run),
            Start::Base | Start::Weights(_) => Ok(Progress::default()),
        }
    }

    /// Adds the optimizer's moments to the parameters: zeros, or those of a checkpoint.
    fn add_moments(&self, parameters: Shards, start: &Start) -> Result<Shards> {
        let mut state = parameters;
        for slot in 0..self.options.optimizer.slots() {
            let moments = match start {
                Start::Checkpoint(family) => {
                    let source = MsgpackState::open(&family.moment_path(slot))?;
                    load_shards(self.config, self.model, self.devices, &source, self.options.moments)?
                }
                Start::Base | Start::Weights(_) => self.zeros()?,
            };
            state.iter_mut().zip(moments).for_each(|(replica, moments)| replica.extend(moments));
        }
        Ok(state)
    }

    fn zeros(&self) -> Result<Shards> {
        let zeros = |index: usize| {
            let params = self.model.params.iter();
            let shards = params.map(|p| HostTensor::zeros(self.options.moments, &p.shard_shape(self.devices.mesh())));
            shards.map(|zeros| Ok(self.devices.upload(index, &[zeros])?.remove(0))).collect::<Result<Vec<_>>>()
        };
        (0..self.devices.local_replicas().len()).map(zeros).collect()
    }

    /// Runs one step; the state is replaced by the new one. Returns the loss and the norm of its gradient.
    fn step(
        &self,
        step: usize,
        learning_rate: f64,
        state: &mut Shards,
        batch: &[Vec<HostTensor>],
    ) -> Result<(f64, f64)> {
        let hyper = HostTensor::from_f32(&[3], &self.options.optimizer.hyper(step + 1, learning_rate));
        let mut arguments = Vec::new();
        for (index, (replica, batch)) in std::mem::take(state).into_iter().zip(batch).enumerate() {
            let inputs = self.devices.upload(index, std::slice::from_ref(&hyper))?;
            let inputs = inputs.into_iter().chain(self.devices.upload(index, batch)?);
            arguments.push(replica.into_iter().chain(inputs).map(Argument::Donate).collect());
        }
        let mut results = self.programs[self.plan.shape_of(step)].run(arguments)?;
        let mut scalars = [0.0; 2];
        for replica in &mut results {
            let outputs = replica.split_off(replica.len() - 2);
            for (scalar, buffer) in scalars.iter_mut().zip(&outputs) {
                *scalar = f64::from(buffer.download()?.to_f32_vec()?[0]);
            }
        }
        *state = results;
        Ok((scalars[0], scalars[1]))
    }

    /// A loss that is not a number is the same on all ranks, and all stop.
    fn check_finite(&self, loss: f64, step: usize) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        let failed: Result<()> = (|| {
            bail!("the loss of step {} is {loss}; lower train.learning_rate or check the starting weights", step + 1)
        })();
        self.world.agree(failed)
    }

    /// Now and then, and after the last step: the validation loss. The best state so far is kept in a file.
    fn validate(
        &self,
        state: &Shards,
        progress: &mut Progress,
        log: &TrainingLog,
        metrics: &mut MetricsLog,
    ) -> Result<()> {
        let Some(validation) = &self.validation else { return Ok(()) };
        let step = progress.step;
        if step % self.config.train.eval_steps != 0 && step != self.plan.len() {
            return Ok(());
        }
        let loss = validation.loss(self.devices, state, self.model.params.len())?;
        progress.validations.push((step, loss));
        log.line(&format!("[sft] eval step={step}/{} loss={loss:.6}", self.plan.len()));
        metrics.validation(step, loss)?;
        if self.config.load_best() && progress.best() == Some((step, loss)) {
            let parameters = Snapshot::take(self.world, self.devices, self.model, state, 0);
            self.world.agree(parameters)?.write_state(&self.best_path(), step as u64)?;
        }
        Ok(())
    }

    fn best_path(&self) -> std::path::PathBuf {
        self.config.output_dir.join("sft_state_best.msgpack")
    }

    fn is_out_of_patience(&self, progress: &Progress) -> bool {
        let patience = self.config.train.early_stopping_patience;
        patience > 0 && progress.validations_without_improvement() >= patience
    }

    /// Now and then: a checkpoint to go on from. The last step's comes with the results.
    fn save(&self, state: &Shards, progress: &Progress) -> Result<()> {
        let train = &self.config.train;
        if train.save_steps == 0 || progress.step % train.save_steps != 0 || progress.step == self.plan.len() {
            return Ok(());
        }
        let family = Family::of_step(&self.config.output_dir, progress.step);
        let slots = self.options.optimizer.slots();
        for slot in 0..=slots {
            let path = if slot == 0 { family.state_path() } else { family.moment_path(slot - 1) };
            let tensors = Snapshot::take(self.world, self.devices, self.model, state, slot);
            self.world.agree(tensors)?.write_state(&path, progress.step as u64)?;
        }
        self.world.agree(match self.world.is_first() {
            true => family
                .commit(&self.run, progress, slots)
                .and_then(|()| Family::prune(&self.config.output_dir, train.save_total_limit)),
            false => Ok(()),
        })
    }

    /// The parameters of the state, or of the best one.
    fn result(&self, mut state: Shards, progress: &Progress) -> Result<Shards> {
        let best = progress.best().filter(|(step, _)| self.config.load_best() && *step != progress.step);
        if let Some((step, loss)) = best {
            if self.world.is_first() {
                println!("[sft] the result is the state after step {step}, validation loss {loss:.6}");
            }
            drop(state);
            let source = MsgpackState::open(&self.best_path())?;
            return load_shards(self.config, self.model, self.devices, &source, sft_tensor::DType::F32);
        }
        state.iter_mut().for_each(|replica| replica.truncate(self.model.params.len()));
        Ok(state)
    }
}

fn step_options(config: &Config, model: &Model, devices: &Devices) -> Result<StepOptions> {
    let train = &config.train;
    let plugin = train.semantics == Semantics::JaxPlugin;
    let decay = Decay { rate: train.weight_decay, vectors: plugin };
    let adam = &train.adam;
    let optimizer = match train.optimizer.as_str() {
        "lion" => Optimizer::Lion { beta1: 0.9, beta2: 0.99, decay },
        _ => Optimizer::AdamW { beta1: adam.beta1, beta2: adam.beta2, eps: adam.eps, decay },
    };
    // torch adds 1e-6 to the norm, optax does not
    let clip = Clip { max_norm: train.max_grad_norm, eps: if plugin { 0.0 } else { 1e-6 } };
    Ok(StepOptions {
        compute: model.compute,
        moments: train.moments_dtype.parse().context("train.moments_dtype")?,
        optimizer,
        clip: (train.max_grad_norm > 0.0).then_some(clip),
        remat: match (train.remat, devices.platform()) {
            (Some(settings::Remat::None), _) | (None, "cpu") => Remat::Elementwise,
            (Some(settings::Remat::Layers) | None, _) => Remat::Steps,
        },
    })
}

fn compile(
    world: &World,
    devices: &Devices,
    model: &Model,
    options: &StepOptions,
    plan: &Plan,
) -> Result<Vec<Compiled>> {
    let program = |shape| train_step(*devices.mesh(), &model.config, model.vocab, options, shape);
    let programs: Vec<Compiled> =
        world.agree(plan.shapes.iter().map(|shape| devices.compile(&program(shape))).collect())?;
    if world.is_first() {
        for (shape, program) in plan.shapes.iter().zip(&programs) {
            println!(
                "[sft] compiled train_step micro_batches={} rows={} seq={} supervised={} dt={:.2}s",
                shape.micro_batches, shape.rows, shape.seq, shape.supervised, program.compile_seconds
            );
        }
    }
    Ok(programs)
}

/// Makes the batches of `shards` from step `first` on.
fn prefetch(plan: &Plan, examples: &Shard, shards: &[usize], first: usize, sender: &Sender<Vec<Vec<HostTensor>>>) {
    for step in first..plan.len() {
        let arrays = shards.iter().map(|&shard| plan.arrays(examples, step, shard)).collect();
        // nobody receives once the loop has ended
        if sender.send(arrays).is_err() {
            return;
        }
    }
}

/// The next batch of the local replicas, and how long it was waited for.
fn next(batches: &Receiver<Vec<Vec<HostTensor>>>) -> Result<(Vec<Vec<HostTensor>>, Duration)> {
    let begun = Instant::now();
    let batch = batches.recv().context("the thread that prepares batches has stopped")?;
    Ok((batch, begun.elapsed()))
}
