//! Every differentiation rule against central differences, in f64.

mod common;

use common::Runner;
use sft_model::graph::{Graph, Remat, ScanOptions, Tensor};
use sft_model::mesh::{Axis, Mesh};
use sft_model::program::Program;
use sft_model::transformer::{log_sum_exp, softmax};
use sft_tensor::{DType, HostTensor};

/// Step of the differences: their error is about `STEP² ≈ 1e-10` of the third derivative plus `1e-16 / STEP`.
const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-7;

const BACKWARDS: ScanOptions = ScanOptions { reverse: true, remat: Remat::Steps };
const KEEPING: ScanOptions = ScanOptions { reverse: false, remat: Remat::Elementwise };

fn f64_tensor(shape: &[usize], values: &[f64]) -> HostTensor {
    HostTensor::new(DType::F64, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect()).unwrap()
}

fn f64_values(tensor: &HostTensor) -> Vec<f64> {
    tensor.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Values in ±(0.3..1.3) without pattern, different for every input and replica, far from where `abs`, `max` and
/// comparisons with zero have their kinks.
fn values(seed: usize, count: usize) -> Vec<f64> {
    let unit = |i: usize| ((i as f64 + 1.0) * 0.754_877_666 + seed as f64 * 0.569_840_29).fract();
    (0..count).map(|i| (0.3 + unit(i)) * if unit(7 * i + 3) < 0.5 { -1.0 } else { 1.0 }).collect()
}

/// Compares the gradients of `loss(inputs)`, which is summed over the replicas of `mesh`, with central differences for
/// every element of every input of every replica. `positive` makes all values positive.
fn check_on(mesh: Mesh, shapes: &[&[usize]], positive: bool, build: impl for<'g> Fn(&[Tensor<'g>]) -> Tensor<'g>) {
    let graph = Graph::new(mesh);
    let inputs: Vec<_> = shapes.iter().map(|s| graph.input("x", DType::F64, s)).collect();
    let output = build(&inputs);
    // weights that differ make an error in one element visible in the sum
    let weights: Vec<f32> = (0..output.elements()).map(|i| 0.5 + (i as f32 * 0.37).fract()).collect();
    let weights = graph.constant_f32(&output.shape(), &weights).convert(DType::F64);
    let loss = (output * weights).sum_all();
    let gradients = graph.grad(loss, &inputs);
    let mut outputs = vec![("loss", loss)];
    outputs.extend(gradients.iter().map(|&g| ("gradient", g)));
    let runner = Runner::new(Program::new("gradients", &graph, &outputs, 0));
    let forward = Runner::new(Program::new("forward", &graph, &[("loss", loss)], 0));

    let at = |replica: usize, i: usize| {
        let mut v = values(replica * shapes.len() + i, shapes[i].iter().product());
        if positive {
            v.iter_mut().for_each(|x| *x = x.abs());
        }
        v
    };
    let point: Vec<Vec<Vec<f64>>> =
        (0..mesh.devices()).map(|r| (0..shapes.len()).map(|i| at(r, i)).collect()).collect();
    let tensors = |point: &[Vec<Vec<f64>>]| -> Vec<Vec<HostTensor>> {
        point.iter().map(|p| p.iter().zip(shapes).map(|(v, s)| f64_tensor(s, v)).collect()).collect()
    };
    let total = |point: &[Vec<Vec<f64>>]| -> f64 {
        forward.run(&tensors(point)).iter().map(|outputs| f64_values(&outputs[0])[0]).sum()
    };
    let results = runner.run(&tensors(&point));
    for (replica, result) in results.iter().enumerate() {
        for (i, gradient) in result[1..].iter().enumerate() {
            assert_eq!(gradient.shape(), shapes[i]);
            for (element, &got) in f64_values(gradient).iter().enumerate() {
                let mut moved = point.clone();
                moved[replica][i][element] += STEP;
                let above = total(&moved);
                moved[replica][i][element] -= 2.0 * STEP;
                let expected = (above - total(&moved)) / (2.0 * STEP);
                let scale = 1f64.max(expected.abs());
                assert!(
                    (got - expected).abs() <= TOLERANCE * scale,
                    "replica {replica}, input {i}, element {element}: {got} instead of {expected}"
                );
            }
        }
    }
}

