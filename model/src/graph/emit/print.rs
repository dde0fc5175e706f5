//! One operation as text.

use sft_tensor::DType;

use super::{ty, Emitter, Names};
use crate::graph::{BinaryKind, CompareKind, OpId, OpKind, ReduceKind, UnaryKind, ValueId};
use crate::mesh::Axis;

impl Emitter<'_> {
    /// Prints operation `id` (any but a scan) and names its results.
    pub(super) fn op(&mut self, id: OpId, names: &mut Names) {
        let inner = self.inner;
        let op = &inner.ops[id];
        let result = op.results[0];
        if let OpKind::Kept = op.kind {
            names.insert(result, names[&op.operands[1]].clone());
            return;
        }
        let name = format!("%v{result}");
        let x: Vec<String> = op.operands.iter().map(|v| names[v].clone()).collect();
        let t: Vec<String> = op.operands.iter().map(|&v| self.ty(v)).collect();
        let r = self.ty(result);
        let all = x.join(", ");
        let signature = format!("({}) -> {r}", t.join(", "));
        let shape = &inner.values[result].shape;
        let text = match &op.kind {
            OpKind::Splat(_) | OpKind::Data(_) | OpKind::Iota { .. } => {
                self.print_constant(&name, result, &op.kind);
                names.insert(result, name);
                return;
            }
            OpKind::Unary(kind) => format!("stablehlo.{} {all} : {r}", unary_name(*kind)),
            OpKind::Binary(kind) => format!("stablehlo.{} {all} : {r}", binary_name(*kind)),
            OpKind::Compare(kind) => {
                let dtype = inner.values[op.operands[0]].dtype;
                format!("stablehlo.compare {}, {all}, {} : {signature}", compare_name(*kind), compare_type(dtype))
            }
            OpKind::Select => format!("stablehlo.select {all} : {}, {r}", t[0]),
            OpKind::Convert => format!("stablehlo.convert {all} : {signature}"),
            OpKind::Broadcast { dims } => format!("stablehlo.broadcast_in_dim {all}, dims = {dims:?} : {signature}"),
            OpKind::Reshape => format!("stablehlo.reshape {all} : {signature}"),
            OpKind::Transpose { perm } => format!("stablehlo.transpose {all}, dims = {perm:?} : {signature}"),
            OpKind::Dot { batch, contract } => {
                let batching = if batch[0].is_empty() {
                    String::new()
                } else {
                    format!("batching_dims = {:?} x {:?}, ", batch[0], batch[1])
                };
                // f32 is the reference for correctness: no silent bf16 passes on accelerators
                let exact = matches!(inner.values[op.operands[0]].dtype, DType::F32 | DType::F64);
                let precision = if exact { "HIGHEST" } else { "DEFAULT" };
                format!(
                    "stablehlo.dot_general {all}, {batching}contracting_dims = {:?} x {:?}, \
                     precision = [{precision}, {precision}] : {signature}",
                    contract[0], contract[1]
                )
            }
            OpKind::Reduce { kind, dims } => {
                let (dtype, init) = (inner.values[result].dtype, format!("{name}_init"));
                let value = match kind {
                    ReduceKind::Sum => "0".to_owned(),
                    ReduceKind::Max => lowest(dtype).to_owned(),
                };
                let scalar = ty(dtype, &[]);
                let value = if value == "0" && dtype.is_float() { "0.0".to_owned() } else { value };
                self.body_line(format_args!("{init} = stablehlo.constant dense<{value}> : {scalar}"));
                let applied = reduce_name(*kind);
                format!(
                    "stablehlo.reduce({all} init: {init}) applies stablehlo.{applied} across dimensions = {dims:?} : \
                     ({}, {scalar}) -> {r}",
                    t[0]
                )
            }
            OpKind::Slice { start } => {
                let ranges: Vec<_> = start.iter().zip(shape).map(|(s, n)| format!("{s}:{}", s + n)).collect();
                format!("stablehlo.slice {all} [{}] : {signature}", ranges.join(", "))
            }
            OpKind::Pad { low, high } => {
                let dtype = inner.values[result].dtype;
                let (zero, scalar) = (format!("{name}_zero"), ty(dtype, &[]));
                self.body_line(format_args!("{zero} = stablehlo.constant dense<{}> : {scalar}", number(0.0, dtype)));
                let interior = vec![0; low.len()];
                format!(
                    "stablehlo.pad {all}, {zero}, low = {low:?}, high = {high:?}, interior = {interior:?} : \
                     ({}, {scalar}) -> {r}",
                    t[0]
                )
            }
            OpKind::Concat { dim } => format!("stablehlo.concatenate {all}, dim = {dim} : {signature}"),
            OpKind::Unstack => return self.unstack(id, names),
            OpKind::Take => {
                let table = &inner.values[op.operands[0]].shape;
                let rank = inner.values[op.operands[1]].shape.len();
                let offsets: Vec<usize> = (rank..rank + table.len() - 1).collect();
                let mut sizes = table.clone();
                sizes[0] = 1;
                format!(
                    "\"stablehlo.gather\"({all}) <{{dimension_numbers = #stablehlo.gather<offset_dims = {offsets:?}, \
                     collapsed_slice_dims = [0], start_index_map = [0], index_vector_dim = {rank}>, \
                     slice_sizes = array<i64: {}>, indices_are_sorted = false}}> : {signature}",
                    joined(&sizes)
                )
            }
            OpKind::ScatterAdd => {
                let windows: Vec<usize> = (1..inner.values[op.operands[2]].shape.len()).collect();
                let region = self.sum_region(result);
                format!(
                    "\"stablehlo.scatter\"({all}) <{{scatter_dimension_numbers = #stablehlo.scatter<\
                     update_window_dims = {windows:?}, inserted_window_dims = [0], scatter_dims_to_operand_dims = [0], \
                     index_vector_dim = 1>, indices_are_sorted = false, unique_indices = false}}> {region} : {signature}"
                )
            }
            OpKind::SortDescending => return self.sort(id, names),
            // nothing at run time
            OpKind::StopGradient | OpKind::ReduceGradient { .. } => {
                names.insert(result, x[0].clone());
                return;
            }
            OpKind::Barrier => format!("stablehlo.optimization_barrier {all} : {r}"),
            OpKind::AllGather { dim, axes } => format!(
                "\"stablehlo.all_gather\"({all}) <{{all_gather_dim = {dim} : i64, {}}}> : {signature}",
                self.groups(axes)
            ),
            OpKind::ReduceScatter { dim, axes } => format!(
                "\"stablehlo.reduce_scatter\"({all}) <{{scatter_dimension = {dim} : i64, {}}}> {} : {signature}",
                self.groups(axes),
                self.sum_region(result)
            ),
            OpKind::AllReduce { axes, kind, .. } => format!(
                "\"stablehlo.all_reduce\"({all}) <{{{}}}> {} : {signature}",
                self.groups(axes),
                self.region(result, reduce_name(*kind))
            ),
            OpKind::Scan(_) | OpKind::Kept => unreachable!("handled above and by the caller"),
        };
        self.body_line(format_args!("{name} = {text}"));
        names.insert(result, name);
    }

    /// Prints a constant of the type of `like`.
    pub(super) fn print_constant(&mut self, name: &str, like: ValueId, kind: &OpKind) {
        let r = self.ty(like);
        match kind {
            OpKind::Splat(value) => self.splat(name, *value, like),
            OpKind::Data(bytes) => {
                let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
                self.body_line(format_args!("{name} = stablehlo.constant dense<\"0x{hex}\"> : {r}"));
            }
            OpKind::Iota { dim } => self.body_line(format_args!("{name} = stablehlo.iota dim = {dim} : {r}")),
            _ => unreachable!("called for constants"),
        }
    }

    pub(super) fn splat(&mut self, name: &str, value: f64, like: ValueId) {
        let (r, dtype) = (self.ty(like), self.inner.values[like].dtype);
        self.body_line(format_args!("{name} = stablehlo.constant dense<{}> : {r}", number(value, dtype)));
    }

    fn unstack(&mut self, id: OpId, names: &mut Names) {
        let op = &self.inner.ops[id];
        let (source, whole) = (names[&op.operands[0]].clone(), self.ty(op.operands[0]));
        for (i, &result) in op.results.iter().enumerate() {
            let info = &self.inner.values[result];
            let ranges: String = info.shape.iter().map(|n| format!(", 0:{n}")).collect();
            let part = ty(info.dtype, &[&[1], info.shape.as_slice()].concat());
            let (name, r) = (format!("%v{result}"), self.ty(result));
            self.body_line(format_args!(
                "{name}_1 = stablehlo.slice {source} [{i}:{}{ranges}] : ({whole}) -> {part}",
                i + 1
            ));
            self.body_line(format_args!("{name} = stablehlo.reshape {name}_1 : ({part}) -> {r}"));
            names.insert(result, name);
        }
    }

    fn sort(&mut self, id: OpId, names: &mut Names) {
        let op = &self.inner.ops[id];
        let operands: Vec<_> = op.operands.iter().map(|v| names[v].clone()).collect();
        let types: Vec<_> = op.operands.iter().map(|&v| self.ty(v)).collect();
        let first = op.results[0];
        let scalars: Vec<_> = op.operands.iter().map(|&v| ty(self.inner.values[v].dtype, &[])).collect();
        let arguments: Vec<_> =
            scalars.iter().enumerate().map(|(i, s)| format!("%a{first}_{i}: {s}, %b{first}_{i}: {s}")).collect();
        let (dtype, dim) = (self.inner.values[first].dtype, self.inner.values[first].shape.len() - 1);
        self.body_line(format_args!(
            "%v{first}:{} = \"stablehlo.sort\"({}) <{{dimension = {dim} : i64, is_stable = true}}> ({{ ^bb0({}): \
             %p{first} = stablehlo.compare GT, %a{first}_0, %b{first}_0, {} : ({}, {}) -> tensor<i1> \
             stablehlo.return %p{first} : tensor<i1> }}) : ({}) -> ({})",
            operands.len(),
            operands.join(", "),
            arguments.join(", "),
            compare_type(dtype),
            scalars[0],
            scalars[0],
            types.join(", "),
            types.join(", ")
        ));
        for (i, &result) in op.results.iter().enumerate() {
            let name = if op.results.len() == 1 { format!("%v{first}") } else { format!("%v{first}#{i}") };
            names.insert(result, name);
        }
    }

    /// Who takes part in a collective, and a channel of its own: XLA may start independent collectives in different
    /// orders on different devices, and tells them apart by their channels.
    fn groups(&mut self, axes: &[Axis]) -> String {
        self.channels += 1;
        let groups = self.mesh.groups(axes);
        let (channel, rows, columns) = (self.channels, groups.len(), groups[0].len());
        format!(
            "channel_handle = #stablehlo.channel_handle<handle = {channel}, type = 1>, \
             replica_groups = dense<{groups:?}> : tensor<{rows}x{columns}xi64>, use_global_device_ids"
        )
    }

    fn sum_region(&self, result: ValueId) -> String {
        self.region(result, "add")
    }

    fn region(&self, result: ValueId, op: &str) -> String {
        let s = ty(self.inner.values[result].dtype, &[]);
        format!(
            "({{ ^bb0(%a{result}: {s}, %b{result}: {s}): %s{result} = stablehlo.{op} %a{result}, %b{result} : {s} \
             stablehlo.return %s{result} : {s} }})"
        )
    }
}

