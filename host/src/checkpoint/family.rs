use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use sft_data::prepared::FileStamp;
use sft_model::train::SLOT_NAMES;
use sft_model::weights::AtomicFile;

/// Where training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: usize,
    /// Their losses.
    pub losses: Vec<f64>,
    /// Validation losses by step.
    pub validations: Vec<(usize, f64)>,
}

impl Progress {
    /// The lowest validation loss and its step.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.validations.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Validations since the best one.
    pub fn validations_without_improvement(&self) -> usize {
        let best = self.best().map_or(0, |(step, _)| step);
        self.validations.iter().filter(|(step, _)| *step > best).count()
    }
}

/// The files of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    dir: PathBuf,
    name: String,
}

/// What the `.json` of a checkpoint holds.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    /// What shapes the course of training, besides the weights.
    run: String,
    progress: Progress,
    files: BTreeMap<String, FileStamp>,
}

const VERSION: u32 = 1;
const PREFIX: &str = "sft_state_step";

impl Family {
    /// The checkpoint of `step` in `dir`.
    pub fn of_step(dir: &Path, step: usize) -> Self {
        Self { dir: dir.to_owned(), name: format!("{PREFIX}{step}") }
    }

    /// The checkpoint that `state` (a `.msgpack`) belongs to, if it is one of ours.
    pub fn of_state(state: &Path) -> Option<Self> {
        let name = state.file_name()?.to_str()?.strip_suffix(".msgpack")?.to_owned();
        let family = Self { dir: state.parent()?.to_owned(), name };
        family.record_path().is_file().then_some(family)
    }

    /// All complete checkpoints of `dir`, oldest first.
    pub fn all(dir: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix(PREFIX)?.strip_suffix(".json")?.parse().ok();
        let mut steps: Vec<usize> = entries.filter_map(|e| step(e.file_name().to_str()?)).collect();
        steps.sort_unstable();
        steps.into_iter().map(|step| Self::of_step(dir, step)).collect()
    }

    /// The parameters.
    pub fn state_path(&self) -> PathBuf {
        self.dir.join(format!("{}.msgpack", self.name))
    }

    /// The optimizer's moment number `slot`.
    pub fn moment_path(&self, slot: usize) -> PathBuf {
        self.dir.join(format!("{}.{}.msgpack", self.name, SLOT_NAMES[slot]))
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.name))
    }

    /// Declares the checkpoint complete, after its files have been written; `run` names what must be the same when
    /// training goes on.
    pub fn commit(&self, run: &str, progress: &Progress, slots: usize) -> Result<()> {
        let paths = std::iter::once(self.state_path()).chain((0..slots).map(|slot| self.moment_path(slot)));
        let mut files = BTreeMap::new();
        for path in paths {
            let stamp = FileStamp::of(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            files.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), stamp);
        }
        let record = Record { version: VERSION, run: run.to_owned(), progress: progress.clone(), files };
        let mut file = AtomicFile::create(&self.record_path())?;
        serde_json::to_writer_pretty(&mut file, &record)?;
        file.write_all(b"\n")?;
        Ok(file.commit()?)
    }

    /// Where training stood, after comparing every file with its hash.
    pub fn read(&self, run: &str) -> Result<Progress> {
        let path = self.record_path();
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let record: Record =
            serde_json::from_str(&text).with_context(|| format!("{}: not a checkpoint's record", path.display()))?;
        if record.version != VERSION {
            bail!("{}: has version {}, this program reads {VERSION}", path.display(), record.version);
        }
        if record.run != run {
            bail!(
                "{}: was written by another run (then: {}; now: {run}); use its settings, or start from its weights \
                 alone in another output_dir",
                path.display(),
                record.run
            );
        }
        for (name, stamp) in &record.files {
            let path = self.dir.join(name);
            let found = FileStamp::of(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            if found != *stamp {
                bail!(
                    "{}: is damaged: its bytes are not those that were written; use an older checkpoint",
                    path.display()
                );
            }
        }
        Ok(record.progress)
    }

    /// Removes the oldest checkpoints of `dir` beyond `limit` (0 keeps all).
    pub fn prune(dir: &Path, limit: usize) -> Result<()> {
        let all = Self::all(dir);
        let surplus = if limit == 0 { 0 } else { all.len().saturating_sub(limit) };
        all[..surplus].iter().try_for_each(Self::remove)
    }

    fn remove(&self) -> Result<()> {
        // the record first: what is left without one is no checkpoint
        let moments = (0..SLOT_NAMES.len()).map(|slot| self.moment_path(slot));
        for path in [self.record_path(), self.state_path()].into_iter().chain(moments) {
            if path.exists() {
                std::fs::remove_file(&path).with_context(|| format!("{}: cannot be removed", path.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, step: usize) -> Family {
        let family = Family::of_step(dir, step);
        std::fs::write(family.state_path(), "weights").unwrap();
        std::fs::write(family.moment_path(0), "moment").unwrap();
        let progress = Progress { step, losses: vec![0.5; step], validations: vec![(step, 1.0)] };
        family.commit("run", &progress, 1).unwrap();
        family
    }

    #[test]
    fn a_checkpoint_is_complete_with_its_record() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 10);
        let newest = write(dir.path(), 20);
        std::fs::write(Family::of_step(dir.path(), 30).state_path(), "half").unwrap();
        assert_eq!(Family::all(dir.path()).last(), Some(&newest));
        assert_eq!(Family::of_state(&newest.state_path()), Some(newest.clone()));
        assert_eq!(newest.read("run").unwrap().losses.len(), 20);
        Family::prune(dir.path(), 1).unwrap();
        assert_eq!(Family::all(dir.path()), [newest]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn damage_and_other_runs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let family = write(dir.path(), 3);
        assert!(family.read("other").unwrap_err().to_string().contains("another run"));
        std::fs::write(family.moment_path(0), "momenT").unwrap();
        let error = family.read("run").unwrap_err().to_string();
        assert!(error.contains("sft_state_step3.mu.msgpack") && error.contains("damaged"), "{error}");
    }

    #[test]
    fn patience_counts_from_the_best() {
        let progress = Progress { validations: vec![(1, 2.0), (2, 1.0), (3, 1.5), (4, 1.2)], ..Progress::default() };
        assert_eq!((progress.best(), progress.validations_without_improvement()), (Some((2, 1.0)), 2));
    }
}
