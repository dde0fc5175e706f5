use std::collections::HashMap;

use indexmap::IndexMap;
use sft_settings::{Config, Semantics};

use super::text::{self, Text, TITLE_INSTRUCTIONS};
use super::{category_words, Task};
use crate::readers::{Interaction, Items};
use crate::rng::{legacy_choice, PythonRandom};

/// What shapes the examples, besides the files.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CorpusOptions {
    /// Enabled tasks, in the order of mixing.
    pub tasks: Vec<Task>,
    /// Whose order, samples and treatment of empty histories.
    pub semantics: Semantics,
    /// Key of the category.
    pub category: String,
    /// Rows of each task; all if `None`.
    pub sample: Option<usize>,
    /// Seed of samples and of T4's instructions.
    pub seed: u64,
    /// T2 shows its answer.
    pub leak_answers: bool,
    /// Rows whose target is the last item of the history are dropped.
    pub dedup: bool,
}

impl CorpusOptions {
    /// The options of the training examples.
    pub fn training(config: &Config) -> Self {
        let tasks = &config.tasks;
        let enabled = [
            (Task::SidNextItem, tasks.sid_next_item),
            (Task::SidItemAlignment, tasks.sid_item_alignment),
            (Task::FusionSeqRec, tasks.fusion_seq_rec),
            (Task::TitleHistoryNextTitle, tasks.title_history_next_title),
            (Task::TitleHistoryNextSid, tasks.title_history_next_sid),
        ];
        Self {
            tasks: enabled.iter().filter(|(_, on)| *on).map(|(task, _)| *task).collect(),
            semantics: config.train.semantics,
            category: config.data.category.clone(),
            sample: usize::try_from(config.data.sample_train).ok().filter(|&n| n > 0),
            seed: config.seed,
            leak_answers: tasks.leak_answers,
            dedup: config.data.dedup,
        }
    }

    /// The same for another `task` and sample (`-1` for all): the validation examples, the evaluation prompts.
    pub fn only(&self, task: Task, sample: i64) -> Self {
        let sample = usize::try_from(sample).ok().filter(|&n| n > 0);
        Self { tasks: vec![task], sample, dedup: false, ..self.clone() }
    }
}

/// Examples that cannot be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TaskError {
    /// The title tasks have no words for the category.
    #[error(
        "data.category {0:?} has no words for the title tasks; known: Industrial_and_Scientific, Office_Products, \
             Toys_and_Games, Sports, Books"
    )]
    Category(String),
    /// A task that the plugin does not have.
    #[error(
        "tasks.{}: the plugin has no such task; set it to false, or train.semantics to upstream", .0.name()
    )]
    UpstreamOnly(Task),
    /// Nothing is left.
    #[error("there are no examples: every row has an empty history, or no task has any")]
    Empty,
}

/// One example: which task, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExampleRef {
    /// The task.
    pub task: Task,
    /// Row of the file (from 0), or number of the pair for T2.
    pub row: u32,
    /// Instruction of T4 and E2; for T2, 1 where the SID is asked for.
    variant: u8,
}

/// All examples of one file in order, their texts made on demand.
pub struct Corpus<'a> {
    rows: &'a [Interaction],
    options: CorpusOptions,
    /// First insertion decides the place, last the value, as in a Python dict.
    sid_to_title: IndexMap<String, String>,
    title_to_sid: IndexMap<String, String>,
    sid_of_item: HashMap<&'a str, String>,
    examples: Vec<ExampleRef>,
}

impl<'a> Corpus<'a> {
    /// The examples of `rows` and `items`.
    pub fn new(rows: &'a [Interaction], items: &'a Items, options: CorpusOptions) -> Result<Self, TaskError> {
        if let Some(&task) = options.tasks.iter().find(|task| task.is_upstream_only()) {
            if options.semantics == Semantics::JaxPlugin {
                return Err(TaskError::UpstreamOnly(task));
            }
            if category_words(&options.category).is_none() {
                return Err(TaskError::Category(options.category));
            }
        }
        let mut corpus = Self {
            rows,
            sid_to_title: IndexMap::new(),
            title_to_sid: IndexMap::new(),
            sid_of_item: items.index.iter().map(|item| (item.id.as_str(), item.sid())).collect(),
            examples: Vec::new(),
            options,
        };
        for item in &items.index {
            let Some(title) = items.titles.get(&item.id) else { continue };
            corpus.sid_to_title.insert(item.sid(), title.clone());
            corpus.title_to_sid.insert(title.clone(), item.sid());
        }
        for task in corpus.options.tasks.clone() {
            let examples = corpus.examples_of(task);
            corpus.examples.extend(examples);
        }
        if corpus.examples.is_empty() {
            return Err(TaskError::Empty);
        }
        Ok(corpus)
    }

