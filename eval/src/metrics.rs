//! HR@K and NDCG@K over ranked SIDs, as the two reference scorers compute them.
//!
//! One item is relevant per sample. With `r` the 0-based rank of the target in a sample's list and `N` samples,
//!
//! ```text
//! HR@K   = (1/N) Σ [r < K]
//! NDCG@K = (1/N) Σ [r < K] · ln 2 / ln(r + 2)
//! ```
//!
//! [`score_upstream`] follows MiniOneRec's `calc.py`, [`score_jax_plugin`] follows `compute_hr_ndcg` of MLLM-JAX's SFT
//! plugin. They scan alike and differ in how they clean texts, in which K they report, and in the last bit of NDCG.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use anyhow::{bail, ensure, Result};
use serde::Serialize;

use crate::numpy_text::array_text;
use crate::python_json::PythonJson;

/// The K that both reference scorers report, as far as the lists are long enough.
pub const DEFAULT_TOPK: [usize; 6] = [1, 3, 5, 10, 20, 50];

/// What a sample's list should contain, as it stands in a prediction file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `"output": "<sid>"`
    Text(&'a str),
    /// The first element of `"output": ["<sid>", …]`, which `calc.py` cleans differently.
    FirstOfList(&'a str),
}

impl<'a> Target<'a> {
    fn raw(self) -> &'a str {
        match self {
            Target::Text(text) | Target::FirstOfList(text) => text,
        }
    }
}

/// One prompt's ranked predictions, best first, and its target.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Best first.
    pub predictions: &'a [String],
    /// The relevant item.
    pub target: Target<'a>,
}

/// The SIDs that name an item; any other prediction is invalid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemSids(HashSet<String>);

impl ItemSids {
    /// Reads an info file (`SID \t title \t item id` per line) with the rules of `calc.py`: the first tab field,
    /// stripped. A blank line thus makes the empty prediction valid, as it does there.
    pub fn from_info_text(info: &str) -> Self {
        // Python's text mode ends a line at \n, \r\n and \r alike.
        info.split_terminator('\n')
            .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
            .map(|line| strip(line.split('\t').next().unwrap_or(line)).to_owned())
            .collect()
    }

    /// Whether `sid`, already cleaned, names an item.
    pub fn contains(&self, sid: &str) -> bool {
        self.0.contains(sid)
    }

    /// Number of distinct SIDs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<S> for ItemSids {
    fn from_iter<I: IntoIterator<Item = S>>(sids: I) -> Self {
        ItemSids(sids.into_iter().map(Into::into).collect())
    }
}

/// Averages over all samples. Serialises with the keys and the order of `eval_predictions.metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RankingMetrics {
    /// Hit rate by K, a fraction of the samples.
    pub hr: BTreeMap<usize, f64>,
    /// Normalised discounted cumulative gain by K.
    pub ndcg: BTreeMap<usize, f64>,
    /// The K reported, ascending.
    pub topk: Vec<usize>,
    /// Number of samples.
    pub n_samples: usize,
    /// Length of the lists that `topk` was cut to.
    pub n_beams: usize,
    /// Predictions that name no item and stand before the target of their sample, or anywhere when it is missed.
    pub invalid_prediction_count: usize,
}

impl RankingMetrics {
    /// The exact text of `eval_predictions.metrics.json`.
    ///
    /// # Errors
    /// None in practice: every field is a number or a list of them.
    pub fn metrics_json(&self) -> Result<String> {
        let mut text = PythonJson { indent_blanks: 2, ensure_ascii: false }.to_string(self)?;
        text.push('\n');
        Ok(text)
    }
}

/// A prediction that names no item, with the target of its sample, both cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPrediction {
    /// What was predicted.
    pub prediction: String,
    /// What was asked for.
    pub target: String,
}

