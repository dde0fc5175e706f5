//! Reverse-mode differentiation.
//!
//! On a mesh the differentiated quantity is the sum of the replicas' losses: the gradient that reaches a shard through a
//! gather is the sum of what every member contributed.

use std::collections::{HashMap, HashSet};

use super::op::{Remat, Scan};
use super::{BinaryKind, Graph, OpId, OpKind, ReduceKind, ScanOptions, Tensor, UnaryKind, ValueId};

type Cotangents<'g> = HashMap<ValueId, Tensor<'g>>;

impl Graph {
    /// Gradients of the scalar `loss` with respect to `wrt`, one of each tensor's shape and type; zeros where the loss
    /// does not depend on it. `loss` must be computed in the innermost open body; `wrt` may come from outside of it.
    ///
    /// Panics when the path goes through an operation that has no gradient (a maximum, a sort): stop it explicitly with
    /// [`Tensor::stop_gradient`].
    pub fn grad<'g>(&'g self, loss: Tensor<'g>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        assert!(loss.rank() == 0 && loss.dtype().is_float(), "the gradient of {loss:?}, which is no scalar loss");
        let mut active: HashSet<ValueId> = wrt.iter().map(|t| t.id).collect();
        let block = self.inner.borrow().current();
        let ops = self.inner.borrow().blocks[block].ops.clone();
        self.spread(&ops, &mut active);
        let mut cotangents = Cotangents::from([(loss.id, self.scalar(1.0, loss.dtype()))]);
        self.backward(&ops, &active, &mut cotangents);
        let zeros = |t: &Tensor<'g>| self.splat(0.0, t.dtype(), &t.shape());
        wrt.iter().map(|t| cotangents.get(&t.id).copied().unwrap_or_else(|| zeros(t))).collect()
    }

    /// Adds to `active` every float value of `ops` that depends on an active one.
    fn spread(&self, ops: &[OpId], active: &mut HashSet<ValueId>) {
        for &op in ops {
            let op = self.inner.borrow().ops[op].clone();
            match &op.kind {
                OpKind::StopGradient | OpKind::Compare(_) => {}
                OpKind::Scan(scan) => self.spread_scan(scan, &op.operands, &op.results, active),
                _ if op.operands.iter().any(|v| active.contains(v)) => {
                    active.extend(op.results.iter().filter(|&&r| self.is_float(r)));
                }
                _ => {}
            }
        }
    }

    fn spread_scan(&self, scan: &Scan, operands: &[ValueId], results: &[ValueId], active: &mut HashSet<ValueId>) {
        let body = self.inner.borrow().blocks[scan.body].clone();
        let entering = body.params.iter().zip(operands).filter(|(_, v)| active.contains(v)).map(|(p, _)| *p);
        active.extend(entering.collect::<Vec<_>>());
        loop {
            self.spread(&body.ops, active);
            // what a step makes active, the next one receives
            let fed_back = body.params.iter().zip(&body.results).take(scan.carries);
            let new: Vec<_> =
                fed_back.filter(|(p, r)| active.contains(r) && !active.contains(p)).map(|(p, _)| *p).collect();
            if new.is_empty() {
                break;
            }
            active.extend(new);
        }
        // a carry enters active even where the body replaces it
        let is_active =
            |i: usize| active.contains(&body.results[i]) || (i < scan.carries && active.contains(&body.params[i]));
        let leaving: Vec<_> = (0..results.len()).filter(|&i| is_active(i)).map(|i| results[i]).collect();
        active.extend(leaving);
    }

    fn is_float(&self, v: ValueId) -> bool {
        self.inner.borrow().values[v].dtype.is_float()
    }

    /// Walks `ops` backwards and adds to `cotangents` what reaches active values.
    fn backward<'g>(&'g self, ops: &[OpId], active: &HashSet<ValueId>, cotangents: &mut Cotangents<'g>) {
        for &id in ops.iter().rev() {
            let op = self.inner.borrow().ops[id].clone();
            if !op.results.iter().any(|r| active.contains(r) && cotangents.contains_key(r)) {
                continue;
            }
            if let OpKind::Scan(scan) = &op.kind {
                self.backward_scan(id, scan, active, cotangents);
                continue;
            }
            let operands: Vec<_> = op.operands.iter().map(|&v| self.tensor(v)).collect();
            let results: Vec<_> = op.results.iter().map(|&v| self.tensor(v)).collect();
            let incoming: Vec<_> = op.results.iter().map(|r| cotangents.get(r).copied()).collect();
            let wanted: Vec<_> = op.operands.iter().map(|v| active.contains(v)).collect();
            let gradients = self.vjp(&op.kind, &operands, &results, &incoming, &wanted);
            for (operand, gradient) in operands.iter().zip(gradients) {
                if let (Some(gradient), true) = (gradient, active.contains(&operand.id)) {
                    accumulate(cotangents, operand.id, gradient);
                }
            }
        }
    }

    /// One operation's rule: the gradient of each operand, `None` where there is none (or it is not `wanted`).
    fn vjp<'g>(
        &'g self,
        kind: &OpKind,
        operands: &[Tensor<'g>],
        results: &[Tensor<'g>],
        incoming: &[Option<Tensor<'g>>],
        wanted: &[bool],
    ) -> Vec<Option<Tensor<'g>>> {
        if let OpKind::Unstack = kind {
            let zeros = || self.splat(0.0, results[0].dtype(), &results[0].shape());
            let parts: Vec<_> = incoming.iter().map(|g| g.unwrap_or_else(zeros)).collect();
            return vec![Some(self.stack(&parts))];
        }
        // all other operations with a gradient have one result, and `backward` skips those that nothing reaches
        let (Some(g), y) = (incoming[0], results[0]) else { return vec![None; operands.len()] };
        let x = operands.first().copied();
        let x = || x.expect("the operation has an operand");
        match kind {
            OpKind::Splat(_) | OpKind::Data(_) | OpKind::Iota { .. } => Vec::new(),
            OpKind::StopGradient | OpKind::Compare(_) => vec![None; operands.len()],
            OpKind::Unary(kind) => vec![unary(*kind, x(), y, g)],
            OpKind::Binary(kind) => {
                let (a, b) = (operands[0], operands[1]);
                let (da, db) = match kind {
                    BinaryKind::Add => (g, g),
                    BinaryKind::Sub => return vec![Some(g), wanted[1].then(|| -g)],
                    BinaryKind::Mul => return vec![wanted[0].then(|| g * b), wanted[1].then(|| g * a)],
                    BinaryKind::Div => return vec![Some(g / b), wanted[1].then(|| -(g * y) / b)],
                    BinaryKind::Max => split(a.greater_equal(b), g),
                    BinaryKind::Min => split(a.less_equal(b), g),
                    BinaryKind::And => return vec![None, None],
                };
                vec![Some(da), Some(db)]
            }
            OpKind::Select => {
                let (on_true, on_false) = split(operands[0], g);
                vec![None, Some(on_true), Some(on_false)]
            }
            OpKind::Convert => vec![Some(g.convert(x().dtype()))],
            OpKind::Broadcast { dims } => vec![Some(unbroadcast(g, &x().shape(), dims))],
            OpKind::Reshape => vec![Some(g.reshape(&x().shape()))],
            OpKind::Transpose { perm } => vec![Some(g.transpose(&inverse(perm)))],
            OpKind::Dot { batch, contract } => {
                let [a, b] = [operands[0], operands[1]];
                vec![
                    wanted[0].then(|| dot_gradient(g, a, b, 0, batch, contract)),
                    wanted[1].then(|| dot_gradient(g, b, a, 1, batch, contract)),
                ]
            }
            OpKind::Reduce { kind: ReduceKind::Sum, dims } => {
                let shape = x().shape();
                let kept: Vec<_> = (0..shape.len()).filter(|d| !dims.contains(d)).collect();
                vec![Some(g.broadcast_in_dim(&shape, &kept))]
            }
            OpKind::Slice { start } => {
                let high: Vec<_> =
                    x().shape().iter().zip(y.shape()).zip(start).map(|((n, part), low)| n - part - low).collect();
                vec![Some(g.pad(start, &high))]
            }
            OpKind::Pad { low, .. } => {
                let ranges: Vec<_> = x().shape().iter().zip(low).map(|(n, l)| *l..l + n).collect();
                vec![Some(g.slice(&ranges))]
            }
            OpKind::Concat { dim } => {
                let mut end = 0;
                let part = |t: &Tensor<'g>| {
                    end += t.dim(*dim);
                    Some(g.narrow(*dim, end - t.dim(*dim)..end))
                };
                operands.iter().map(part).collect()
            }
            OpKind::Take => {
                let (table, index) = (operands[0], operands[1]);
                let rows = index.elements();
                let updates = g.reshape(&[&[rows], &table.shape()[1..]].concat());
                let zeros = self.splat(0.0, table.dtype(), &table.shape());
                vec![Some(zeros.scatter_add(index.reshape(&[rows]), updates)), None]
            }
            OpKind::ScatterAdd => vec![Some(g), None, wanted[2].then(|| g.take(operands[1]))],
            OpKind::Barrier => vec![Some(g)],
            OpKind::Kept => vec![Some(g), None],
            OpKind::AllGather { dim, axes } => vec![Some(g.reduce_scatter(*dim, axes[0]))],
            OpKind::ReduceScatter { dim, axes } => vec![Some(g.all_gather(*dim, axes[0]))],
            OpKind::AllReduce { kind: ReduceKind::Sum, replicated: true, .. } => vec![Some(g)],
            OpKind::AllReduce { kind: ReduceKind::Sum, axes, .. } | OpKind::ReduceGradient { axes } => {
                vec![Some(g.all_reduce(axes))]
            }
            OpKind::Reduce { kind: ReduceKind::Max, .. }
            | OpKind::AllReduce { kind: ReduceKind::Max, .. }
            | OpKind::SortDescending => panic!("{kind:?} has no gradient: stop it before or after"),
            OpKind::Unstack | OpKind::Scan(_) => unreachable!("handled above and by the caller"),
        }
    }

    /// The forward loop is made to yield its carries, and what [`Remat`] says; a loop in the opposite direction
    /// recomputes each step from them and differentiates it, with the gradients of the carries and of captured tensors
    /// as carries of its own.
    fn backward_scan<'g>(&'g self, id: OpId, scan: &Scan, active: &HashSet<ValueId>, cotangents: &mut Cotangents<'g>) {
        let (op, body) = {
            let inner = self.inner.borrow();
            (inner.ops[id].clone(), inner.blocks[scan.body].clone())
        };
        let (carries, length) = (scan.carries, scan.length);
        let saved = self.save(id, scan, &body.params[..carries]);
        let products = self.products(scan);
        let kept = self.save(id, scan, &products);
        let xs: Vec<_> = op.operands[carries..].iter().map(|&v| self.tensor(v)).collect();
        let captured: Vec<_> = {
            let free = self.inner.borrow().captures(scan.body);
            free.into_iter().filter(|v| active.contains(v)).map(|v| self.tensor(v)).collect()
        };
        let carried: Vec<usize> = (0..carries).filter(|&i| active.contains(&op.results[i])).collect();
        let yielded: Vec<usize> = (carries..op.results.len())
            .filter(|&i| active.contains(&op.results[i]) && cotangents.contains_key(&op.results[i]))
            .collect();

        let zeros = |t: Tensor<'g>| self.splat(0.0, t.dtype(), &t.shape());
        let mut init: Vec<_> = carried
            .iter()
            .map(|&i| cotangents.get(&op.results[i]).copied().unwrap_or_else(|| zeros(self.tensor(op.results[i]))))
            .collect();
        init.extend(captured.iter().map(|&t| zeros(t)));
        let mut slices = saved;
        slices.extend(&xs);
        slices.extend(yielded.iter().map(|&i| cotangents[&op.results[i]]));
        slices.extend(kept);

        let wanted: Vec<usize> = (0..xs.len()).filter(|&i| active.contains(&op.operands[carries + i])).collect();
        let options = ScanOptions { reverse: !scan.reverse, ..ScanOptions::default() };
        let (sums, dxs) = self.scan(length, &init, &slices, options, |carry, slice| {
            let (slice, kept) = slice.split_at(slice.len() - products.len());
            let kept: HashMap<ValueId, ValueId> = products.iter().zip(kept).map(|(&v, t)| (v, t.id)).collect();
            let mut map: HashMap<ValueId, ValueId> = body.params.iter().zip(slice).map(|(&p, s)| (p, s.id)).collect();
            self.inner.borrow_mut().inline(scan.body, &mut map, &kept);
            let ops = {
                let inner = self.inner.borrow();
                inner.blocks[inner.current()].ops.clone()
            };
            let result = |i: usize| *map.get(&body.results[i]).unwrap_or(&body.results[i]);

            let mut inside: HashSet<ValueId> = captured.iter().map(|t| t.id).collect();
            inside.extend(carried.iter().map(|&i| slice[i].id));
            inside.extend(wanted.iter().map(|&i| slice[carries + i].id));
            self.spread(&ops, &mut inside);

            let mut reached = Cotangents::new();
            for (&i, &g) in carried.iter().zip(carry) {
                accumulate(&mut reached, result(i), g);
            }
            for (&i, &g) in yielded.iter().zip(&slice[carries + xs.len()..]) {
                accumulate(&mut reached, result(i), g);
            }
            self.backward(&ops, &inside, &mut reached);

            let gradient = |t: Tensor<'g>| reached.get(&t.id).copied().unwrap_or_else(|| zeros(t));
            let mut next: Vec<_> = carried.iter().map(|&i| gradient(slice[i])).collect();
            for (t, &sum) in captured.iter().zip(&carry[carried.len()..]) {
                next.push(reached.get(&t.id).map_or(sum, |&g| sum + g));
            }
            (next, wanted.iter().map(|&i| gradient(slice[carries + i])).collect())
        });
        let inputs = carried.iter().map(|&i| op.operands[i]).chain(captured.iter().map(|t| t.id)).zip(sums);
        for (v, g) in inputs.chain(wanted.iter().map(|&i| op.operands[carries + i]).zip(dxs)) {
            if active.contains(&v) {
                accumulate(cotangents, v, g);
            }
        }
    }

    /// Makes the loop `id` yield the `values` of its body (or their state at the start of every step, for carries):
    /// `[length, …]` each.
    fn save<'g>(&'g self, id: OpId, scan: &Scan, values: &[ValueId]) -> Vec<Tensor<'g>> {
        let inner = &mut *self.inner.borrow_mut();
        let saved = values.iter().map(|&value| {
            let (dtype, shape) = (inner.values[value].dtype, inner.values[value].shape.clone());
            let stacked = inner.value(dtype, [&[scan.length], shape.as_slice()].concat());
            inner.blocks[scan.body].results.push(value);
            inner.ops[id].results.push(stacked);
            stacked
        });
        saved.collect::<Vec<_>>().into_iter().map(|v| self.tensor(v)).collect()
    }

    /// What a step computes that is dear, if it is to be kept.
    fn products(&self, scan: &Scan) -> Vec<ValueId> {
        let inner = self.inner.borrow();
        let dear = |op: &&OpId| matches!(inner.ops[**op].kind, OpKind::Dot { .. } | OpKind::AllReduce { .. });
        match scan.remat {
            Remat::Steps => Vec::new(),
            Remat::Elementwise => {
                inner.blocks[scan.body].ops.iter().filter(dear).map(|&op| inner.ops[op].results[0]).collect()
            }
        }
    }
}

