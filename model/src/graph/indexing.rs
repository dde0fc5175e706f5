//! Rows by index, and sorting.

use sft_tensor::DType;

use super::{Graph, OpKind, Tensor};

impl<'g> Tensor<'g> {
    /// Rows of this `[v, …]` table at `index […]` (s32, clamped to the table): `[index…, …]`.
    pub fn take(self, index: Tensor<'g>) -> Self {
        assert_eq!(index.dtype(), DType::S32, "indices are s32");
        let shape = [index.shape().as_slice(), &self.shape()[1..]].concat();
        self.graph.op(OpKind::Take, &[self, index], self.dtype(), shape)
    }

    /// Adds `updates [n, …]` to the rows `index [n]` (s32) of this `[v, …]` table; rows may repeat.
    pub fn scatter_add(self, index: Tensor<'g>, updates: Tensor<'g>) -> Self {
        assert_eq!(index.rank(), 1, "one index per update");
        assert_eq!(updates.shape(), [&[index.dim(0)], &self.shape()[1..]].concat(), "updates of {self:?}");
        assert_eq!(updates.dtype(), self.dtype(), "updates differ in type");
        self.graph.op(OpKind::ScatterAdd, &[self, index, updates], self.dtype(), self.shape())
    }
}

impl Graph {
    /// Sorts `keys` along the last dimension, largest first, equal keys in their order; `followers` (of the same shape)
    /// are permuted alike. Returns the keys and the followers.
    pub fn sort_descending<'g>(&'g self, keys: Tensor<'g>, followers: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let operands = [&[keys], followers].concat();
        assert!(followers.iter().all(|f| f.shape() == keys.shape()), "followers differ from {keys:?} in shape");
        let types: Vec<_> = operands.iter().map(|t| (t.dtype(), t.shape())).collect();
        self.op_n(OpKind::SortDescending, &operands, &types)
    }

    /// The `k` largest of `keys [.., n]` and their indices in the last dimension, largest first, lower index first
    /// among equals: `([.., k], [.., k] s32)`.
    pub fn top_k<'g>(&'g self, keys: Tensor<'g>, k: usize) -> (Tensor<'g>, Tensor<'g>) {
        let last = keys.rank() - 1;
        assert!(k <= keys.dim(last), "top {k} of {keys:?}");
        let index = self.iota(DType::S32, &keys.shape(), last);
        let sorted = self.sort_descending(keys, &[index]);
        (sorted[0].narrow(last, 0..k), sorted[1].narrow(last, 0..k))
    }
}
