//! Scores and files equal to what the reference scorers computed and wrote, byte for byte.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sft_eval::python_json::PythonJson;
use sft_eval::{
    read_predictions, score_jax_plugin, score_upstream, write_jax_plugin, write_upstream, ItemSids, Output,
    PredictionRow, RankingMetrics, Recommendation, Trie, DEFAULT_TOPK,
};

fn shared(test: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    if !path.is_dir() {
        eprintln!("SKIPPED: {test} needs ../shared");
        return None;
    }
    Some(path.to_owned())
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn items(shared: &Path) -> ItemSids {
    ItemSids::from_info_text(&text(shared.join("data/Amazon/info/Industrial_and_Scientific_5_2016-10-2018-11.txt")))
}

/// Files of `golden/` whose names start and end so, sorted.
fn golden_files(shared: &Path, start: &str, end: &str) -> Vec<String> {
    let names = fs::read_dir(shared.join("golden")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(start) && name.ends_with(end));
    names.sort();
    names
}

#[test]
fn the_fixture_with_invalid_predictions_scores_as_both_references_do() {
    let Some(shared) = shared("the metrics fixture") else { return };
    let spec = shared.join("golden/spec");
    let rows = read_predictions(&spec.join("golden_metrics_input.json")).unwrap();
    let expected = text(spec.join("golden_metrics_expected.json"));

    let items = items(&shared);
    let plugin = score_jax_plugin(rows.iter().map(PredictionRow::sample), Some(&items), &DEFAULT_TOPK).unwrap();
    assert_eq!(plugin.metrics.metrics_json().unwrap().trim_end(), expected.trim_end());

    let upstream = score_upstream(rows.iter().map(PredictionRow::sample), &items).unwrap();
    let printout = upstream.calc_printout();
    assert!(
        printout.ends_with(
            "\n50\n[1, 3, 5, 10, 20, 50]\nNDCG:\t[0.         0.01577324 0.01577324 0.03243991 0.0632059  0.09281299]\n\
             HR\t[0.    0.025 0.025 0.075 0.2   0.35 ]\n8\n"
        ),
        "{printout}"
    );
    assert_eq!(printout.lines().count(), 8 * 2 + 5);
    assert_eq!(printout.lines().next(), Some("<a_1><b_1>"));
    assert_eq!(printout.lines().nth(1), Some("<a_228><b_202><c_104>"));
}

#[test]
fn calc_prints_the_same_for_every_upstream_prediction_file() {
    let Some(shared) = shared("the printout of calc.py") else { return };
    let items = items(&shared);
    let files = golden_files(&shared, "e_calc_hf_", ".json.txt");
    assert_eq!(files.len(), 6);
    for name in files {
        let predictions = name.trim_start_matches("e_calc_").trim_end_matches(".txt");
        let rows = read_predictions(&shared.join("golden").join(format!("d_{predictions}"))).unwrap();
        let scored = score_upstream(rows.iter().map(PredictionRow::sample), &items).unwrap();
        assert_eq!(scored.calc_printout(), text(shared.join("golden").join(&name)), "{name}");
    }
}

#[test]
fn metrics_equal_the_plugins_for_every_plugin_prediction_file() {
    /// How the golden files begin; compared as text, so to the last digit.
    #[derive(Serialize)]
    struct Head<'a> {
        hr: &'a BTreeMap<usize, f64>,
        ndcg: &'a BTreeMap<usize, f64>,
        n_beams: usize,
        invalid: usize,
    }

    let Some(shared) = shared("the metrics of the JAX plugin") else { return };
    let items = items(&shared);
    let files = golden_files(&shared, "e_metrics_jax_", ".json");
    assert_eq!(files.len(), 4);
    for name in files {
        let predictions = name.trim_start_matches("e_metrics_");
        let rows = read_predictions(&shared.join("golden").join(format!("d_{predictions}"))).unwrap();
        let scored = score_jax_plugin(rows.iter().map(PredictionRow::sample), Some(&items), &DEFAULT_TOPK).unwrap();
        let RankingMetrics { hr, ndcg, n_samples, n_beams, invalid_prediction_count: invalid, .. } = &scored.metrics;
        let head = Head { hr, ndcg, n_beams: *n_beams, invalid: *invalid };
        let head = PythonJson { indent_blanks: 1, ensure_ascii: true }.to_string(&head).unwrap();
        let expected = text(shared.join("golden").join(&name));
        assert!(expected.starts_with(&format!("{},\n", head.trim_end_matches("\n}"))), "{name}: {head}\n{expected}");
        assert_eq!(*n_samples, 64);
    }
}

#[test]
fn prediction_files_are_rewritten_byte_for_byte() {
    let Some(shared) = shared("rewriting prediction files") else { return };
    let path = shared.join("golden/spec/golden_metrics_input.json");
    let rows = read_predictions(&path).unwrap();
    let recommendations: Vec<Recommendation> = rows.iter().map(recommendation).collect();

    let mut upstream = Vec::new();
    write_upstream(&mut upstream, recommendations.iter().copied()).unwrap();
    assert!(upstream == fs::read(&path).unwrap(), "the upstream format differs from the file it was read from");

    let mut plugin = Vec::new();
    write_jax_plugin(&mut plugin, recommendations).unwrap();
    let reread = sft_eval::parse_predictions(&plugin).unwrap();
    assert!(reread.iter().zip(&rows).all(|(new, old)| new.predict == old.predict && new.input.is_none()));
}

fn recommendation(row: &PredictionRow) -> Recommendation<'_> {
    let Output::Text(output) = &row.output else { panic!("the fixture holds texts") };
    Recommendation {
        input: row.input.as_deref().unwrap(),
        target_sid: output.strip_suffix('\n').unwrap(),
        ranked_sids: &row.predict,
    }
}

#[test]
fn the_trie_of_a_real_catalogue_has_the_measured_shape() {
    let Some(shared) = shared("the trie of Industrial_and_Scientific") else { return };
    let index = text(shared.join("data/Amazon/index/Industrial_and_Scientific.index.json"));
    let index: BTreeMap<String, Vec<String>> = serde_json::from_str(&index).unwrap();
    let tokens: BTreeSet<&String> = index.values().flatten().collect();
    let ids: HashMap<&String, u32> = tokens.into_iter().zip(151_665..).collect();
    let sids: Vec<Vec<u32>> = index.values().map(|sid| sid.iter().map(|token| ids[token]).collect()).collect();

    let trie = Trie::build(&sids).unwrap();
    let tables = trie.tables();
    assert_eq!((sids.len(), trie.leaf_count(), trie.uniform_depth()), (3686, 3670, Some(3)));
    assert_eq!((trie.level(1).len(), trie.level(2).len()), (48, 2295));
    assert_eq!(tables.max_children_per_level, [48, 95, 47]);
    for (index, sid) in sids.iter().enumerate() {
        // Walk the device tables as a program does.
        let mut node = 0;
        for &token in sid {
            let first = tables.child_start[node] as usize;
            let edges = first..first + tables.child_count[node] as usize;
            let edge = edges.into_iter().find(|&edge| tables.child_token[edge] == token as i32).unwrap();
            node = tables.child_node[edge] as usize;
        }
        let found = tables.leaf_sid[node] as usize;
        assert!(found <= index && sids[found] == *sid);
    }
}
