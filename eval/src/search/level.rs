use sft_model::graph::{Graph, ScanOptions, Tensor};
use sft_model::transformer::{log_sum_exp, Transformer, MASKED};
use sft_tensor::DType;

use super::SearchShape;

/// Logits of a step are made for so many bytes at a time, so that memory does not grow with prompts × beams × tokens.
const LOGITS_BYTES: usize = 256 << 20;

/// The tokens that may come next, for every row of hidden states.
pub(super) struct Children<'g> {
    /// Token ids `[prompts, rows, width]` s32.
    pub tokens: Tensor<'g>,
    /// Edge of the trie that each is, as `tokens`; edge `e` leads to node `e + 1`. `None` where no trie is walked.
    edges: Option<Tensor<'g>>,
    /// Which of them exist, as `tokens`; `None` if all.
    valid: Option<Tensor<'g>>,
}

impl<'g> Children<'g> {
    /// The first tokens of all SIDs, the same for every prompt.
    pub fn of_root(child_token: Tensor<'g>, width: usize, shape: &SearchShape) -> Self {
        let wide = [shape.prompts, 1, width];
        let edges = child_token.graph().iota(DType::S32, &wide, 2);
        Self { tokens: child_token.take(edges), edges: Some(edges), valid: None }
    }

    /// What may follow at `nodes [prompts, beams]`; no node has more than `width` children.
    pub fn of_beams(tables: &[Tensor<'g>], nodes: Tensor<'g>, width: usize) -> Self {
        let [child_start, child_count, child_token] = [tables[0], tables[1], tables[2]];
        let wide = [nodes.dim(0), nodes.dim(1), width];
        let number = nodes.graph().iota(DType::S32, &wide, 2);
        let per_child = |t: Tensor<'g>| t.take(nodes).expand_dim(2).broadcast_to(&wide);
        let edges = per_child(child_start) + number;
        let valid = number.less(per_child(child_count));
        // beyond a node's children the edges are other nodes' (or clamped to the last): ignored
        Self { tokens: child_token.take(edges), edges: Some(edges), valid: Some(valid) }
    }

    /// Given tokens, whatever the trie says.
    pub fn fixed(tokens: Tensor<'g>) -> Self {
        Self { tokens, edges: None, valid: None }
    }
}

/// Turns hidden states into log-probabilities of chosen tokens.
pub(super) struct Scorer<'m, 'g> {
    model: &'m Transformer<'g>,
    head: Tensor<'g>,
    prompts: usize,
}

impl<'m, 'g> Scorer<'m, 'g> {
    pub fn new(model: &'m Transformer<'g>, head: Tensor<'g>, shape: &SearchShape) -> Self {
        Self { model, head, prompts: shape.prompts }
    }

    /// Log-probabilities `[prompts, rows, width]` f32, over the whole vocabulary, of the children's tokens after
    /// `hidden [prompts, rows, hidden]`. Children that do not exist get [`MASKED`].
    pub fn next_tokens(&self, hidden: Tensor<'g>, children: &Children<'g>) -> Tensor<'g> {
        let graph = hidden.graph();
        let [prompts, rows, width] = [hidden.dim(0), hidden.dim(1), children.tokens.dim(2)];
        let vocab = self.head.dim(0);
        let bytes = rows * vocab * DType::F32.size_bytes();
        let together = (1..=prompts).rev().find(|n| prompts % n == 0 && n * bytes <= LOGITS_BYTES).unwrap_or(1);
        debug_assert_eq!(prompts, self.prompts);
        let chunks = prompts / together;
        let hidden = self.model.final_norm(hidden).reshape(&[chunks, together * rows, hidden.dim(2)]);
        let tokens = children.tokens.reshape(&[chunks, together * rows, width]);
        let (_, log_probs) = graph.scan(chunks, &[], &[hidden, tokens], ScanOptions::default(), |_, slices| {
            let logits = self.model.logits(slices[0], self.head);
            let first = graph.iota(DType::S32, &[together * rows, width], 0) * vocab as f64;
            let chosen = logits.reshape(&[together * rows * vocab]).take(first + slices[1]);
            (vec![], vec![chosen - log_sum_exp(logits).expand_dim(1)])
        });
        let log_probs = log_probs[0].reshape(&[prompts, rows, width]);
        match children.valid {
            Some(valid) => valid.select(log_probs, graph.scalar(MASKED, DType::F32)),
            None => log_probs,
        }
    }
}

/// The best prefixes so far, best first: `[prompts, beams]` each.
pub(super) struct Beams<'g> {
    /// Last token, s32.
    pub tokens: Tensor<'g>,
    /// Node of the trie, s32.
    pub nodes: Tensor<'g>,
    /// Sum of log-probabilities, f32. At most [`MASKED`] for a beam that stands in for one that does not exist.
    pub scores: Tensor<'g>,
}

impl<'g> Beams<'g> {
    /// Beams of one token, out of `log_probs [prompts, 1, width]` of the root's children.
    pub fn start(graph: &'g Graph, shape: &SearchShape, log_probs: &Tensor<'g>, children: &Children<'g>) -> Self {
        let width = log_probs.dim(2);
        let mut scores = log_probs.reshape(&[shape.prompts, width]);
        if width < shape.beams {
            // as many beams as there will be, though they do not exist yet: later levels have more candidates
            let missing = graph.splat(MASKED, DType::F32, &[shape.prompts, shape.beams - width]);
            scores = graph.concat(&[scores, missing], 1);
        }
        let (scores, chosen) = graph.top_k(scores, shape.beams);
        Self::at(chosen.minimum(graph.scalar((width - 1) as f64, DType::S32)), scores, children)
    }

    /// The best continuations, and which beam each continues (`[prompts, beams]`), from `log_probs [prompts, beams,
    /// width]` of the children.
    pub fn extend(&self, log_probs: &Tensor<'g>, children: &Children<'g>) -> (Self, Tensor<'g>) {
        let graph = log_probs.graph();
        let [prompts, beams, width] = [log_probs.dim(0), log_probs.dim(1), log_probs.dim(2)];
        let candidates = (self.scores.expand_dim(2) + *log_probs).reshape(&[prompts, beams * width]);
        let (scores, chosen) = graph.top_k(candidates, beams);
        let parents = chosen / graph.splat(width as f64, DType::S32, &chosen.shape());
        (Self::at(chosen, scores, children), parents)
    }

    /// The children numbered `chosen [prompts, beams]` among all of a prompt's.
    fn at(chosen: Tensor<'g>, scores: Tensor<'g>, children: &Children<'g>) -> Self {
        let edges = children.edges.expect("beams walk the trie");
        let per_prompt = edges.dim(1) * edges.dim(2);
        let index = chosen.graph().iota(DType::S32, &chosen.shape(), 0) * per_prompt as f64 + chosen;
        let pick = |t: Tensor<'g>| t.reshape(&[t.elements()]).take(index);
        Self { tokens: pick(children.tokens), nodes: pick(edges) + 1.0, scores }
    }
}
