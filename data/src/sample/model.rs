use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BpeTrainer, BPE};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerBuilder};

use super::{write_file, Item, Purchase, SampleError};

/// Pieces of the vocabulary, bytes included.
const PIECES: usize = 1024;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// How Qwen2 cuts text before merging.
const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Trains a byte-level BPE tokenizer of at most `pieces` pieces, which cuts text as Qwen2's does, on `texts` and writes it
/// into `dir` in HF's form. Returns the number of tokens and the end-of-sequence token's id.
pub fn write_tokenizer(dir: &Path, texts: &[String], pieces: usize) -> Result<(usize, u32), SampleError> {
    let failed = |e: tokenizers::Error| SampleError::Tokenizer(e.to_string());
    let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false);
    let bytes = ByteLevel::new(false, false, false);
    let cutting: Vec<PreTokenizerWrapper> = vec![split.map_err(failed)?.into(), bytes.into()];
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(cutting)))
        .with_post_processor(Some(ByteLevel::default().trim_offsets(false)))
        .with_decoder(Some(ByteLevel::default()))
        .build()
        .map_err(failed)?;
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(pieces)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(alphabet)
        .build();
    tokenizer.train(&mut trainer, texts.iter()).map_err(failed)?;
    tokenizer.add_special_tokens(&SPECIAL.map(|t| AddedToken::from(t, true).normalized(false)));
    let text = tokenizer.to_string(true).map_err(failed)?;
    write_file(&dir.join("tokenizer.json"), text.as_bytes())?;

    let end = SPECIAL[0];
    let special = json!({"eos_token": end, "pad_token": end, "additional_special_tokens": SPECIAL[1..]});
    write_file(&dir.join("special_tokens_map.json"), format!("{special:#}\n").as_bytes())?;
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "additional_special_tokens": SPECIAL[1..],
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": end,
        "model_max_length": 32768,
        "pad_token": end,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    });
    write_file(&dir.join("tokenizer_config.json"), format!("{config:#}\n").as_bytes())?;
    // it has just been added
    let eos = tokenizer.token_to_id(end).expect("the end-of-sequence token");
    Ok((tokenizer.get_vocab_size(true), eos))
}

/// Writes the tokenizer and the `config.json`; returns the number of tokens.
pub(super) fn write(dir: &Path, items: &[Item], splits: &[Vec<Purchase>; 3]) -> Result<usize, SampleError> {
    let (tokens, eos) = write_tokenizer(dir, &texts(items, splits), PIECES)?;
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": 96,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": eos,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": tokens,
    });
    write_file(&dir.join("config.json"), format!("{config:#}\n").as_bytes())?;
    Ok(tokens)
}

/// The words of the tasks, for tokenizers to learn.
pub const PROMPT_WORDS: &str =
    "Below is an instruction that describes a task, paired with an input that provides further \
    context. Write a response that appropriately completes the request. \n\n### Instruction:\nCan you predict the \
    next possible item that the user may expect?\n\n### User Input: \nThe user has interacted with items , in \
    chronological order. Can you predict the next possible item the user may expect, given the following \
    chronological interaction history: \nAnswer the question about item identification. What is the title of item \
    \"\"? Which item has the title: ? The user has sequentially interacted with items . Can you recommend the next \
    item for him? Tell me the title of the item\n\n### Response:\n";

/// What the tokenizer is trained on: the words of the tasks and the titles, as often as they are bought.
fn texts(items: &[Item], splits: &[Vec<Purchase>; 3]) -> Vec<String> {
    let titles = splits[0].iter().map(|row| format!("{}\n", items[row.target].title));
    std::iter::repeat_n(PROMPT_WORDS.to_owned(), 100).chain(titles).collect()
}
