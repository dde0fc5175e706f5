use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rmp::Marker;
use sft_tensor::{DType, HostTensor};

use super::flax_tree::place;
use super::msgpack_write::CHUNKED_KEY;
use super::{Source, WeightsError};

/// A state file of the reference or of ours (flax's msgpack), mapped into memory.
pub struct MsgpackState {
    path: PathBuf,
    bytes: Mmap,
    step: u64,
    /// By path in the tree, joined with `/`.
    arrays: HashMap<String, Array>,
}

#[derive(Clone, Debug)]
struct Array {
    dtype: DType,
    shape: Vec<usize>,
    /// Bytes within the file, one range unless the array is chunked.
    pieces: Vec<Range<usize>>,
}

/// What the parser found; maps stay as lists, since their keys are few.
enum Value {
    Map(Vec<(String, Value)>),
    Array(Array),
    Unsigned(u64),
    Other,
}

impl MsgpackState {
    /// Maps `path` and finds the arrays in it.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = File::open(path).map_err(WeightsError::io(path, "opening"))?;
        // SAFETY: the map is read-only; that nobody truncates a checkpoint while it is read is the user's part, as with
        // every program that maps weights.
        #[allow(unsafe_code)]
        let bytes = unsafe { Mmap::map(&file) }.map_err(WeightsError::io(path, "mapping into memory"))?;
        let damaged = |problem: &str| WeightsError::file(path, format!("not a complete state file: {problem}"));
        let mut parser = Parser { rest: &bytes, total: bytes.len() };
        let Value::Map(root) = parser.value(0).map_err(|p| damaged(&p))? else {
            return Err(damaged("Invalid checkpoint payload type, the root must be a map"));
        };
        if !parser.rest.is_empty() {
            return Err(damaged("bytes follow the root"));
        }
        let mut state = Self { path: path.to_owned(), step: 0, arrays: HashMap::new(), bytes };
        for (key, value) in root {
            match (key.as_str(), value) {
                ("step", Value::Unsigned(step)) => state.step = step,
                ("params", Value::Map(map)) => collect("", map, &mut state.arrays).map_err(|p| damaged(&p))?,
                _ => {}
            }
        }
        if state.arrays.is_empty() {
            return Err(damaged("it has no \"params\" with arrays"));
        }
        Ok(state)
    }

    /// Optimizer steps that led to this state.
    pub fn step(&self) -> u64 {
        self.step
    }

    fn array(&self, name: &str) -> Option<(&Array, bool)> {
        let place = place(name);
        self.arrays.get(&place.path.join("/")).map(|array| (array, place.transposed))
    }

    /// A block of an array that the file holds in pieces, row by row.
    fn block_of_pieces(&self, name: &str, array: &Array, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let (rows, columns, width) = match (ranges, &array.shape[..]) {
            ([all], [_]) => (0..1, all.clone(), 0),
            ([rows, columns], [_, width]) => (rows.clone(), columns.clone(), *width),
            _ => {
                let problem = format!("has shape {:?} in pieces; weights have one or two dimensions", array.shape);
                return Err(WeightsError::tensor(&self.path, name, problem));
            }
        };
        let item = array.dtype.size_bytes();
        let mut bytes = Vec::with_capacity(rows.len() * columns.len() * item);
        for row in rows {
            let wanted = (row * width + columns.start) * item..(row * width + columns.end) * item;
            let mut start = 0;
            for piece in &array.pieces {
                let within = |at: usize| piece.start + at.clamp(start, start + piece.len()) - start;
                bytes.extend_from_slice(&self.bytes[within(wanted.start)..within(wanted.end)]);
                start += piece.len();
            }
        }
        let shape = ranges.iter().map(|r| r.len()).collect();
        HostTensor::new(array.dtype, shape, bytes).map_err(|e| WeightsError::tensor(&self.path, name, e.to_string()))
    }
}

fn collect(prefix: &str, map: Vec<(String, Value)>, found: &mut HashMap<String, Array>) -> Result<(), String> {
    for (key, value) in map {
        let path = if prefix.is_empty() { key } else { format!("{prefix}/{key}") };
        match value {
            Value::Array(array) => {
                found.insert(path, array);
            }
            Value::Map(map) if map.iter().any(|(key, _)| key == CHUNKED_KEY) => {
                let array = chunked(&map).ok_or_else(|| format!("the pieces of {path} do not make up its shape"))?;
                found.insert(path, array);
            }
            Value::Map(map) => collect(&path, map, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// The array that a map of chunks stands for; `None` if they do not fit together.
fn chunked(map: &[(String, Value)]) -> Option<Array> {
    let get = |name: &str| map.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let (Value::Map(shape), Value::Map(chunks)) = (get("shape")?, get("chunks")?) else { return None };
    let numbered = |map: &[(String, Value)], i: usize| map.iter().position(|(key, _)| *key == i.to_string());
    let mut dims = Vec::new();
    for d in 0..shape.len() {
        let Value::Unsigned(n) = &shape[numbered(shape, d)?].1 else { return None };
        dims.push(usize::try_from(*n).ok()?);
    }
    let mut pieces = Vec::new();
    let mut dtype = None;
    for i in 0..chunks.len() {
        let Value::Array(chunk) = &chunks[numbered(chunks, i)?].1 else { return None };
        if *dtype.get_or_insert(chunk.dtype) != chunk.dtype {
            return None;
        }
        pieces.extend(chunk.pieces.iter().cloned());
    }
    let array = Array { dtype: dtype?, shape: dims, pieces };
    (array.len_bytes() == Some(array.pieces.iter().map(|p| p.len()).sum())).then_some(array)
}

impl Array {
    fn len_bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size_bytes(), |n, d| n.checked_mul(*d))
    }
}

impl Source for MsgpackState {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (array, transposed) = self.array(name)?;
        let mut shape = array.shape.clone();
        if transposed {
            shape.reverse();
        }
        Some(shape)
    }

    fn read(&self, name: &str, ranges: &[Range<usize>]) -> Result<HostTensor, WeightsError> {
        let missing = || WeightsError::tensor(&self.path, name, "is missing");
        let (array, transposed) = self.array(name).ok_or_else(missing)?;
        let mut ranges = ranges.to_vec();
        if transposed {
            ranges.reverse();
        }
        if ranges.len() != array.shape.len() || ranges.iter().zip(&array.shape).any(|(r, n)| r.end > *n) {
            let problem = format!("has shape {:?}; {ranges:?} lies outside", array.shape);
            return Err(WeightsError::tensor(&self.path, name, problem));
        }
        let block = match &array.pieces[..] {
            [piece] => HostTensor::copy_block(array.dtype, &array.shape, &self.bytes[piece.clone()], &ranges),
            _ => self.block_of_pieces(name, array, &ranges)?,
        };
        Ok(if transposed { block.transposed() } else { block })
    }
}

/// Deeper nesting than any state has: a damaged file must not exhaust the stack.
const MAX_DEPTH: usize = 32;

struct Parser<'a> {
    rest: &'a [u8],
    total: usize,
}

