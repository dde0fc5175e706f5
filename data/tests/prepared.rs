//! Preparing data and reading them back, and everything that can be wrong with them.

use std::path::{Path, PathBuf};

use sft_data::prepare::{expected_origin, prepare, Outcome};
use sft_data::prepared::{Prepared, Shard, Writer};
use sft_data::sample::{write_sample, SampleOptions};
use sft_data::tasks::Task;
use sft_data::tokenizer::Tokenizer;
use sft_settings::Config;

/// A sample and the settings to prepare it.
fn workspace() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    write_sample(&dir.path().join("data"), &SampleOptions { users: 60, ..SampleOptions::default() }).unwrap();
    let path = |name: &str| dir.path().join("data").join(name).display().to_string();
    let yaml = format!(
        "base_model: {}\noutput_dir: {}\ndata: {{train_file: {}, eval_file: {}, test_file: {}, info_file: {}, \
         sid_index_path: {}, item_meta_path: {}}}",
        path("model"),
        dir.path().join("out").display(),
        path("train/Sample.csv"),
        path("valid/Sample.csv"),
        path("test/Sample.csv"),
        path("info/Sample.txt"),
        path("index/Sample.index.json"),
        path("index/Sample.item.json"),
    );
    let config = Config::parse(&yaml, "test.yaml", &[], &|_| None).unwrap();
    (dir, config)
}

fn run(config: &Config) -> Result<Outcome, String> {
    prepare(config, false, &|_, _, _| {}).map_err(|e| e.to_string())
}

fn reasons(config: &Config) -> Vec<String> {
    match run(config).unwrap() {
        Outcome::UpToDate(_) => Vec::new(),
        Outcome::Prepared(_, reasons) => reasons,
    }
}

fn error(config: &Config) -> String {
    run(config).err().expect("refused")
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, change(text)).unwrap();
}

#[test]
fn examples_are_read_back() {
    let (_dir, config) = workspace();
    run(&config).unwrap();
    let prepared = Prepared::open(&config.prepared_dir()).unwrap();
    let tokenizer = Tokenizer::open(&prepared.tokenizer_dir()).unwrap();
    assert_eq!(tokenizer.vocab_len(), prepared.manifest().vocabulary.size);
    let train = prepared.train().unwrap();
    let of = |task: Task| train.iter().filter(|e| e.task == task as u32).count();
    assert_eq!(of(Task::SidNextItem), of(Task::FusionSeqRec));
    assert_eq!(of(Task::SidItemAlignment), 479);
    let first = train.get(0);
    let labels = tokenizer.decode(&first.tokens[first.supervised_from..]).unwrap();
    assert!(labels.starts_with("<a_") && labels.ends_with(">\n<|endoftext|>"), "{labels}");
    let prompts = prepared.test_prompts().unwrap();
    assert!(tokenizer.decode(prompts.get(0).tokens).unwrap().ends_with("### Response:\n"));
    assert!(prompts.target(0).input.contains(&prompts.target(0).history.join(", ")));
    let catalogue = prepared.catalogue();
    assert_eq!(catalogue.sids.len(), 239);
    let counted: u64 = catalogue.sids.iter().map(|s| s.train_count).sum();
    assert_eq!(counted, of(Task::SidNextItem) as u64);
    let (tokenizer, settings) = expected_origin(&config).unwrap();
    prepared.check_origin(&tokenizer, &settings).unwrap();
}

#[test]
fn only_what_changed_is_done_again() {
    let (dir, config) = workspace();
    assert_eq!(reasons(&config), ["there was nothing yet"]);
    assert!(reasons(&config).is_empty());
    edit(&config.data.train_file, |text| text.lines().take(200).map(|l| format!("{l}\n")).collect());
    let because = reasons(&config);
    assert!(because.len() == 1 && because[0].contains("train/Sample.csv has changed"), "{because:?}");
    let mut shorter = config.clone();
    shorter.data.max_len = 100;
    assert_eq!(reasons(&shorter), ["settings have changed: max_len"]);
    edit(&dir.path().join("data/model/tokenizer_config.json"), |text| text + " ");
    assert_eq!(reasons(&shorter), ["the tokenizer has changed"]);
    assert!(reasons(&shorter).is_empty());
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let (_dir, config) = workspace();
    run(&config).unwrap();
    let dir = config.prepared_dir();
    for name in ["train.shard", "valid.shard", "test_prompts.shard", "test_prompts.json", "catalogue.json"] {
        let path = dir.join(name);
        let good = std::fs::read(&path).unwrap();
        for at in [0, 9, 40, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            let error = Prepared::open(&dir).err().expect("refused").to_string();
            assert!(error.contains(name) && error.contains("sft-prep"), "{error}");
        }
        std::fs::write(&path, &good[..good.len() - 5]).unwrap();
        assert!(Prepared::open(&dir).is_err(), "{name} cut short");
        std::fs::write(&path, &good).unwrap();
    }
    Prepared::open(&dir).unwrap();
    edit(&dir.join("manifest.json"), |text| text.replace("\"version\": 1", "\"version\": 9"));
    assert!(Prepared::open(&dir).err().unwrap().to_string().contains("format version Some(9)"));
    assert_eq!(reasons(&config).len(), 1, "preparing again heals it");
}

