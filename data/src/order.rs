//! Which examples make up which optimizer step.

use crate::rng::{default_rng_permutation, PythonRandom};

/// Upstream's seed of the shuffle, whatever the run's seed is.
const SHUFFLE_SEED: u32 = 42;

/// The batches of a run, one per optimizer step, without end: indices of examples. They depend on nothing but the
/// arguments, so a resumed run skips the steps that are done (`batches.skip(step)`) and sees what it would have seen.
pub enum Batches {
    /// Upstream's: the data set shuffled; the last batch of an epoch may be short. The first epoch is in the order of
    /// NumPy's `default_rng(42)`; epoch `e` in that of `default_rng([42, e])`. (HF's own sampler, which shuffles again,
    /// is not reproduced.)
    Upstream(EpochOrder),
    /// The JAX plugin's: Python's shuffle; what does not fill a micro-batch at the end of a pass is dropped.
    Plugin(PluginOrder),
}

/// See [`Batches::Upstream`].
pub struct EpochOrder {
    examples: usize,
    batch: usize,
    epoch: u32,
    order: Vec<usize>,
    cursor: usize,
}

/// See [`Batches::Plugin`].
pub struct PluginOrder {
    examples: usize,
    micro_batch: usize,
    accumulation: usize,
    seed: u64,
    step: u64,
    order: Vec<usize>,
    cursor: usize,
}

impl Batches {
    /// Upstream's order over `examples`, `batch` of them a step.
    pub fn upstream(examples: usize, batch: usize) -> Self {
        let order = default_rng_permutation(&[SHUFFLE_SEED], examples);
        Self::Upstream(EpochOrder { examples, batch, epoch: 0, order, cursor: 0 })
    }

    /// The plugin's order: `accumulation` micro-batches of `micro_batch` examples a step.
    ///
    /// # Panics
    /// If there are fewer examples than a micro-batch takes.
    pub fn plugin(examples: usize, micro_batch: usize, accumulation: usize, seed: u64) -> Self {
        assert!(micro_batch <= examples, "a micro-batch of {micro_batch} out of {examples} examples");
        let order = python_order(examples, seed);
        Self::Plugin(PluginOrder { examples, micro_batch, accumulation, seed, step: 0, order, cursor: 0 })
    }
}

/// Optimizer steps of an epoch.
pub fn steps_per_epoch(examples: usize, effective_batch: usize) -> usize {
    examples.div_ceil(effective_batch.max(1))
}

fn python_order(examples: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..examples).collect();
    PythonRandom::new(seed).shuffle(&mut order);
    order
}

impl Iterator for Batches {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        Some(match self {
            Self::Upstream(order) => order.next(),
            Self::Plugin(order) => order.next(),
        })
    }
}

impl EpochOrder {
    fn next(&mut self) -> Vec<usize> {
        if self.cursor == self.examples {
            self.epoch += 1;
            self.order = default_rng_permutation(&[SHUFFLE_SEED, self.epoch], self.examples);
            self.cursor = 0;
        }
        let end = (self.cursor + self.batch).min(self.examples);
        let batch = self.order[self.cursor..end].to_vec();
        self.cursor = end;
        batch
    }
}

impl PluginOrder {
    fn next(&mut self) -> Vec<usize> {
        self.step += 1;
        let mut batch = Vec::with_capacity(self.micro_batch * self.accumulation);
        for _ in 0..self.accumulation {
            if self.cursor + self.micro_batch > self.examples {
                self.order = python_order(self.examples, self.seed.wrapping_add(self.step));
                self.cursor = 0;
            }
            batch.extend(&self.order[self.cursor..self.cursor + self.micro_batch]);
            self.cursor += self.micro_batch;
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_epochs_visit_every_example_once() {
        let batches: Vec<_> = Batches::upstream(10, 4).take(6).collect();
        assert_eq!(batches[0], [5, 6, 0, 7], "NumPy's permutation");
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 4, 4, 2]);
        for epoch in batches.chunks(3) {
            let mut all = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(batches[0], batches[3]);
        assert_eq!(steps_per_epoch(10, 4), 3);
    }

    #[test]
    fn the_plugin_drops_tails_and_shuffles_with_the_step() {
        let batches: Vec<_> = Batches::plugin(10, 3, 2, 42).take(3).collect();
        assert_eq!(batches[0], [7, 3, 2, 8, 5, 6], "Python's shuffle");
        let mut second = vec![9, 4, 0];
        second.extend(&python_order(10, 44)[..3]);
        assert_eq!(batches[1], second, "one left over is dropped in step 2");
        assert_eq!(batches[2], python_order(10, 44)[3..9]);
    }
}
