//! What is trained on: real interactions where they are at hand, a 32k tokenizer, a model of hidden 512 × 8 layers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use sft_data::prepared::{Prepared, Writer};
use sft_data::readers::{read_interactions, Items};
use sft_data::sample::{write_sample, write_tokenizer, SampleOptions, PROMPT_WORDS};
use sft_data::tokenizer::Tokenizer;

/// Rows of the model's tables, unless the tokenizer needs more.
const VOCABULARY: usize = 32_000;
/// Pieces of the tokenizer: the vocabulary without special and SID tokens.
const PIECES: usize = 31_400;
/// Tokens of a fully supervised row.
const FULL_ROW: usize = 512;

/// Input files.
pub struct Files {
    /// What they are.
    pub name: &'static str,
    /// `data.*` settings.
    pub settings: Vec<String>,
    train: PathBuf,
    index: PathBuf,
    items: PathBuf,
}

impl Files {
    /// Amazon's *Industrial and Scientific* beside the checkout, else the synthetic sample, written into `dir`.
    pub fn find(dir: &Path) -> Result<Self> {
        let amazon = Path::new("../shared/data/Amazon");
        let (name, root, stem, splits) = match amazon.is_dir() {
            true => {
                let stem = "Industrial_and_Scientific";
                ("industrial", amazon.to_owned(), stem, format!("{stem}_5_2016-10-2018-11"))
            }
            false => {
                write_sample(&dir.join("sample"), &SampleOptions::default())?;
                ("synthetic", dir.join("sample"), "Sample", "Sample".to_owned())
            }
        };
        let csv = |split: &str| root.join(format!("{split}/{splits}.csv"));
        let (index, items) =
            (root.join(format!("index/{stem}.index.json")), root.join(format!("index/{stem}.item.json")));
        let settings = [
            ("train_file", csv("train")),
            ("eval_file", csv("valid")),
            ("test_file", csv("test")),
            ("info_file", root.join(format!("info/{splits}.txt"))),
            ("sid_index_path", index.clone()),
            ("item_meta_path", items.clone()),
        ];
        let settings = settings.iter().map(|(key, path)| format!("data.{key}={}", path.display())).collect();
        Ok(Self { name, settings, train: csv("train"), index, items })
    }
}

/// Writes the model's folder: its configuration, and a tokenizer trained on the titles and prompts' words.
pub fn write_model(dir: &Path, files: &Files) -> Result<()> {
    let items = Items::read(&files.index, &files.items)?;
    let mut texts: Vec<String> = items.titles.values().cloned().collect();
    texts.sort_unstable();
    texts.extend(read_interactions(&files.train)?.into_iter().map(|row| row.title));
    texts.extend(std::iter::repeat_n(PROMPT_WORDS.to_owned(), 100));
    let (_, eos) = write_tokenizer(dir, &texts, PIECES)?;
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": 512,
        "initializer_range": 0.02,
        "intermediate_size": 1408,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": false,
        "vocab_size": VOCABULARY,
    });
    let path = dir.join("config.json");
    std::fs::write(&path, format!("{config:#}\n")).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Writes into `to` the examples of the prepared data `from` as rows of 512 tokens, all of them supervised.
pub fn supervise_everything(from: &Path, to: &Path) -> Result<()> {
    let prepared = Prepared::open(from)?;
    let train = prepared.train().context("no training examples")?;
    let tokens: Vec<u32> = train.iter().take(2000).flat_map(|example| example.tokens.to_vec()).collect();
    let mut writer = Writer::create(to)?;
    let mut shard = writer.shard("train.shard")?;
    for (row, tokens) in tokens.chunks_exact(FULL_ROW).enumerate() {
        shard.push(tokens, 0, 1, row as u32)?;
    }
    writer.add_shard(shard)?;
    writer.catalogue(prepared.catalogue())?;
    Tokenizer::open(&prepared.tokenizer_dir())?.save(&writer.tokenizer_dir()?)?;
    writer.finish(prepared.manifest().clone())?;
    Ok(())
}
