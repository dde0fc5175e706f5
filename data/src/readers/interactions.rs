use std::path::Path;

use super::ReadError;
use crate::python_literal::parse_strings;

/// One row of a train, valid or test file: what a user had bought, oldest first, and what came next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interaction {
    /// SIDs of the history.
    pub history_sids: Vec<String>,
    /// Titles of the history.
    pub history_titles: Vec<String>,
    /// SID of the target.
    pub sid: String,
    /// Title of the target.
    pub title: String,
    /// Item id of the target.
    pub item_id: String,
}

/// Reads a CSV by the names of its columns: `item_sid` and `history_item_sid`, and, where a task needs them, the titles
/// (`history_item_title`, `item_title`) and `item_id`. A blank history is an empty one; a broken one is an error.
pub fn read_interactions(path: &Path) -> Result<Vec<Interaction>, ReadError> {
    let file = std::fs::File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let mut reader = csv::ReaderBuilder::new().from_reader(std::io::BufReader::new(file));
    let csv_error = |error: csv::Error| {
        let line = error.position().map_or(1, |p| p.line());
        ReadError::line(path, line, format!("not a row of this table: {error}"))
    };
    let header = reader.headers().map_err(csv_error)?.clone();
    let column = |name: &str| header.iter().position(|h| h.trim_start_matches('\u{feff}') == name);
    let required = |name: &str| {
        let found: Vec<&str> = header.iter().collect();
        column(name).ok_or_else(|| ReadError::file(path, format!("has no column {name:?}; it has {found:?}")))
    };
    let (sid, history_sid) = (required("item_sid")?, required("history_item_sid")?);
    let (title, history_title, item_id) = (column("item_title"), column("history_item_title"), column("item_id"));

    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let line = record.position().map_or(0, |p| p.line());
        let cell = |column: usize| record.get(column).unwrap_or_default();
        let optional = |column: Option<usize>| column.map(cell).unwrap_or_default().to_owned();
        let list = |column: usize, name: &str| {
            let text = cell(column).trim();
            if text.is_empty() {
                return Ok(Vec::new());
            }
            parse_strings(text)
                .map_err(|e| ReadError::line(path, line, format!("column {name} is not a Python list of strings: {e}")))
        };
        let target = cell(sid).trim();
        if target.is_empty() {
            return Err(ReadError::line(path, line, "column item_sid is empty"));
        }
        rows.push(Interaction {
            history_sids: list(history_sid, "history_item_sid")?,
            history_titles: history_title.map_or(Ok(Vec::new()), |c| list(c, "history_item_title"))?,
            sid: target.to_owned(),
            title: optional(title),
            item_id: optional(item_id),
        });
    }
    if rows.is_empty() {
        return Err(ReadError::file(path, "has no rows"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Interaction>, ReadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_interactions(file.path())
    }

    const HEADER: &str = ",user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n";

    #[test]
    fn columns_are_found_by_name() {
        let rows = read(&format!(
            "{HEADER}0,A1,\"['x, y', \"\"z's\"\"]\",\"T, \"\"q\"\"\",\"[1, 2]\",3,\"['<a_1><b_1>', '<a_2><b_2>']\",<a_3><b_3>\n"
        ));
        let rows = rows.unwrap();
        assert_eq!(rows[0].history_titles, ["x, y", "z's"]);
        assert_eq!(rows[0].history_sids, ["<a_1><b_1>", "<a_2><b_2>"]);
        assert_eq!((rows[0].title.as_str(), rows[0].item_id.as_str()), ("T, \"q\"", "3"));
    }

    #[test]
    fn a_blank_history_is_empty() {
        assert!(read("history_item_sid,item_sid\n,<a_1>\n").unwrap()[0].history_sids.is_empty());
    }

    #[test]
    fn broken_rows_name_line_and_column() {
        let error = read("history_item_sid,item_sid\n['<a_1>'],<a_2>\n\"['<a_1>', <a_2>']\",<a_2>\n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 3") && text.contains("history_item_sid") && text.contains("Python list"), "{text}");
        assert!(read("a,b\n1,2\n").unwrap_err().to_string().contains("has no column \"item_sid\""));
        assert!(read("history_item_sid,item_sid\n[]\n").unwrap_err().to_string().contains("line 2"));
        assert!(read("history_item_sid,item_sid\n").unwrap_err().to_string().contains("has no rows"));
        let missing = read_interactions(Path::new("/nowhere/train.csv")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/train.csv"), "{missing}");
    }
}