fn accumulate<'g>(cotangents: &mut Cotangents<'g>, v: ValueId, gradient: Tensor<'g>) {
    let sum = cotangents.get(&v).map_or(gradient, |&so_far| so_far + gradient);
    cotangents.insert(v, sum);
}

fn unary<'g>(kind: UnaryKind, x: Tensor<'g>, y: Tensor<'g>, g: Tensor<'g>) -> Option<Tensor<'g>> {
    Some(match kind {
        UnaryKind::Neg => -g,
        UnaryKind::Exp => g * y,
        UnaryKind::Log => g / x,
        UnaryKind::Sqrt => g * 0.5 / y,
        UnaryKind::Rsqrt => g * (y * y * y) * -0.5,
        UnaryKind::Logistic => g * y * (-y + 1.0),
        UnaryKind::Sin => g * x.cos(),
        UnaryKind::Cos => -(g * x.sin()),
        UnaryKind::Abs => g * x.sign(),
        UnaryKind::Sign | UnaryKind::Not => return None,
    })
}

/// `g` where the predicate holds and zero elsewhere, and the other way round.
fn split<'g>(predicate: Tensor<'g>, g: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
    let zeros = g.graph().splat(0.0, g.dtype(), &g.shape());
    (predicate.select(g, zeros), predicate.select(zeros, g))
}

