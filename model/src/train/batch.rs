use sft_tensor::DType;

use crate::graph::{Graph, Tensor};

/// Sizes of what one replica reads in one step. All micro-batches of a program are alike; what a batch lacks is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchShape {
    /// Micro-batches, one after the other, whose gradients are added up.
    pub micro_batches: usize,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Tokens of a row, padding included.
    pub seq: usize,
    /// Supervised positions of a micro-batch, padding included: only these reach the head.
    pub supervised: usize,
}

/// The inputs of a program that reads a batch, in this order, each with a leading `[micro_batches]` dimension.
#[derive(Clone, Debug)]
pub struct BatchInputs<T> {
    /// Token ids `[micro_batches, rows, seq]` s32.
    pub tokens: T,
    /// Position of each token within its example, as `tokens`.
    pub positions: T,
    /// Number of the example within its row, as `tokens`: tokens see only their own. Padding has a number of its own.
    pub segments: T,
    /// Where a token is predicted from: index into the `rows · seq` positions, `[micro_batches, supervised]` s32.
    pub sources: T,
    /// The tokens that are predicted there, as `sources`.
    pub targets: T,
    /// What each prediction counts in the loss, `[micro_batches, supervised]` f32; 0 for padding.
    pub weights: T,
}

impl<T: Copy> BatchInputs<T> {
    /// In the order of the program's inputs.
    pub fn list(&self) -> [T; 6] {
        [self.tokens, self.positions, self.segments, self.sources, self.targets, self.weights]
    }

    /// The inverse of [`BatchInputs::list`]; panics unless there are six.
    pub fn from_list(list: &[T]) -> Self {
        let [tokens, positions, segments, sources, targets, weights] = *list else { panic!("six inputs") };
        Self { tokens, positions, segments, sources, targets, weights }
    }
}

impl<'g> BatchInputs<Tensor<'g>> {
    /// Declares the inputs in `graph`.
    pub fn declare(graph: &'g Graph, shape: &BatchShape) -> Self {
        let rows = [shape.micro_batches, shape.rows, shape.seq];
        let supervised = [shape.micro_batches, shape.supervised];
        Self {
            tokens: graph.input("tokens", DType::S32, &rows),
            positions: graph.input("positions", DType::S32, &rows),
            segments: graph.input("segments", DType::S32, &rows),
            sources: graph.input("sources", DType::S32, &supervised),
            targets: graph.input("targets", DType::S32, &supervised),
            weights: graph.input("weights", DType::F32, &supervised),
        }
    }
}
