//! What rank 0 writes and prints when all is done.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use comfy_table::{presets, CellAlignment, Table};
use serde_json::{json, Value};
use sft_data::prepared::{Prepared, Prompts};
use sft_eval::{
    score_jax_plugin, write_jax_plugin, write_upstream, ItemSids, Popularity, RankingMetrics, Recommendation, Sample,
    Scored, Target,
};
use sft_model::weights::AtomicFile;
use sft_settings::{Config, PredictionFormat, Split};

use crate::evaluate::{Ranked, Timing};
use crate::model::Model;
use crate::train::TrainSummary;

/// Metrics of the model and of recommending the most popular items to everyone.
pub struct Scores {
    /// The model's.
    pub model: Scored,
    /// The baseline's.
    pub popularity: RankingMetrics,
    /// How long the search took.
    pub timing: Timing,
}

/// Files of a run that people look for, with what they are.
pub type Artefacts = Vec<(&'static str, PathBuf)>;

/// Scores the predictions and writes them with their metrics.
pub fn write_predictions(
    config: &Config,
    prepared: &Prepared,
    ranked: &Ranked,
    timing: Timing,
    artefacts: &mut Artefacts,
) -> Result<Scores> {
    let prompts = match config.eval.split {
        Split::Valid => prepared.valid_prompts(),
        Split::Test => prepared.test_prompts(),
    };
    let prompts = prompts.context("the prompts that were searched are gone")?;
    let catalogue = prepared.catalogue();
    let texts: Vec<Vec<String>> =
        ranked.sids.iter().map(|list| list.iter().map(|&s| catalogue.sids[s].text.clone()).collect()).collect();
    let known: ItemSids = catalogue.known.iter().map(String::as_str).collect();
    let model = score_jax_plugin(samples(prompts, &texts), Some(&known), &config.eval.topk)?;

    let targets = catalogue.sids.iter().flat_map(|s| std::iter::repeat_n(s.text.as_str(), s.train_count as usize));
    let popular = Popularity::rank(targets, catalogue.sids.iter().map(|s| s.text.as_str()));
    let top: Vec<String> = popular.ranked().iter().take(config.eval.num_beams).map(|(sid, _)| sid.clone()).collect();
    let same = vec![top; prompts.len()];
    let popularity = score_jax_plugin(samples(prompts, &same), Some(&known), &config.eval.topk)?.metrics;

    if config.eval.save_predictions_json {
        let path = config.output_dir.join("eval_predictions.json");
        let rows = texts.iter().enumerate().map(|(i, ranked_sids)| {
            let target = prompts.target(i);
            Recommendation { input: &target.input, target_sid: &target.sid, ranked_sids }
        });
        write_with(&path, |file| match config.eval.prediction_format {
            PredictionFormat::Jax => write_jax_plugin(file, rows),
            PredictionFormat::Upstream => write_upstream(file, rows),
        })?;
        artefacts.push(("predictions", path));
    }
    let path = config.output_dir.join("eval_predictions.metrics.json");
    let text = model.metrics.metrics_json()?;
    write_with(&path, |file| Ok(file.write_all(text.as_bytes())?))?;
    artefacts.push(("metrics", path));
    Ok(Scores { model, popularity, timing })
}

fn samples<'a>(prompts: &'a Prompts, texts: &'a [Vec<String>]) -> impl Iterator<Item = Sample<'a>> {
    texts.iter().enumerate().map(|(i, predictions)| {
        let target = Target::Text(&prompts.target(i).sid);
        Sample { predictions, target }
    })
}

/// What the summary says of the processes.
pub struct Run<'a> {
    /// The mesh.
    pub mesh: &'a str,
    /// Peak memory of the host that took the most.
    pub peak_rss_mb: u64,
}

/// Writes `run_summary.json`: the reference's keys, and ours after them.
pub fn write_summary(
    config: &Config,
    prepared: &Prepared,
    model: &Model,
    run: Run<'_>,
    train: Option<&TrainSummary>,
    scores: Option<&Scores>,
    artefacts: &mut Artefacts,
) -> Result<()> {
    let vocabulary = &prepared.manifest().vocabulary;
    let train_json = train.map_or(Value::Null, |t| {
        json!({
            "steps": t.steps,
            "micro_steps": t.micro_steps,
            "effective_batch_size": t.effective_batch_size,
            "final_loss": t.progress.losses.last(),
        })
    });
    let eval_json = match scores {
        Some(scores) => serde_json::to_value(&scores.model.metrics)?,
        None => Value::Null,
    };
    let summary = json!({
        "config": config.to_json(),
        "token_extension": {
            "original_vocab_size": vocabulary.original_size,
            "added_tokens": vocabulary.added_tokens,
            "new_vocab_size": vocabulary.size,
        },
        "vocab_resize": {
            "original_vocab_size": model.original_rows,
            "new_vocab_size": model.vocab.rows,
            "added_tokens": model.vocab.rows - model.original_rows,
        },
        "train": train_json,
        "eval": eval_json,
        "mesh": run.mesh,
        "peak_rss_mb": run.peak_rss_mb,
        "weights": model.weights(),
        "timings": {
            "train_s": train.map(|t| t.seconds),
            "train_compile_s": train.map(|t| t.compile_seconds),
            "eval_s": scores.map(|s| s.timing.seconds),
            "eval_compile_s": scores.map(|s| s.timing.compile_seconds),
            "eval_programs": scores.map(|s| s.timing.programs),
        },
        "losses": train.map(|t| &t.progress.losses),
        "validation_losses": train.map(|t| &t.progress.validations),
        "popularity": scores.map(|s| serde_json::to_value(&s.popularity)).transpose()?,
    });
    let path = config.output_dir.join("run_summary.json");
    write_with(&path, |file| Ok(writeln!(file, "{summary:#}")?))?;
    println!("summary_json={}", path.display());
    artefacts.push(("summary", path));
    Ok(())
}

/// The metrics beside the baseline's, and where everything is.
pub fn print(scores: Option<&Scores>, artefacts: &Artefacts) {
    if let Some(scores) = scores {
        let (model, popular) = (&scores.model.metrics, &scores.popularity);
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header(["K", "HR@K", "NDCG@K", "popularity HR@K", "popularity NDCG@K"]);
        for k in &model.topk {
            let cell =
                |values: &std::collections::BTreeMap<usize, f64>| format!("{:.4}", values.get(k).unwrap_or(&0.0));
            let cells = [&model.hr, &model.ndcg, &popular.hr, &popular.ndcg].map(cell);
            table.add_row(std::iter::once(k.to_string()).chain(cells));
        }
        table.column_iter_mut().for_each(|c| c.set_cell_alignment(CellAlignment::Right));
        println!("{table}");
        println!(
            "{} prompts × {} beams in {:.1} s ({:.1} s of it compiling {} programs), {} invalid predictions",
            model.n_samples,
            model.n_beams,
            scores.timing.seconds,
            scores.timing.compile_seconds,
            scores.timing.programs,
            scores.model.invalid.len()
        );
    }
    for (what, path) in artefacts {
        println!("{what:12} {}", path.display());
    }
}

fn write_with(path: &Path, write: impl FnOnce(&mut AtomicFile) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(file.commit()?)
}
