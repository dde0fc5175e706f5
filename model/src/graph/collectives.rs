//! Communication between the replicas of the mesh. Each is the identity where the axes have size one.

use super::{OpKind, ReduceKind, Tensor};
use crate::mesh::Axis;

impl<'g> Tensor<'g> {
    fn members(self, axes: &[Axis]) -> usize {
        axes.iter().map(|&a| self.graph.mesh.size(a)).product()
    }

    /// Joins the shards of all members along `dim`, in the order of their coordinates. Gradient: reduce-scatter.
    pub fn all_gather(self, dim: usize, axis: Axis) -> Self {
        let members = self.members(&[axis]);
        if members == 1 {
            return self;
        }
        let mut shape = self.shape();
        shape[dim] *= members;
        self.graph.op(OpKind::AllGather { dim, axes: vec![axis] }, &[self], self.dtype(), shape)
    }

    /// Sums over the members and leaves each its shard along `dim`. Gradient: all-gather.
    pub fn reduce_scatter(self, dim: usize, axis: Axis) -> Self {
        let members = self.members(&[axis]);
        if members == 1 {
            return self;
        }
        let mut shape = self.shape();
        assert_eq!(shape[dim] % members, 0, "reduce_scatter of {self:?} along {dim} over {members}");
        shape[dim] /= members;
        self.graph.op(OpKind::ReduceScatter { dim, axes: vec![axis] }, &[self], self.dtype(), shape)
    }

    fn reduce_over(self, axes: &[Axis], kind: ReduceKind, replicated: bool) -> Self {
        let axes: Vec<Axis> = axes.iter().copied().filter(|&a| self.graph.mesh.size(a) > 1).collect();
        if axes.is_empty() {
            return self;
        }
        self.graph.op(OpKind::AllReduce { axes, kind, replicated }, &[self], self.dtype(), self.shape())
    }

    /// Sum over the members, each with a loss of its own. Gradient: all-reduce.
    pub fn all_reduce(self, axes: &[Axis]) -> Self {
        self.reduce_over(axes, ReduceKind::Sum, false)
    }

    /// Sum over the members of partial results of one computation, after which all members do the same: the end of a
    /// tensor-parallel block. Gradient: identity.
    pub fn sum_partial(self, axes: &[Axis]) -> Self {
        self.reduce_over(axes, ReduceKind::Sum, true)
    }

    /// The identity at the start of a tensor-parallel block, whose members use the value in different ways. Gradient:
    /// all-reduce.
    pub fn enter_parallel(self, axis: Axis) -> Self {
        if self.members(&[axis]) == 1 {
            return self;
        }
        self.graph.op(OpKind::ReduceGradient { axes: vec![axis] }, &[self], self.dtype(), self.shape())
    }
}