fn check(shapes: &[&[usize]], build: impl for<'g> Fn(&[Tensor<'g>]) -> Tensor<'g>) {
    check_on(Mesh::SINGLE, shapes, false, build);
}

#[test]
fn elementwise() {
    check(&[&[2, 3]], |x| -x[0]);
    check(&[&[2, 3]], |x| x[0].exp());
    check(&[&[2, 3]], |x| x[0].logistic());
    check(&[&[2, 3]], |x| x[0].sin() * x[0].cos());
    check(&[&[2, 3]], |x| x[0].abs() * x[0].sign());
    check_on(Mesh::SINGLE, &[&[2, 3]], true, |x| x[0].log() + x[0].sqrt() * x[0].rsqrt().exp());
}

#[test]
fn arithmetic_with_broadcasting() {
    check(&[&[2, 3], &[3]], |x| x[0] + x[1]);
    check(&[&[2, 1, 2], &[3, 1]], |x| x[0] - x[1]);
    check(&[&[2, 3], &[]], |x| x[0] * x[1]);
    check(&[&[3], &[2, 3]], |x| x[0] / x[1]);
    check(&[&[2, 3], &[2, 3]], |x| x[0].maximum(x[1]) * x[0].minimum(x[1]));
    check(&[&[2, 3]], |x| x[0] * x[0] * 3.0 + 1.0);
}

#[test]
fn choices_and_types() {
    check(&[&[2, 3], &[2, 3]], |x| x[0].greater(x[1]).select(x[0] * x[0], x[1].exp()));
    check(&[&[2, 3]], |x| x[0] * x[0].stop_gradient().convert(DType::F32).convert(DType::F64).stop_gradient().sign());
    check(&[&[2, 3]], |x| x[0].barrier() * x[0]);
}

#[test]
fn shapes() {
    check(&[&[2, 3, 2]], |x| x[0].transpose(&[2, 0, 1]).reshape(&[4, 3]).exp());
    check(&[&[2, 5]], |x| x[0].narrow(1, 1..4) * 2.0);
    check(&[&[2, 3]], |x| x[0].pad(&[1, 0], &[0, 2]).exp());
    check(&[&[2, 3], &[2, 1]], |x| x[0].graph().concat(&[x[0], x[1], x[0]], 1).exp());
    check(&[&[3, 2]], |x| {
        let parts = x[0].unstack();
        parts[0] * parts[2]
    });
    check(&[&[3]], |x| x[0].broadcast_in_dim(&[3, 2], &[0]).exp());
}

#[test]
fn reductions() {
    check(&[&[2, 3, 4]], |x| x[0].sum(&[0, 2]).exp());
    check(&[&[2, 3]], |x| softmax(x[0]));
    check(&[&[2, 3]], |x| log_sum_exp(x[0]));
}

#[test]
fn products() {
    check(&[&[2, 3], &[4, 3]], |x| x[0].linear(x[1]).exp());
    check(&[&[2, 3, 4], &[2, 5, 4]], |x| x[0].dot(x[1], [&[0], &[0]], [&[2], &[2]], DType::F64).exp());
    check(&[&[2, 4, 3], &[4, 2, 5]], |x| x[0].dot(x[1], [&[0], &[1]], [&[1], &[0]], DType::F64).exp());
    check(&[&[2, 3, 4], &[4, 3]], |x| x[0].dot(x[1], [&[], &[]], [&[1, 2], &[1, 0]], DType::F64).exp());
    check(&[&[3]], |x| x[0].dot(x[0], [&[], &[]], [&[0], &[0]], DType::F64));
}

