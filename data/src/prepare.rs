//! From input files to a prepared data set.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{json, Value};
use sft_settings::{Config, Semantics, SettingsError};

use crate::encode::{encode, Tokens};
use crate::prepared::{Catalogue, FileStamp, Manifest, Prepared, PreparedError, PromptTarget, Sid, Vocabulary, Writer};
use crate::readers::{read_info, read_interactions, Interaction, Items, ReadError};
use crate::tasks::{Corpus, CorpusOptions, ExampleRef, Task, TaskError};
use crate::tokenizer::{Encoder, PieceCache, Tokenizer, TokenizerError};

/// Data that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// An input file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tasks.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The output.
    #[error(transparent)]
    Prepared(#[from] PreparedError),
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A tokenizer that was extended for other items.
    #[error(
        "{path}: item {item:?}: token {token:?} is not in the tokenizer, though other SID tokens are: it was extended \
         for another index; give that index, or a tokenizer without SID tokens"
    )]
    SidToken {
        /// The index file.
        path: PathBuf,
        /// Item id.
        item: String,
        /// The token.
        token: String,
    },
    /// A target that no search could find.
    #[error("{path}, row {row}: item_sid {sid:?} is not in {index}")]
    Target {
        /// The CSV.
        path: PathBuf,
        /// Row from 1, without the header.
        row: usize,
        /// The SID.
        sid: String,
        /// The index file.
        index: PathBuf,
    },
}

/// What a preparation did.
pub enum Outcome {
    /// The data on disk were made of the same inputs and settings.
    UpToDate(Manifest),
    /// The data were made, for these reasons.
    Prepared(Manifest, Vec<String>),
}

/// Is told how far the work is: what is being done, examples done, examples in all.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, u64) + Sync);

/// Examples tokenised at a time: enough to keep all cores busy, few enough to bound memory.
const CHUNK: usize = 8192;

/// The settings that shape the data, apart from the contents of the files.
pub fn shaping_settings(config: &Config) -> Value {
    let options = CorpusOptions::training(config);
    json!({
        "tasks": options.tasks.iter().map(|t| t.name()).collect::<Vec<_>>(),
        "semantics": options.semantics,
        "category": options.category,
        "seed": options.seed,
        "leak_answers": options.leak_answers,
        "dedup": options.dedup,
        "max_len": config.data.max_len,
        "sample_train": config.data.sample_train,
        "sample_eval": config.data.sample_eval,
        "sample_test": config.data.sample_test,
    })
}

/// What a run expects its data to be made with: hash of the tokenizer, settings.
pub fn expected_origin(config: &Config) -> Result<(String, Value), PrepareError> {
    Ok((Tokenizer::fingerprint(&config.tokenizer_dir()?)?, shaping_settings(config)))
}

