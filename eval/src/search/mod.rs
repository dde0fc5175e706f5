//! Constrained beam search as one program: the prompt once, the SID's tokens beam by beam, the suffix in one pass.
//!
//! It computes what HF's beam search computes under a constraint mask without sampling or length penalty: the width is
//! the number of beams at every level, even where the first level has fewer candidates; scores are sums of
//! full-vocabulary log-probabilities, never renormalised over the allowed tokens, the suffix's included.

mod attention;
mod level;

use sft_model::config::ModelConfig;
use sft_model::graph::{Graph, Tensor};
use sft_model::layout::{self, Vocab};
use sft_model::mesh::Mesh;
use sft_model::program::Program;
use sft_model::transformer::{attend, causal_mask, Transformer};
use sft_tensor::{DType, HostTensor};

use crate::trie::Trie;
use attention::{BeamCache, PromptCache};
use level::{Beams, Children, Scorer};

/// Sizes of one search program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SearchShape {
    /// Prompts that one device searches at a time.
    pub prompts: usize,
    /// Longest prompt in tokens; shorter ones are padded at their end.
    pub prompt_len: usize,
    /// Beams of each prompt.
    pub beams: usize,
}

/// What is searched for: the SIDs and what closes each.
#[derive(Clone, Debug)]
pub struct Constraint {
    trie: Trie,
    /// Tokens of every SID.
    depth: usize,
    suffix: Vec<u32>,
}

/// A catalogue that the compiled search cannot take.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConstraintError {
    /// SIDs have different numbers of tokens.
    #[error("the catalogue's SIDs have different numbers of tokens (up to {0}); the search needs all alike")]
    Ragged(usize),
    /// More beams than SIDs.
    #[error("eval.num_beams is {beams}, but the catalogue has only {sids} distinct SIDs; ask for at most {sids}")]
    TooFewSids {
        /// Beams asked for.
        beams: usize,
        /// Distinct SIDs.
        sids: usize,
    },
    /// Nothing closes a SID.
    #[error("the suffix that closes a SID (newline and end of sequence) is empty")]
    NoSuffix,
}

impl Constraint {
    /// The SIDs of `trie`, each closed by the tokens of `suffix` (newline and end of sequence).
    pub fn new(trie: Trie, suffix: &[u32]) -> Result<Self, ConstraintError> {
        let depth = trie.uniform_depth().ok_or(ConstraintError::Ragged(trie.depth()))?;
        if suffix.is_empty() {
            return Err(ConstraintError::NoSuffix);
        }
        Ok(Self { trie, depth, suffix: suffix.to_vec() })
    }

    /// Checks that every prompt can get `beams` distinct SIDs.
    pub fn check_beams(&self, beams: usize) -> Result<(), ConstraintError> {
        let sids = self.trie.leaf_count();
        if beams > sids {
            return Err(ConstraintError::TooFewSids { beams, sids });
        }
        Ok(())
    }

    /// The trie of the SIDs.
    pub fn trie(&self) -> &Trie {
        &self.trie
    }

    /// The program's inputs between the weights and the prompts: the trie's tables (s32), the same on every device and
    /// in every search.
    pub fn tables(&self) -> Vec<HostTensor> {
        let tables = self.trie.tables();
        [tables.child_start, tables.child_count, tables.child_token, tables.leaf_sid]
            .map(|table| HostTensor::from_i32(&[table.len()], &table))
            .to_vec()
    }
}

const TABLE_NAMES: [&str; 4] = ["child_start", "child_count", "child_token", "leaf_sid"];

/// A search of [`SearchShape::prompts`] prompts on each of `devices` devices, which do not communicate.
///
/// Inputs: the whole parameters in the order of [`layout::params`] in `compute` type (see [`gather_program`]), the
/// tables of [`Constraint::tables`], `tokens [prompts, prompt_len]` s32 and `lengths [prompts]` s32 (each at least 1).
/// Outputs: `sids [prompts, beams]` s32, indices into the SIDs of the trie, best first, lower beam and token first among
/// equals; `scores [prompts, beams]` f32, nats.
pub fn search_program(
    devices: usize,
    config: &ModelConfig,
    vocab: Vocab,
    compute: DType,
    constraint: &Constraint,
    shape: &SearchShape,
) -> Program {
    let graph = Graph::new(Mesh { dp: devices, fsdp: 1, tp: 1 });
    let params = layout::params(config, vocab);
    let weights: Vec<_> = params.iter().map(|p| graph.input(&p.name, compute, &p.shape)).collect();
    let tables = constraint.tables();
    let tables: Vec<_> =
        TABLE_NAMES.iter().zip(&tables).map(|(name, t)| graph.input(name, DType::S32, t.shape())).collect();
    let tokens = graph.input("tokens", DType::S32, &[shape.prompts, shape.prompt_len]);
    let lengths = graph.input("lengths", DType::S32, &[shape.prompts]);

    let model = Transformer::new(config, vocab, compute, &params, &weights);
    let embedding = model.embedding();
    let scorer = Scorer::new(&model, model.head(embedding), shape);
    let max_children = constraint.trie.tables().max_children_per_level;

    let (prompt, last) = prefill(&model, embedding, tokens, lengths);
    let mut children = Children::of_root(tables[2], max_children[0], shape);
    let mut beams = Beams::start(&graph, shape, &scorer.next_tokens(last, &children), &children);
    let mut cache = BeamCache::empty();
    for (level, &width) in max_children.iter().enumerate().skip(1) {
        let hidden = decode(&model, embedding, &prompt, &mut cache, lengths, beams.tokens.expand_dim(2));
        children = Children::of_beams(&tables, beams.nodes, width);
        let log_probs = scorer.next_tokens(hidden, &children);
        let parents;
        (beams, parents) = beams.extend(&log_probs, &children);
        cache.reorder(parents);
        debug_assert!(level < constraint.depth);
    }
    let scores =
        beams.scores + suffix_score(&model, embedding, &scorer, &prompt, &mut cache, lengths, &beams, constraint);
    let sids = tables[3].take(beams.nodes);
    let ranked = graph.sort_descending(scores, &[sids]);
    Program::new("search", &graph, &[("sids", ranked[1]), ("scores", ranked[0])], 0)
}

