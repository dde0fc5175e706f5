use std::ops::Range;

use half::{bf16, f16};

use crate::DType;

/// A dense row-major tensor in host memory; elements are little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// Data that does not fit the shape or type it was given.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The number of bytes is not what shape and dtype ask for.
    #[error("a {dtype} tensor of shape {shape:?} takes {expected} bytes, got {got}")]
    WrongSize {
        /// Element type asked for.
        dtype: DType,
        /// Shape asked for.
        shape: Vec<usize>,
        /// Bytes that these take.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The conversion is not one between float types.
    #[error("cannot convert {from} to {to}")]
    NotConvertible {
        /// Type of the tensor.
        from: DType,
        /// Type asked for.
        to: DType,
    },
}

impl HostTensor {
    /// Wraps little-endian row-major `data`.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Vec<u8>) -> Result<Self, TensorError> {
        let expected = shape.iter().product::<usize>() * dtype.size_bytes();
        if data.len() != expected {
            let got = data.len();
            return Err(TensorError::WrongSize { dtype, shape, expected, got });
        }
        Ok(Self { dtype, shape, data })
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let bytes = shape.iter().product::<usize>() * dtype.size_bytes();
        Self { dtype, shape: shape.to_vec(), data: vec![0; bytes] }
    }

    /// An f32 tensor. Panics if `values` does not fill `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        Self::from_elements(DType::F32, shape, values, |v| v.to_le_bytes())
    }

    /// An s32 tensor. Panics if `values` does not fill `shape`.
    pub fn from_i32(shape: &[usize], values: &[i32]) -> Self {
        Self::from_elements(DType::S32, shape, values, |v| v.to_le_bytes())
    }

    fn from_elements<T: Copy, const N: usize>(
        dtype: DType,
        shape: &[usize],
        values: &[T],
        to_bytes: impl Fn(T) -> [u8; N],
    ) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values do not fill shape {shape:?}");
        let data = values.iter().flat_map(|&v| to_bytes(v)).collect();
        Self { dtype, shape: shape.to_vec(), data }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Little-endian row-major bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, for writing in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Takes the bytes out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.data
    }

    /// The same elements under another shape. Panics if the number of elements differs.
    pub fn reshaped(mut self, shape: &[usize]) -> Self {
        assert_eq!(self.len(), shape.iter().product::<usize>(), "cannot reshape {:?} to {shape:?}", self.shape);
        self.shape = shape.to_vec();
        self
    }

    /// All elements of a float tensor, widened (or, from f64, rounded) to f32.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, TensorError> {
        Ok(match self.dtype {
            DType::F32 => self.chunks().map(f32::from_le_bytes).collect(),
            DType::F64 => self.chunks().map(|b| f64::from_le_bytes(b) as f32).collect(),
            DType::F16 => self.chunks().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            DType::BF16 => self.chunks().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            from => return Err(TensorError::NotConvertible { from, to: DType::F32 }),
        })
    }

    /// All elements of an s32 tensor.
    pub fn to_i32_vec(&self) -> Result<Vec<i32>, TensorError> {
        match self.dtype {
            DType::S32 => Ok(self.chunks().map(i32::from_le_bytes).collect()),
            from => Err(TensorError::NotConvertible { from, to: DType::S32 }),
        }
    }

    /// Converts between float types, rounding to nearest even.
    pub fn to_dtype(&self, to: DType) -> Result<Self, TensorError> {
        if to == self.dtype {
            return Ok(self.clone());
        }
        let values = self.to_f32_vec()?;
        let data = match to {
            DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => return Err(TensorError::NotConvertible { from: self.dtype, to }),
        };
        Ok(Self { dtype: to, shape: self.shape.clone(), data })
    }

    /// Copies the block `ranges` (one range per dimension, within the shape). Panics if a range is out of bounds.
    pub fn slice(&self, ranges: &[Range<usize>]) -> Self {
        Self::copy_block(self.dtype, &self.shape, &self.data, ranges)
    }

    /// Copies the block `ranges` of the row-major tensor `data` of type `dtype` and shape `shape`, touching no other
    /// bytes. Panics if a range is out of bounds or `data` is too short.
    pub fn copy_block(dtype: DType, shape: &[usize], data: &[u8], ranges: &[Range<usize>]) -> Self {
        let block: Vec<usize> = ranges.iter().map(|r| r.len()).collect();
        let mut out = Self::zeros(dtype, &block);
        copy_rows(shape, ranges, dtype.size_bytes(), |at, from, bytes| {
            out.data[at..at + bytes].copy_from_slice(&data[from..from + bytes]);
        });
        out
    }

    /// A matrix with rows and columns exchanged. Panics unless there are two dimensions.
    pub fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else { panic!("transposing shape {:?}", self.shape) };
        let item = self.dtype.size_bytes();
        let mut out = Self::zeros(self.dtype, &[columns, rows]);
        for row in 0..rows {
            for column in 0..columns {
                let (from, at) = ((row * columns + column) * item, (column * rows + row) * item);
                out.data[at..at + item].copy_from_slice(&self.data[from..from + item]);
            }
        }
        out
    }

    /// Writes `block` at `offsets` of this tensor. Panics if it does not fit or the types differ.
    pub fn write_block(&mut self, offsets: &[usize], block: &HostTensor) {
        assert_eq!(self.dtype, block.dtype, "types of tensor and block differ");
        let ranges: Vec<_> = offsets.iter().zip(&block.shape).map(|(&o, &n)| o..o + n).collect();
        copy_rows(&self.shape, &ranges, self.dtype.size_bytes(), |from, at, bytes| {
            self.data[at..at + bytes].copy_from_slice(&block.data[from..from + bytes]);
        });
    }

    fn chunks<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> + '_ {
        debug_assert_eq!(N, self.dtype.size_bytes());
        // chunks_exact yields slices of exactly N bytes
        self.data.chunks_exact(N).map(|b| b.try_into().unwrap())
    }
}

