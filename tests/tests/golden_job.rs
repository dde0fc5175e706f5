//! The goldens through the whole program: torch's twenty steps on hosts × devices, and HF's ranked lists.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use sft_data::order::Batches;
use sft_data::prepare::expected_origin;
use sft_data::prepared::{Catalogue, Manifest, PromptTarget, Sid, Vocabulary, Writer};
use sft_data::tasks::Task;
use sft_data::tokenizer::Tokenizer;
use sft_settings::Config;
use sft_tests::{host, shared};

/// Relative to the value: torch's and XLA's kernels add in different orders.
const GOLDEN: f64 = 1e-4;
/// Between meshes, which add in different orders, too.
const MESH: f64 = 1e-5;

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Settings and prepared data of a golden run.
struct Job {
    dir: tempfile::TempDir,
    config: Config,
}

impl Job {
    fn new(model: &str, tag: &str) -> Option<Self> {
        let golden = shared("golden")?;
        let dir = tempfile::tempdir().unwrap();
        let run = json(&golden.join(format!("c_train_{tag}.json")));
        let schedule = run["optimizer"]["schedule"].as_str().unwrap_or("constant");
        let yaml = format!(
            "base_model: {}\noutput_dir: {}\nruntime: {{platform: cpu}}\n\
             jax: {{mesh_shape: auto, compute_dtype: float32}}\n\
             train: {{learning_rate: 1e-3, warmup_steps: {}, lr_schedule: {schedule}, weight_decay: {}, max_steps: 20, \
             gradient_accumulation_steps: {}, per_device_train_batch_size: 1}}\n\
             eval: {{batch_size: 8, num_beams: 10, topk: [1, 5, 10], length_buckets: [512]}}\n\
             data: {{prepared_dir: {}}}\n",
            golden.join("models").join(model).display(),
            dir.path().join("out").display(),
            run["optimizer"]["warmup"].as_u64().unwrap_or(0),
            run["optimizer"]["weight_decay"],
            run["steps"][0]["micro_losses"].as_array().unwrap().len(),
            dir.path().join("prepared").display(),
        );
        std::fs::write(dir.path().join("config.yaml"), &yaml).unwrap();
        let config = Config::load(&dir.path().join("config.yaml"), &[]).unwrap();
        let job = Self { dir, config };
        job.prepare(&golden, &run);
        Some(job)
    }

    /// The goldens' batches as training examples, in the order in which upstream's shuffle gives them back; the
    /// goldens' prompts and catalogue.
    fn prepare(&self, golden: &Path, run: &Value) {
        let tokenizer = Tokenizer::open(&self.config.model_dir().unwrap()).unwrap();
        let mut writer = Writer::create(&self.config.prepared_dir()).unwrap();
        let examples = examples(golden, run);
        let order: Vec<usize> = Batches::upstream(examples.len(), 8).take(examples.len() / 8).flatten().collect();
        let mut rows = vec![(Vec::new(), 0); examples.len()];
        order.iter().zip(examples).for_each(|(&row, example)| rows[row] = example);
        let mut shard = writer.shard("train.shard").unwrap();
        for (i, (tokens, supervised_from)) in rows.iter().enumerate() {
            shard.push(tokens, *supervised_from, Task::SidNextItem as u32, i as u32).unwrap();
        }
        writer.add_shard(shard).unwrap();

        let prompts = &json(&golden.join("a_tokenized.json"))["EvalSidDataset"];
        let answers = json(&golden.join("d_hf_tiny-qwen2-sft_k10_float32.json"));
        let mut shard = writer.shard("test_prompts.shard").unwrap();
        let mut targets = Vec::new();
        for (i, (prompt, answer)) in prompts.as_array().unwrap().iter().zip(answers.as_array().unwrap()).enumerate() {
            let tokens: Vec<u32> = serde_json::from_value(prompt["input_ids"].clone()).unwrap();
            shard.push(&tokens, tokens.len(), Task::Evaluation as u32, i as u32).unwrap();
            let text = |key: &str| answer[key].as_str().unwrap().trim().to_owned();
            targets.push(PromptTarget { sid: text("output"), history: Vec::new(), input: text("input") });
        }
        writer.add_shard(shard).unwrap();
        writer.targets("test", &targets).unwrap();

        let index = json(&shared("data/Amazon/index/Industrial_and_Scientific.index.json").unwrap());
        let mut sids: Vec<Sid> = Vec::new();
        for (item, parts) in index.as_object().unwrap() {
            let parts: Vec<&str> = parts.as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
            let tokens = parts.iter().map(|p| tokenizer.id(p).unwrap()).collect();
            match sids.iter_mut().find(|s| s.text == parts.concat()) {
                Some(sid) => sid.items.push(item.clone()),
                None => sids.push(Sid { text: parts.concat(), tokens, items: vec![item.clone()], train_count: 0 }),
            }
        }
        let known = sids.iter().map(|s| s.text.clone()).collect();
        writer.catalogue(&Catalogue { sids, titles: HashMap::new(), known }).unwrap();
        tokenizer.save(&writer.tokenizer_dir().unwrap()).unwrap();
        let (tokenizer_hash, settings) = expected_origin(&self.config).unwrap();
        let vocabulary = Vocabulary {
            original_size: tokenizer.vocab_len(),
            size: tokenizer.vocab_len(),
            added_tokens: Vec::new(),
            bos: tokenizer.bos,
            eos: tokenizer.eos,
            pad: tokenizer.pad,
            suffix: tokenizer.newline_suffix().unwrap(),
        };
        let (inputs, counts, files) = Default::default();
        let version = 1;
        writer
            .finish(Manifest { version, settings, tokenizer: tokenizer_hash, inputs, vocabulary, counts, files })
            .unwrap();
    }

