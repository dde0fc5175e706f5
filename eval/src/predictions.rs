//! Prediction files: what was asked, what was relevant, what was recommended.
//!
//! Two formats exist. MiniOneRec's `evaluate.py` writes `input`, `output` (the SID and a newline) and `predict` with an
//! indent of 4 blanks, ASCII only, without a newline at the end; its `calc.py` and `merge.py` read that. The JAX plugin
//! writes `output` (the bare SID) and `predict` with an indent of 2, in UTF-8, with a newline at the end.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{bail, Context, Result};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::metrics::{Sample, Target};
use crate::python_json::PythonJson;

/// The outcome for one prompt, the source of a row in either format.
#[derive(Debug, Clone, Copy)]
pub struct Recommendation<'a> {
    /// The user's part of the prompt; only MiniOneRec's format holds it.
    pub input: &'a str,
    /// SID of the item that came next, without a newline.
    pub target_sid: &'a str,
    /// Recommended SIDs, best first.
    pub ranked_sids: &'a [String],
}

/// Writes MiniOneRec's format (`json.dump(…, indent=4)`), row by row. Flushing is the caller's.
///
/// # Errors
/// Those of `out`.
pub fn write_upstream<'a>(out: impl Write, rows: impl IntoIterator<Item = Recommendation<'a>>) -> Result<()> {
    struct Row<'a>(Recommendation<'a>);

    impl Serialize for Row<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut row = serializer.serialize_struct("Row", 3)?;
            row.serialize_field("input", self.0.input)?;
            row.serialize_field("output", &format_args!("{}\n", self.0.target_sid))?;
            row.serialize_field("predict", self.0.ranked_sids)?;
            row.end()
        }
    }

    write_rows(PythonJson { indent_blanks: 4, ensure_ascii: true }, out, rows.into_iter().map(Row))
}

/// Writes the JAX plugin's format (`eval_predictions.json`), row by row. Flushing is the caller's.
///
/// # Errors
/// Those of `out`.
pub fn write_jax_plugin<'a>(mut out: impl Write, rows: impl IntoIterator<Item = Recommendation<'a>>) -> Result<()> {
    struct Row<'a>(Recommendation<'a>);

    impl Serialize for Row<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut row = serializer.serialize_struct("Row", 2)?;
            row.serialize_field("output", self.0.target_sid)?;
            row.serialize_field("predict", self.0.ranked_sids)?;
            row.end()
        }
    }

    write_rows(PythonJson { indent_blanks: 2, ensure_ascii: false }, &mut out, rows.into_iter().map(Row))?;
    out.write_all(b"\n").context("cannot write predictions")
}

fn write_rows<T: Serialize>(json: PythonJson, out: impl Write, rows: impl Iterator<Item = T>) -> Result<()> {
    /// Serialises an iterator once, so that no more than one row is in memory.
    struct Once<I>(std::cell::Cell<Option<I>>);

    impl<I: Iterator<Item: Serialize>> Serialize for Once<I> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.take() {
                Some(rows) => serializer.collect_seq(rows),
                None => Err(serde::ser::Error::custom("the rows were already written")),
            }
        }
    }

    json.write(out, &Once(std::cell::Cell::new(Some(rows)))).context("cannot write predictions")
}

/// A row as read from a file of either format. Keys beyond these are left to whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PredictionRow {
    /// The user's part of the prompt, where the format has it.
    pub input: Option<String>,
    /// The target as written.
    pub output: Output,
    /// Recommended SIDs as written, best first.
    pub predict: Vec<String>,
}

/// `output` of a row: a text, or a list whose first element counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`output` must be a string or a non-empty list of strings")]
pub enum Output {
    /// `"output": "<sid>\n"`
    Text(String),
    /// `"output": ["<sid>", …]`
    List(Vec<String>),
}

impl PredictionRow {
    /// The row as the scorers of [`crate::metrics`] take it.
    pub fn sample(&self) -> Sample<'_> {
        let target = match &self.output {
            Output::Text(text) => Target::Text(text),
            // The readers refuse an empty list.
            Output::List(texts) => Target::FirstOfList(texts.first().map_or("", String::as_str)),
        };
        Sample { predictions: &self.predict, target }
    }
}

