//! Printing a graph as StableHLO text.

mod live;
mod print;

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use sft_tensor::DType;

use super::op::mlir_type;
use super::{BlockId, Graph, Inner, OpId, OpKind, Tensor, ValueId};
use crate::mesh::Mesh;
use live::{Live, LiveScan};

impl Graph {
    /// The program as StableHLO text: a module whose `main` takes the graph's inputs in their order and returns
    /// `results`. Each pair of `donations` lets an input (by index) give its memory to a result (by index) of the same
    /// shape and type. What no result needs is left out.
    pub fn to_stablehlo(&self, name: &str, results: &[Tensor<'_>], donations: &[(usize, usize)]) -> String {
        let inner = self.inner.borrow();
        let mut used: HashSet<ValueId> = results.iter().map(|t| t.id).collect();
        let mut live = Live::default();
        live.mark(&inner, 0, &mut used);

        let producers = inner.ops.iter().enumerate().flat_map(|(id, op)| op.results.iter().map(move |&r| (r, id)));
        let mut emitter = Emitter {
            inner: &inner,
            mesh: &self.mesh,
            live,
            producers: producers.collect(),
            text: String::new(),
            depth: 1,
            scopes: 0,
            channels: 0,
        };
        let replicas = self.mesh.devices();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let header = "mhlo.num_partitions = 1 : i32, mhlo.num_replicas";
        emitter.line(format_args!("module @{name} attributes {{{header} = {replicas} : i32}} {{"), 0);

        let mut names = HashMap::new();
        let mut arguments = Vec::new();
        for (i, &param) in inner.blocks[0].params.iter().enumerate() {
            names.insert(param, format!("%in{i}"));
            let target = donations.iter().find(|(input, _)| *input == i);
            if let Some(&(_, output)) = target {
                let (a, b) = (&inner.values[param], &inner.values[results[output].id]);
                assert_eq!((a.dtype, &a.shape), (b.dtype, &b.shape), "input {i} cannot become result {output}");
            }
            let alias = target.map_or(String::new(), |(_, o)| format!(" {{tf.aliasing_output = {o} : i32}}"));
            arguments.push(format!("%in{i}: {}{alias}", emitter.ty(param)));
        }
        let types: Vec<_> = results.iter().map(|t| emitter.ty(t.id)).collect();
        emitter
            .line(format_args!("  func.func public @main({}) -> ({}) {{", arguments.join(", "), types.join(", ")), 0);
        emitter.block(0, &mut names);
        let values: Vec<_> = results.iter().map(|t| names[&t.id].clone()).collect();
        emitter.line(format_args!("return {} : {}", values.join(", "), types.join(", ")), emitter.depth + 1);
        emitter.line(format_args!("  }}\n}}"), 0);
        emitter.text
    }
}

struct Emitter<'a> {
    inner: &'a Inner,
    mesh: &'a Mesh,
    live: Live,
    /// The operation that yields each value.
    producers: HashMap<ValueId, OpId>,
    text: String,
    depth: usize,
    /// Number of loop bodies so far: a suffix that keeps names apart.
    scopes: usize,
    /// Number of collectives so far.
    channels: usize,
}

type Names = HashMap<ValueId, String>;

fn ty(dtype: DType, shape: &[usize]) -> String {
    let dims: String = shape.iter().map(|n| format!("{n}x")).collect();
    format!("tensor<{dims}{}>", mlir_type(dtype))
}