/// Prepares the data of `config`, unless they are there already.
pub fn prepare(config: &Config, force: bool, progress: Progress<'_>) -> Result<Outcome, PrepareError> {
    let data = &config.data;
    let dir = config.prepared_dir();
    let files = [
        &data.train_file,
        &data.eval_file,
        &data.test_file,
        &data.sid_index_path,
        &data.item_meta_path,
        &data.info_file,
    ];
    let mut inputs = BTreeMap::new();
    for path in files {
        let stamp = FileStamp::of(path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        inputs.insert(path.display().to_string(), stamp);
    }
    let (tokenizer_hash, settings) = expected_origin(config)?;
    let mut manifest = Manifest {
        version: 1,
        settings,
        tokenizer: tokenizer_hash,
        inputs,
        vocabulary: Vocabulary::default(),
        counts: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    let reasons = match Manifest::read(&dir) {
        _ if force => vec!["--force".to_owned()],
        Ok(old) => match old.differences(&manifest) {
            none if none.is_empty() => match Prepared::open(&dir) {
                Ok(_) => return Ok(Outcome::UpToDate(old)),
                Err(error) => vec![error.to_string()],
            },
            reasons => reasons,
        },
        Err(PreparedError::Absent { .. }) => vec!["there was nothing yet".to_owned()],
        Err(error) => vec![error.to_string()],
    };

    let items = Items::read(&data.sid_index_path, &data.item_meta_path)?;
    let mut tokenizer = Tokenizer::open(&config.tokenizer_dir()?)?;
    let original_size = tokenizer.vocab_len();
    check_tokens(config, &items, &tokenizer)?;
    let added_tokens = tokenizer.extend(&items.tokens());
    manifest.vocabulary = Vocabulary {
        original_size,
        size: tokenizer.vocab_len(),
        added_tokens,
        bos: tokenizer.bos,
        eos: tokenizer.eos,
        pad: tokenizer.pad,
        suffix: tokenizer.newline_suffix()?,
    };
    let train = read_interactions(&data.train_file)?;
    let valid = read_interactions(&data.eval_file)?;
    let test = read_interactions(&data.test_file)?;
    let catalogue = catalogue(config, &items, &tokenizer, &train)?;
    for (path, rows) in [(&data.eval_file, &valid), (&data.test_file, &test)] {
        check_targets(path, rows, &catalogue, &data.sid_index_path)?;
    }

    let mut job =
        Job { encoder: Encoder::new(&tokenizer)?, tokenizer: &tokenizer, writer: Writer::create(&dir)?, progress };
    let training = CorpusOptions::training(config);
    let cut = Some(data.max_len);
    // upstream never cuts evaluation prompts, the plugin does
    let cut_prompts = cut.filter(|_| config.train.semantics == Semantics::JaxPlugin);
    let corpus = Corpus::new(&train, &items, training.clone())?;
    for task in &training.tasks {
        let count = corpus.examples().iter().filter(|e| e.task == *task).count();
        manifest.counts.insert(format!("train_{}", task.name()), count as u64);
    }
    let mut counts = vec![("train", job.shard("train.shard", &corpus, cut)?)];
    let corpus = Corpus::new(&valid, &items, training.only(Task::SidNextItem, data.sample_eval))?;
    counts.push(("valid", job.shard("valid.shard", &corpus, cut)?));
    for (split, rows, sample) in [("valid", &valid, data.sample_eval), ("test", &test, data.sample_test)] {
        let corpus = Corpus::new(rows, &items, training.only(Task::Evaluation, sample))?;
        counts.push((if split == "test" { "test_prompts" } else { "valid_prompts" }, {
            job.shard(&format!("{split}_prompts.shard"), &corpus, cut_prompts)?
        }));
        let target = |example: &ExampleRef| {
            let row = &rows[example.row as usize];
            let input = corpus.evaluation_input(example);
            PromptTarget { sid: row.sid.clone(), history: row.history_sids.clone(), input }
        };
        job.writer.targets(split, &corpus.examples().iter().map(target).collect::<Vec<_>>())?;
    }
    manifest.counts.extend(counts.into_iter().map(|(name, n)| (name.to_owned(), n as u64)));
    manifest.counts.insert("items".into(), items.index.len() as u64);
    manifest.counts.insert("sids".into(), catalogue.sids.len() as u64);
    let Job { mut writer, .. } = job;
    writer.catalogue(&catalogue)?;
    tokenizer.save(&writer.tokenizer_dir()?)?;
    Ok(Outcome::Prepared(writer.finish(manifest)?, reasons))
}

/// The parts that all shards are made with.
struct Job<'a> {
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    writer: Writer,
    progress: Progress<'a>,
}

impl Job<'_> {
    /// Tokenises all examples of `corpus` on all cores, in order, into the shard `name`; returns how many there are.
    fn shard(&mut self, name: &str, corpus: &Corpus<'_>, max_len: Option<usize>) -> Result<usize, PrepareError> {
        let mut shard = self.writer.shard(name)?;
        let examples = corpus.examples();
        let mut done = 0;
        for chunk in examples.chunks(CHUNK) {
            let encoded: Vec<Tokens> = chunk
                .par_iter()
                .with_min_len(64)
                .map_init(PieceCache::default, |cache, example| {
                    encode(&corpus.text(example), self.tokenizer, &self.encoder, cache, max_len)
                })
                .collect::<Result<_, _>>()?;
            for (example, tokens) in chunk.iter().zip(encoded) {
                shard.push(&tokens.ids, tokens.supervised_from, example.task as u32, example.row)?;
            }
            done += chunk.len();
            (self.progress)(name, done as u64, examples.len() as u64);
        }
        self.writer.add_shard(shard)?;
        Ok(examples.len())
    }
}

/// A tokenizer has all SID tokens (a trained model's) or none (a base model's): new rows beside trained ones would be
/// noise that the search takes for items.
fn check_tokens(config: &Config, items: &Items, tokenizer: &Tokenizer) -> Result<(), PrepareError> {
    let all = items.index.iter().chain(&items.unnamed);
    let tokens = all.flat_map(|item| item.tokens.iter().map(move |token| (item, token)));
    let (known, unknown): (Vec<_>, Vec<_>) = tokens.partition(|(_, token)| tokenizer.id(token).is_some());
    match unknown.first() {
        Some((item, token)) if !known.is_empty() => Err(PrepareError::SidToken {
            path: config.data.sid_index_path.clone(),
            item: item.id.clone(),
            token: (*token).clone(),
        }),
        _ => Ok(()),
    }
}

fn catalogue(
    config: &Config,
    items: &Items,
    tokenizer: &Tokenizer,
    train: &[Interaction],
) -> Result<Catalogue, PrepareError> {
    let mut sids: indexmap::IndexMap<String, Sid> = indexmap::IndexMap::new();
    for item in &items.index {
        let text = item.sid();
        // the tokenizer has been extended by all of them
        let tokens = item.tokens.iter().filter_map(|t| tokenizer.id(t)).collect();
        let new = Sid { text: text.clone(), tokens, items: Vec::new(), train_count: 0 };
        sids.entry(text).or_insert(new).items.push(item.id.clone());
    }
    let mut counts: HashMap<&str, u64> = HashMap::new();
    train.iter().for_each(|row| *counts.entry(row.sid.as_str()).or_default() += 1);
    for (text, sid) in &mut sids {
        sid.train_count = counts.get(text.as_str()).copied().unwrap_or(0);
    }
    let known = read_info(&config.data.info_file)?;
    Ok(Catalogue { sids: sids.into_values().collect(), titles: items.titles.clone(), known })
}

fn check_targets(path: &Path, rows: &[Interaction], catalogue: &Catalogue, index: &Path) -> Result<(), PrepareError> {
    let known: std::collections::HashSet<&str> = catalogue.sids.iter().map(|s| s.text.as_str()).collect();
    match rows.iter().position(|row| !known.contains(row.sid.as_str())) {
        None => Ok(()),
        Some(i) => Err(PrepareError::Target {
            path: path.to_owned(),
            row: i + 1,
            sid: rows[i].sid.clone(),
            index: index.to_owned(),
        }),
    }
}
