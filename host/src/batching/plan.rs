use anyhow::{bail, Result};
use sft_data::order::{steps_per_epoch, Batches};
use sft_data::prepared::Shard;
use sft_model::train::BatchShape;
use sft_settings::{Config, Semantics};

use super::packing::pack;

/// What shapes the batches.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Micro-batches of a step.
    pub micro_batches: usize,
    /// Examples of a micro-batch on one replica.
    pub rows_per_replica: usize,
    /// Replicas that see different examples.
    pub shards: usize,
    /// Several examples in one row.
    pub pack: bool,
    /// Whose order of examples and whose weights.
    pub semantics: Semantics,
    /// Seed of the plugin's order.
    pub seed: u64,
    /// Longest row that packing fills, unless an example is longer.
    pub max_len: usize,
    /// Optimizer steps; as many as `epochs` take if `None`.
    pub max_steps: Option<usize>,
    /// Passes over the examples.
    pub epochs: f64,
}

impl PlanOptions {
    /// The options of a run on `shards` data-parallel replicas.
    pub fn new(config: &Config, shards: usize) -> Self {
        let train = &config.train;
        Self {
            micro_batches: train.gradient_accumulation_steps,
            rows_per_replica: train.per_device_train_batch_size,
            shards,
            pack: train.pack,
            semantics: train.semantics,
            seed: config.seed,
            max_len: config.data.max_len,
            max_steps: usize::try_from(train.max_steps).ok().filter(|&n| n > 0),
            epochs: train.num_train_epochs,
        }
    }

    /// The options of a validation pass.
    pub fn validation(config: &Config, shards: usize) -> Self {
        let rows_per_replica = config.train.per_device_eval_batch_size;
        Self { micro_batches: 1, rows_per_replica, ..Self::new(config, shards) }
    }

    /// Examples of an optimizer step.
    pub fn effective_batch(&self) -> usize {
        self.micro_batches * self.rows_per_replica * self.shards
    }
}

/// One row of a batch: the examples in it.
pub(super) type Row = Vec<u32>;

/// One step.
pub(super) struct Step {
    /// Index into [`Plan::shapes`].
    pub shape: usize,
    /// `[micro-batch][shard][row]`.
    pub rows: Vec<Vec<Vec<Row>>>,
    /// What one supervised token of each micro-batch counts in the loss.
    pub weights: Vec<f32>,
}

/// All batches of a run, the same on every host.
pub struct Plan {
    /// The shapes that occur: one compiled program each.
    pub shapes: Vec<BatchShape>,
    pub(super) steps: Vec<Step>,
    /// Examples of a full optimizer step.
    pub effective_batch: usize,
}

/// Row lengths without packing: every step takes the first that holds its longest example.
const ROW_LENGTHS: [usize; 12] = [64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096];
/// Rows for packing are at least so many mean lengths long: shorter ones leave gaps.
const PACKED_MEAN_LENGTHS: usize = 4;
const ROW_MULTIPLE: usize = 64;
/// Supervised positions are padded to a multiple of this.
const SUPERVISED_MULTIPLE: usize = 16;

impl Plan {
    /// Plans all steps of training on `examples`.
    pub fn training(examples: &Shard, options: &PlanOptions) -> Result<Self> {
        let effective = options.effective_batch();
        let micro = options.rows_per_replica * options.shards;
        let per_epoch = steps_per_epoch(examples.len(), effective);
        let count = options.max_steps.unwrap_or((options.epochs * per_epoch as f64).ceil() as usize);
        let batches = match options.semantics {
            Semantics::Upstream => Batches::upstream(examples.len(), effective),
            Semantics::JaxPlugin if examples.len() < micro => bail!(
                "a micro-batch takes {micro} examples, there are {}; lower train.per_device_train_batch_size",
                examples.len()
            ),
            Semantics::JaxPlugin => Batches::plugin(examples.len(), micro, options.micro_batches, options.seed),
        };
        Ok(Self::build(examples, options, batches.take(count)))
    }

    /// Plans one pass over `examples` in their order; a step's loss is the mean over its supervised tokens. Packed rows
    /// hold several examples, so a step takes as many as are expected to fill its rows.
    pub fn pass(examples: &Shard, options: &PlanOptions) -> Self {
        let options = PlanOptions { semantics: Semantics::Upstream, ..*options };
        let per_row = if options.pack { PACKED_MEAN_LENGTHS } else { 1 };
        let all: Vec<usize> = (0..examples.len()).collect();
        let batches = all.chunks(options.effective_batch() * per_row).map(<[usize]>::to_vec);
        Self::build(examples, &options, batches)
    }