/// Visits the contiguous runs of a block within a tensor of shape `shape`: `visit(byte offset in the block, byte
/// offset in the tensor, bytes)`.
fn copy_rows(shape: &[usize], ranges: &[Range<usize>], item: usize, mut visit: impl FnMut(usize, usize, usize)) {
    assert_eq!(shape.len(), ranges.len(), "one range per dimension");
    for (range, &size) in ranges.iter().zip(shape) {
        assert!(range.start <= range.end && range.end <= size, "block {ranges:?} lies outside of shape {shape:?}");
    }
    if ranges.iter().any(|r| r.is_empty()) {
        return;
    }
    // Trailing dimensions taken whole merge into one run.
    let mut split = shape.len();
    let mut run = item;
    while split > 0 {
        split -= 1;
        run *= ranges[split].len();
        if ranges[split].len() != shape[split] {
            break;
        }
    }
    let strides: Vec<usize> = (0..shape.len()).map(|d| shape[d + 1..].iter().product::<usize>() * item).collect();
    let base: usize = ranges.iter().zip(&strides).map(|(r, s)| r.start * s).sum();
    let rows: usize = ranges[..split].iter().map(|r| r.len()).product();
    for row in 0..rows {
        let mut rest = row;
        let mut offset = base;
        for d in (0..split).rev() {
            offset += (rest % ranges[d].len()) * strides[d];
            rest /= ranges[d].len();
        }
        visit(row * run, offset, run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> HostTensor {
        let values: Vec<i32> = (0..shape.iter().product::<usize>() as i32).collect();
        HostTensor::from_i32(shape, &values)
    }

    #[test]
    fn slices_take_the_block_and_write_block_puts_it_back() {
        let tensor = counting(&[3, 4, 2]);
        let block = tensor.slice(&[1..3, 1..3, 0..2]);
        assert_eq!(block.shape(), [2, 2, 2]);
        assert_eq!(block.to_i32_vec().unwrap(), [10, 11, 12, 13, 18, 19, 20, 21]);
        let mut copy = HostTensor::zeros(DType::S32, &[3, 4, 2]);
        copy.write_block(&[1, 1, 0], &block);
        assert_eq!(copy.slice(&[1..3, 1..3, 0..2]), block);
        assert_eq!(copy.to_i32_vec().unwrap().iter().sum::<i32>(), 124);
        assert_eq!(tensor.slice(&[0..3, 0..4, 0..2]), tensor);
        assert_eq!(tensor.slice(&[2..3, 0..4, 1..2]).to_i32_vec().unwrap(), [17, 19, 21, 23]);
        assert!(tensor.slice(&[1..1, 0..4, 0..2]).is_empty());
    }

    #[test]
    fn a_transposed_matrix_is_its_own_inverse() {
        let matrix = counting(&[2, 3]);
        assert_eq!(matrix.transposed().to_i32_vec().unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(matrix.transposed().transposed(), matrix);
    }

    #[test]
    fn scalars_slice_to_themselves() {
        let scalar = HostTensor::from_f32(&[], &[2.5]);
        assert_eq!(scalar.slice(&[]), scalar);
    }

    #[test]
    fn conversions_round_to_nearest_even() {
        let tensor = HostTensor::from_f32(&[2], &[1.0 + 1.0 / 256.0, -3.0]);
        let narrow = tensor.to_dtype(DType::BF16).unwrap();
        assert_eq!(narrow.to_f32_vec().unwrap(), [1.0, -3.0]);
        assert!(counting(&[2]).to_dtype(DType::F32).is_err());
    }

    #[test]
    fn a_wrong_number_of_bytes_is_an_error() {
        let error = HostTensor::new(DType::F32, vec![2, 2], vec![0; 12]).unwrap_err();
        assert_eq!(error.to_string(), "a float32 tensor of shape [2, 2] takes 16 bytes, got 12");
    }
}