#[test]
fn data_of_another_tokenizer_or_setting_are_refused() {
    let (_dir, config) = workspace();
    run(&config).unwrap();
    let prepared = Prepared::open(&config.prepared_dir()).unwrap();
    let (tokenizer, mut settings) = expected_origin(&config).unwrap();
    let other = prepared.check_origin("0123456789abcdef", &settings).unwrap_err().to_string();
    assert!(other.contains("another tokenizer") && other.contains("0123456789ab…"), "{other}");
    settings["max_len"] = 7.into();
    let other = prepared.check_origin(&tokenizer, &settings).unwrap_err().to_string();
    assert!(other.contains("setting max_len (prepared: 512; now: 7)"), "{other}");
    let nowhere = Prepared::open(Path::new("/nowhere")).err().unwrap().to_string();
    assert!(nowhere.contains("/nowhere/manifest.json") && nowhere.contains("sft-prep"), "{nowhere}");
}

#[test]
fn wrong_input_files_are_named_and_nothing_is_left() {
    let (dir, config) = workspace();
    let mut missing = config.clone();
    missing.data.eval_file = "/nowhere/valid.csv".into();
    assert!(error(&missing).contains("/nowhere/valid.csv"));
    let original = std::fs::read_to_string(&config.data.train_file).unwrap();
    edit(&config.data.train_file, |text| text.replacen("['<a_", "['<a_1>", 1).replacen(">']", ">'", 1));
    let text = error(&config);
    assert!(text.contains("train/Sample.csv, line 2: column history_item_sid"), "{text}");
    std::fs::write(&config.data.train_file, &original).unwrap();

    let test = std::fs::read_to_string(&config.data.test_file).unwrap();
    edit(&config.data.test_file, |text| text.trim_end().to_owned() + "0\n");
    edit(&config.data.test_file, |text| {
        let sid = text.trim_end().rsplit(',').next().unwrap().to_owned();
        text.replace(&format!(",{sid}\n"), ",<a_0><b_0><c_0>\n")
    });
    let text = error(&config);
    assert!(text.contains("test/Sample.csv, row") && text.contains("<a_0><b_0><c_0>"), "{text}");
    std::fs::write(&config.data.test_file, test).unwrap();

    // a tokenizer that was extended for another index
    run(&config).unwrap();
    let mut extended = config.clone();
    extended.tokenizer = Some(config.prepared_dir().join("tokenizer").display().to_string());
    extended.output_dir = dir.path().join("out2");
    run(&extended).unwrap();
    edit(&config.data.sid_index_path, |text| text.replacen("<a_", "<a_9", 1));
    let text = error(&extended);
    assert!(text.contains("item \"0\": token \"<a_9") && text.contains("another index"), "{text}");
    let left: Vec<PathBuf> = std::fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [config.prepared_dir()]);
}

#[test]
fn a_shard_needs_no_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("prepared");
    let mut writer = Writer::create(&target).unwrap();
    let mut shard = writer.shard("train.shard").unwrap();
    shard.push(&[1, 2, 3], 2, 1, 0).unwrap();
    shard.push(&[4], 1, 2, 9).unwrap();
    writer.add_shard(shard).unwrap();
    let manifest = sft_data::prepared::Manifest {
        version: 1,
        settings: serde_json::Value::Null,
        tokenizer: String::new(),
        inputs: Default::default(),
        vocabulary: Default::default(),
        counts: Default::default(),
        files: Default::default(),
    };
    let manifest = writer.finish(manifest).unwrap();
    let shard = Shard::open(&target.join("train.shard"), &manifest.files["train.shard"]).unwrap();
    let rows: Vec<_> = shard.iter().map(|e| (e.tokens.to_vec(), e.supervised_from, e.task, e.source_row)).collect();
    assert_eq!(rows, [(vec![1, 2, 3], 2, 1, 0), (vec![4], 1, 2, 9)]);
    assert_eq!((shard.max_len(), shard.row_len(1)), (3, 1));
    // a writer that is dropped leaves nothing
    drop(Writer::create(&dir.path().join("other")).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
