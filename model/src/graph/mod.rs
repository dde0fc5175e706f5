//! A typed graph of tensor operations that prints as StableHLO and differentiates itself.
//!
//! A [`Graph`] owns operations; a [`Tensor`] is a copyable handle to one result. Building an operation checks shapes and
//! types at once and panics on a mismatch: that is a bug in the model's code, never a consequence of input, which is
//! validated before a graph is built.
//!
//! ```
//! use sft_model::graph::Graph;
//! use sft_model::mesh::Mesh;
//! use sft_tensor::DType;
//!
//! let g = Graph::new(Mesh::SINGLE);
//! let x = g.input("x", DType::F32, &[2, 3]);
//! let loss = (x * x).sum(&[0, 1]);
//! let dx = g.grad(loss, &[x])[0];
//! let text = g.to_stablehlo("square", &[loss, dx], &[]);
//! assert!(text.contains("stablehlo.multiply"));
//! ```

mod collectives;
mod emit;
mod grad;
mod indexing;
mod op;
mod ops;
mod scan;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use sft_tensor::DType;

use crate::mesh::Mesh;
pub use op::Remat;
pub(crate) use op::{BinaryKind, CompareKind, Op, OpKind, ReduceKind, UnaryKind};
pub use scan::ScanOptions;

/// Index of a value: the result of an operation or a parameter of a block.
pub(crate) type ValueId = usize;
/// Index of an operation.
pub(crate) type OpId = usize;
/// Index of a block: the program itself or the body of a loop.
pub(crate) type BlockId = usize;

#[derive(Clone, Debug)]
pub(crate) struct ValueInfo {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    pub params: Vec<ValueId>,
    pub ops: Vec<OpId>,
    pub results: Vec<ValueId>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub values: Vec<ValueInfo>,
    pub ops: Vec<Op>,
    pub blocks: Vec<Block>,
    /// Blocks being built, innermost last.
    pub open: Vec<BlockId>,
    /// Names of the program's inputs, in the order of the outermost block's parameters.
    pub input_names: Vec<String>,
}

impl Inner {
    pub fn value(&mut self, dtype: DType, shape: Vec<usize>) -> ValueId {
        self.values.push(ValueInfo { dtype, shape });
        self.values.len() - 1
    }

    pub fn current(&self) -> BlockId {
        // the program's own block is opened by Graph::new and never closed
        *self.open.last().expect("a block is open")
    }

    pub fn open_block(&mut self) -> BlockId {
        self.blocks.push(Block::default());
        self.open.push(self.blocks.len() - 1);
        self.blocks.len() - 1
    }

    pub fn block_param(&mut self, dtype: DType, shape: Vec<usize>) -> ValueId {
        let id = self.value(dtype, shape);
        let block = self.current();
        self.blocks[block].params.push(id);
        id
    }

    /// Appends an operation to the innermost open block; returns its results.
    pub fn push(&mut self, kind: OpKind, operands: Vec<ValueId>, types: &[(DType, Vec<usize>)]) -> Vec<ValueId> {
        let results: Vec<ValueId> = types.iter().map(|(dtype, shape)| self.value(*dtype, shape.clone())).collect();
        self.ops.push(Op { kind, operands, results: results.clone() });
        let (op, block) = (self.ops.len() - 1, self.current());
        self.blocks[block].ops.push(op);
        results
    }

    /// Values that `block` (with the blocks inside it) uses but does not define, in order of first use.
    pub fn captures(&self, block: BlockId) -> Vec<ValueId> {
        let mut defined: HashSet<ValueId> = self.blocks[block].params.iter().copied().collect();
        let mut seen = HashSet::new();
        let mut free = Vec::new();
        let mut use_value = |v: ValueId, defined: &HashSet<ValueId>| {
            if !defined.contains(&v) && seen.insert(v) {
                free.push(v);
            }
        };
        for &op in &self.blocks[block].ops {
            let op = &self.ops[op];
            op.operands.iter().for_each(|&v| use_value(v, &defined));
            if let OpKind::Scan(scan) = &op.kind {
                self.captures(scan.body).iter().for_each(|&v| use_value(v, &defined));
            }
            defined.extend(&op.results);
        }
        self.blocks[block].results.iter().for_each(|&v| use_value(v, &defined));
        free
    }
}

/// A program under construction for the replicas of a mesh.
pub struct Graph {
    inner: RefCell<Inner>,
    mesh: Mesh,
}

/// A handle to a value of a [`Graph`]. Arithmetic operators broadcast as NumPy does: shapes are aligned at their last
/// dimension, missing and size-one dimensions stretch.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Graph,
    id: ValueId,
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}: {:?} {:?}", self.id, self.dtype(), self.shape())
    }
}

impl Graph {
    /// An empty program for the replicas of `mesh`.
    pub fn new(mesh: Mesh) -> Self {
        let mut inner = Inner::default();
        inner.open_block();
        Self { inner: RefCell::new(inner), mesh }
    }

    /// The mesh that the program's collectives run over.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Appends an input to the program, with the shape that one replica sees.
    pub fn input(&self, name: &str, dtype: DType, shape: &[usize]) -> Tensor<'_> {
        let mut inner = self.inner.borrow_mut();
        assert_eq!(inner.open.len(), 1, "inputs belong to the program, not to a loop's body");
        inner.input_names.push(name.to_owned());
        let id = inner.block_param(dtype, shape.to_vec());
        drop(inner);
        self.tensor(id)
    }

    /// The program's inputs in order, with their names.
    pub fn inputs(&self) -> Vec<(String, Tensor<'_>)> {
        let inner = self.inner.borrow();
        let params = inner.blocks[0].params.clone();
        inner.input_names.iter().cloned().zip(params.into_iter().map(|id| self.tensor(id))).collect()
    }

    pub(crate) fn tensor(&self, id: ValueId) -> Tensor<'_> {
        Tensor { graph: self, id }
    }

    /// Appends an operation with one result.
    pub(crate) fn op(&self, kind: OpKind, operands: &[Tensor<'_>], dtype: DType, shape: Vec<usize>) -> Tensor<'_> {
        self.op_n(kind, operands, &[(dtype, shape)])[0]
    }

    /// Appends an operation with several results.
    pub(crate) fn op_n(&self, kind: OpKind, operands: &[Tensor<'_>], types: &[(DType, Vec<usize>)]) -> Vec<Tensor<'_>> {
        let operands = operands.iter().map(|t| t.id).collect();
        let results = self.inner.borrow_mut().push(kind, operands, types);
        results.into_iter().map(|id| self.tensor(id)).collect()
    }
}

impl<'g> Tensor<'g> {
    /// The graph that the tensor is a value of.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// Element type.
    pub fn dtype(self) -> DType {
        self.graph.inner.borrow().values[self.id].dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(self) -> Vec<usize> {
        self.graph.inner.borrow().values[self.id].shape.clone()
    }

    /// Size of dimension `dim`.
    pub fn dim(self, dim: usize) -> usize {
        self.shape()[dim]
    }

    /// Number of dimensions.
    pub fn rank(self) -> usize {
        self.shape().len()
    }

    /// Number of elements.
    pub fn elements(self) -> usize {
        self.shape().iter().product()
    }
}
