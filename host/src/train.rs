//! The training loop.

use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use crossbeam_channel::{bounded, Receiver};
use sft_data::prepared::Shard;
use sft_model::train::{train_step, Clip, Decay, Optimizer, StepOptions};
use sft_runtime::{Argument, Buffer};
use sft_settings::{Config, Semantics};
use sft_tensor::{DType, HostTensor};

use crate::batching::{Plan, PlanOptions};
use crate::devices::{Compiled, Devices};
use crate::log::{MetricsLog, TrainingLog};
use crate::model::{Model, Parameters};
use crate::schedule::Schedule;
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
    /// Loss of the last step.
    pub final_loss: f64,
    /// Losses of all steps.
    pub losses: Vec<f64>,
    /// Wall time, compiling included.
    pub seconds: f64,
    /// Time that compiling took.
    pub compile_seconds: f64,
}

/// Batches made ahead of the step that reads them.
const PREFETCHED_STEPS: usize = 3;

/// Trains `parameters` and gives them back.
pub fn train(
    config: &Config,
    world: &World,
    devices: &Devices,
    model: &Model,
    examples: &Shard,
    parameters: Parameters,
) -> Result<(Parameters, TrainSummary)> {
    let started = Instant::now();
    let plan = Plan::new(examples, &PlanOptions::new(config, devices.mesh().batch_shards()))?;
    let options = step_options(config, model)?;
    let schedule = Schedule {
        peak: config.train.learning_rate,
        kind: config.lr_schedule(),
        warmup_steps: config.train.warmup_steps,
        total_steps: plan.len(),
    };
    let programs = compile(world, devices, model, &options, &plan)?;
    let compile_seconds = programs.iter().map(|p| p.compile_seconds).sum();
    let mut state = add_moments(devices, model, &options, parameters)?;
    let mut log = TrainingLog::new(config, world.is_first(), &plan);
    let mut metrics = MetricsLog::create(config, world.is_first())?;
    let mut losses = Vec::with_capacity(plan.len());

    std::thread::scope(|scope| -> Result<()> {
        let shards: Vec<usize> = devices.local_replicas().map(|r| devices.mesh().batch_shard(r)).collect();
        let plan = &plan;
        let (sender, batches) = bounded(PREFETCHED_STEPS);
        scope.spawn(move || {
            for step in 0..plan.len() {
                let arrays: Vec<_> = shards.iter().map(|&shard| plan.arrays(examples, step, shard)).collect();
                // nobody receives once the loop has failed
                if sender.send(arrays).is_err() {
                    return;
                }
            }
        });
        for step in 0..plan.len() {
            let (batch, waited) = next(&batches)?;
            let begun = Instant::now();
            let learning_rate = schedule.learning_rate(step);
            let hyper = HostTensor::from_f32(&[3], &options.optimizer.hyper(step + 1, learning_rate));
            let program = &programs[plan.shape_of(step)];
            let (loss, grad_norm) = run_step(devices, program, &mut state, &hyper, &batch)?;
            world_agrees_on(loss, step, world)?;
            losses.push(loss);
            let counts = plan.counts(examples, step);
            log.step(step + 1, loss, begun.elapsed());
            metrics.step(step + 1, loss, grad_norm, learning_rate, &counts, begun.elapsed(), waited)?;
        }
        Ok(())
    })?;
    log.finish();
    metrics.finish()?;

    let count = model.params.len();
    let parameters = state.into_iter().map(|mut replica| {
        replica.truncate(count);
        replica
    });
    let summary = TrainSummary {
        steps: plan.len(),
        micro_steps: plan.micro_steps(),
        effective_batch_size: plan.effective_batch,
        final_loss: losses.last().copied().unwrap_or(0.0),
        losses,
        seconds: started.elapsed().as_secs_f64(),
        compile_seconds,
    };
    Ok((Parameters(parameters.collect()), summary))
}

fn step_options(config: &Config, model: &Model) -> Result<StepOptions> {
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

/// Adds the optimizer's moments, all zero, to the parameters.
fn add_moments(
    devices: &Devices,
    model: &Model,
    options: &StepOptions,
    parameters: Parameters,
) -> Result<Vec<Vec<Buffer>>> {
    let mut state = parameters.0;
    for (index, replica) in state.iter_mut().enumerate() {
        for _ in 0..options.optimizer.slots() {
            for param in &model.params {
                let zeros = HostTensor::zeros(options.moments, &param.shard_shape(devices.mesh()));
                replica.extend(devices.upload(index, &[zeros])?);
            }
        }
    }
    Ok(state)
}

/// The next batch of the local replicas, and how long it was waited for.
fn next(batches: &Receiver<Vec<Vec<HostTensor>>>) -> Result<(Vec<Vec<HostTensor>>, Duration)> {
    let begun = Instant::now();
    let batch = batches.recv().context("the thread that prepares batches has stopped")?;
    Ok((batch, begun.elapsed()))
}

/// Runs one step; the state is replaced by the new one. Returns the loss and the norm of its gradient.
fn run_step(
    devices: &Devices,
    program: &Compiled,
    state: &mut Vec<Vec<Buffer>>,
    hyper: &HostTensor,
    batch: &[Vec<HostTensor>],
) -> Result<(f64, f64)> {
    let mut arguments = Vec::new();
    for (index, (replica, batch)) in std::mem::take(state).into_iter().zip(batch).enumerate() {
        let inputs = devices.upload(index, std::slice::from_ref(hyper))?;
        let inputs = inputs.into_iter().chain(devices.upload(index, batch)?);
        arguments.push(replica.into_iter().chain(inputs).map(Argument::Donate).collect());
    }
    let mut results = program.run(arguments)?;
    let mut scalars = [0.0; 2];
    for replica in &mut results {
        let outputs = replica.split_off(replica.len() - 2);
        for (scalar, buffer) in scalars.iter_mut().zip(&outputs) {
            let tensor = buffer.download()?;
            debug_assert_eq!(tensor.dtype(), DType::F32);
            *scalar = f64::from(tensor.to_f32_vec()?[0]);
        }
    }
    *state = results;
    Ok((scalars[0], scalars[1]))
}

/// A loss that is not a number is the same on all ranks, and all stop.
fn world_agrees_on(loss: f64, step: usize, world: &World) -> Result<()> {
    if loss.is_finite() {
        return Ok(());
    }
    let failed: Result<()> =
        (|| bail!("the loss of step {} is {loss}; lower train.learning_rate or check the starting weights", step + 1))(
        );
    world.agree(failed)
}
