//! Qwen2 and Llama: the decoder of HF's `modeling_qwen2.py` / `modeling_llama.py` over the graph.
//!
//! Shapes: `batch` rows of `seq` tokens, `heads = kv_heads × group` query heads of `head_dim`. Under tensor parallelism
//! `heads`, `kv_heads` and the MLP's columns are this replica's share.

use std::collections::HashMap;

use sft_tensor::DType;

use crate::config::ModelConfig;
use crate::graph::{Graph, Remat, ScanOptions, Tensor};
use crate::layout::Vocab;
use crate::mesh::{Axis, Mesh};
use crate::params::Param;

/// Added in place of a forbidden score. Finite, so that a row without any allowed key yields numbers, not NaN.
pub const MASKED: f64 = -1e30;

/// A decoder over weights that are inputs of a program.
pub struct Transformer<'g> {
    graph: &'g Graph,
    config: ModelConfig,
    vocab: Vocab,
    /// How the weights are sharded.
    mesh: Mesh,
    compute: DType,
    remat: Remat,
    params: HashMap<String, (Param, Tensor<'g>)>,
}

/// Rotations of the positions of a batch: cosines and sines `[batch, seq, 1, head_dim / 2]` in compute type.
#[derive(Clone, Copy)]
pub struct Rope<'g> {
    cos: Tensor<'g>,
    sin: Tensor<'g>,
}

/// What a layer's attention reads, positions applied: queries `[batch, seq, kv_heads, group, head_dim]`, keys and values
/// `[batch, seq, kv_heads, head_dim]`.
#[derive(Clone, Copy)]
pub struct Qkv<'g> {
    /// Queries.
    pub q: Tensor<'g>,
    /// Keys.
    pub k: Tensor<'g>,
    /// Values.
    pub v: Tensor<'g>,
}

/// The weights of one layer, ready for use: by the end of their name (`self_attn.q_proj.weight`).
struct Layer<'g>(HashMap<String, Tensor<'g>>);

