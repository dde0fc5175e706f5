use sft_tensor::DType;

use super::{BatchInputs, BatchShape};
use crate::config::ModelConfig;
use crate::graph::{Graph, ScanOptions, Tensor};
use crate::layout::{self, Vocab};
use crate::mesh::{Axis, Mesh};
use crate::program::Program;
use crate::transformer::{log_sum_exp, Transformer};

/// Weighted sum of the negative log-likelihoods of one micro-batch, a scalar f32: `Σ weight · (log Σ exp(logits) −
/// logit of the target)` over the supervised positions of this replica.
pub(super) fn weighted_loss<'g>(model: &Transformer<'g>, batch: &BatchInputs<Tensor<'g>>) -> Tensor<'g> {
    let embedding = model.embedding();
    let hidden = model.forward(embedding, batch.tokens, batch.positions, batch.segments);
    let [rows, seq, width] = [hidden.dim(0), hidden.dim(1), hidden.dim(2)];
    let predicting = hidden.reshape(&[rows * seq, width]).take(batch.sources);
    let logits = model.logits(model.final_norm(predicting), model.head(embedding));
    let column = logits.graph().iota(DType::S32, &logits.shape(), 1);
    let is_target = column.equal(batch.targets.expand_dim(1).broadcast_to(&logits.shape()));
    let target = is_target.select(logits, logits.graph().scalar(0.0, logits.dtype())).sum(&[1]);
    ((log_sum_exp(logits) - target) * batch.weights.convert(logits.dtype())).sum_all()
}

/// The loss of a batch without a step: inputs are the parameters' shards (f32) and the batch; the output `loss` is the
/// sum over all micro-batches of all replicas, the same on each.
pub fn loss_program(mesh: Mesh, config: &ModelConfig, vocab: Vocab, compute: DType, shape: &BatchShape) -> Program {
    let graph = Graph::new(mesh);
    let params = layout::params(config, vocab);
    let tensors: Vec<_> = params.iter().map(|p| graph.input(&p.name, DType::F32, &p.shard_shape(&mesh))).collect();
    let batch = BatchInputs::declare(&graph, shape);
    let model = Transformer::new(config, vocab, compute, &params, &tensors);
    let zero = graph.scalar(0.0, DType::F32);
    let (sum, _) = graph.scan(shape.micro_batches, &[zero], &batch.list(), ScanOptions::default(), |carry, micro| {
        (vec![carry[0] + weighted_loss(&model, &BatchInputs::from_list(micro))], vec![])
    });
    let loss = sum[0].all_reduce(&[Axis::Dp, Axis::Fsdp]);
    Program::new("loss", &graph, &[("loss", loss)], 0)
}
