//! The evaluation loop: every device searches its share of the prompts.

use std::time::Instant;

use anyhow::{bail, Context, Result};
use sft_data::prepared::{Prepared, Prompts};
use sft_eval::search::{gather_program, search_program, Constraint, SearchShape};
use sft_eval::Trie;
use sft_runtime::{Argument, Buffer};
use sft_settings::{Config, Split};
use sft_tensor::HostTensor;

use crate::devices::{Compiled, Devices};
use crate::log::Progress;
use crate::model::{Model, Shards};
use crate::world::World;

/// What is searched, checked before any work is done.
pub struct Evaluation<'a> {
    prompts: &'a Prompts,
    constraint: Constraint,
    beams: usize,
    /// Prompts that a device searches at a time.
    per_device: usize,
    /// Padded prompt lengths with the prompts that each takes, shortest first.
    buckets: Vec<(usize, Vec<usize>)>,
}

/// Ranked SIDs of every prompt, in the order of the file.
pub struct Ranked {
    /// `[prompts][beams]`: indices into the catalogue's SIDs, best first.
    pub sids: Vec<Vec<usize>>,
    /// Log-probabilities in nats, as `sids`.
    pub scores: Vec<Vec<f32>>,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Wall time, compiling included.
    pub seconds: f64,
    /// Time that compiling took.
    pub compile_seconds: f64,
    /// Programs compiled.
    pub programs: usize,
}

impl<'a> Evaluation<'a> {
    /// Checks that the prompts, the catalogue and the beams fit the settings.
    pub fn new(config: &Config, prepared: &'a Prepared) -> Result<Self> {
        let eval = &config.eval;
        let (split, prompts) = match eval.split {
            Split::Valid => ("valid", prepared.valid_prompts()),
            Split::Test => ("test", prepared.test_prompts()),
        };
        let prompts = prompts.with_context(|| format!("the prepared data have no {split} prompts"))?;
        let sids: Vec<Vec<u32>> = prepared.catalogue().sids.iter().map(|sid| sid.tokens.clone()).collect();
        let constraint = Constraint::new(Trie::build(&sids)?, &prepared.manifest().vocabulary.suffix)?;
        constraint.check_beams(eval.num_beams)?;

        let mut lengths = eval.length_buckets.clone();
        lengths.sort_unstable();
        lengths.dedup();
        let mut buckets: Vec<(usize, Vec<usize>)> = lengths.into_iter().map(|n| (n, Vec::new())).collect();
        for i in 0..prompts.len() {
            let len = prompts.get(i).tokens.len();
            match buckets.iter_mut().find(|(n, _)| *n >= len) {
                Some((_, bucket)) => bucket.push(i),
                None => bail!(
                    "{split} prompt {i} (from 0) has {len} tokens, more than the largest of eval.length_buckets ({}); \
                     add a bucket of at least {}",
                    buckets.last().map_or(0, |(n, _)| *n),
                    prompts.max_len()
                ),
            }
        }
        buckets.retain(|(_, prompts)| !prompts.is_empty());
        Ok(Self { prompts, constraint, beams: eval.num_beams, per_device: eval.batch_size, buckets })
    }

    /// Searches all prompts on all devices; rank 0 gets the result.
    pub fn run(
        &self,
        world: &World,
        devices: &Devices,
        model: &Model,
        parameters: &Shards,
    ) -> Result<(Option<Ranked>, Timing)> {
        let started = Instant::now();
        let mut timing = Timing::default();
        let weights = self.whole_weights(devices, model, parameters, &mut timing)?;
        let tables = (0..devices.local_replicas().len())
            .map(|index| devices.upload(index, &self.constraint.tables()))
            .collect::<Result<Vec<_>>>()?;
        let progress = Progress::new(world.is_first(), "searching", self.prompts.len() as u64);
        let mut found = Vec::new();
        let mut done = 0;
        for (prompt_len, prompts) in &self.buckets {
            let per_device = self.per_device.min(prompts.len().div_ceil(devices.mesh().devices()));
            let shape = SearchShape { prompts: per_device, prompt_len: *prompt_len, beams: self.beams };
            let program = self.compile(world, devices, model, &shape, &mut timing)?;
            for chunk in prompts.chunks(per_device * devices.mesh().devices()) {
                self.search(devices, &program, &shape, chunk, &weights, &tables, &mut found)?;
                done += chunk.len();
                progress.set(done as u64);
            }
            if world.is_first() {
                progress.line(&format!(
                    "[eval] prompt_len={prompt_len} samples={} done={done}/{} t={:.1}s",
                    prompts.len(),
                    self.prompts.len(),
                    started.elapsed().as_secs_f64()
                ));
            }
        }
        progress.finish();
        let ranked = self.gather(world, found)?;
        timing.seconds = started.elapsed().as_secs_f64();
        Ok((ranked, timing))
    }