fn joined(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// A literal that MLIR reads back to exactly `value` in `dtype`.
fn number(value: f64, dtype: DType) -> String {
    match dtype {
        DType::Pred => (value != 0.0).to_string(),
        _ if !dtype.is_float() => format!("{}", value as i64),
        _ if value == f64::NEG_INFINITY => lowest(dtype).to_owned(),
        _ => {
            let text = format!("{value:e}");
            // MLIR wants a decimal point: 1e-5 is written 1.0e-5
            match text.split_once('e') {
                Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
                _ => text,
            }
        }
    }
}

/// The value that no element is below, as a literal.
fn lowest(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "0xFFF0000000000000",
        DType::F32 => "0xFF800000",
        DType::BF16 => "0xFF80",
        DType::F16 => "0xFC00",
        DType::S64 => "-9223372036854775808",
        DType::S32 => "-2147483648",
        DType::U32 => "0",
        DType::Pred => "false",
    }
}

fn unary_name(kind: UnaryKind) -> &'static str {
    match kind {
        UnaryKind::Neg => "negate",
        UnaryKind::Exp => "exponential",
        UnaryKind::Log => "log",
        UnaryKind::Sqrt => "sqrt",
        UnaryKind::Rsqrt => "rsqrt",
        UnaryKind::Logistic => "logistic",
        UnaryKind::Sin => "sine",
        UnaryKind::Cos => "cosine",
        UnaryKind::Abs => "abs",
        UnaryKind::Sign => "sign",
        UnaryKind::Not => "not",
    }
}

fn binary_name(kind: BinaryKind) -> &'static str {
    match kind {
        BinaryKind::Add => "add",
        BinaryKind::Sub => "subtract",
        BinaryKind::Mul => "multiply",
        BinaryKind::Div => "divide",
        BinaryKind::Max => "maximum",
        BinaryKind::Min => "minimum",
        BinaryKind::And => "and",
    }
}

fn compare_name(kind: CompareKind) -> &'static str {
    match kind {
        CompareKind::Eq => "EQ",
        CompareKind::Lt => "LT",
        CompareKind::Le => "LE",
        CompareKind::Gt => "GT",
        CompareKind::Ge => "GE",
    }
}

fn compare_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Pred | DType::U32 => "UNSIGNED",
        DType::S32 | DType::S64 => "SIGNED",
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => "FLOAT",
    }
}

fn reduce_name(kind: ReduceKind) -> &'static str {
    match kind {
        ReduceKind::Sum => "add",
        ReduceKind::Max => "maximum",
    }
}
