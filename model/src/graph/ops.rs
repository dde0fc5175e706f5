//! Elementwise operations, shapes, reductions and products.

use std::ops::{Add, Div, Mul, Neg, Range, Sub};

use sft_tensor::DType;

use super::{BinaryKind, CompareKind, Graph, OpKind, ReduceKind, Tensor, UnaryKind};

impl Graph {
    /// A tensor with all elements equal to `value`.
    pub fn splat(&self, value: f64, dtype: DType, shape: &[usize]) -> Tensor<'_> {
        self.op(OpKind::Splat(value), &[], dtype, shape.to_vec())
    }

    /// A scalar.
    pub fn scalar(&self, value: f64, dtype: DType) -> Tensor<'_> {
        self.splat(value, dtype, &[])
    }

    /// An f32 constant. Panics if `values` does not fill `shape`.
    pub fn constant_f32(&self, shape: &[usize], values: &[f32]) -> Tensor<'_> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill {shape:?}");
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.op(OpKind::Data(data), &[], DType::F32, shape.to_vec())
    }

    /// An s32 constant. Panics if `values` does not fill `shape`.
    pub fn constant_i32(&self, shape: &[usize], values: &[i32]) -> Tensor<'_> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill {shape:?}");
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.op(OpKind::Data(data), &[], DType::S32, shape.to_vec())
    }

    /// Counts along dimension `dim`.
    pub fn iota(&self, dtype: DType, shape: &[usize], dim: usize) -> Tensor<'_> {
        assert!(dim < shape.len(), "iota over dimension {dim} of {shape:?}");
        self.op(OpKind::Iota { dim }, &[], dtype, shape.to_vec())
    }

    /// Joins tensors along `dim`.
    pub fn concat<'g>(&'g self, parts: &[Tensor<'g>], dim: usize) -> Tensor<'g> {
        let mut shape = parts[0].shape();
        shape[dim] = parts.iter().map(|p| p.dim(dim)).sum();
        for part in parts {
            let mut expected = shape.clone();
            expected[dim] = part.dim(dim);
            assert_eq!(part.shape(), expected, "concat along {dim}");
            assert_eq!(part.dtype(), parts[0].dtype(), "concat of different types");
        }
        if let [one] = parts {
            return *one;
        }
        self.op(OpKind::Concat { dim }, parts, parts[0].dtype(), shape)
    }

    /// Stacks tensors of one shape along a new leading dimension.
    pub fn stack<'g>(&'g self, parts: &[Tensor<'g>]) -> Tensor<'g> {
        let lifted: Vec<_> = parts.iter().map(|p| p.reshape(&[&[1], p.shape().as_slice()].concat())).collect();
        self.concat(&lifted, 0)
    }
}

impl<'g> Tensor<'g> {
    fn unary(self, kind: UnaryKind) -> Self {
        self.graph.op(OpKind::Unary(kind), &[self], self.dtype(), self.shape())
    }

    fn binary(self, kind: BinaryKind, other: Self) -> Self {
        let (a, b) = self.broadcast_together(other);
        a.graph.op(OpKind::Binary(kind), &[a, b], a.dtype(), a.shape())
    }

    fn broadcast_together(self, other: Self) -> (Self, Self) {
        assert_eq!(self.dtype(), other.dtype(), "operands {self:?} and {other:?} differ in type");
        let (a, b) = (self.shape(), other.shape());
        if a == b {
            return (self, other);
        }
        let rank = a.len().max(b.len());
        let size = |shape: &[usize], d: usize| (d + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        let shape: Vec<usize> = (0..rank)
            .map(|d| match (size(&a, d), size(&b, d)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => panic!("shapes {a:?} and {b:?} do not broadcast"),
            })
            .collect();
        (self.broadcast_to(&shape), other.broadcast_to(&shape))
    }

    /// Stretches to `shape`, aligned at the last dimension.
    pub fn broadcast_to(self, shape: &[usize]) -> Self {
        let own = self.shape();
        let lead = shape.len().checked_sub(own.len()).expect("broadcast_to a lower rank");
        self.broadcast_in_dim(shape, &(lead..shape.len()).collect::<Vec<_>>())
    }

    /// Stretches to `shape`; dimension `i` becomes dimension `dims[i]`.
    pub fn broadcast_in_dim(self, shape: &[usize], dims: &[usize]) -> Self {
        let own = self.shape();
        assert_eq!(own.len(), dims.len(), "one target dimension each");
        for (&d, &n) in dims.iter().zip(&own) {
            assert!(n == 1 || n == shape[d], "{own:?} does not broadcast to {shape:?} along {dims:?}");
        }
        if own == shape {
            return self;
        }
        self.graph.op(OpKind::Broadcast { dims: dims.to_vec() }, &[self], self.dtype(), shape.to_vec())
    }

    /// The same elements in row-major order under another shape.
    pub fn reshape(self, shape: &[usize]) -> Self {
        assert_eq!(self.elements(), shape.iter().product::<usize>(), "reshape of {:?} to {shape:?}", self.shape());
        if self.shape() == shape {
            return self;
        }
        self.graph.op(OpKind::Reshape, &[self], self.dtype(), shape.to_vec())
    }

    /// Result dimension `i` is dimension `perm[i]` of this tensor.
    pub fn transpose(self, perm: &[usize]) -> Self {
        let own = self.shape();
        let shape = perm.iter().map(|&d| own[d]).collect();
        if perm.iter().enumerate().all(|(i, &d)| i == d) {
            return self;
        }
        self.graph.op(OpKind::Transpose { perm: perm.to_vec() }, &[self], self.dtype(), shape)
    }

    /// Converts the element type.
    pub fn convert(self, dtype: DType) -> Self {
        if self.dtype() == dtype {
            return self;
        }
        self.graph.op(OpKind::Convert, &[self], dtype, self.shape())
    }

    /// General product: batch dimensions pair up, contracting dimensions are summed. The result has the batch, the
    /// left's free and the right's free dimensions and the type `dtype` (sums of products are at least f32).
    pub fn dot(self, other: Self, batch: [&[usize]; 2], contract: [&[usize]; 2], dtype: DType) -> Self {
        let shapes = [self.shape(), other.shape()];
        assert_eq!(self.dtype(), other.dtype(), "factors {self:?} and {other:?} differ in type");
        for dims in [batch, contract] {
            let sizes = |side: usize| dims[side].iter().map(|&d| shapes[side][d]).collect::<Vec<_>>();
            assert_eq!(sizes(0), sizes(1), "dot of {:?} and {:?} over {dims:?}", shapes[0], shapes[1]);
        }
        let free = |side: usize| {
            let taken = move |d: &usize| !batch[side].contains(d) && !contract[side].contains(d);
            (0..shapes[side].len()).filter(taken).map(|d| shapes[side][d]).collect::<Vec<_>>()
        };
        let mut shape: Vec<usize> = batch[0].iter().map(|&d| shapes[0][d]).collect();
        shape.extend(free(0));
        shape.extend(free(1));
        let kind = OpKind::Dot { batch: batch.map(<[_]>::to_vec), contract: contract.map(<[_]>::to_vec) };
        self.graph.op(kind, &[self, other], dtype, shape)
    }

    /// `x Wᵀ`: `x [.., in]` times a weight in HF's layout `[out, in]` is `[.., out]`.
    pub fn linear(self, weight: Self) -> Self {
        self.dot(weight, [&[], &[]], [&[self.rank() - 1], &[1]], self.dtype())
    }

    fn reduce(self, kind: ReduceKind, dims: &[usize]) -> Self {
        let own = self.shape();
        let shape = (0..own.len()).filter(|d| !dims.contains(d)).map(|d| own[d]).collect();
        if dims.is_empty() {
            return self;
        }
        self.graph.op(OpKind::Reduce { kind, dims: dims.to_vec() }, &[self], self.dtype(), shape)
    }

    /// Sum over `dims`, which disappear.
    pub fn sum(self, dims: &[usize]) -> Self {
        self.reduce(ReduceKind::Sum, dims)
    }

    /// Largest element over `dims`, which disappear. Has no gradient.
    pub fn max(self, dims: &[usize]) -> Self {
        self.reduce(ReduceKind::Max, dims)
    }

    /// Sum over all elements.
    pub fn sum_all(self) -> Self {
        self.sum(&(0..self.rank()).collect::<Vec<_>>())
    }

    /// Adds a dimension of size one at `dim`.
    pub fn expand_dim(self, dim: usize) -> Self {
        let mut shape = self.shape();
        shape.insert(dim, 1);
        self.reshape(&shape)
    }

    /// The block `ranges`, one range per dimension.
    pub fn slice(self, ranges: &[Range<usize>]) -> Self {
        let own = self.shape();
        assert_eq!(own.len(), ranges.len(), "one range per dimension of {own:?}");
        assert!(ranges.iter().zip(&own).all(|(r, &n)| r.start <= r.end && r.end <= n), "{ranges:?} of {own:?}");
        let shape: Vec<usize> = ranges.iter().map(|r| r.len()).collect();
        if shape == own {
            return self;
        }
        let start = ranges.iter().map(|r| r.start).collect();
        self.graph.op(OpKind::Slice { start }, &[self], self.dtype(), shape)
    }

    /// The part `range` of dimension `dim`.
    pub fn narrow(self, dim: usize, range: Range<usize>) -> Self {
        let ranges: Vec<_> =
            self.shape().iter().enumerate().map(|(d, &n)| if d == dim { range.clone() } else { 0..n }).collect();
        self.slice(&ranges)
    }

    /// Adds `low` zeros before and `high` zeros after each dimension.
    pub fn pad(self, low: &[usize], high: &[usize]) -> Self {
        if low.iter().chain(high).all(|&n| n == 0) {
            return self;
        }
        let shape = self.shape().iter().zip(low.iter().zip(high)).map(|(n, (l, h))| n + l + h).collect();
        self.graph.op(OpKind::Pad { low: low.to_vec(), high: high.to_vec() }, &[self], self.dtype(), shape)
    }

    /// The slices along the leading dimension.
    pub fn unstack(self) -> Vec<Self> {
        let shape = self.shape();
        let types = vec![(self.dtype(), shape[1..].to_vec()); shape[0]];
        self.graph.op_n(OpKind::Unstack, &[self], &types)
    }

    /// Elementwise choice: `on_true` where this predicate holds, else `on_false`.
    pub fn select(self, on_true: Self, on_false: Self) -> Self {
        assert_eq!(self.dtype(), DType::Pred, "select needs a predicate");
        let (on_true, on_false) = on_true.broadcast_together(on_false);
        let (predicate, shape) = (self.broadcast_to(&on_true.shape()), on_true.shape());
        self.graph.op(OpKind::Select, &[predicate, on_true, on_false], on_true.dtype(), shape)
    }

    fn compare(self, kind: CompareKind, other: Self) -> Self {
        let (a, b) = self.broadcast_together(other);
        a.graph.op(OpKind::Compare(kind), &[a, b], DType::Pred, a.shape())
    }

    /// Elementwise `==`.
    pub fn equal(self, other: Self) -> Self {
        self.compare(CompareKind::Eq, other)
    }

    /// Elementwise `<`.
    pub fn less(self, other: Self) -> Self {
        self.compare(CompareKind::Lt, other)
    }

    /// Elementwise `<=`.
    pub fn less_equal(self, other: Self) -> Self {
        self.compare(CompareKind::Le, other)
    }

    /// Elementwise `>`.
    pub fn greater(self, other: Self) -> Self {
        self.compare(CompareKind::Gt, other)
    }

    /// Elementwise `>=`.
    pub fn greater_equal(self, other: Self) -> Self {
        self.compare(CompareKind::Ge, other)
    }

    /// Elementwise logical and of predicates.
    pub fn and(self, other: Self) -> Self {
        self.binary(BinaryKind::And, other)
    }

    /// Elementwise logical not of a predicate.
    #[allow(clippy::should_implement_trait)] // `!x` would read as negation of a host boolean
    pub fn not(self) -> Self {
        self.unary(UnaryKind::Not)
    }

    /// Elementwise maximum.
    pub fn maximum(self, other: Self) -> Self {
        self.binary(BinaryKind::Max, other)
    }

    /// Elementwise minimum.
    pub fn minimum(self, other: Self) -> Self {
        self.binary(BinaryKind::Min, other)
    }

    /// `eˣ`.
    pub fn exp(self) -> Self {
        self.unary(UnaryKind::Exp)
    }

    /// Natural logarithm.
    pub fn log(self) -> Self {
        self.unary(UnaryKind::Log)
    }

    /// Square root.
    pub fn sqrt(self) -> Self {
        self.unary(UnaryKind::Sqrt)
    }

    /// `1/√x`.
    pub fn rsqrt(self) -> Self {
        self.unary(UnaryKind::Rsqrt)
    }

    /// `1/(1 + e⁻ˣ)`.
    pub fn logistic(self) -> Self {
        self.unary(UnaryKind::Logistic)
    }

    /// Sine.
    pub fn sin(self) -> Self {
        self.unary(UnaryKind::Sin)
    }

    /// Cosine.
    pub fn cos(self) -> Self {
        self.unary(UnaryKind::Cos)
    }

    /// Absolute value.
    pub fn abs(self) -> Self {
        self.unary(UnaryKind::Abs)
    }

    /// −1, 0 or 1.
    pub fn sign(self) -> Self {
        self.unary(UnaryKind::Sign)
    }

    /// The same values, seen as constants by differentiation.
    pub fn stop_gradient(self) -> Self {
        self.graph.op(OpKind::StopGradient, &[self], self.dtype(), self.shape())
    }

    /// The same values; XLA neither moves nor merges computation across.
    pub fn barrier(self) -> Self {
        self.graph.op(OpKind::Barrier, &[self], self.dtype(), self.shape())
    }

    fn like(self, value: f64) -> Self {
        self.graph.scalar(value, self.dtype())
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $kind:ident) => {
        impl<'g> $trait for Tensor<'g> {
            type Output = Tensor<'g>;
            fn $method(self, other: Self) -> Self {
                self.binary(BinaryKind::$kind, other)
            }
        }
        impl<'g> $trait<f64> for Tensor<'g> {
            type Output = Tensor<'g>;
            fn $method(self, other: f64) -> Self {
                self.binary(BinaryKind::$kind, self.like(other))
            }
        }
    };
}

operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);

impl<'g> Neg for Tensor<'g> {
    type Output = Tensor<'g>;
    fn neg(self) -> Self {
        self.unary(UnaryKind::Neg)
    }
}
