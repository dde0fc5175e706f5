//! Token lists and prompts of the peers.

mod common;

use std::path::PathBuf;

use serde_json::{json, Value};
use sft_data::encode::encode;
use sft_data::readers::{read_interactions, Interaction, Items};
use sft_data::tasks::{Corpus, CorpusOptions, Task};
use sft_data::tokenizer::{Encoder, PieceCache, Tokenizer};
use sft_settings::{Config, Semantics};

fn items() -> Option<Items> {
    let index = common::shared("data/Amazon/index")?;
    let file = |name: &str| index.join(format!("Industrial_and_Scientific.{name}.json"));
    Some(Items::read(&file("index"), &file("item")).unwrap())
}

fn rows(path: &str) -> Vec<Interaction> {
    read_interactions(&common::shared(path).unwrap()).unwrap()
}

fn options(task: Task, leak_answers: bool) -> CorpusOptions {
    CorpusOptions { leak_answers, ..CorpusOptions::training(&Config::default()).only(task, -1) }
}

/// Encodes the first examples of `corpus` from `start` and compares them with the golden rows.
fn compare(corpus: &Corpus<'_>, start: usize, golden: &Value, max_len: Option<usize>, what: &str) {
    let dir: PathBuf = common::shared("golden/models/tiny-qwen2").unwrap();
    let tokenizer = Tokenizer::open(&dir).unwrap();
    let encoder = Encoder::new(&tokenizer).unwrap();
    let mut cache = PieceCache::default();
    let golden = golden.as_array().unwrap();
    for (i, row) in golden.iter().enumerate() {
        let text = corpus.text(&corpus.examples()[start + i]);
        let tokens = encode(&text, &tokenizer, &encoder, &mut cache, max_len).unwrap();
        let expected: Vec<u32> = serde_json::from_value(row["input_ids"].clone()).unwrap();
        assert_eq!(tokens.ids, expected, "{what} {i}: {text:?}");
        if let Ok(labels) = serde_json::from_value::<Vec<i64>>(row["labels"].clone()) {
            let masked = labels.iter().filter(|&&l| l == -100).count();
            let supervised: Vec<i64> = tokens.ids[tokens.supervised_from..].iter().map(|&t| i64::from(t)).collect();
            if what != "E1" {
                assert_eq!((tokens.supervised_from, &labels[masked..]), (masked, &supervised[..]), "{what} {i}");
            }
        }
    }
    assert!(golden.len() >= 20, "{what}");
}

#[test]
fn token_lists_are_upstreams() {
    let (Some(items), Some(golden)) = (items(), common::json("golden/a_tokenized.json")) else { return };
    let train = rows("golden/data/train256.csv");
    let test = rows("golden/data/test64.csv");
    let corpus = |task| Corpus::new(&train, &items, options(task, true)).unwrap();
    compare(&corpus(Task::SidNextItem), 0, &golden["SidSFTDataset"], Some(512), "T1");
    compare(&corpus(Task::SidItemAlignment), 0, &golden["SidItemFeatDataset"], Some(512), "T2");
    let reverse = &golden["SidItemFeatDataset_title2sid"];
    assert_eq!(reverse["start_index"], 3670);
    compare(&corpus(Task::SidItemAlignment), 3670, &reverse["rows"], Some(512), "T2 reversed");
    compare(&corpus(Task::FusionSeqRec), 0, &golden["FusionSeqRecDataset"], Some(512), "T3");
    compare(&corpus(Task::TitleHistoryNextTitle), 0, &golden["SFTData"], Some(512), "T4");
    compare(&corpus(Task::TitleHistoryNextTitle), 0, &golden["SFTData_maxlen128"], Some(128), "T4 cut");
    compare(&corpus(Task::TitleHistoryNextSid), 0, &golden["TitleHistory2SidSFTDataset"], Some(512), "T5");
    let prompts = Corpus::new(&test, &items, options(Task::Evaluation, false)).unwrap();
    compare(&prompts, 0, &golden["EvalSidDataset"], None, "E1");
    assert_eq!(corpus(Task::SidItemAlignment).examples().len(), 7316);
}

