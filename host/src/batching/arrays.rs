use sft_data::prepared::Shard;
use sft_tensor::HostTensor;

use super::Plan;

/// Counts of one step over all replicas.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepCounts {
    /// Examples.
    pub examples: usize,
    /// Tokens of examples.
    pub tokens: usize,
    /// Tokens with a label.
    pub supervised: usize,
    /// Tokens in rows, padding included.
    pub cells: usize,
}

impl Plan {
    /// The batch inputs of a program (see [`sft_model::train::BatchInputs`]) for step `step` on shard `shard`.
    pub fn arrays(&self, examples: &Shard, step: usize, shard: usize) -> Vec<HostTensor> {
        let step = &self.steps[step];
        let shape = &self.shapes[step.shape];
        let cells = shape.micro_batches * shape.rows * shape.seq;
        // padding is a segment of its own
        let (mut tokens, mut positions, mut segments) = (vec![0; cells], vec![0; cells], vec![-1; cells]);
        let count = shape.micro_batches * shape.supervised;
        let (mut sources, mut targets, mut weights) = (vec![0; count], vec![0; count], vec![0f32; count]);
        for (m, micro) in step.rows.iter().enumerate() {
            let mut next = m * shape.supervised;
            for (r, row) in micro[shard].iter().enumerate() {
                let mut start = 0;
                for (segment, &example) in row.iter().enumerate() {
                    let example = examples.get(example as usize);
                    for (i, &token) in example.tokens.iter().enumerate() {
                        let cell = (m * shape.rows + r) * shape.seq + start + i;
                        tokens[cell] = token as i32;
                        positions[cell] = i as i32;
                        segments[cell] = segment as i32;
                        if i >= example.supervised_from.max(1) {
                            sources[next] = (r * shape.seq + start + i - 1) as i32;
                            targets[next] = token as i32;
                            weights[next] = step.weights[m];
                            next += 1;
                        }
                    }
                    start += example.tokens.len();
                }
            }
        }
        let rows = [shape.micro_batches, shape.rows, shape.seq];
        let flat = [shape.micro_batches, shape.supervised];
        let mut arrays = [tokens, positions, segments].map(|v| HostTensor::from_i32(&rows, &v)).to_vec();
        arrays.extend([sources, targets].map(|v| HostTensor::from_i32(&flat, &v)));
        arrays.push(HostTensor::from_f32(&flat, &weights));
        arrays
    }

    /// What step `step` holds.
    pub fn counts(&self, examples: &Shard, step: usize) -> StepCounts {
        let step = &self.steps[step];
        let shape = &self.shapes[step.shape];
        let mut counts = StepCounts::default();
        for shard in step.rows.iter().flatten() {
            counts.cells += shape.rows * shape.seq;
            for &example in shard.iter().flatten() {
                let example = examples.get(example as usize);
                counts.examples += 1;
                counts.tokens += example.tokens.len();
                counts.supervised += example.tokens.len() - example.supervised_from.max(1);
            }
        }
        counts
    }
}
