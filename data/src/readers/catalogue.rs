use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::{read_text, ReadError};

/// Tokens of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemTokens {
    /// Item id, the key of the index.
    pub id: String,
    /// SID tokens in order, such as `["<a_1>", "<b_2>", "<c_3>"]`.
    pub tokens: Vec<String>,
}

impl ItemTokens {
    /// The SID: all tokens joined. (Upstream's title tasks join the first three only, so that items which a fourth token
    /// keeps apart fall together; its CSV files have them all.)
    pub fn sid(&self) -> String {
        self.tokens.concat()
    }
}

/// All items, in the order of the index.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// SID tokens of the items that have a SID.
    pub index: Vec<ItemTokens>,
    /// Items of fewer than three tokens: they have no SID, but their tokens are in the vocabulary.
    pub unnamed: Vec<ItemTokens>,
    /// Titles by item id.
    pub titles: HashMap<String, String>,
}

impl Items {
    /// Reads `index.json` and `item.json`. Items of fewer than three tokens have no SID, as with the peers.
    pub fn read(index: &Path, meta: &Path) -> Result<Self, ReadError> {
        let mut items = Self::default();
        for (id, value) in object(index)? {
            let strings = value.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            let Some(Some(tokens)) = strings else {
                return Err(ReadError::file(index, format!("item {id:?}: {value} is not a list of token strings")));
            };
            if let Some(empty) = tokens.iter().position(|t| t.is_empty()) {
                return Err(ReadError::file(index, format!("item {id:?}: token {empty} is empty")));
            }
            let named = tokens.len() >= 3;
            let item = ItemTokens { id, tokens: tokens.into_iter().map(str::to_owned).collect() };
            if named { &mut items.index } else { &mut items.unnamed }.push(item);
        }
        if items.index.is_empty() {
            return Err(ReadError::file(index, "names no item with at least three tokens"));
        }
        for (id, value) in object(meta)? {
            let Some(title) = value.get("title").and_then(Value::as_str) else {
                return Err(ReadError::file(meta, format!("item {id:?} has no \"title\" string")));
            };
            items.titles.insert(id, title.to_owned());
        }
        Ok(items)
    }

    /// All distinct tokens in the order in which they join the vocabulary: by Unicode code point.
    pub fn tokens(&self) -> Vec<String> {
        let items = self.index.iter().chain(&self.unnamed);
        let mut tokens: Vec<String> = items.flat_map(|item| item.tokens.iter().cloned()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }
}

fn object(path: &Path) -> Result<serde_json::Map<String, Value>, ReadError> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ReadError::file(path, "is not a JSON object by item id")),
        Err(error) => Err(ReadError::file(path, format!("is not JSON: {error}"))),
    }
}

/// The SIDs of an info file (`SID \t title \t id` a line), blank lines left out.
pub fn read_info(path: &Path) -> Result<Vec<String>, ReadError> {
    let text = read_text(path)?;
    let sid = |line: &str| line.split('\t').next().unwrap_or_default().trim().to_owned();
    let sids: Vec<String> = text.lines().map(sid).filter(|sid| !sid.is_empty()).collect();
    if sids.is_empty() {
        return Err(ReadError::file(path, "names no SID"));
    }
    Ok(sids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(index: &str, meta: &str) -> Result<Items, String> {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("index.json"), dir.path().join("item.json")];
        std::fs::write(&paths[0], index).unwrap();
        std::fs::write(&paths[1], meta).unwrap();
        Items::read(&paths[0], &paths[1]).map_err(|e| e.to_string())
    }

    #[test]
    fn order_is_the_files_and_tokens_sort_by_code_point() {
        let index = r#"{"10": ["<a_1>", "<b_9>", "<c_1>"], "2": ["<a_10>", "<b_98>", "<c_1>"], "3": ["<a_7>"]}"#;
        let items = read(index, r#"{"10": {"title": "ten"}}"#).unwrap();
        assert_eq!(items.index.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["10", "2"]);
        assert_eq!(items.tokens(), ["<a_10>", "<a_1>", "<a_7>", "<b_98>", "<b_9>", "<c_1>"]);
        assert_eq!(items.index[1].sid(), "<a_10><b_98><c_1>");
    }

    #[test]
    fn a_fourth_token_keeps_items_apart() {
        let index = r#"{"0": ["<a_1>", "<b_1>", "<c_1>", "<d_0>"], "1": ["<a_1>", "<b_1>", "<c_1>", "<d_1>"]}"#;
        let items = read(index, "{}").unwrap();
        assert_eq!(items.index[1].sid(), "<a_1><b_1><c_1><d_1>");
        assert_ne!(items.index[0].sid(), items.index[1].sid());
    }

    #[test]
    fn wrong_files_name_the_item() {
        assert!(read(r#"{"7": "x"}"#, "{}").unwrap_err().contains("item \"7\""));
        assert!(read(r#"{"7": ["a", "", "c"]}"#, "{}").unwrap_err().contains("token 1 is empty"));
        assert!(read("[]", "{}").unwrap_err().contains("not a JSON object"));
        assert!(read("{", "{}").unwrap_err().contains("not JSON"));
        assert!(read("{}", "{}").unwrap_err().contains("names no item"));
        let index = r#"{"7": ["a", "b", "c"]}"#;
        assert!(read(index, r#"{"7": {"name": "x"}}"#).unwrap_err().contains("no \"title\""));
    }
}
