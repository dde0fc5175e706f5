use sft_tensor::DType;

use super::{BlockId, ValueId};
use crate::mesh::Axis;

/// An operation: what it does, what it reads, what it yields.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub kind: OpKind,
    pub operands: Vec<ValueId>,
    pub results: Vec<ValueId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum UnaryKind {
    Neg,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Logistic,
    Sin,
    Cos,
    Abs,
    Sign,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BinaryKind {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    And,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CompareKind {
    Eq,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ReduceKind {
    Sum,
    Max,
}

/// What the forward pass of a loop keeps for the reverse pass, besides the carries; the rest is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remat {
    /// Nothing: one carry a step is kept.
    #[default]
    Steps,
    /// The results of products and all-reduces, so that only what is cheap is computed again.
    Elementwise,
}

/// A loop over the leading dimension of its `xs`: `(carry, x_i) → (carry, y_i)`. Operands are the initial carries and
/// then the `xs`; results the final carries and then the stacked `ys`. The body's parameters and results come in the
/// same order; whatever else it uses is captured from outside.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub body: BlockId,
    pub length: usize,
    pub carries: usize,
    pub reverse: bool,
    pub remat: Remat,
}

#[derive(Clone, Debug)]
pub(crate) enum OpKind {
    /// All elements equal.
    Splat(f64),
    /// Little-endian elements, row-major.
    Data(Vec<u8>),
    Iota {
        dim: usize,
    },
    Unary(UnaryKind),
    Binary(BinaryKind),
    Compare(CompareKind),
    Select,
    Convert,
    /// Operand dimension `i` becomes result dimension `dims[i]`.
    Broadcast {
        dims: Vec<usize>,
    },
    Reshape,
    Transpose {
        perm: Vec<usize>,
    },
    /// Result dimensions: batch, free of the left, free of the right.
    Dot {
        batch: [Vec<usize>; 2],
        contract: [Vec<usize>; 2],
    },
    Reduce {
        kind: ReduceKind,
        dims: Vec<usize>,
    },
    Slice {
        start: Vec<usize>,
    },
    /// Zeros around the operand.
    Pad {
        low: Vec<usize>,
        high: Vec<usize>,
    },
    Concat {
        dim: usize,
    },
    /// Splits the leading dimension into one result an index.
    Unstack,
    /// `table[v, …], index[…] → [index…, …]`.
    Take,
    /// `base[v, …], index[n], updates[n, …]`: adds each update to its row.
    ScatterAdd,
    /// Sorts along the last dimension by the first operand, descending and stable; the others follow.
    SortDescending,
    /// Identity that stops gradients.
    StopGradient,
    /// `computed, kept`: yields what the forward pass kept; its gradient is the computed one's, which nothing else uses.
    Kept,
    /// Identity that XLA may not optimise across.
    Barrier,
    AllGather {
        dim: usize,
        axes: Vec<Axis>,
    },
    ReduceScatter {
        dim: usize,
        axes: Vec<Axis>,
    },
    /// With `replicated`, consumers are the same on all members, so the gradient passes unchanged.
    AllReduce {
        axes: Vec<Axis>,
        kind: ReduceKind,
        replicated: bool,
    },
    /// Identity whose gradient is summed over `axes`.
    ReduceGradient {
        axes: Vec<Axis>,
    },
    Scan(Scan),
}

/// MLIR's name of an element type.
pub(crate) fn mlir_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Pred => "i1",
        DType::S32 => "i32",
        DType::S64 => "i64",
        DType::U32 => "ui32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F32 => "f32",
        DType::F64 => "f64",
    }
}