#[test]
fn texts_are_the_plugins() {
    let (Some(items), Some(golden)) = (items(), common::json("golden/spec/golden_prompts.json")) else { return };
    let golden = golden["Industrial_and_Scientific"].as_object().unwrap();
    let valid = rows("data/Amazon/valid/Industrial_and_Scientific_5_2016-10-2018-11.csv");
    let test = rows("data/Amazon/test/Industrial_and_Scientific_5_2016-10-2018-11.csv");
    let plugin = |task, sample| CorpusOptions { semantics: Semantics::JaxPlugin, sample, ..options(task, false) };
    let whole = |corpus: &Corpus<'_>, example: usize| {
        let text = corpus.text(&corpus.examples()[example]);
        let eos = if text.completion.is_empty() { "" } else { "<EOS>" };
        format!("{}{}{}{eos}", text.instruction, text.prompt, text.completion)
    };
    let corpus = |rows, task| Corpus::new(rows, &items, plugin(task, None)).unwrap();
    let next = corpus(&valid, Task::SidNextItem);
    let align = corpus(&valid, Task::SidItemAlignment);
    let fusion = corpus(&valid, Task::FusionSeqRec);
    let prompts = corpus(&test, Task::Evaluation);
    let few = Corpus::new(&valid, &items, plugin(Task::SidItemAlignment, Some(4))).unwrap();

    assert_eq!(json!([whole(&next, 0), whole(&next, 1)]), golden["sid_next_item[0:2]"]);
    assert_eq!(json!(next.examples().len()), golden["len_valid_next_item"]);
    assert_eq!(json!([whole(&prompts, 0), whole(&prompts, 1)]), golden["eval[0:2]"]);
    assert_eq!(json!(prompts.examples().len()), golden["len_test"]);
    assert_eq!(json!([&test[0].sid, &test[1].sid, &test[2].sid]), golden["eval_targets[0:3]"]);
    assert_eq!(json!(align.examples().len()), golden["len_align"]);
    assert_eq!(json!(whole(&align, 0)), golden["align[0]"]);
    assert_eq!(json!(whole(&align, align.examples().len() - 1)), golden["align[-1]"]);
    assert_eq!(json!(whole(&align, 3670)), golden["align_first_title2sid"]);
    let pair = |example| {
        let text = few.text(example);
        format!("{}|||{}", text.prompt, text.completion)
    };
    assert_eq!(json!(few.examples().iter().map(pair).collect::<Vec<_>>()), golden["align_sample4_seed42"]);
    assert_eq!(json!(whole(&fusion, 0)), golden["fusion[0]"]);
    assert_eq!(json!(fusion.examples().len()), golden["len_fusion_valid"]);
    assert_eq!(json!(items.tokens()), golden["sid_tokens_sorted"]);
}

#[test]
fn sids_extend_the_real_tokenizer() {
    let (Some(items), Some(dir)) = (items(), common::shared("tokenizers/qwen2.5")) else { return };
    let mut tokenizer = Tokenizer::open(&dir).unwrap();
    assert_eq!((tokenizer.vocab_len(), tokenizer.bos), (151_665, None));
    let added = tokenizer.extend(&items.tokens());
    assert_eq!((added.len(), tokenizer.vocab_len()), (560, 152_225));
    assert_eq!((tokenizer.id("<a_104>"), tokenizer.id("<c_9>")), (Some(151_665), Some(152_224)));
    assert!(tokenizer.extend(&items.tokens()).is_empty(), "a second time there is nothing to add");
    assert_eq!(tokenizer.newline_suffix().unwrap(), [198, tokenizer.eos]);
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save(saved.path()).unwrap();
    let again = Tokenizer::open(saved.path()).unwrap();
    let text = "### User Input: \n<a_104><b_1>, <c_9>\n\n### Response:\n<a_104>\n";
    assert_eq!(again.vocab_len(), 152_225);
    assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert_eq!((again.eos, again.pad), (tokenizer.eos, tokenizer.pad));
    // pieces are what the tokenizer makes of the whole
    let encoder = Encoder::new(&tokenizer).unwrap();
    let mut cache = PieceCache::default();
    let corpus_rows = rows("golden/data/test64.csv");
    let corpus = Corpus::new(&corpus_rows, &items, options(Task::TitleHistoryNextSid, false)).unwrap();
    for example in corpus.examples() {
        let prompt = corpus.text(example).prompt;
        assert_eq!(encoder.encode(&prompt, &mut cache).unwrap(), tokenizer.encode(&prompt).unwrap());
    }
}