/// Reads a prediction file of either format.
///
/// # Errors
/// The file cannot be read, is not JSON, or holds a row without `output` and `predict` of the right kind.
pub fn read_predictions(path: &Path) -> Result<Vec<PredictionRow>> {
    let json = fs::read(path).with_context(|| format!("cannot read predictions {}", path.display()))?;
    parse_predictions(&json).with_context(|| format!("{} is not a prediction file", path.display()))
}

/// As [`read_predictions`], from memory.
///
/// # Errors
/// As [`read_predictions`], with the line and column.
pub fn parse_predictions(json: &[u8]) -> Result<Vec<PredictionRow>> {
    let rows: Vec<PredictionRow> =
        serde_json::from_slice(json).context("expected a JSON list of rows with the keys output and predict")?;
    if let Some(row) = rows.iter().position(|row| matches!(&row.output, Output::List(texts) if texts.is_empty())) {
        bail!("row {row} (counted from 0) has an empty list as its output");
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>, &[Recommendation]) -> Result<()>, rows: &[Recommendation]) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, rows).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn upstream(rows: &[Recommendation]) -> String {
        written(|out, rows| write_upstream(out, rows.iter().copied()), rows)
    }

    fn jax_plugin(rows: &[Recommendation]) -> String {
        written(|out, rows| write_jax_plugin(out, rows.iter().copied()), rows)
    }

    #[test]
    fn writes_what_python_writes() {
        let ranked = ["<a_1><b_2><c_3>".to_owned(), "é😀".to_owned()];
        let rows = [
            Recommendation { input: "after \"ü\"", target_sid: "<a_1>", ranked_sids: &ranked },
            Recommendation { input: "", target_sid: "ß", ranked_sids: &[] },
        ];
        assert_eq!(
            upstream(&rows),
            r#"[
    {
        "input": "after \"\u00fc\"",
        "output": "<a_1>\n",
        "predict": [
            "<a_1><b_2><c_3>",
            "\u00e9\ud83d\ude00"
        ]
    },
    {
        "input": "",
        "output": "\u00df\n",
        "predict": []
    }
]"#
        );
        assert_eq!(
            jax_plugin(&rows),
            r#"[
  {
    "output": "<a_1>",
    "predict": [
      "<a_1><b_2><c_3>",
      "é😀"
    ]
  },
  {
    "output": "ß",
    "predict": []
  }
]
"#
        );
        assert_eq!((upstream(&[]), jax_plugin(&[])), ("[]".to_owned(), "[]\n".to_owned()));
    }

    #[test]
    fn reads_back_both_formats() {
        let ranked = ["é😀".to_owned()];
        let rows = [Recommendation { input: "ü", target_sid: "ß", ranked_sids: &ranked }];
        let read = |text: String| parse_predictions(text.as_bytes()).unwrap().remove(0);
        let row = |input: Option<&str>, output: &str| PredictionRow {
            input: input.map(str::to_owned),
            output: Output::Text(output.to_owned()),
            predict: ranked.to_vec(),
        };
        assert_eq!(read(upstream(&rows)), row(Some("ü"), "ß\n"));
        assert_eq!(read(jax_plugin(&rows)), row(None, "ß"));
    }

    #[test]
    fn reads_a_list_as_target_and_passes_over_other_keys() {
        let json = br#"[{"predict": ["x"], "scores": [-1.5], "output": ["a", "b"]}]"#;
        let rows = parse_predictions(json).unwrap();
        assert_eq!(rows[0].sample().target, Target::FirstOfList("a"));
    }

    #[test]
    fn refuses_what_is_not_a_prediction_file() {
        let error = |json: &str| format!("{:#}", parse_predictions(json.as_bytes()).unwrap_err());
        assert!(error("{}").contains("list of rows"));
        assert!(error("[{\"output\": \"a\"}]").contains("predict"));
        assert!(error("[{\"output\": 3, \"predict\": []}]").contains("a string or a non-empty list"));
        assert!(error("[{\"output\": \"a\", \"predict\": [\n1]}]").contains("line 2"));
        assert!(error("[{\"output\": [], \"predict\": []}]").contains("row 0"));
        assert!(error("[{\"output\": \"a\", \"predict\": [\"b\"").contains("EOF"));
        let missing = read_predictions(Path::new("/nowhere/predictions.json")).unwrap_err();
        assert!(format!("{missing:#}").contains("/nowhere/predictions.json"));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(format!("{:#}", write_upstream(Full, []).unwrap_err()).contains("cannot write predictions"));
        assert!(write_jax_plugin(Full, []).is_err());
    }
}