#[test]
fn rows_by_index() {
    check(&[&[4, 2]], |x| x[0].take(x[0].graph().constant_i32(&[2, 3], &[0, 3, 3, 1, 0, 0])).exp());
    check(&[&[4, 2], &[3, 2]], |x| x[0].scatter_add(x[0].graph().constant_i32(&[3], &[2, 0, 2]), x[1] * x[1]).exp());
}

#[test]
fn loops() {
    // a carry, slices, stacked results and a captured tensor, in both directions
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        check(&[&[2], &[3, 2], &[2]], |x| {
            let g = x[0].graph();
            let (carry, ys) = g.scan(3, &[x[0]], &[x[1]], options, |carry, slice| {
                let next = carry[0] * slice[0] + x[2].sin();
                (vec![next], vec![next.exp() * x[2]])
            });
            g.concat(&[carry[0].expand_dim(0), ys[0]], 0)
        });
    }
}

#[test]
fn loops_that_keep_their_products() {
    check(&[&[2], &[3, 2, 2], &[2, 2]], |x| {
        let g = x[0].graph();
        let (carry, ys) = g.scan(3, &[x[0]], &[x[1]], KEEPING, |carry, slice| {
            let inner = carry[0].linear(slice[0]).sin();
            (vec![inner.linear(x[2]) * carry[0]], vec![inner.exp()])
        });
        g.concat(&[carry[0].expand_dim(0), ys[0]], 0)
    });
}

#[test]
fn kept_products_are_computed_once() {
    let products = |remat| {
        let g = Graph::new(Mesh::SINGLE);
        let (x, w) = (g.input("x", DType::F32, &[2]), g.input("w", DType::F32, &[3, 2, 2]));
        let options = ScanOptions { remat, ..ScanOptions::default() };
        let (carry, _) = g.scan(3, &[x], &[w], options, |carry, slice| (vec![carry[0].linear(slice[0]).sin()], vec![]));
        let dw = g.grad(carry[0].sum_all(), &[w])[0];
        g.to_stablehlo("keep", &[dw], &[]).matches("dot_general").count()
    };
    // one forward, one to compute again, two of the gradient
    assert_eq!((products(Remat::Steps), products(Remat::Elementwise)), (4, 3));
}

#[test]
fn loops_in_loops() {
    check(&[&[2], &[2, 2], &[3, 2]], |x| {
        let g = x[0].graph();
        let (carry, ys) = g.scan(2, &[x[0]], &[x[1]], ScanOptions::default(), |outer, slice| {
            let (inner, ys) = g.scan(3, &[outer[0]], &[x[2]], BACKWARDS, |carry, row| {
                (vec![carry[0] * row[0] + slice[0]], vec![carry[0] * slice[0]])
            });
            (vec![inner[0]], vec![ys[0].sum(&[0])])
        });
        carry[0] * ys[0].sum(&[0])
    });
}

#[test]
fn gradients_of_a_loop_inside_a_loop_of_gradients() {
    // accumulation over micro-batches: the gradient is taken inside of a loop, of a loop
    let g = Graph::new(Mesh::SINGLE);
    let w = g.input("w", DType::F64, &[2]);
    let batches = g.input("batches", DType::F64, &[3, 2]);
    let loss_of = |x| {
        let (carry, _) = g.scan(2, &[x], &[], ScanOptions::default(), |carry, _| (vec![(carry[0] * w).sin()], vec![]));
        carry[0].sum_all()
    };
    let (sums, _) = g.scan(3, &[g.splat(0.0, DType::F64, &[2])], &[batches], ScanOptions::default(), |carry, batch| {
        (vec![carry[0] + g.grad(loss_of(batch[0]), &[w])[0]], vec![])
    });
    let direct = (0..3).map(|i| g.grad(loss_of(batches.unstack()[i]), &[w])[0]).reduce(|a, b| a + b).unwrap();
    let runner = Runner::new(Program::new("accumulate", &g, &[("loop", sums[0]), ("direct", direct)], 0));
    let inputs = vec![f64_tensor(&[2], &values(0, 2)), f64_tensor(&[3, 2], &values(1, 6))];
    let results = &runner.run(&[inputs])[0];
    for (a, b) in f64_values(&results[0]).iter().zip(f64_values(&results[1])) {
        assert!((a - b).abs() < 1e-12 && a.abs() > 1e-3, "{a} {b}");
    }
}