/// Runs the prompts: their keys and values, and the hidden state `[prompts, 1, hidden]` of each last token.
fn prefill<'g>(
    model: &Transformer<'g>,
    embedding: Tensor<'g>,
    tokens: Tensor<'g>,
    lengths: Tensor<'g>,
) -> (PromptCache<'g>, Tensor<'g>) {
    let graph = tokens.graph();
    let shape = tokens.shape();
    let positions = graph.iota(DType::S32, &shape, 1);
    let real = positions.less(lengths.expand_dim(1).broadcast_to(&shape));
    // padding comes last, so that no real token sees it under the causal mask
    let mask = causal_mask(graph.splat(0.0, DType::S32, &shape));
    let (hidden, ys) = model
        .layers(embedding.take(tokens), model.rope(positions), &[], |qkv, _| (attend(qkv, mask), vec![qkv.k, qkv.v]));
    let [prompts, seq, width] = [hidden.dim(0), hidden.dim(1), hidden.dim(2)];
    let row = graph.iota(DType::S32, &[prompts], 0) * seq as f64 + lengths - 1.0;
    let last = hidden.reshape(&[prompts * seq, width]).take(row).expand_dim(1);
    (PromptCache { keys: ys[0], values: ys[1], real }, last)
}

/// Runs `tokens [prompts, beams, new]` of all beams after the prompt and what the cache holds, and adds them to it.
/// Returns hidden states `[prompts, beams · new, hidden]`.
fn decode<'g>(
    model: &Transformer<'g>,
    embedding: Tensor<'g>,
    prompt: &PromptCache<'g>,
    cache: &mut BeamCache<'g>,
    lengths: Tensor<'g>,
    tokens: Tensor<'g>,
) -> Tensor<'g> {
    let graph = tokens.graph();
    let [prompts, beams, new] = [tokens.dim(0), tokens.dim(1), tokens.dim(2)];
    let offset = graph.iota(DType::S32, &[prompts, beams, new], 2) + cache.len() as f64;
    let positions = offset + lengths.reshape(&[prompts, 1, 1]).broadcast_to(&offset.shape());
    let x = embedding.take(tokens.reshape(&[prompts, beams * new]));
    let rope = model.rope(positions.reshape(&[prompts, beams * new]));
    let xs: Vec<_> = [prompt.keys, prompt.values].into_iter().chain(cache.tensors()).collect();
    let (hidden, ys) = model.layers(x, rope, &xs, |qkv, xs| attention::attend_beams(qkv, xs, prompt.real, beams));
    cache.set(ys[0], ys[1]);
    hidden
}

/// Log-probabilities `[prompts, beams]` of the suffix after each beam, in one pass over the beam's last token and all of
/// the suffix but its end.
#[allow(clippy::too_many_arguments)] // the parts of one search, all of which it needs
fn suffix_score<'g>(
    model: &Transformer<'g>,
    embedding: Tensor<'g>,
    scorer: &Scorer<'_, 'g>,
    prompt: &PromptCache<'g>,
    cache: &mut BeamCache<'g>,
    lengths: Tensor<'g>,
    beams: &Beams<'g>,
    constraint: &Constraint,
) -> Tensor<'g> {
    let graph = lengths.graph();
    let [prompts, width] = [beams.tokens.dim(0), beams.tokens.dim(1)];
    let suffix: Vec<i32> = constraint.suffix.iter().map(|&token| token as i32).collect();
    let fixed = |tokens: &[i32]| {
        let shape = [prompts, width, tokens.len()];
        graph.constant_i32(&[1, 1, tokens.len()], tokens).broadcast_to(&shape)
    };
    let mut inputs = vec![beams.tokens.expand_dim(2)];
    if suffix.len() > 1 {
        inputs.push(fixed(&suffix[..suffix.len() - 1]));
    }
    let hidden = decode(model, embedding, prompt, cache, lengths, graph.concat(&inputs, 2));
    let children = Children::fixed(fixed(&suffix).reshape(&[prompts, width * suffix.len(), 1]));
    scorer.next_tokens(hidden, &children).reshape(&[prompts, width, suffix.len()]).sum(&[2])
}

/// Whole parameters in `compute` type on every device, out of the training state's shards (f32).
pub fn gather_program(mesh: Mesh, config: &ModelConfig, vocab: Vocab, compute: DType) -> Program {
    let graph = Graph::new(mesh);
    let params = layout::params(config, vocab);
    let gathered: Vec<_> = params
        .iter()
        .map(|param| {
            let shard = graph.input(&param.name, DType::F32, &param.shard_shape(&mesh));
            sft_model::transformer::gather_whole(param, shard, compute)
        })
        .collect();
    let outputs: Vec<_> = gathered.iter().map(|&t| ("parameter", t)).collect();
    Program::new("gather", &graph, &outputs, 0)
}