    /// Runs on `hosts × devices`; returns where the results are.
    fn run(&self, hosts: usize, devices: usize, settings: &[String]) -> PathBuf {
        let out = self.dir.path().join(format!("{hosts}x{devices}"));
        let config = self.dir.path().join("config.yaml").display().to_string();
        let mut arguments = vec!["--config".to_owned(), config];
        arguments.extend(["--devices-per-host".to_owned(), devices.to_string()]);
        let output = format!("output_dir={}", out.display());
        for setting in settings.iter().chain([&output]) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        host(hosts, &arguments).success();
        out
    }
}

/// Tokens of every example with the start of its labels, step by step.
fn examples(golden: &Path, run: &Value) -> Vec<(Vec<u32>, usize)> {
    let micros = run["steps"][0]["micro_losses"].as_array().unwrap().len();
    let name = if micros > 1 { "c_train_untied_accum_batches" } else { "c_train_untied_batches" };
    let bytes = std::fs::read(golden.join(format!("{name}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut examples = Vec::new();
    for (step, micro) in (0..20).flat_map(|step| (0..micros).map(move |micro| (step, micro))) {
        let tensor = |what: &str| {
            let view = file.tensor(&format!("step{step:02}_micro{micro}_{what}")).unwrap();
            let words = view.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()));
            (view.shape()[1], words.collect::<Vec<_>>())
        };
        let (width, ids) = tensor("input_ids");
        let (mask, labels) = (tensor("attention_mask").1, tensor("labels").1);
        for row in 0..ids.len() / width {
            let range = row * width..(row + 1) * width;
            let padding = mask[range.clone()].iter().filter(|&&m| m == 0).count();
            let context = labels[range.clone()].iter().filter(|&&l| l == -100).count();
            examples.push((ids[range][padding..].iter().map(|&t| t as u32).collect(), context - padding));
        }
    }
    examples
}

fn losses(out: &Path) -> Vec<f64> {
    serde_json::from_value(json(&out.join("run_summary.json"))["losses"].clone()).unwrap()
}

fn check_golden(tag: &str, out: &Path) {
    let run = json(&shared(&format!("golden/c_train_{tag}.json")).unwrap());
    let steps = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    for (line, golden) in steps.lines().zip(run["steps"].as_array().unwrap()) {
        let ours: Value = serde_json::from_str(line).unwrap();
        for (key, theirs) in [("loss", "loss"), ("grad_norm", "grad_norm_preclip"), ("learning_rate", "lr")] {
            let (a, b) = (ours[key].as_f64().unwrap(), golden[theirs].as_f64().unwrap());
            assert!((a - b).abs() <= GOLDEN * b.abs(), "{tag}, {key}: {a} instead of {b} in {line}");
        }
    }
    assert_eq!(steps.lines().count(), 20);
    let weights = |path: &Path| -> HashMap<String, Vec<f32>> {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
    };
    let ours = weights(&out.join("final_checkpoint/model.safetensors"));
    let theirs = weights(&shared(&format!("golden/c_train_{tag}_final.safetensors")).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, theirs) in theirs {
        let worst = ours[&name].iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4 && ours[&name].len() == theirs.len(), "{tag}: {name} differs by {worst}");
    }
}

