use sft_model::graph::Tensor;
use sft_model::transformer::{queries_by_kv_head, scores, softmax, Qkv, MASKED};
use sft_tensor::DType;

/// Keys and values of the prompts, once for all beams: `[layers, prompts, prompt_len, kv_heads, head_dim]` each.
pub(super) struct PromptCache<'g> {
    pub keys: Tensor<'g>,
    pub values: Tensor<'g>,
    /// `[prompts, prompt_len]`: true where there is a token, not padding.
    pub real: Tensor<'g>,
}

/// Keys and values of what the beams have generated: `[layers, prompts, beams, len, kv_heads, head_dim]` each.
pub(super) struct BeamCache<'g>(Option<[Tensor<'g>; 2]>);

impl<'g> BeamCache<'g> {
    pub fn empty() -> Self {
        Self(None)
    }

    /// Tokens of each beam.
    pub fn len(&self) -> usize {
        self.0.map_or(0, |[keys, _]| keys.dim(3))
    }

    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'g>> {
        self.0.into_iter().flatten()
    }

    pub fn set(&mut self, keys: Tensor<'g>, values: Tensor<'g>) {
        self.0 = Some([keys, values]);
    }

    /// Makes beam `k` the continuation of the old beam `parents[prompt, k]`.
    pub fn reorder(&mut self, parents: Tensor<'g>) {
        let Some(tensors) = &mut self.0 else { return };
        let graph = parents.graph();
        let [prompts, beams] = [parents.dim(0), parents.dim(1)];
        let row = graph.iota(DType::S32, &parents.shape(), 0) * beams as f64 + parents;
        for tensor in tensors {
            let shape = tensor.shape();
            let by_beam = tensor.transpose(&[1, 2, 0, 3, 4, 5]);
            let rows = by_beam.reshape(&[&[prompts * beams], &by_beam.shape()[2..]].concat());
            *tensor = rows.take(row).transpose(&[2, 0, 1, 3, 4, 5]);
            debug_assert_eq!(tensor.shape(), shape);
        }
    }
}

/// Attention of the new tokens of all beams. `qkv` has a sequence of `beams · new` tokens, beam by beam; `xs` holds this
/// layer's prompt keys and values and, unless it is the first step, those of the beams. Returns the context, and the
/// beams' keys and values `[prompts, beams, len + new, kv_heads, head_dim]`.
pub(super) fn attend_beams<'g>(
    qkv: Qkv<'g>,
    xs: &[Tensor<'g>],
    real: Tensor<'g>,
    beams: usize,
) -> (Tensor<'g>, Vec<Tensor<'g>>) {
    let graph = qkv.q.graph();
    let shape = qkv.q.shape();
    let [prompts, seq, kv_heads, group, head_dim] = shape[..] else { panic!("queries of shape {shape:?}") };
    let new = seq / beams;
    let split = |t: Tensor<'g>| t.reshape(&[prompts, beams, new, kv_heads, head_dim]);
    let extended = |past: Option<&Tensor<'g>>, t: Tensor<'g>| match past {
        Some(&past) => graph.concat(&[past, split(t)], 2),
        None => split(t),
    };
    let (keys, values) = (extended(xs.get(2), qkv.k), extended(xs.get(3), qkv.v));
    let len = keys.dim(2);

    let prompt_scores = scores(queries_by_kv_head(qkv.q), xs[0]);
    let dtype = prompt_scores.dtype();
    let forbidden = graph.scalar(MASKED, dtype);
    let prompt_len = real.dim(1);
    let real = real.reshape(&[prompts, 1, 1, prompt_len]).broadcast_to(&prompt_scores.shape());
    let prompt_scores = real.select(prompt_scores, forbidden);

    // [prompts, beams, kv_heads, group · new, head_dim]
    let per_beam = [prompts, beams, kv_heads, group * new];
    let q = qkv.q.reshape(&[prompts, beams, new, kv_heads, group, head_dim]).transpose(&[0, 1, 3, 4, 2, 5]);
    let q = q.reshape(&[prompts, beams, kv_heads, group * new, head_dim]);
    let own = q.dot(keys.transpose(&[0, 1, 3, 2, 4]), [&[0, 1, 2], &[0, 1, 2]], [&[4], &[4]], dtype);
    let own = (own * (1.0 / (head_dim as f64).sqrt())).reshape(&[prompts, beams, kv_heads, group, new, len]);
    let own = if new > 1 {
        let key = graph.iota(DType::S32, &own.shape(), 5);
        let query = graph.iota(DType::S32, &own.shape(), 4) + (len - new) as f64;
        key.less_equal(query).select(own, forbidden)
    } else {
        own
    };
    // into the order of the prompt's scores: [prompts, kv_heads, group · beams · new, len]
    let own = own.transpose(&[0, 2, 3, 1, 4, 5]).reshape(&[prompts, kv_heads, group * seq, len]);

    let weights = softmax(graph.concat(&[prompt_scores, own], 3)).convert(qkv.v.dtype());
    let on_prompt = weights.narrow(3, 0..prompt_len);
    let context = on_prompt.dot(xs[1].transpose(&[0, 2, 1, 3]), [&[0, 1], &[0, 1]], [&[3], &[2]], qkv.v.dtype());
    let context = context.reshape(&[prompts, kv_heads, group, seq, head_dim]).transpose(&[0, 3, 1, 2, 4]);

    let on_own = weights.narrow(3, prompt_len..prompt_len + len);
    let on_own = on_own.reshape(&[prompts, kv_heads, group, beams, new, len]).transpose(&[0, 3, 1, 2, 4, 5]);
    let on_own = on_own.reshape(&[&per_beam[..], &[len]].concat());
    let values_by_head = values.transpose(&[0, 1, 3, 2, 4]);
    let own = on_own.dot(values_by_head, [&[0, 1, 2], &[0, 1, 2]], [&[4], &[3]], qkv.v.dtype());
    let own = own.reshape(&[prompts, beams, kv_heads, group, new, head_dim]).transpose(&[0, 1, 4, 2, 3, 5]);
    (context + own.reshape(&shape), vec![keys, values])
}