impl Parser<'_> {
    fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    fn fail<T>(&self, problem: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("byte {}: {problem}", self.offset()))
    }

    fn skip(&mut self, count: usize) -> Result<Range<usize>, String> {
        if count > self.rest.len() {
            return self.fail(format!("{count} bytes should follow, there are {}", self.rest.len()));
        }
        let start = self.offset();
        self.rest = &self.rest[count..];
        Ok(start..start + count)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let rest = self.rest;
        self.skip(bytes)?;
        Ok(rest[..bytes].iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn marker(&mut self) -> Result<Marker, String> {
        Ok(Marker::from_u8(self.number(1)? as u8))
    }

    fn string(&mut self) -> Result<String, String> {
        let len = match self.marker()? {
            Marker::FixStr(n) => u64::from(n),
            Marker::Str8 => self.number(1)?,
            Marker::Str16 => self.number(2)?,
            Marker::Str32 => self.number(4)?,
            other => return self.fail(format!("expected a string, found {other:?}")),
        };
        let rest = self.rest;
        let len = self.skip(len as usize)?.len();
        String::from_utf8(rest[..len].to_vec()).or_else(|_| self.fail("a string is not UTF-8"))
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return self.fail("maps are nested too deeply");
        }
        Ok(match self.marker()? {
            Marker::FixMap(n) => self.map(u64::from(n), depth)?,
            Marker::Map16 => {
                let n = self.number(2)?;
                self.map(n, depth)?
            }
            Marker::Map32 => {
                let n = self.number(4)?;
                self.map(n, depth)?
            }
            Marker::FixPos(n) => Value::Unsigned(u64::from(n)),
            Marker::U8 => Value::Unsigned(self.number(1)?),
            Marker::U16 => Value::Unsigned(self.number(2)?),
            Marker::U32 => Value::Unsigned(self.number(4)?),
            Marker::U64 | Marker::I64 => Value::Unsigned(self.number(8)?),
            Marker::True | Marker::False | Marker::Null => Value::Other,
            Marker::Ext8 => {
                let n = self.number(1)?;
                self.extension(n)?
            }
            Marker::Ext16 => {
                let n = self.number(2)?;
                self.extension(n)?
            }
            Marker::Ext32 => {
                let n = self.number(4)?;
                self.extension(n)?
            }
            Marker::FixExt16 => self.extension(16)?,
            Marker::FixExt8 => self.extension(8)?,
            other => return self.fail(format!("{other:?} has no place in a state")),
        })
    }

    fn map(&mut self, len: u64, depth: usize) -> Result<Value, String> {
        let mut entries = Vec::new();
        for _ in 0..len {
            let key = self.string()?;
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(entries))
    }

    fn extension(&mut self, len: u64) -> Result<Value, String> {
        let kind = self.number(1)?;
        let len = len as usize;
        if kind != 1 {
            // complex numbers and NumPy scalars: no weights
            self.skip(len)?;
            return Ok(Value::Other);
        }
        let end = self.offset() + len;
        let Marker::FixArray(3) = self.marker()? else { return self.fail("an array has three parts") };
        let Marker::FixArray(rank) = self.marker()? else { return self.fail("an array's shape is a short array") };
        let mut shape = Vec::new();
        for _ in 0..rank {
            match self.value(0)? {
                Value::Unsigned(n) => shape.push(n as usize),
                _ => return self.fail("an array's shape holds something else than sizes"),
            }
        }
        let name = self.string()?;
        let Ok(dtype) = name.parse::<DType>() else { return self.fail(format!("arrays of {name} are unknown")) };
        let bytes = match self.marker()? {
            Marker::Bin8 => self.number(1)?,
            Marker::Bin16 => self.number(2)?,
            Marker::Bin32 => self.number(4)?,
            other => return self.fail(format!("expected an array's bytes, found {other:?}")),
        };
        let piece = self.skip(bytes as usize)?;
        let array = Array { dtype, shape, pieces: vec![piece.clone()] };
        if array.len_bytes() != Some(piece.len()) || self.offset() != end {
            return self.fail(format!("an array of shape {:?} has {} bytes", array.shape, piece.len()));
        }
        Ok(Value::Array(array))
    }
}
