use std::path::Path;

use serde_json::{json, Map, Value};

use super::{write_file, Item, Purchase, SampleError};
use crate::python_literal::repr_strings;

/// Name of the sample in its files.
pub(super) const NAME: &str = "Sample";

pub(super) fn write(dir: &Path, items: &[Item], splits: &[Vec<Purchase>; 3]) -> Result<(), SampleError> {
    for (split, rows) in ["train", "valid", "test"].iter().zip(splits) {
        write_file(&dir.join(format!("{split}/{NAME}.csv")), &csv(items, rows))?;
    }
    let info: String = items.iter().enumerate().map(|(i, x)| format!("{}\t{}\t{i}\n", x.sid(), x.title)).collect();
    write_file(&dir.join(format!("info/{NAME}.txt")), info.as_bytes())?;
    let index: Map<String, Value> = items.iter().enumerate().map(|(i, x)| (i.to_string(), json!(x.tokens))).collect();
    write_file(&dir.join(format!("index/{NAME}.index.json")), Value::Object(index).to_string().as_bytes())?;
    let meta = |item: &Item| {
        let description = repr_strings(&[format!("{} by {}.", item.title, item.brand)]);
        json!({"title": item.title, "description": description, "brand": item.brand, "categories": ""})
    };
    let meta: Map<String, Value> = items.iter().enumerate().map(|(i, x)| (i.to_string(), meta(x))).collect();
    write_file(&dir.join(format!("index/{NAME}.item.json")), format!("{:#}", Value::Object(meta)).as_bytes())
}

/// The table as pandas writes it.
fn csv(items: &[Item], rows: &[Purchase]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    let header =
        ["user_id", "history_item_title", "item_title", "history_item_id", "item_id", "history_item_sid", "item_sid"];
    let record = |row: &Purchase| {
        let history: Vec<&Item> = row.history.iter().map(|&i| &items[i]).collect();
        let ids: Vec<String> = row.history.iter().map(usize::to_string).collect();
        let target = &items[row.target];
        [
            format!("A{}", row.user),
            repr_strings(&history.iter().map(|i| i.title.as_str()).collect::<Vec<_>>()),
            target.title.clone(),
            format!("[{}]", ids.join(", ")),
            row.target.to_string(),
            repr_strings(&history.iter().map(|i| i.sid()).collect::<Vec<_>>()),
            target.sid(),
        ]
    };
    // writing into memory cannot fail, and all records have as many fields as the header
    writer.write_record(header).expect("memory grows");
    rows.iter().for_each(|row| writer.write_record(record(row)).expect("memory grows"));
    writer.into_inner().expect("memory grows")
}
