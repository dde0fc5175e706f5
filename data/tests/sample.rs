//! The sample catalogue.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use sft_data::readers::{read_info, read_interactions, Items};
use sft_data::sample::{write_sample, SampleOptions};
use sft_data::tokenizer::Tokenizer;

fn sample(dir: &Path) -> sft_data::sample::Sample {
    write_sample(dir, &SampleOptions { users: 400, ..SampleOptions::default() }).unwrap()
}

#[test]
fn the_files_are_read_by_our_readers() {
    let dir = tempfile::tempdir().unwrap();
    let made = sample(dir.path());
    let path = |name: &str| dir.path().join(name);
    let items = Items::read(&path("index/Sample.index.json"), &path("index/Sample.item.json")).unwrap();
    assert_eq!(items.index.len(), made.items);
    let sids: Vec<String> = items.index.iter().map(|i| i.sid()).collect();
    assert_eq!(read_info(&path("info/Sample.txt")).unwrap(), sids);
    let distinct: std::collections::HashSet<_> = sids.iter().collect();
    assert_eq!(distinct.len(), sids.len() - 1, "two items share a SID");
    let mut rows = Vec::new();
    for (split, count) in ["train", "valid", "test"].iter().zip(made.rows) {
        let read = read_interactions(&path(&format!("{split}/Sample.csv"))).unwrap();
        assert_eq!(read.len(), count);
        rows.extend(read);
    }
    for row in &rows {
        assert!(!row.history_sids.is_empty() && row.history_sids.len() <= 10);
        assert_eq!(row.history_sids.len(), row.history_titles.len());
        assert!(distinct.contains(&row.sid) && items.titles.contains_key(&row.item_id));
    }
    let tokenizer = Tokenizer::open(&path("model")).unwrap();
    assert_eq!(tokenizer.vocab_len(), made.tokens);
    assert_eq!(
        tokenizer.decode(&tokenizer.encode("Maker's Bench 1/4\" Drive\n").unwrap()).unwrap(),
        "Maker's Bench 1/4\" Drive\n"
    );
}

#[test]
fn histories_can_be_learned_and_popularity_does_not_suffice() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let read = |split: &str| read_interactions(&dir.path().join(format!("{split}/Sample.csv"))).unwrap();
    let (train, test) = (read("train"), read("test"));
    let mut follows: HashMap<&str, BTreeMap<&str, usize>> = HashMap::new();
    let mut popularity: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &train {
        let last = row.history_sids.last().unwrap();
        *follows.entry(last).or_default().entry(&row.sid).or_default() += 1;
        *popularity.entry(&row.sid).or_default() += 1;
    }
    let top = |counts: &BTreeMap<&str, usize>, k: usize| {
        let mut ranked: Vec<(usize, String)> = counts.iter().map(|(sid, n)| (*n, (*sid).to_owned())).collect();
        ranked.sort_by(|a, b| b.cmp(a));
        ranked.into_iter().take(k).map(|(_, sid)| sid).collect::<Vec<_>>()
    };
    let popular = top(&popularity, 10);
    let hits = |list: &dyn Fn(&str) -> Vec<String>| {
        let hit = test.iter().filter(|row| list(row.history_sids.last().unwrap()).contains(&row.sid)).count();
        hit as f64 / test.len() as f64
    };
    let by_popularity = hits(&|_| popular.clone());
    let by_last = hits(&|last| follows.get(last).map(|c| top(c, 10)).unwrap_or_default());
    assert!(by_popularity < 0.2, "popularity alone reaches HR@10 {by_popularity}");
    assert!(by_last > 0.6, "the last item alone reaches only HR@10 {by_last}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(a.path());
    sample(b.path());
    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
    }
    let all = files(a.path());
    assert_eq!(all.len(), 10);
    for path in all {
        let other = b.path().join(path.strip_prefix(a.path()).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap(), "{}", path.display());
    }
}
