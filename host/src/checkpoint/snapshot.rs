//! From shards on all hosts to files of rank 0.

use std::path::Path;

use anyhow::{Context, Result};
use sft_data::prepared::Prepared;
use sft_model::params::Param;
use sft_model::weights::{assemble, export_hf, export_order, holders, msgpack_order, write_msgpack_state};
use sft_runtime::Buffer;
use sft_tensor::{DType, HostTensor};

use crate::devices::Devices;
use crate::model::Model;
use crate::world::World;

/// One tensor per parameter (the parameters themselves, or a moment of the optimizer) in this host's memory: the shards of
/// each local replica that files are made from.
pub struct Snapshot<'a> {
    world: &'a World,
    devices: &'a Devices,
    model: &'a Model,
    /// `(replica, shards)`; the other data-parallel groups hold the same.
    local: Vec<(usize, Vec<HostTensor>)>,
    dtype: DType,
}

impl<'a> Snapshot<'a> {
    /// Copies the shards number `slot` of a state `[local replica][slot · parameters + parameter]` from the devices.
    pub fn take(
        world: &'a World,
        devices: &'a Devices,
        model: &'a Model,
        state: &[Vec<Buffer>],
        slot: usize,
    ) -> Result<Self> {
        let group = devices.mesh().fsdp * devices.mesh().tp;
        let count = model.params.len();
        let dtype = state[0][slot * count].dtype();
        let mut local = Vec::new();
        for (replica, buffers) in devices.local_replicas().zip(state) {
            if replica < group {
                let shards = buffers[slot * count..(slot + 1) * count].iter().map(|b| b.download());
                local.push((replica, shards.collect::<sft_runtime::Result<_>>()?));
            }
        }
        Ok(Self { world, devices, model, local, dtype })
    }

    /// Writes `path` in flax's msgpack layout; all ranks take part, rank 0 writes.
    pub fn write_state(&self, path: &Path, step: u64) -> Result<()> {
        let order = msgpack_order(&self.model.params);
        self.write(&order, |part| write_msgpack_state(path, &self.model.params, step, part))
    }

    /// Writes the folder `dir` in HF's form with the tokenizer of `prepared`; all ranks take part, rank 0 writes.
    pub fn export(&self, dir: &Path, prepared: &Prepared) -> Result<()> {
        let Model { config, params, vocab, .. } = self.model;
        let order = export_order(params);
        self.write(&order, |part| export_hf(dir, config, params, vocab.tokens, DType::F32, part))?;
        self.world.agree(if self.world.is_first() { copy_tokenizer(prepared, dir) } else { Ok(()) })
    }

    fn write<F>(&self, order: &[(usize, usize)], file: F) -> Result<()>
    where
        F: FnOnce(&mut dyn FnMut(&Param, usize) -> Result<HostTensor>) -> Result<()>,
    {
        let written = if self.world.is_first() {
            let mut sent = 0;
            let result = file(&mut |param, part| {
                sent += 1;
                self.gather(param, part)
            });
            // the other ranks send all parts, whatever has become of the file
            for &(param, part) in &order[sent..] {
                let _ = self.gather(&self.model.params[param], part);
            }
            result
        } else {
            for &(param, part) in order {
                self.send(&self.model.params[param], part);
            }
            Ok(())
        };
        self.world.agree(written)
    }

    /// One part of a parameter, whole, on rank 0.
    fn gather(&self, param: &Param, part: usize) -> Result<HostTensor> {
        let mut shape = param.shard_shape(self.devices.mesh());
        shape.drain(..usize::from(param.is_stacked()));
        assemble(param, self.devices.mesh(), |replica| match self.block(replica, param, part) {
            Some(block) => Ok(block),
            None => {
                let bytes = self.world.receive(self.devices.owner(replica));
                HostTensor::new(self.dtype, shape.clone(), bytes).context("a shard from another host")
            }
        })
    }

    fn send(&self, param: &Param, part: usize) {
        for replica in holders(param, self.devices.mesh()) {
            if let Some(block) = self.block(replica, param, part) {
                self.world.send(0, block.bytes());
            }
        }
    }

    /// What `replica` holds of a part, if it is one of ours.
    fn block(&self, replica: usize, param: &Param, part: usize) -> Option<HostTensor> {
        let (_, shards) = self.local.iter().find(|(own, _)| *own == replica)?;
        let index = self.model.params.iter().position(|p| p.name == param.name)?;
        let shard = &shards[index];
        if !param.is_stacked() {
            return Some(shard.clone());
        }
        let mut ranges: Vec<_> = shard.shape().iter().map(|&n| 0..n).collect();
        ranges[0] = part..part + 1;
        Some(shard.slice(&ranges).reshaped(&shard.shape()[1..]))
    }
}

fn copy_tokenizer(prepared: &Prepared, dir: &Path) -> Result<()> {
    let from = prepared.tokenizer_dir();
    let entries = std::fs::read_dir(&from).with_context(|| format!("{}: cannot be listed", from.display()))?;
    for path in entries.flatten().map(|e| e.path()) {
        let target = dir.join(path.file_name().unwrap_or_default());
        std::fs::copy(&path, &target).with_context(|| format!("{}: cannot be written", target.display()))?;
    }
    Ok(())
}
