//! Parameters: their names, shapes, initialisation, and which part of each a device holds.

use std::ops::Range;

use crate::mesh::{Axis, Mesh};

/// How a parameter starts when a model is trained from scratch (HF's rules).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Independent normal values, mean 0, with this standard deviation.
    Normal(f32),
    /// All ones (norm weights).
    Ones,
    /// All zeros (biases).
    Zeros,
}

/// One trainable tensor in the layout that the programs use. Matrices keep HF's `[out, in]` layout; the tensors of all
/// layers are stacked into one with a leading `[layers]` dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// HF's tensor name; for a stacked parameter with `*` for the layer (`model.layers.*.mlp.up_proj.weight`).
    pub name: String,
    /// Logical shape, the layer dimension included. Vocabulary rows are counted padded.
    pub shape: Vec<usize>,
    /// The dimension sharded over `fsdp`; `None` for small parameters, which are replicated.
    pub fsdp_dim: Option<usize>,
    /// The dimension split over `tp`.
    pub tp_dim: Option<usize>,
    /// Initialisation from scratch.
    pub init: Init,
}

impl Param {
    /// True if the first dimension counts layers.
    pub fn is_stacked(&self) -> bool {
        self.name.contains('*')
    }

    /// Number of tensors in HF files that make up this parameter: one, or one a layer.
    pub fn parts(&self) -> usize {
        if self.is_stacked() {
            self.shape[0]
        } else {
            1
        }
    }

    /// HF's name of part `part`.
    pub fn part_name(&self, part: usize) -> String {
        self.name.replace('*', &part.to_string())
    }

    /// Shape of one part: the shape without the layer dimension.
    pub fn part_shape(&self) -> &[usize] {
        &self.shape[usize::from(self.is_stacked())..]
    }

    /// True for matrices; false for biases and norm weights (HF's no-decay group).
    pub fn is_matrix(&self) -> bool {
        self.part_shape().len() >= 2
    }

    /// True for tables with a row per token: the embedding and the head.
    pub fn is_vocabulary(&self) -> bool {
        !self.is_stacked() && self.is_matrix()
    }

    /// How many ways dimension `dim` is split on `mesh`.
    pub fn splits(&self, dim: usize, mesh: &Mesh) -> usize {
        let over = |sharded: Option<usize>, size: usize| if sharded == Some(dim) { size } else { 1 };
        over(self.fsdp_dim, mesh.fsdp) * over(self.tp_dim, mesh.tp)
    }

    /// Shape of what one device holds: sharded dimensions divided, rounded up.
    pub fn shard_shape(&self, mesh: &Mesh) -> Vec<usize> {
        self.shape.iter().enumerate().map(|(d, &n)| n.div_ceil(self.splits(d, mesh))).collect()
    }

    /// The block of the logical tensor that `replica` holds, one range per dimension, cut at the logical shape: where
    /// sizes do not divide, the last shards are shorter than [`Param::shard_shape`] (or empty) and padded with zeros.
    pub fn shard_ranges(&self, mesh: &Mesh, replica: usize) -> Vec<Range<usize>> {
        let shard = self.shard_shape(mesh);
        self.shape
            .iter()
            .zip(shard)
            .enumerate()
            .map(|(d, (&n, size))| {
                // With both axes on one dimension, tp splits first: an fsdp gather then restores the tp slice.
                let mut index = 0;
                for (axis, sharded) in [(Axis::Tp, self.tp_dim), (Axis::Fsdp, self.fsdp_dim)] {
                    if sharded == Some(d) {
                        index = index * mesh.size(axis) + mesh.coordinate(replica, axis);
                    }
                }
                (index * size).min(n)..((index + 1) * size).min(n)
            })
            .collect()
    }

    /// Number of elements of the logical tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_tile_the_tensor_and_pad_the_last() {
        let mesh = Mesh { dp: 2, fsdp: 3, tp: 2 };
        let param = Param {
            name: "model.layers.*.mlp.up_proj.weight".into(),
            shape: vec![2, 8, 7],
            fsdp_dim: Some(2),
            tp_dim: Some(1),
            init: Init::Zeros,
        };
        assert_eq!(param.shard_shape(&mesh), [2, 4, 3]);
        assert_eq!(param.shard_ranges(&mesh, 0), [0..2, 0..4, 0..3]);
        assert_eq!(param.shard_ranges(&mesh, 5), [0..2, 4..8, 6..7]);
        assert_eq!(param.shard_ranges(&mesh, 5), param.shard_ranges(&mesh, 11), "dp replicas hold the same");
        assert_eq!(param.part_name(1), "model.layers.1.mlp.up_proj.weight");
        assert_eq!(param.part_shape(), [8, 7]);
    }
}
