//! A look at a shared library before it is loaded: the loader maps a truncated one as if it were whole, and the process
//! dies of the first access beyond its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_LOAD: u32 = 1;

/// What is wrong with the file as a 64-bit little-endian ELF library, if anything is.
pub(crate) fn defect(path: &Path) -> io::Result<Option<&'static str>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let Some(header) = read::<HEADER_BYTES>(&mut file, 0)? else {
        return Ok(Some("it is not a shared library"));
    };
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(Some("it is not a shared library of a 64-bit machine"));
    }
    let table = integer(&header, 32, 8);
    let entry_bytes = integer(&header, 54, 2);
    let entries = integer(&header, 56, 2);
    for entry in 0..entries {
        let at = table.saturating_add(entry * entry_bytes);
        let Some(entry) = read::<PROGRAM_HEADER_BYTES>(&mut file, at)? else {
            return Ok(Some("it is truncated"));
        };
        let is_mapped = integer(&entry, 0, 4) == u64::from(PT_LOAD);
        if is_mapped && integer(&entry, 8, 8).saturating_add(integer(&entry, 32, 8)) > size {
            return Ok(Some("it is truncated"));
        }
    }
    Ok(None)
}

/// `N` bytes at `offset`, `None` if the file ends before.
fn read<const N: usize>(file: &mut File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The little-endian integer of `len` bytes at `at`.
fn integer(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