impl Emitter<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>, depth: usize) {
        // writing to a String does not fail
        let _ = writeln!(self.text, "{:width$}{text}", "", width = 2 * depth);
    }

    fn ty(&self, v: ValueId) -> String {
        ty(self.inner.values[v].dtype, &self.inner.values[v].shape)
    }

    /// Prints the needed operations of `block`.
    fn block(&mut self, block: BlockId, names: &mut Names) {
        self.depth += 1;
        let inner = self.inner;
        for &op in &inner.blocks[block].ops {
            if self.live.ops.contains(&op) {
                match &inner.ops[op].kind {
                    OpKind::Scan(_) => self.scan(op, names),
                    _ => self.op(op, names),
                }
            }
        }
        self.depth -= 1;
    }

    /// A loop as `stablehlo.while` over (counter, carries, stacked results, slices' sources, captures).
    fn scan(&mut self, id: OpId, names: &mut Names) {
        let inner = self.inner;
        let op = &inner.ops[id];
        let OpKind::Scan(scan) = &op.kind else { unreachable!("called for scans") };
        let body = &inner.blocks[scan.body];
        let live: LiveScan = self.live.scans[&id].clone();
        self.scopes += 1;
        let scope = self.scopes;
        let (constants, captures): (Vec<ValueId>, Vec<ValueId>) =
            live.captures.iter().partition(|&&v| self.constant(v).is_some());

        let zero = format!("%zero_{scope}");
        self.body_line(format_args!("{zero} = stablehlo.constant dense<0> : tensor<i32>"));
        let mut inits = vec![(zero.clone(), "tensor<i32>".to_owned())];
        for &i in &live.carries {
            inits.push((names[&op.operands[i]].clone(), self.ty(op.operands[i])));
        }
        for &i in &live.ys {
            let result = op.results[scan.carries + i];
            let name = format!("%empty_{scope}_{i}");
            self.splat(&name, 0.0, result);
            inits.push((name, self.ty(result)));
        }
        for &i in &live.xs {
            inits.push((names[&op.operands[scan.carries + i]].clone(), self.ty(op.operands[scan.carries + i])));
        }
        for v in &captures {
            inits.push((names[v].clone(), self.ty(*v)));
        }
        let types: Vec<_> = inits.iter().map(|(_, t)| t.clone()).collect();
        let arg = |i: usize| format!("%loop{scope}_{i}");
        let bindings: Vec<_> = inits.iter().enumerate().map(|(i, (v, _))| format!("{} = {v}", arg(i))).collect();
        let out = format!("%r{scope}");
        self.body_line(format_args!(
            "{out}:{} = stablehlo.while({}) : {}",
            inits.len(),
            bindings.join(", "),
            types.join(", ")
        ));
        self.body_line(format_args!("cond {{"));
        let limit = format!("%limit_{scope}");
        self.body_line(format_args!("  {limit} = stablehlo.constant dense<{}> : tensor<i32>", scan.length));
        self.body_line(format_args!(
            "  %more_{scope} = stablehlo.compare LT, {}, {limit}, SIGNED : (tensor<i32>, tensor<i32>) -> tensor<i1>",
            arg(0)
        ));
        self.body_line(format_args!("  stablehlo.return %more_{scope} : tensor<i1>"));
        self.body_line(format_args!("}} do {{"));
        {
            self.depth += 1;
            let mut inside = Names::new();
            let first_y = 1 + live.carries.len();
            let first_x = first_y + live.ys.len();
            let first_capture = first_x + live.xs.len();
            for (slot, &i) in live.carries.iter().enumerate() {
                inside.insert(body.params[i], arg(1 + slot));
            }
            for (slot, &v) in captures.iter().enumerate() {
                inside.insert(v, arg(first_capture + slot));
            }
            for v in constants {
                // cheaper made anew than carried around, and XLA sees their value
                if let Some(kind) = self.constant(v) {
                    let name = format!("%v{v}_{scope}");
                    self.print_constant(&name, v, &kind);
                    inside.insert(v, name);
                }
            }
            let at = self.loop_index(scope, scan.length, scan.reverse, &arg(0));
            for (slot, &i) in live.xs.iter().enumerate() {
                let name = format!("%x{i}_{scope}");
                self.slice_of(&name, &arg(first_x + slot), body.params[scan.carries + i], scan.length, &at);
                inside.insert(body.params[scan.carries + i], name);
            }
            self.block(scan.body, &mut inside);
            let mut returned = vec![format!("%next_{scope}")];
            let one = format!("%one_{scope}");
            self.body_line(format_args!("{one} = stablehlo.constant dense<1> : tensor<i32>"));
            self.body_line(format_args!("{} = stablehlo.add {}, {one} : tensor<i32>", returned[0], arg(0)));
            for &i in &live.carries {
                returned.push(inside[&body.results[i]].clone());
            }
            for (slot, &i) in live.ys.iter().enumerate() {
                let name = format!("%y{i}_{scope}");
                let value = body.results[scan.carries + i];
                self.store_slice(&name, &arg(first_y + slot), (value, &inside[&value]), scan.length, &at);
                returned.push(name);
            }
            returned.extend((first_x..inits.len()).map(arg));
            self.body_line(format_args!("stablehlo.return {} : {}", returned.join(", "), types.join(", ")));
            self.depth -= 1;
        }
        self.body_line(format_args!("}}"));
        for (slot, &i) in live.carries.iter().enumerate() {
            names.insert(op.results[i], format!("{out}#{}", 1 + slot));
        }
        for (slot, &i) in live.ys.iter().enumerate() {
            names.insert(op.results[scan.carries + i], format!("{out}#{}", 1 + live.carries.len() + slot));
        }
    }

    /// The constant that `v` is, if it is one.
    fn constant(&self, v: ValueId) -> Option<OpKind> {
        let op = &self.inner.ops[*self.producers.get(&v)?];
        matches!(op.kind, OpKind::Splat(_) | OpKind::Iota { .. }).then(|| op.kind.clone())
    }

    fn body_line(&mut self, text: std::fmt::Arguments<'_>) {
        self.line(text, self.depth);
    }

    fn loop_index(&mut self, scope: usize, length: usize, reverse: bool, counter: &str) -> String {
        if !reverse {
            return counter.to_owned();
        }
        let (last, at) = (format!("%last_{scope}"), format!("%at_{scope}"));
        self.body_line(format_args!("{last} = stablehlo.constant dense<{}> : tensor<i32>", length - 1));
        self.body_line(format_args!("{at} = stablehlo.subtract {last}, {counter} : tensor<i32>"));
        at
    }

    /// Start indices of a slice along the leading dimension, and their types.
    fn starts(&mut self, name: &str, at: &str, rank: usize) -> (String, String) {
        let zero = format!("%start_{}", &name[1..]);
        if rank > 0 {
            self.body_line(format_args!("{zero} = stablehlo.constant dense<0> : tensor<i32>"));
        }
        let starts: Vec<_> = std::iter::once(at.to_owned()).chain((0..rank).map(|_| zero.clone())).collect();
        (starts.join(", "), vec!["tensor<i32>"; rank + 1].join(", "))
    }

    /// `name = source[at]`, a value like `like`.
    fn slice_of(&mut self, name: &str, source: &str, like: ValueId, length: usize, at: &str) {
        let info = &self.inner.values[like];
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let whole = ty(dtype, &[&[length], shape.as_slice()].concat());
        let one = [&[1], shape.as_slice()].concat();
        let part = ty(dtype, &one);
        let (starts, index_types) = self.starts(name, at, shape.len());
        self.body_line(format_args!(
            "{name}_1 = stablehlo.dynamic_slice {source}, {starts}, sizes = {one:?} : ({whole}, {index_types}) -> {part}"
        ));
        self.body_line(format_args!("{name} = stablehlo.reshape {name}_1 : ({part}) -> {}", ty(dtype, &shape)));
    }

    /// `name = target` with `target[at] = value`.
    fn store_slice(&mut self, name: &str, target: &str, (id, value): (ValueId, &str), length: usize, at: &str) {
        let info = &self.inner.values[id];
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let whole = ty(dtype, &[&[length], shape.as_slice()].concat());
        let part = ty(dtype, &[&[1], shape.as_slice()].concat());
        let (starts, index_types) = self.starts(name, at, shape.len());
        self.body_line(format_args!("{name}_1 = stablehlo.reshape {value} : ({}) -> {part}", ty(dtype, &shape)));
        self.body_line(format_args!(
            "{name} = stablehlo.dynamic_update_slice {target}, {name}_1, {starts} : ({whole}, {part}, {index_types}) -> {whole}"
        ));
    }
}