#[test]
fn collectives() {
    let mesh = Mesh { dp: 2, fsdp: 2, tp: 1 };
    let on = |shapes: &[&[usize]], build: for<'g> fn(&[Tensor<'g>]) -> Tensor<'g>| check_on(mesh, shapes, false, build);
    on(&[&[2, 3], &[4, 3]], |x| x[0].all_gather(0, Axis::Fsdp) * x[1]);
    on(&[&[2, 4]], |x| (x[0] * x[0]).reduce_scatter(1, Axis::Fsdp).exp());
    on(&[&[3]], |x| (x[0] * x[0]).all_reduce(&[Axis::Dp, Axis::Fsdp]).sin());
    // inside a loop, as FSDP gathers the weights of a layer
    on(&[&[2], &[3, 1, 2]], |x| {
        let (carry, _) = x[0].graph().scan(3, &[x[0]], &[x[1]], ScanOptions::default(), |carry, slice| {
            (vec![(carry[0].linear(slice[0].all_gather(0, Axis::Fsdp))).sin()], vec![])
        });
        carry[0]
    });
    // with the products kept, what they were made of is not computed again
    on(&[&[2], &[3, 1, 2]], |x| {
        let (carry, _) = x[0].graph().scan(3, &[x[0]], &[x[1]], KEEPING, |carry, slice| {
            let product = carry[0].linear(slice[0].all_gather(0, Axis::Fsdp));
            (vec![product.all_reduce(&[Axis::Dp]).sin()], vec![])
        });
        carry[0]
    });
}

#[test]
fn a_tensor_parallel_block_counts_once() {
    // column-split, then row-split: the members' common loss must not be summed over them
    let tp = Mesh { dp: 1, fsdp: 1, tp: 2 };
    let build = |g: &Graph, columns: usize| {
        let x = g.input("x", DType::F64, &[2]);
        let up = g.input("up", DType::F64, &[columns, 2]);
        let down = g.input("down", DType::F64, &[2, columns]);
        let y = x.enter_parallel(Axis::Tp).linear(up).sin().linear(down).sum_partial(&[Axis::Tp]);
        let loss = (y * y).sum_all();
        let gradients = g.grad(loss, &[x, up, down]);
        let outputs = [("loss", loss), ("dx", gradients[0]), ("dup", gradients[1]), ("ddown", gradients[2])];
        Runner::new(Program::new("block", g, &outputs, 0))
    };
    let (x, up, down) = (values(0, 2), values(1, 8), values(2, 8));
    let part = |replica: usize| {
        let columns: Vec<f64> = [0, 1].iter().flat_map(|r| down[4 * r + 2 * replica..][..2].to_vec()).collect();
        vec![f64_tensor(&[2], &x), f64_tensor(&[2, 2], &up[4 * replica..][..4]), f64_tensor(&[2, 2], &columns)]
    };
    let whole = build(&Graph::new(Mesh::SINGLE), 4).run(&[vec![
        f64_tensor(&[2], &x),
        f64_tensor(&[4, 2], &up),
        f64_tensor(&[2, 4], &down),
    ]]);
    let split = build(&Graph::new(tp), 2).run(&[part(0), part(1)]);
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    for (replica, result) in split.iter().enumerate() {
        assert!(close(&f64_values(&result[0]), &f64_values(&whole[0][0])), "loss");
        assert!(close(&f64_values(&result[1]), &f64_values(&whole[0][1])), "gradient of the input");
        assert!(close(&f64_values(&result[2]), &f64_values(&whole[0][2])[4 * replica..][..4]), "column-split weight");
    }
}