    fn build(examples: &Shard, options: &PlanOptions, batches: impl Iterator<Item = Vec<usize>>) -> Self {
        let lengths: Vec<usize> = (0..examples.len()).map(|i| examples.row_len(i)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let mean = lengths.iter().sum::<usize>() / lengths.len().max(1);
        let packed_len = longest.max((PACKED_MEAN_LENGTHS * mean).min(options.max_len)).next_multiple_of(ROW_MULTIPLE);

        let mut plan = Self { shapes: Vec::new(), steps: Vec::new(), effective_batch: options.effective_batch() };
        for batch in batches {
            let rows = arrange(&batch, &lengths, packed_len, options);
            let seq = if options.pack {
                packed_len
            } else {
                let longest = batch.iter().map(|&i| lengths[i]).max().unwrap_or(1);
                ROW_LENGTHS.into_iter().find(|&n| n >= longest).unwrap_or(longest.next_multiple_of(ROW_MULTIPLE))
            };
            let tokens: Vec<usize> =
                rows.iter().map(|m| m.iter().map(|shard| supervised_tokens(examples, shard)).sum()).collect();
            let weights = match options.semantics {
                Semantics::Upstream => vec![1.0 / tokens.iter().sum::<usize>().max(1) as f32; rows.len()],
                Semantics::JaxPlugin => tokens.iter().map(|&n| 1.0 / (n.max(1) * rows.len()) as f32).collect(),
            };
            let most = |size: &dyn Fn(&Vec<Row>) -> usize| rows.iter().flatten().map(size).max().unwrap_or(0);
            let needed = BatchShape {
                micro_batches: options.micro_batches,
                rows: most(&Vec::len).max(1),
                seq,
                supervised: most(&|shard| supervised_tokens(examples, shard))
                    .max(1)
                    .next_multiple_of(SUPERVISED_MULTIPLE),
            };
            let shape = plan.shape_for(needed);
            plan.steps.push(Step { shape, rows, weights });
        }
        plan
    }

    /// The shape of the same row length, made large enough for `needed`.
    fn shape_for(&mut self, needed: BatchShape) -> usize {
        match self.shapes.iter_mut().enumerate().find(|(_, shape)| shape.seq == needed.seq) {
            Some((i, shape)) => {
                shape.rows = shape.rows.max(needed.rows);
                shape.supervised = shape.supervised.max(needed.supervised);
                i
            }
            None => {
                self.shapes.push(needed);
                self.shapes.len() - 1
            }
        }
    }

    /// Number of optimizer steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Index into [`Plan::shapes`] of step `step`.
    pub fn shape_of(&self, step: usize) -> usize {
        self.steps[step].shape
    }

    /// Micro-batches of the first `steps` steps.
    pub fn micro_steps(&self, steps: usize) -> usize {
        self.steps.iter().take(steps).map(|s| s.rows.len()).sum()
    }
}

/// Deals the examples of a step to micro-batches, shards and rows.
fn arrange(batch: &[usize], lengths: &[usize], packed_len: usize, options: &PlanOptions) -> Vec<Vec<Vec<Row>>> {
    let (micros, shards) = (options.micro_batches, options.shards);
    let into_rows = |examples: &[usize]| -> Vec<Row> {
        if !options.pack {
            return examples.iter().map(|&e| vec![e as u32]).collect();
        }
        let own: Vec<usize> = examples.iter().map(|&e| lengths[e]).collect();
        let rows = pack(&own, packed_len);
        rows.into_iter().map(|row| row.into_iter().map(|i| examples[i] as u32).collect()).collect()
    };
    let deal = |rows: Vec<Row>, cells: usize| -> Vec<Vec<Row>> {
        let mut dealt = vec![Vec::new(); cells];
        rows.into_iter().enumerate().for_each(|(i, row)| dealt[i % cells].push(row));
        dealt
    };
    match options.semantics {
        // the loss is one sum over the whole step: any split will do
        Semantics::Upstream => {
            let mut cells = deal(into_rows(batch), micros * shards).into_iter();
            (0..micros).map(|_| cells.by_ref().take(shards).collect()).collect()
        }
        // each micro-batch has a mean of its own
        Semantics::JaxPlugin => {
            batch.chunks(options.rows_per_replica * shards).map(|micro| deal(into_rows(micro), shards)).collect()
        }
    }
}

/// Predictions that the rows ask for: a first token of a row cannot be predicted.
fn supervised_tokens(examples: &Shard, rows: &[Row]) -> usize {
    let predicted = |&e: &u32| {
        let example = examples.get(e as usize);
        example.tokens.len() - example.supervised_from.max(1)
    };
    rows.iter().flatten().map(predicted).sum()
}
