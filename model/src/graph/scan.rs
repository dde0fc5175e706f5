//! Loops over stacked tensors.

use std::collections::HashMap;

use super::op::{Remat, Scan};
use super::{BlockId, Graph, Inner, OpKind, Tensor, ValueId};

/// How a [`Graph::scan`] runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Backwards: the last slices first.
    pub reverse: bool,
    /// What is kept for differentiation.
    pub remat: Remat,
}

impl Graph {
    /// Runs `body(carry, x_i) → (carry, y_i)` for `i` in `0..length` over the slices of `xs`
    /// along their leading dimension. Returns the final carries and the `ys`, stacked by index. The body may use
    /// tensors from outside.
    pub fn scan<'g, F>(
        &'g self,
        length: usize,
        init: &[Tensor<'g>],
        xs: &[Tensor<'g>],
        options: ScanOptions,
        body: F,
    ) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>)
    where
        F: FnOnce(&[Tensor<'g>], &[Tensor<'g>]) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>),
    {
        assert!(length > 0, "a scan of no steps");
        assert!(xs.iter().all(|x| x.dim(0) == length), "xs {xs:?} do not have {length} slices");
        let block = self.inner.borrow_mut().open_block();
        let param = |t: &Tensor<'g>, from: usize| {
            let (dtype, shape) = (t.dtype(), t.shape()[from..].to_vec());
            let id = self.inner.borrow_mut().block_param(dtype, shape);
            self.tensor(id)
        };
        let carry: Vec<_> = init.iter().map(|t| param(t, 0)).collect();
        let slices: Vec<_> = xs.iter().map(|t| param(t, 1)).collect();
        let (next, ys) = body(&carry, &slices);
        assert_eq!(next.len(), init.len(), "the body returns another number of carries");
        for (before, after) in init.iter().zip(&next) {
            assert_eq!((before.dtype(), before.shape()), (after.dtype(), after.shape()), "a carry changes its type");
        }
        let mut types: Vec<_> = next.iter().map(|t| (t.dtype(), t.shape())).collect();
        types.extend(ys.iter().map(|t| (t.dtype(), [&[length], t.shape().as_slice()].concat())));
        {
            let mut inner = self.inner.borrow_mut();
            let closed = inner.open.pop();
            debug_assert_eq!(closed, Some(block));
            inner.blocks[block].results = next.iter().chain(&ys).map(|t| t.id).collect();
        }
        let ScanOptions { reverse, remat } = options;
        let kind = OpKind::Scan(Scan { body: block, length, carries: init.len(), reverse, remat });
        let mut results = self.op_n(kind, &[init, xs].concat(), &types);
        let stacked = results.split_off(init.len());
        (results, stacked)
    }
}

impl Inner {
    /// Appends a copy of `block`'s operations to the innermost open block, with values replaced as `map` says; `map`
    /// then also holds the copies of the results. A result in `kept` is not computed but taken from there.
    pub fn inline(&mut self, block: BlockId, map: &mut HashMap<ValueId, ValueId>, kept: &HashMap<ValueId, ValueId>) {
        for op in self.blocks[block].ops.clone() {
            let source = self.ops[op].clone();
            let operands = source.operands.iter().map(|v| *map.get(v).unwrap_or(v)).collect();
            let kind = match source.kind {
                OpKind::Scan(scan) => OpKind::Scan(Scan { body: self.copy_block(scan.body, map), ..scan }),
                kind => kind,
            };
            let types: Vec<_> =
                source.results.iter().map(|&r| (self.values[r].dtype, self.values[r].shape.clone())).collect();
            let mut results = self.push(kind, operands, &types);
            if let Some(&value) = source.results.first().and_then(|r| kept.get(r)) {
                results = self.push(OpKind::Kept, vec![results[0], value], &types);
            }
            map.extend(source.results.into_iter().zip(results));
        }
    }

    fn copy_block(&mut self, block: BlockId, outer: &HashMap<ValueId, ValueId>) -> BlockId {
        let mut map = outer.clone();
        let copy = self.open_block();
        for param in self.blocks[block].params.clone() {
            let (dtype, shape) = (self.values[param].dtype, self.values[param].shape.clone());
            let id = self.block_param(dtype, shape);
            map.insert(param, id);
        }
        self.inline(block, &mut map, &HashMap::new());
        self.blocks[copy].results = self.blocks[block].results.iter().map(|v| *map.get(v).unwrap_or(v)).collect();
        self.open.pop();
        copy
    }
}
