//! The loss on the validation examples.

use anyhow::Result;
use sft_data::prepared::Shard;
use sft_model::train::loss_program;
use sft_runtime::{Argument, Buffer};
use sft_settings::Config;

use crate::batching::{Plan, PlanOptions};
use crate::devices::{Compiled, Devices};
use crate::model::Model;
use crate::world::World;

/// A pass over the validation examples, ready to run.
pub struct Validation<'a> {
    examples: &'a Shard,
    plan: Plan,
    programs: Vec<Compiled>,
}

impl<'a> Validation<'a> {
    /// Compiles what a pass over `examples` needs.
    pub fn new(config: &Config, world: &World, devices: &Devices, model: &Model, examples: &'a Shard) -> Result<Self> {
        let plan = Plan::pass(examples, &PlanOptions::validation(config, devices.mesh().batch_shards()));
        let program = |shape| loss_program(*devices.mesh(), &model.config, model.vocab, model.compute, shape);
        let programs = plan.shapes.iter().map(|shape| devices.compile(&program(shape))).collect();
        Ok(Self { examples, plan, programs: world.agree(programs)? })
    }

    /// Time that compiling took.
    pub fn compile_seconds(&self) -> f64 {
        self.programs.iter().map(|p| p.compile_seconds).sum()
    }

    /// Mean negative log-likelihood of the supervised tokens of all examples, in nats; the same on every rank. `state`
    /// is `[local replica][parameters first]`.
    pub fn loss(&self, devices: &Devices, state: &[Vec<Buffer>], parameters: usize) -> Result<f64> {
        let (mut sum, mut tokens) = (0.0, 0);
        for step in 0..self.plan.len() {
            let mut arguments = Vec::new();
            for (index, replica) in devices.local_replicas().enumerate() {
                let arrays = self.plan.arrays(self.examples, step, devices.mesh().batch_shard(replica));
                let batch = devices.upload(index, &arrays)?.into_iter().map(Argument::Donate);
                let weights = state[index][..parameters].iter().map(Argument::Borrow);
                arguments.push(weights.chain(batch).collect());
            }
            let results = self.programs[self.plan.shape_of(step)].run(arguments)?;
            let supervised = self.plan.counts(self.examples, step).supervised;
            sum += f64::from(results[0][0].download()?.to_f32_vec()?[0]) * supervised as f64;
            tokens += supervised;
        }
        Ok(sum / tokens.max(1) as f64)
    }
}