#[test]
fn twenty_steps_on_every_mesh_are_torchs() {
    let Some(job) = Job::new("tiny-qwen2", "untied") else { return };
    let mut runs = Vec::new();
    for (hosts, devices) in [(1, 1), (1, 4), (2, 2), (4, 1)] {
        let per_device = format!("train.per_device_train_batch_size={}", 8 / (hosts * devices));
        let out = job.run(hosts, devices, &[per_device]);
        check_golden("untied", &out);
        runs.push((losses(&out), json(&out.join("eval_predictions.json"))));
    }
    for (losses, predictions) in &runs[1..] {
        let worst = losses.iter().zip(&runs[0].0).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        assert!(worst < MESH, "losses differ by {worst}");
        assert_eq!(predictions, &runs[0].1);
    }
}

#[test]
fn accumulation_decay_and_ties_are_torchs() {
    for (model, tag) in [("tiny-qwen2", "untied_accum"), ("tiny-qwen2", "untied_wd"), ("tiny-qwen2-tied", "tied")] {
        let Some(job) = Job::new(model, tag) else { return };
        let rows = if tag == "untied_accum" { 2 } else { 8 };
        let settings = [format!("train.per_device_train_batch_size={rows}"), "eval.enabled=false".to_owned()];
        check_golden(tag, &job.run(1, 1, &settings));
    }
}

#[test]
fn predictions_and_metrics_are_upstreams() {
    let Some(job) = Job::new("tiny-qwen2", "untied") else { return };
    for (model, beams) in [("tiny-qwen2-sft", 10), ("tiny-qwen2-sft", 50)] {
        let golden = json(&shared(&format!("golden/d_hf_{model}_k{beams}_float32.json")).unwrap());
        let settings = [
            format!("train.resume_from_checkpoint={}", shared("golden/models").unwrap().join(model).display()),
            format!("eval.num_beams={beams}"),
            "eval.topk=[1, 3, 5, 10, 20, 50]".to_owned(),
        ];
        let config = job.dir.path().join("config.yaml").display().to_string();
        let out = job.dir.path().join(format!("eval{beams}"));
        let mut arguments = vec!["--config".to_owned(), config, "--run-mode".to_owned(), "eval".to_owned()];
        for setting in settings.into_iter().chain([format!("output_dir={}", out.display())]) {
            arguments.extend(["--set".to_owned(), setting]);
        }
        host(2, &arguments).success();
        let rows = json(&out.join("eval_predictions.json"));
        let (mut same, mut all) = (0, 0);
        for (ours, theirs) in rows.as_array().unwrap().iter().zip(golden.as_array().unwrap()) {
            assert_eq!(ours["output"].as_str().unwrap(), theirs["output"].as_str().unwrap().trim());
            let (a, b) = (ours["predict"].as_array().unwrap(), theirs["predict"].as_array().unwrap());
            same += a.iter().zip(b).filter(|(a, b)| a == b).count();
            all += b.len();
        }
        // near-ties may swap; the search's own test compares ranks where scores differ by more than 1e-4
        assert!(same * 1000 >= all * 995, "{same} of {all} ranks agree");
        let printed =
            std::fs::read_to_string(shared(&format!("golden/e_calc_hf_{model}_k{beams}_float32.json.txt")).unwrap())
                .unwrap();
        let hr: Vec<f64> = numbers_after(&printed, "HR");
        let metrics = json(&out.join("eval_predictions.metrics.json"));
        for (k, expected) in [1, 3, 5, 10, 20, 50].iter().zip(hr) {
            let ours = metrics["hr"][k.to_string()].as_f64().unwrap();
            assert!((ours - expected).abs() < 1e-6, "{model}, {beams} beams: HR@{k} {ours} instead of {expected}");
        }
    }
}

/// The numbers of calc.py's line that starts with `name`.
fn numbers_after(text: &str, name: &str) -> Vec<f64> {
    let start = text.find(&format!("{name}\t")).unwrap();
    let list = text[start..].split(['[', ']']).nth(1).unwrap();
    list.split_whitespace().map(|n| n.parse().unwrap()).collect()
}
