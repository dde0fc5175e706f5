//! The goldens' models and batches as program inputs.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use sft_model::config::ModelConfig;
use sft_model::layout::{params, Vocab};
use sft_model::mesh::Mesh;
use sft_model::params::Param;
use sft_tensor::{DType, HostTensor};

/// All tensors of a safetensors file (f32 and i32 as they are).
pub fn read_safetensors(path: &Path) -> HashMap<String, HostTensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &safetensors::tensor::TensorView<'_>| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::I32 => DType::S32,
            other => panic!("{other:?}"),
        };
        HostTensor::new(dtype, view.shape().to_vec(), view.data().to_vec()).unwrap()
    };
    file.tensors().into_iter().map(|(name, view)| (name, tensor(&view))).collect()
}

/// A model of the goldens.
pub struct Model {
    pub config: ModelConfig,
    pub weights: HashMap<String, HostTensor>,
}

impl Model {
    pub fn read(dir: &Path) -> Self {
        Self { config: ModelConfig::read(dir).unwrap(), weights: read_safetensors(&dir.join("model.safetensors")) }
    }

    pub fn vocab(&self, mesh: &Mesh) -> Vocab {
        Vocab::padded(self.config.vocab_size, mesh)
    }

    /// A whole parameter, stacked and padded.
    fn whole(&self, param: &Param) -> HostTensor {
        let mut whole = HostTensor::zeros(DType::F32, &param.shape);
        for part in 0..param.parts() {
            let tensor = self.weights[&param.part_name(part)].clone();
            let mut offsets = vec![0; param.shape.len()];
            if param.is_stacked() {
                offsets[0] = part;
                let shape = [&[1], tensor.shape()].concat();
                whole.write_block(&offsets, &tensor.reshaped(&shape));
            } else {
                whole.write_block(&offsets, &tensor);
            }
        }
        whole
    }

    /// What `replica` holds of every parameter.
    pub fn shards(&self, mesh: &Mesh, replica: usize) -> Vec<HostTensor> {
        let shard = |param: &Param| {
            let mut shard = HostTensor::zeros(DType::F32, &param.shard_shape(mesh));
            let ranges = param.shard_ranges(mesh, replica);
            if ranges.iter().all(|r| !r.is_empty()) {
                shard.write_block(&vec![0; ranges.len()], &self.whole(param).slice(&ranges));
            }
            shard
        };
        params(&self.config, self.vocab(mesh)).iter().map(shard).collect()
    }
}
