use sft_tensor::DType;

use super::loss::weighted_loss;
use super::optimizer::Hyper;
use super::{BatchInputs, BatchShape, Optimizer, SLOT_NAMES};
use crate::config::ModelConfig;
use crate::graph::{Graph, Remat, ScanOptions, Tensor};
use crate::layout::{self, Vocab};
use crate::mesh::{Axis, Mesh};
use crate::params::Param;
use crate::program::Program;
use crate::transformer::Transformer;

/// Clipping of the gradients by their global norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Largest norm that passes unchanged.
    pub max_norm: f64,
    /// Added to the norm before dividing by it: 1e-6 in torch, 0 in optax.
    pub eps: f64,
}

/// What a training step is made of, besides the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// Type of the products; parameters, gradients and the loss are f32.
    pub compute: DType,
    /// Type of the optimizer's moments.
    pub moments: DType,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Clipping, if any.
    pub clip: Option<Clip>,
    /// What the layers keep for the reverse pass.
    pub remat: Remat,
}

/// One optimizer step over a batch of all replicas.
///
/// Inputs: the parameters' shards in the order of [`layout::params`], the optimizer's moments likewise (slot by slot),
/// `hyper` (see [`Optimizer::hyper`]), and the batch of this replica. Outputs: the new parameters and moments in the
/// same order, in the memory of the old ones; `loss`, the weighted sum over the whole effective batch; `grad_norm`, the
/// norm of its gradient before clipping. All f32 unless [`StepOptions::moments`] says otherwise.
pub fn train_step(
    mesh: Mesh,
    config: &ModelConfig,
    vocab: Vocab,
    options: &StepOptions,
    shape: &BatchShape,
) -> Program {
    let graph = Graph::new(mesh);
    let params = layout::params(config, vocab);
    let state = |prefix: &str, dtype| -> Vec<Tensor<'_>> {
        params.iter().map(|p| graph.input(&format!("{prefix}{}", p.name), dtype, &p.shard_shape(&mesh))).collect()
    };
    let values = state("", DType::F32);
    let slots: Vec<Vec<Tensor<'_>>> =
        SLOT_NAMES[..options.optimizer.slots()].iter().map(|s| state(&format!("{s}."), options.moments)).collect();
    let hyper = graph.input("hyper", DType::F32, &[3]).unstack();
    let hyper = Hyper { learning_rate: hyper[0], correction1: hyper[1], correction2_root: hyper[2] };
    let batch = BatchInputs::declare(&graph, shape);

    let model = Transformer::new(config, vocab, options.compute, &params, &values).with_remat(options.remat);
    let (loss, gradients) = accumulate(&graph, &model, &values, &batch, shape.micro_batches);
    let loss = loss.all_reduce(&[Axis::Dp, Axis::Fsdp]);
    let gradients: Vec<_> = params.iter().zip(gradients).map(|(p, g)| g.all_reduce(replicated_axes(p))).collect();
    let norm = global_norm(&graph, &params, &gradients);
    let scale = options.clip.map(|clip| {
        (graph.scalar(clip.max_norm, DType::F32) / (norm + clip.eps)).minimum(graph.scalar(1.0, DType::F32))
    });

    let mut outputs = Vec::new();
    let mut moments = vec![Vec::new(); slots.len()];
    for (i, (param, &value)) in params.iter().zip(&values).enumerate() {
        let gradient = scale.map_or(gradients[i], |scale| gradients[i] * scale);
        let own: Vec<_> = slots.iter().map(|slot| slot[i]).collect();
        let (value, updated) = options.optimizer.update(param, value, gradient, &own, &hyper);
        outputs.push(("parameter", value));
        moments.iter_mut().zip(updated).for_each(|(slot, m)| slot.push(("moment", m)));
    }
    outputs.extend(moments.into_iter().flatten());
    let donated = outputs.len();
    outputs.extend([("loss", loss), ("grad_norm", norm)]);
    Program::new("train_step", &graph, &outputs, donated)
}

/// Loss and gradients of this replica, summed over its micro-batches in f32.
fn accumulate<'g>(
    graph: &'g Graph,
    model: &Transformer<'g>,
    values: &[Tensor<'g>],
    batch: &BatchInputs<Tensor<'g>>,
    micro_batches: usize,
) -> (Tensor<'g>, Vec<Tensor<'g>>) {
    let loss_and_gradients = |micro: &BatchInputs<Tensor<'g>>| {
        let loss = weighted_loss(model, micro);
        (loss, graph.grad(loss, values))
    };
    if micro_batches == 1 {
        let only = batch.list().map(|t| t.reshape(&t.shape()[1..]));
        return loss_and_gradients(&BatchInputs::from_list(&only));
    }
    let zeros = values.iter().map(|v| graph.splat(0.0, DType::F32, &v.shape()));
    let init: Vec<_> = std::iter::once(graph.scalar(0.0, DType::F32)).chain(zeros).collect();
    let (sums, _) = graph.scan(micro_batches, &init, &batch.list(), ScanOptions::default(), |sums, micro| {
        let (loss, gradients) = loss_and_gradients(&BatchInputs::from_list(micro));
        let added = sums.iter().zip(std::iter::once(loss).chain(gradients)).map(|(&sum, new)| sum + new);
        (added.collect(), vec![])
    });
    (sums[0], sums[1..].to_vec())
}

/// Over which axes the gradient of a parameter is still to be summed: gathering over `fsdp` has summed the sharded ones.
fn replicated_axes(param: &Param) -> &'static [Axis] {
    if param.fsdp_dim.is_some() {
        &[Axis::Dp]
    } else {
        &[Axis::Dp, Axis::Fsdp]
    }
}

/// Norm over all parameters, each shard counted once.
fn global_norm<'g>(graph: &'g Graph, params: &[Param], gradients: &[Tensor<'g>]) -> Tensor<'g> {
    let mut total = graph.scalar(0.0, DType::F32);
    for (fsdp, tp) in [(true, true), (true, false), (false, true), (false, false)] {
        let squares = params
            .iter()
            .zip(gradients)
            .filter(|(p, _)| (p.fsdp_dim.is_some(), p.tp_dim.is_some()) == (fsdp, tp))
            .map(|(_, g)| (*g * *g).sum_all())
            .reduce(|a, b| a + b);
        let axes: Vec<_> = [(fsdp, Axis::Fsdp), (tp, Axis::Tp)].iter().filter(|(on, _)| *on).map(|(_, a)| *a).collect();
        total = squares.map_or(total, |s| total + s.all_reduce(&axes));
    }
    total.sqrt()
}
