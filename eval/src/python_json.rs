//! JSON as Python's `json.dumps` prints it, byte for byte: other tools compare and diff these files.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// What `json.dumps(value, indent=…, ensure_ascii=…)` is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PythonJson {
    /// Blanks per nesting level.
    pub indent_blanks: usize,
    /// Escape everything outside printable ASCII as `\uXXXX`, in surrogate pairs beyond the basic plane.
    pub ensure_ascii: bool,
}

impl PythonJson {
    /// Writes `value` without a newline at the end. Non-finite floats become `null`.
    ///
    /// # Errors
    /// Those of `out`, and those of the value's own `Serialize`.
    pub fn write<T: Serialize + ?Sized>(self, out: impl Write, value: &T) -> Result<()> {
        let indent = " ".repeat(self.indent_blanks);
        let formatter = PythonFormatter {
            pretty: PrettyFormatter::with_indent(indent.as_bytes()),
            ensure_ascii: self.ensure_ascii,
        };
        value.serialize(&mut Serializer::with_formatter(out, formatter)).context("cannot write JSON")
    }

    /// As [`PythonJson::write`], into a string.
    ///
    /// # Errors
    /// Those of the value's own `Serialize`.
    pub fn to_string<T: Serialize + ?Sized>(self, value: &T) -> Result<String> {
        let mut bytes = Vec::new();
        self.write(&mut bytes, value)?;
        String::from_utf8(bytes).context("JSON is not UTF-8")
    }
}

/// The shortest decimal that reads back as `value`, laid out as Python's `repr(float)`: `0.0`, `1e-05`, `1e+16`.
pub fn python_float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    // Debug prints the shortest digits in plain notation between 1e-5 and 1e16; Python leaves it below 1e-4.
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, magnitude) = exponent.strip_prefix('-').map_or(('+', exponent), |magnitude| ('-', magnitude));
            format!("{digits}e{sign}{magnitude:0>2}")
        }
        None => scientific,
    }
}

struct PythonFormatter<'a> {
    pretty: PrettyFormatter<'a>,
    ensure_ascii: bool,
}

impl Formatter for PythonFormatter<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(writer, f64::from(value))
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ensure_ascii {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (printable, escaped) = rest.split_at(at);
            writer.write_all(printable.as_bytes())?;
            let mut characters = escaped.chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_print_as_pythons_repr() {
        // Left: what Python 3 prints.
        for (text, value) in [
            ("0.0", 0.0),
            ("-0.0", -0.0),
            ("1.0", 1.0),
            ("0.10937500000000001", 0.10937500000000001),
            ("0.0001", 1e-4),
            ("9.999e-05", 0.00009999),
            ("1e-05", 1e-5),
            ("-2.5e-07", -2.5e-7),
            ("1e-100", 1e-100),
            ("1234567890123456.0", 1234567890123456.0),
            ("1e+16", 1e16),
            ("1.7976931348623157e+308", f64::MAX),
            ("5e-324", 5e-324),
        ] {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn escapes_as_ensure_ascii_does() {
        let text = "é\u{7f}\u{1F600}\"\\\n\t\r\u{8}\u{c}\u{1}a";
        let json = |ensure_ascii| PythonJson { indent_blanks: 4, ensure_ascii }.to_string(text).unwrap();
        assert_eq!(json(true), r#""\u00e9\u007f\ud83d\ude00\"\\\n\t\r\b\f\u0001a""#);
        assert_eq!(json(false), "\"é\u{7f}\u{1F600}\\\"\\\\\\n\\t\\r\\b\\f\\u0001a\"");
    }

    #[test]
    fn nests_as_indent_does() {
        let value = json!({"a": [1, [], {}], "b": {"c": 1e-5}});
        assert_eq!(
            PythonJson { indent_blanks: 2, ensure_ascii: true }.to_string(&value).unwrap(),
            "{\n  \"a\": [\n    1,\n    [],\n    {}\n  ],\n  \"b\": {\n    \"c\": 1e-05\n  }\n}"
        );
    }
}