/// Metrics with what they were computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The averages.
    pub metrics: RankingMetrics,
    /// 0-based rank of the target per sample, `None` where the list lacks it. `[n_samples]`
    pub ranks: Vec<Option<usize>>,
    /// The counted invalid predictions, in file order.
    pub invalid: Vec<InvalidPrediction>,
}

impl Scored {
    /// What `calc.py` prints to stdout for one file: two lines per invalid prediction, then the number of beams, the
    /// list of K, NDCG, HR and the invalid count. Equal to it only for a result of [`score_upstream`].
    pub fn calc_printout(&self) -> String {
        let metrics = &self.metrics;
        let values = |by_k: &BTreeMap<usize, f64>| array_text(&by_k.values().copied().collect::<Vec<_>>());
        let mut text = String::new();
        for InvalidPrediction { prediction, target } in &self.invalid {
            let _ = writeln!(text, "{prediction}\n{target}"); // writing to a String cannot fail
        }
        let _ = writeln!(
            text,
            "{}\n{:?}\nNDCG:\t{}\nHR\t{}\n{}",
            metrics.n_beams,
            metrics.topk,
            values(&metrics.ndcg),
            values(&metrics.hr),
            metrics.invalid_prediction_count
        );
        text
    }
}

/// Scores one prediction file as MiniOneRec's `calc.py` does: K up to the length of the first sample's list.
///
/// (`calc.py` takes several files and then adds each onto the sums of those before; that is not reproduced.)
///
/// # Errors
/// No samples, or no predictions in the first.
pub fn score_upstream<'a>(samples: impl IntoIterator<Item = Sample<'a>>, items: &ItemSids) -> Result<Scored> {
    let mut n_beams = 0;
    let mut scan = Scan::default();
    for (index, sample) in samples.into_iter().enumerate() {
        if index == 0 {
            n_beams = sample.predictions.len();
        }
        let target = match sample.target {
            Target::Text(text) => text.trim_matches([' ', '\n', '"']),
            Target::FirstOfList(text) => text.trim_matches('"').trim_matches(' '),
        };
        let clean = |text: &'a String| Cow::Borrowed(strip(text.trim_matches(['"', '\n'])));
        scan.sample(sample.predictions.iter().map(clean), target, Some(items));
    }
    ensure!(!scan.ranks.is_empty(), "there are no predictions to score");
    ensure!(n_beams > 0, "the first sample has no predictions, so no K can be reported");
    let topk = DEFAULT_TOPK.into_iter().filter(|&k| k <= n_beams).collect();
    Ok(scan.finish(topk, n_beams, |sum, n| sum / n / (1.0 / 2f64.ln())))
}

/// Scores as the JAX plugin does: those of `topk` up to the length of the shortest list. Without `items` every
/// prediction counts as valid.
///
/// # Errors
/// No samples, a sample without predictions, or no K in `topk` that the lists are long enough for.
pub fn score_jax_plugin<'a>(
    samples: impl IntoIterator<Item = Sample<'a>>,
    items: Option<&ItemSids>,
    topk: &[usize],
) -> Result<Scored> {
    let mut n_beams = usize::MAX;
    let mut scan = Scan::default();
    for (index, sample) in samples.into_iter().enumerate() {
        ensure!(!sample.predictions.is_empty(), "sample {index} (counted from 0) has no predictions");
        n_beams = n_beams.min(sample.predictions.len());
        let target = normalize_sid(sample.target.raw());
        scan.sample(sample.predictions.iter().map(|text| normalize_sid(text)), &target, items);
    }
    ensure!(!scan.ranks.is_empty(), "there are no predictions to score");
    let mut valid_topk: Vec<usize> = topk.iter().copied().filter(|&k| k > 0 && k <= n_beams).collect();
    valid_topk.sort_unstable();
    valid_topk.dedup();
    if valid_topk.is_empty() {
        bail!("none of the K {topk:?} is between 1 and the {n_beams} predictions of the shortest list");
    }
    Ok(scan.finish(valid_topk, n_beams, |sum, n| (sum / n) * 2f64.ln()))
}