    fn whole_weights(
        &self,
        devices: &Devices,
        model: &Model,
        parameters: &Shards,
        timing: &mut Timing,
    ) -> Result<Vec<Vec<Buffer>>> {
        let program = devices.compile(&gather_program(*devices.mesh(), &model.config, model.vocab, model.compute))?;
        timing.compile_seconds += program.compile_seconds;
        program.run(parameters.iter().map(|r| r.iter().map(Argument::Borrow).collect()).collect())
    }

    fn compile(
        &self,
        world: &World,
        devices: &Devices,
        model: &Model,
        shape: &SearchShape,
        timing: &mut Timing,
    ) -> Result<Compiled> {
        let count = devices.mesh().devices();
        let program = search_program(count, &model.config, model.vocab, model.compute, &self.constraint, shape);
        let compiled = world.agree(devices.compile(&program))?;
        timing.compile_seconds += compiled.compile_seconds;
        timing.programs += 1;
        if world.is_first() {
            println!(
                "[eval] compiled search prompt_len={} batch_size={} num_beams={} dt={:.2}s",
                shape.prompt_len, shape.prompts, shape.beams, compiled.compile_seconds
            );
        }
        Ok(compiled)
    }

    /// Searches the prompts `chunk`, each device its part; what is missing of a batch repeats the last prompt.
    #[allow(clippy::too_many_arguments)] // the parts of one search, all of which it needs
    fn search(
        &self,
        devices: &Devices,
        program: &Compiled,
        shape: &SearchShape,
        chunk: &[usize],
        weights: &[Vec<Buffer>],
        tables: &[Vec<Buffer>],
        found: &mut Vec<(u32, Vec<i32>, Vec<f32>)>,
    ) -> Result<()> {
        let last = chunk.len() - 1;
        let place = |replica: usize, i: usize| replica * shape.prompts + i;
        let mut inputs = Vec::new();
        for (index, replica) in devices.local_replicas().enumerate() {
            let mut tokens = vec![0; shape.prompts * shape.prompt_len];
            let mut lengths = Vec::with_capacity(shape.prompts);
            for (i, row) in tokens.chunks_mut(shape.prompt_len).enumerate() {
                let prompt = self.prompts.get(chunk[place(replica, i).min(last)]).tokens;
                row.iter_mut().zip(prompt).for_each(|(cell, &token)| *cell = token as i32);
                lengths.push(prompt.len() as i32);
            }
            let tokens = HostTensor::from_i32(&[shape.prompts, shape.prompt_len], &tokens);
            let lengths = HostTensor::from_i32(&[shape.prompts], &lengths);
            inputs.push(devices.upload(index, &[tokens, lengths])?);
        }
        let arguments = weights.iter().zip(tables).zip(inputs).map(|((weights, tables), inputs)| {
            let fixed = weights.iter().chain(tables).map(Argument::Borrow);
            fixed.chain(inputs.into_iter().map(Argument::Donate)).collect()
        });
        let results = program.run(arguments.collect())?;
        for (replica, outputs) in devices.local_replicas().zip(&results) {
            let (sids, scores) = (outputs[0].download()?.to_i32_vec()?, outputs[1].download()?.to_f32_vec()?);
            for (i, (sids, scores)) in sids.chunks(shape.beams).zip(scores.chunks(shape.beams)).enumerate() {
                if let Some(&prompt) = chunk.get(place(replica, i)) {
                    found.push((prompt as u32, sids.to_vec(), scores.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// All results on rank 0, in the order of the prompts.
    fn gather(&self, world: &World, found: Vec<(u32, Vec<i32>, Vec<f32>)>) -> Result<Option<Ranked>> {
        let mut words: Vec<u32> = Vec::new();
        for (prompt, sids, scores) in found {
            words.push(prompt);
            words.extend(sids.iter().map(|&s| s as u32));
            words.extend(scores.iter().map(|s| s.to_bits()));
        }
        if !world.is_first() {
            world.send(0, bytemuck::cast_slice(&words));
            return Ok(None);
        }
        for rank in 1..world.size() {
            words.extend(bytemuck::allocation::pod_collect_to_vec::<u8, u32>(&world.receive(rank)));
        }
        let mut ranked =
            Ranked { sids: vec![Vec::new(); self.prompts.len()], scores: vec![Vec::new(); self.prompts.len()] };
        for record in words.chunks(1 + 2 * self.beams) {
            let prompt = record[0] as usize;
            let (sids, scores) = record[1..].split_at(self.beams);
            ranked.sids[prompt] = sids.iter().map(|&s| s as usize).collect();
            ranked.scores[prompt] = scores.iter().map(|&s| f32::from_bits(s)).collect();
        }
        match ranked.sids.iter().position(Vec::is_empty) {
            Some(prompt) => bail!("prompt {prompt} was not searched by any rank"),
            None => Ok(Some(ranked)),
        }
    }
}