impl<'g> Layer<'g> {
    fn get(&self, name: &str) -> Tensor<'g> {
        self.0[name]
    }

    fn with_bias(&self, y: Tensor<'g>, name: &str) -> Tensor<'g> {
        self.0.get(&format!("{name}.bias")).map_or(y, |&bias| y + bias)
    }

    fn linear(&self, x: Tensor<'g>, name: &str) -> Tensor<'g> {
        self.with_bias(x.linear(self.get(&format!("{name}.weight"))), name)
    }
}

const LAYER_PREFIX: &str = "model.layers.*.";

impl<'g> Transformer<'g> {
    /// A decoder with `params` sharded as their layout says, `tensors` being this replica's shards in the same order.
    /// Products are computed in `compute`.
    pub fn new(config: &ModelConfig, vocab: Vocab, compute: DType, params: &[Param], tensors: &[Tensor<'g>]) -> Self {
        let graph = tensors[0].graph();
        let named = params.iter().zip(tensors).map(|(p, &t)| (p.name.clone(), (p.clone(), t))).collect();
        let remat = Remat::default();
        Self { graph, config: config.clone(), vocab, mesh: *graph.mesh(), compute, remat, params: named }
    }

    /// Keeps of every layer what `remat` says for the reverse pass.
    pub fn with_remat(self, remat: Remat) -> Self {
        Self { remat, ..self }
    }

    /// A whole weight (one layer's, for a stacked parameter) in compute type out of its shards: gathered over `fsdp`, the
    /// padding cut off. Its gradient is reduce-scattered.
    fn gather(&self, param: &Param, shard: Tensor<'g>) -> Tensor<'g> {
        let weight = shard.convert(self.compute);
        let Some(dim) = param.fsdp_dim else { return weight };
        let stacked = usize::from(param.is_stacked());
        let splits = if param.tp_dim == Some(dim) { self.mesh.tp } else { 1 };
        let size = param.shape[dim].div_ceil(splits);
        weight.all_gather(dim - stacked, Axis::Fsdp).narrow(dim - stacked, 0..size)
    }

    fn weight(&self, name: &str) -> Tensor<'g> {
        let (param, shard) = &self.params[name];
        self.gather(param, *shard)
    }

    /// The embedding table `[rows, hidden]` in compute type.
    pub fn embedding(&self) -> Tensor<'g> {
        self.weight("model.embed_tokens.weight")
    }

    /// The head `[rows, hidden]`: the embedding table again where the model ties them.
    pub fn head(&self, embedding: Tensor<'g>) -> Tensor<'g> {
        if self.config.tie_word_embeddings {
            embedding
        } else {
            self.weight("lm_head.weight")
        }
    }

    /// `[batch, seq]` positions to rotations, as HF computes them (angles in f32).
    pub fn rope(&self, positions: Tensor<'g>) -> Rope<'g> {
        let half = self.config.head_dim / 2;
        let frequency = |i: usize| (self.config.rope_theta.powf(-(i as f64) / half as f64)) as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let [batch, seq] = [positions.dim(0), positions.dim(1)];
        let angles = positions.convert(DType::F32).reshape(&[batch, seq, 1, 1])
            * self.graph.constant_f32(&[1, 1, 1, half], &frequencies);
        Rope { cos: angles.cos().convert(self.compute), sin: angles.sin().convert(self.compute) }
    }

    /// Root-mean-square norm over the last dimension, in f32, back in `x`'s type before the weight.
    fn rms_norm(&self, x: Tensor<'g>, weight: Tensor<'g>) -> Tensor<'g> {
        let last = x.rank() - 1;
        let wide = if x.dtype() == DType::F64 { x } else { x.convert(DType::F32) };
        let mean = (wide * wide).sum(&[last]).expand_dim(last) * (1.0 / x.dim(last) as f64);
        let normed = wide * (mean + f64::from(self.config.rms_norm_eps)).rsqrt();
        normed.convert(x.dtype()) * weight
    }

    /// The norm before the head.
    pub fn final_norm(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.rms_norm(x, self.weight("model.norm.weight"))
    }

    /// Runs all layers over `x [batch, seq, hidden]`. `attend(qkv, xs_i) → (context, ys_i)` is called once to build a
    /// layer's attention: its context has the shape of the queries; `xs` and `ys` are stacked by layer (a KV cache).
    pub fn layers<F>(
        &self,
        x: Tensor<'g>,
        rope: Rope<'g>,
        xs: &[Tensor<'g>],
        attend: F,
    ) -> (Tensor<'g>, Vec<Tensor<'g>>)
    where
        F: FnOnce(Qkv<'g>, &[Tensor<'g>]) -> (Tensor<'g>, Vec<Tensor<'g>>),
    {
        let mut stacked: Vec<&(Param, Tensor<'g>)> = self.params.values().filter(|(p, _)| p.is_stacked()).collect();
        stacked.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let inputs: Vec<_> = stacked.iter().map(|(_, t)| *t).chain(xs.iter().copied()).collect();
        let options = ScanOptions { remat: self.remat, ..ScanOptions::default() };
        let (carry, ys) = self.graph.scan(self.config.num_hidden_layers, &[x], &inputs, options, |carry, slices| {
            let weights = stacked
                .iter()
                .zip(slices)
                .map(|((param, _), &shard)| (param.name[LAYER_PREFIX.len()..].to_owned(), self.gather(param, shard)));
            let layer = Layer(weights.collect());
            let (x, ys) = self.layer(&layer, carry[0], rope, |qkv| attend(qkv, &slices[stacked.len()..]));
            (vec![x], ys)
        });
        (carry[0], ys)
    }

    fn layer<F>(&self, layer: &Layer<'g>, x: Tensor<'g>, rope: Rope<'g>, attend: F) -> (Tensor<'g>, Vec<Tensor<'g>>)
    where
        F: FnOnce(Qkv<'g>) -> (Tensor<'g>, Vec<Tensor<'g>>),
    {
        let normed = self.rms_norm(x, layer.get("input_layernorm.weight"));
        let (attention, ys) = self.attention(layer, normed, rope, attend);
        let x = x + attention;
        let normed = self.rms_norm(x, layer.get("post_attention_layernorm.weight"));
        (x + self.mlp(layer, normed), ys)
    }

    fn attention<F>(&self, layer: &Layer<'g>, x: Tensor<'g>, rope: Rope<'g>, attend: F) -> (Tensor<'g>, Vec<Tensor<'g>>)
    where
        F: FnOnce(Qkv<'g>) -> (Tensor<'g>, Vec<Tensor<'g>>),
    {
        let config = &self.config;
        let (batch, seq, head_dim) = (x.dim(0), x.dim(1), config.head_dim);
        let kv_heads = config.num_key_value_heads / self.mesh.tp;
        let group = config.num_attention_heads / config.num_key_value_heads;
        let x = x.enter_parallel(Axis::Tp);
        let q = layer.linear(x, "self_attn.q_proj").reshape(&[batch, seq, kv_heads * group, head_dim]);
        let k = layer.linear(x, "self_attn.k_proj").reshape(&[batch, seq, kv_heads, head_dim]);
        let v = layer.linear(x, "self_attn.v_proj").reshape(&[batch, seq, kv_heads, head_dim]);
        let q = rotate(q, rope).reshape(&[batch, seq, kv_heads, group, head_dim]);
        let (context, ys) = attend(Qkv { q, k: rotate(k, rope), v });
        let context = context.reshape(&[batch, seq, kv_heads * group * head_dim]);
        let y = context.linear(layer.get("self_attn.o_proj.weight")).sum_partial(&[Axis::Tp]);
        (layer.with_bias(y, "self_attn.o_proj"), ys)
    }

    /// SwiGLU: `down(silu(gate(x)) · up(x))`.
    fn mlp(&self, layer: &Layer<'g>, x: Tensor<'g>) -> Tensor<'g> {
        let x = x.enter_parallel(Axis::Tp);
        let gate = layer.linear(x, "mlp.gate_proj");
        let up = layer.linear(x, "mlp.up_proj");
        let down = (gate * gate.logistic() * up).linear(layer.get("mlp.down_proj.weight")).sum_partial(&[Axis::Tp]);
        layer.with_bias(down, "mlp.down_proj")
    }

    /// `hidden [.., hidden]` (normed) times the head, in f32: `[.., rows]`. Rows beyond the tokenizer's are masked, so
    /// that they take no part in a softmax.
    pub fn logits(&self, hidden: Tensor<'g>, head: Tensor<'g>) -> Tensor<'g> {
        let dtype = if self.compute == DType::F64 { DType::F64 } else { DType::F32 };
        let last = hidden.rank() - 1;
        let logits = hidden.dot(head, [&[], &[]], [&[last], &[1]], dtype);
        if self.vocab.tokens == logits.dim(last) {
            return logits;
        }
        let column = self.graph.iota(DType::S32, &logits.shape(), last);
        let exists = column.less(self.graph.scalar(self.vocab.tokens as f64, DType::S32));
        exists.select(logits, self.graph.scalar(MASKED, dtype))
    }

    /// The decoder over whole rows: `tokens`, `positions` and `segments` `[batch, seq]` (s32) to hidden states
    /// `[batch, seq, hidden]` before the final norm. A token sees the tokens of its own segment up to itself.
    pub fn forward(
        &self,
        embedding: Tensor<'g>,
        tokens: Tensor<'g>,
        positions: Tensor<'g>,
        segments: Tensor<'g>,
    ) -> Tensor<'g> {
        let mask = causal_mask(segments);
        let x = embedding.take(tokens);
        self.layers(x, self.rope(positions), &[], |qkv, _| (attend(qkv, mask), Vec::new())).0
    }
}

/// A whole parameter in `dtype`, its shards (`shard` being this replica's) joined over all axes, the padding cut off.
pub fn gather_whole<'g>(param: &Param, shard: Tensor<'g>, dtype: DType) -> Tensor<'g> {
    let mut whole = shard.convert(dtype);
    let mesh = *shard.graph().mesh();
    for (axis, dim) in [(Axis::Fsdp, param.fsdp_dim), (Axis::Tp, param.tp_dim)] {
        let Some(dim) = dim else { continue };
        // where both axes split a dimension, the fsdp shards make up a tp shard
        let splits = if axis == Axis::Fsdp && param.tp_dim == Some(dim) { mesh.tp } else { 1 };
        whole = whole.all_gather(dim, axis).narrow(dim, 0..param.shape[dim].div_ceil(splits));
    }
    whole
}

/// `[batch, 1, seq, seq]`: true where the query (third dimension) may look at the key (fourth).
pub fn causal_mask(segments: Tensor<'_>) -> Tensor<'_> {
    let (graph, batch, seq) = (segments.graph(), segments.dim(0), segments.dim(1));
    let square = [batch, 1, seq, seq];
    let query = segments.reshape(&[batch, 1, seq, 1]).broadcast_to(&square);
    let key = segments.reshape(&[batch, 1, 1, seq]).broadcast_to(&square);
    let not_later = graph.iota(DType::S32, &square, 3).less_equal(graph.iota(DType::S32, &square, 2));
    query.equal(key).and(not_later)
}

/// Rotates pairs `(i, i + head_dim / 2)` of `x [batch, seq, heads, head_dim]`.
fn rotate<'g>(x: Tensor<'g>, rope: Rope<'g>) -> Tensor<'g> {
    let half = x.dim(3) / 2;
    let (a, b) = (x.narrow(3, 0..half), x.narrow(3, half..2 * half));
    x.graph().concat(&[a * rope.cos - b * rope.sin, b * rope.cos + a * rope.sin], 3)
}

/// Queries of each key/value head as one matrix: `[batch, kv_heads, group · seq, head_dim]`.
pub fn queries_by_kv_head(q: Tensor<'_>) -> Tensor<'_> {
    let shape = q.shape();
    let [batch, seq, kv_heads, group, head_dim] = shape[..] else { panic!("queries of shape {shape:?}") };
    q.transpose(&[0, 2, 3, 1, 4]).reshape(&[batch, kv_heads, group * seq, head_dim])
}

/// Keys times queries over √head_dim in f32: `q [batch, kv_heads, rows, head_dim]` and `k [batch, seq, kv_heads,
/// head_dim]` to `[batch, kv_heads, rows, seq]`.
pub fn scores<'g>(q: Tensor<'g>, k: Tensor<'g>) -> Tensor<'g> {
    let dtype = if q.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let product = q.dot(k.transpose(&[0, 2, 1, 3]), [&[0, 1], &[0, 1]], [&[3], &[3]], dtype);
    product * (1.0 / (q.dim(3) as f64).sqrt())
}

/// Softmax over the last dimension.
pub fn softmax(x: Tensor<'_>) -> Tensor<'_> {
    let last = x.rank() - 1;
    let shifted = (x - x.max(&[last]).expand_dim(last).stop_gradient()).exp();
    shifted / shifted.sum(&[last]).expand_dim(last)
}

/// `log Σ exp` over the last dimension, which disappears.
pub fn log_sum_exp(x: Tensor<'_>) -> Tensor<'_> {
    let last = x.rank() - 1;
    let max = x.max(&[last]).stop_gradient();
    (x - max.expand_dim(last)).exp().sum(&[last]).log() + max
}

/// Self-attention of whole rows under `mask [batch, 1, seq, seq]`.
pub fn attend<'g>(qkv: Qkv<'g>, mask: Tensor<'g>) -> Tensor<'g> {
    let shape = qkv.q.shape();
    let [batch, seq, kv_heads, group, head_dim] = shape[..] else { panic!("queries of shape {shape:?}") };
    let scores = scores(queries_by_kv_head(qkv.q), qkv.k).reshape(&[batch, kv_heads * group, seq, seq]);
    let allowed = mask.broadcast_to(&scores.shape());
    let forbidden = scores.graph().scalar(MASKED, scores.dtype());
    let weights = softmax(allowed.select(scores, forbidden)).convert(qkv.v.dtype());
    let rows = weights.reshape(&[batch, kv_heads, group * seq, seq]);
    let values = qkv.v.transpose(&[0, 2, 1, 3]);
    let context = rows.dot(values, [&[0, 1], &[0, 1]], [&[3], &[2]], qkv.v.dtype());
    context.reshape(&[batch, kv_heads, group, seq, head_dim]).transpose(&[0, 3, 1, 2, 4])
}
