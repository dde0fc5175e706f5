//! The shard format: little-endian, sections in this order, each aligned to eight bytes.
//!
//! ```text
//! header            magic "SFTSHARD", u32 version, u32 zero, u64 rows, u64 tokens
//! tokens            u32 [tokens]     all rows, one after the other
//! offsets           u64 [rows + 1]   where each row starts
//! supervised_from   u32 [rows]       first supervised token of each row
//! tasks             u32 [rows]       task of each row
//! source_rows       u32 [rows]       row of the input file that it came from
//! ```

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{FileStamp, PreparedError};

pub(super) const MAGIC: [u8; 8] = *b"SFTSHARD";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 32;

/// Token rows in a file mapped into memory.
pub struct Shard {
    path: PathBuf,
    bytes: Mmap,
    rows: usize,
    tokens: Range<usize>,
    offsets: Range<usize>,
    supervised: Range<usize>,
    tasks: Range<usize>,
    sources: Range<usize>,
}

/// One row of a [`Shard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// First supervised token: the labels are the tokens from here on.
    pub supervised_from: usize,
    /// Code of the task.
    pub task: u32,
    /// Row of the input file (from 0).
    pub source_row: u32,
}

/// Bytes of a section, padding included.
pub(super) fn section_bytes(items: usize, item: usize) -> Option<usize> {
    items.checked_mul(item)?.checked_next_multiple_of(8)
}

impl Shard {
    /// Maps `path` and compares all of it with `stamp`.
    pub fn open(path: &Path, stamp: &FileStamp) -> Result<Self, PreparedError> {
        let file = File::open(path).map_err(PreparedError::io(path, "opening"))?;
        // SAFETY: the map is read-only; shards are written once, under another name, and never changed in place.
        #[allow(unsafe_code)]
        let bytes = unsafe { Mmap::map(&file) }.map_err(PreparedError::io(path, "mapping into memory"))?;
        let damaged = |problem: String| Err(PreparedError::damaged(path, problem));
        if bytes.len() as u64 != stamp.bytes {
            return damaged(format!("is damaged: it has {} bytes instead of {}", bytes.len(), stamp.bytes));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_rayon(&bytes);
        if hasher.finalize().to_hex().as_str() != stamp.blake3 {
            return damaged("is damaged: its bytes are not those that were written".into());
        }
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return damaged("is not a shard".into());
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(8) != VERSION {
            return damaged(format!("has format version {}, this program reads {VERSION}", word(8)));
        }
        let (rows, count) = (long(16) as usize, long(24) as usize);
        let mut end = HEADER_BYTES;
        let mut section = |items: usize, item: usize| {
            let start = end;
            end = end.checked_add(section_bytes(items, item)?).filter(|&e| e <= bytes.len())?;
            Some(start..start + items * item)
        };
        let sections = (|| {
            Some([section(count, 4)?, section(rows + 1, 8)?, section(rows, 4)?, section(rows, 4)?, section(rows, 4)?])
        })();
        let Some([tokens, offsets, supervised, tasks, sources]) = sections else {
            return damaged("is shorter than its header says".into());
        };
        let shard = Self { path: path.to_owned(), bytes, rows, tokens, offsets, supervised, tasks, sources };
        let ordered = shard.offsets().windows(2).all(|w| w[0] < w[1]);
        if !ordered || shard.offsets().last() != Some(&(count as u64)) {
            return Err(PreparedError::damaged(&shard.path, "has rows that do not follow each other"));
        }
        Ok(shard)
    }

    fn words(&self, range: &Range<usize>) -> &[u32] {
        // maps start at a page, sections at multiples of eight bytes
        bytemuck::cast_slice(&self.bytes[range.clone()])
    }

    fn offsets(&self) -> &[u64] {
        bytemuck::cast_slice(&self.bytes[self.offsets.clone()])
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Row `index`.
    ///
    /// # Panics
    /// If there are not so many rows.
    pub fn get(&self, index: usize) -> Example<'_> {
        let offsets = self.offsets();
        Example {
            tokens: &self.words(&self.tokens)[offsets[index] as usize..offsets[index + 1] as usize],
            supervised_from: self.words(&self.supervised)[index] as usize,
            task: self.words(&self.tasks)[index],
            source_row: self.words(&self.sources)[index],
        }
    }

    /// Number of tokens of row `index`.
    pub fn row_len(&self, index: usize) -> usize {
        (self.offsets()[index + 1] - self.offsets()[index]) as usize
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Example<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Number of tokens of the longest row.
    pub fn max_len(&self) -> usize {
        self.offsets().windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0)
    }
}