    /// The examples in order: task by task, each in the order of its file or sample.
    pub fn examples(&self) -> &[ExampleRef] {
        &self.examples
    }

    /// The text of an example.
    pub fn text(&self, example: &ExampleRef) -> Text {
        let number = example.row as usize;
        // `new` has checked that the category has words where they are used
        let category = category_words(&self.options.category).unwrap_or_default();
        if example.task == Task::SidItemAlignment {
            let leak = self.options.leak_answers;
            let pairs = if example.variant == 0 { &self.sid_to_title } else { &self.title_to_sid };
            let (question, answer) = pairs.get_index(number).expect("examples number existing pairs");
            return match example.variant {
                0 => text::sid_to_title(question, answer, leak),
                _ => text::title_to_sid(question, answer, leak),
            };
        }
        let row = &self.rows[number];
        match example.task {
            Task::SidNextItem => text::sid_next_item(&row.history_sids, &row.sid),
            Task::FusionSeqRec => text::fusion_seq_rec(&row.history_sids, self.title_of(&row.sid)),
            Task::TitleHistoryNextTitle => {
                let instruction = usize::from(example.variant);
                text::title_history_next_title(instruction, category, &row.history_titles, &row.title)
            }
            Task::TitleHistoryNextSid => {
                let sid = self.sid_of_item.get(row.item_id.as_str()).unwrap_or(&row.item_id);
                text::title_history_next_sid(category, &row.history_titles, sid)
            }
            Task::Evaluation => text::evaluation(&row.history_sids),
            Task::TitleEvaluation => {
                text::title_evaluation(usize::from(example.variant), category, &row.history_titles)
            }
            Task::SidItemAlignment => unreachable!("handled above"),
        }
    }

    /// The question of an evaluation example, as upstream's result files show it.
    pub fn evaluation_input(&self, example: &ExampleRef) -> String {
        text::evaluation_input(&self.rows[example.row as usize].history_sids)
    }

    /// The title that the last item with this SID has, or the SID.
    fn title_of<'t>(&'t self, sid: &'t str) -> &'t str {
        let plugin = self.options.semantics == Semantics::JaxPlugin;
        self.sid_to_title.get(sid).map(String::as_str).filter(|t| !(plugin && t.is_empty())).unwrap_or(sid)
    }

    fn examples_of(&self, task: Task) -> Vec<ExampleRef> {
        if task == Task::SidItemAlignment {
            let pairs = |map: &IndexMap<String, String>, variant| {
                (0..map.len()).map(move |i| ExampleRef { task, row: i as u32, variant }).collect::<Vec<_>>()
            };
            let all = [pairs(&self.sid_to_title, 0), pairs(&self.title_to_sid, 1)].concat();
            return match self.options.sample.filter(|&n| n < all.len()) {
                Some(n) => self.python_sample(all.len(), n).into_iter().map(|i| all[i]).collect(),
                None => all,
            };
        }
        let kept = |row: &Interaction| {
            let empty = self.options.semantics == Semantics::JaxPlugin && row.history_sids.is_empty();
            let repeated = self.options.dedup && row.history_sids.last() == Some(&row.sid);
            !empty && !repeated
        };
        let rows = self.sampled_rows();
        // upstream draws one instruction for each row of its sample
        let mut random = PythonRandom::new(self.options.seed);
        let numbered = rows.into_iter().map(|row| {
            let instructed = matches!(task, Task::TitleHistoryNextTitle | Task::TitleEvaluation);
            let variant = if instructed { random.randint(0, TITLE_INSTRUCTIONS.len() - 1) as u8 } else { 0 };
            ExampleRef { task, row: row as u32, variant }
        });
        numbered.filter(|e| kept(&self.rows[e.row as usize])).collect()
    }

    fn sampled_rows(&self) -> Vec<usize> {
        let plugin = self.options.semantics == Semantics::JaxPlugin;
        match self.options.sample {
            Some(n) if n < self.rows.len() && plugin => self.python_sample(self.rows.len(), n),
            // pandas takes 32 bits of the seed
            Some(n) if n < self.rows.len() => legacy_choice(self.options.seed as u32, self.rows.len(), n),
            _ => (0..self.rows.len()).collect(),
        }
    }

    fn python_sample(&self, population: usize, count: usize) -> Vec<usize> {
        PythonRandom::new(self.options.seed).sample(population, count)
    }
}
