use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A semantic ID and the items that share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sid {
    /// Its tokens, joined.
    pub text: String,
    /// Its token ids.
    pub tokens: Vec<u32>,
    /// Items (by id), in the order of the index.
    pub items: Vec<String>,
    /// How often it is the target of a training row.
    pub train_count: u64,
}

/// All SIDs in the order of their first item in the index, and the items' titles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Distinct SIDs.
    pub sids: Vec<Sid>,
    /// Titles by item id.
    pub titles: HashMap<String, String>,
    /// SIDs of the info file: what a prediction may be without counting as invalid. Those of the index, usually.
    pub known: Vec<String>,
}

impl Catalogue {
    /// Title of the first item with this SID, if it has one.
    pub fn title(&self, sid: &Sid) -> Option<&str> {
        sid.items.iter().find_map(|item| self.titles.get(item)).map(String::as_str)
    }
}