/// Gain of a hit at 0-based `rank`, before the division by the ideal `1 / ln 2`.
fn gain(rank: usize) -> f64 {
    1.0 / ((rank + 2) as f64).ln()
}

/// Sums of the hits and of their gains below rank `k`, in sample order so that they round as the references' do.
pub(crate) fn sums_at(ranks: &[Option<usize>], k: usize) -> (f64, f64) {
    let hits = ranks.iter().flatten().filter(|&&rank| rank < k);
    hits.fold((0.0, 0.0), |(hits, gains), &rank| (hits + 1.0, gains + gain(rank)))
}

#[derive(Default)]
struct Scan {
    ranks: Vec<Option<usize>>,
    invalid: Vec<InvalidPrediction>,
}

impl Scan {
    /// Walks one list of cleaned predictions until the target; invalid ones on the way are counted, the target too.
    fn sample<'a>(&mut self, predictions: impl Iterator<Item = Cow<'a, str>>, target: &str, items: Option<&ItemSids>) {
        for (rank, prediction) in predictions.enumerate() {
            if items.is_some_and(|items| !items.contains(&prediction)) {
                self.invalid
                    .push(InvalidPrediction { prediction: prediction.clone().into_owned(), target: target.to_owned() });
            }
            if prediction == target {
                self.ranks.push(Some(rank));
                return;
            }
        }
        self.ranks.push(None);
    }

    fn finish(self, topk: Vec<usize>, n_beams: usize, ndcg: impl Fn(f64, f64) -> f64) -> Scored {
        let n = self.ranks.len() as f64;
        let sums: Vec<(usize, (f64, f64))> = topk.iter().map(|&k| (k, sums_at(&self.ranks, k))).collect();
        let metrics = RankingMetrics {
            hr: sums.iter().map(|&(k, (hits, _))| (k, hits / n)).collect(),
            ndcg: sums.iter().map(|&(k, (_, gains))| (k, ndcg(gains, n))).collect(),
            topk,
            n_samples: self.ranks.len(),
            n_beams,
            invalid_prediction_count: self.invalid.len(),
        };
        Scored { metrics, ranks: self.ranks, invalid: self.invalid }
    }
}

/// The JAX plugin's cleaning: what follows the last `Response:\n`, its first line, without quotes around it and
/// without any whitespace.
fn normalize_sid(text: &str) -> Cow<'_, str> {
    let answer = text.rsplit("Response:\n").next().unwrap_or(text);
    let unquoted = strip(strip(answer).trim_matches('"'));
    let line = unquoted.split('\n').next().unwrap_or(unquoted);
    if line.contains(is_python_space) {
        line.chars().filter(|&c| !is_python_space(c)).collect::<String>().into()
    } else {
        line.into()
    }
}