/// Sums over the dimensions that a broadcast added or stretched.
fn unbroadcast<'g>(g: Tensor<'g>, shape: &[usize], dims: &[usize]) -> Tensor<'g> {
    let full = g.shape();
    let kept = |d: &usize| dims.iter().position(|x| x == d).is_some_and(|i| shape[i] == full[*d]);
    let summed: Vec<_> = (0..full.len()).filter(|d| !kept(d)).collect();
    let sum = g.sum(&summed);
    // broadcasts keep the order of dimensions, so what is left only lacks dimensions of size one
    sum.reshape(shape)
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &d) in perm.iter().enumerate() {
        inverse[d] = i;
    }
    inverse
}

/// The gradient of factor `side` of a product: `g` times the other factor over the other's free dimensions, brought
/// into the factor's own order.
fn dot_gradient<'g>(
    g: Tensor<'g>,
    own: Tensor<'g>,
    other: Tensor<'g>,
    side: usize,
    batch: &[Vec<usize>; 2],
    contract: &[Vec<usize>; 2],
) -> Tensor<'g> {
    let free = |rank: usize, side: usize| -> Vec<usize> {
        (0..rank).filter(|d| !batch[side].contains(d) && !contract[side].contains(d)).collect()
    };
    let (own_free, other_free) = (free(own.rank(), side), free(other.rank(), 1 - side));
    let batches: Vec<usize> = (0..batch[0].len()).collect();
    let left_free = if side == 0 { own_free.len() } else { other_free.len() };
    let first = batches.len() + if side == 0 { left_free } else { 0 };
    let summed: Vec<usize> = (first..first + other_free.len()).collect();
    let product = g.convert(own.dtype()).dot(other, [&batches, &batch[1 - side]], [&summed, &other_free], own.dtype());
    // dimensions of the product: batch, own free ones, the other's contracted ones in ascending order
    let mut contracted: Vec<(usize, usize)> =
        contract[1 - side].iter().copied().zip(contract[side].iter().copied()).collect();
    contracted.sort_unstable();
    let order: Vec<usize> =
        batch[side].iter().copied().chain(own_free).chain(contracted.into_iter().map(|(_, d)| d)).collect();
    product.transpose(&inverse(&order))
}