/// Python's `str.strip()`.
fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.isspace()`, which counts the four information separators as well.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn items(sids: &[&str]) -> ItemSids {
        sids.iter().copied().collect()
    }

    fn upstream(predictions: &[&str], target: Target<'_>, valid: &[&str]) -> Scored {
        score_upstream([Sample { predictions: &strings(predictions), target }], &items(valid)).unwrap()
    }

    fn plugin_rank(prediction: &str, target: &str) -> Option<usize> {
        let predictions = strings(&[prediction]);
        let sample = Sample { predictions: &predictions, target: Target::Text(target) };
        score_jax_plugin([sample], None, &[1]).unwrap().ranks[0]
    }

    #[test]
    fn upstream_cleans_predictions_and_both_kinds_of_target() {
        let text = |target| Target::Text(target);
        let rank = |prediction: &str, target| upstream(&[prediction], target, &[]).ranks[0];
        assert_eq!(rank("\"\n <a>\t\n\"", text(" \"<a>\n")), Some(0));
        assert_eq!(rank("<a> \u{1c}", text("<a>")), Some(0));
        // A blank inside, or a quote that a blank protects, stays.
        assert_eq!(rank("<a> <b>", text("<a><b>")), None);
        assert_eq!(rank(" \"<a>", text("<a>")), None);
        assert_eq!(rank("<a>", text("<a>\t")), None);
        // In a list the newline stays and the quotes go before the blanks.
        assert_eq!(rank("<a>", Target::FirstOfList("\" <a> \"")), Some(0));
        assert_eq!(rank("<a>", Target::FirstOfList("<a>\n")), None);
    }

    #[test]
    fn plugin_takes_the_last_response_and_drops_all_whitespace() {
        assert_eq!(plugin_rank("### Response:\nx Response:\n \" <a>\u{a0}<b>\t\n<c>\"", "<a><b>"), Some(0));
        assert_eq!(plugin_rank("<a>\u{1f}<b>", " \"<a> <b>\"\n"), Some(0));
        assert_eq!(plugin_rank("<a><b><c>", "<a><b>"), None);
    }

    #[test]
    fn invalid_predictions_count_up_to_and_with_the_hit() {
        let scored = upstream(&["x", "<a>", "y"], Target::Text("<a>"), &["<a>"]);
        assert_eq!((scored.ranks[0], scored.metrics.invalid_prediction_count), (Some(1), 1));
        assert_eq!(scored.calc_printout(), "x\n<a>\n3\n[1, 3]\nNDCG:\t[0.         0.63092975]\nHR\t[0. 1.]\n1\n");
        // A target that names no item is a hit and invalid at once.
        let unknown = upstream(&["<z>"], Target::Text("<z>"), &["<a>"]);
        assert_eq!((unknown.ranks[0], unknown.metrics.invalid_prediction_count), (Some(0), 1));
    }

    #[test]
    fn upstream_cuts_k_to_the_first_list_and_the_plugin_to_the_shortest() {
        let (long, short) = (strings(&["a", "b", "c", "d", "e"]), strings(&["a", "b", "c"]));
        let sample = |predictions, target| Sample { predictions, target: Target::Text(target) };
        let samples = [sample(&long, "e"), sample(&short, "c")];
        let upstream = score_upstream(samples, &items(&[])).unwrap().metrics;
        assert_eq!((upstream.n_beams, &upstream.topk[..], upstream.hr[&5]), (5, &[1, 3, 5][..], 1.0));
        let plugin = score_jax_plugin(samples, None, &[5, 3, 0, 1, 3]).unwrap().metrics;
        assert_eq!((plugin.n_beams, &plugin.topk[..], plugin.hr[&3]), (3, &[1, 3][..], 0.5));
    }

    #[test]
    fn refuses_what_has_no_metrics() {
        let (empty, one) = (strings(&[]), strings(&["a"]));
        let sample = |predictions| Sample { predictions, target: Target::Text("a") };
        let upstream = |samples: &[Sample]| score_upstream(samples.iter().copied(), &items(&[])).unwrap_err();
        let plugin = |samples: &[Sample], topk: &[usize]| {
            score_jax_plugin(samples.iter().copied(), None, topk).unwrap_err().to_string()
        };
        assert!(upstream(&[]).to_string().contains("no predictions to score"));
        assert!(upstream(&[sample(&empty)]).to_string().contains("first sample"));
        assert!(plugin(&[], &[1]).contains("no predictions to score"));
        assert!(plugin(&[sample(&one), sample(&empty)], &[1]).contains("sample 1"));
        assert!(plugin(&[sample(&one)], &[3, 5]).contains("[3, 5]"));
    }

    #[test]
    fn info_files_are_read_by_first_field() {
        let sids = ItemSids::from_info_text("<a>\tt\t0\r\n <b> \t\t1\n<a>\tu\t2");
        assert_eq!((sids.len(), sids.contains("<b>"), sids.contains("")), (2, true, false));
        assert!(ItemSids::from_info_text("<a>\tt\t0\n\n").contains(""));
        assert!(ItemSids::from_info_text("").is_empty());
    }
}
