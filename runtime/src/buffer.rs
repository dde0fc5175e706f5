//! Tensors in the memory of a device.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::mem;
use std::sync::Arc;

use sft_tensor::{DType, HostTensor};

use crate::api::{call, Padded};
use crate::client::{list_ptr, ClientInner};
use crate::{sys, Client, Error, Result};

/// Element type and dimensions of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of the dense tensor.
    pub fn size_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size_bytes()
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

/// A tensor in the memory of one local device. Dropping it frees the memory.
pub struct Buffer {
    pub(crate) client: Arc<ClientInner>,
    pub(crate) raw: *mut sys::PJRT_Buffer,
    pub(crate) spec: Arc<TensorSpec>,
    pub(crate) local_device_index: usize,
}

// SAFETY: PJRT's buffers may be used and destroyed from any thread, and by several at a time. The other fields do not
// change after construction.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut args = Padded::<sys::PJRT_Buffer_Destroy_Args>::new();
        args.args.buffer = self.raw;
        // SAFETY: the buffer is live and this is its last use; its client is, too. There is nobody to tell of an error.
        let _ = unsafe { call!(self.client.api, PJRT_Buffer_Destroy, args) };
    }
}

impl Buffer {
    pub(crate) fn upload(client: &Client, tensor: &HostTensor, local_device_index: usize) -> Result<Self> {
        let client = client.0.clone();
        let shape = tensor.shape().to_vec();
        let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
        let mut args = Padded::<sys::PJRT_Client_BufferFromHostBuffer_Args>::new();
        args.args.client = client.client;
        args.args.data = tensor.bytes().as_ptr().cast::<c_void>();
        args.args.type_ = to_c_type(tensor.dtype());
        args.args.dims = list_ptr(&dims);
        args.args.num_dims = dims.len();
        args.args.host_buffer_semantics = sys::PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes;
        args.args.device = client.local_device(local_device_index)?;
        let api = client.api;
        // SAFETY: `dims` lives until the call returns; the tensor's bytes, as many as type and dimensions say, until
        // the event has come: it is awaited before the borrow ends.
        unsafe {
            call!(api, PJRT_Client_BufferFromHostBuffer, args)?;
            let spec = Arc::new(TensorSpec { dtype: tensor.dtype(), shape });
            let buffer = Self { client, raw: args.args.buffer, spec, local_device_index };
            api.await_event(args.args.done_with_host_buffer)?;
            Ok(buffer)
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.spec.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.spec.shape
    }

    /// Element type and dimensions.
    pub fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    /// The device it is on, as an index into [`Client::local_devices`].
    pub fn local_device_index(&self) -> usize {
        self.local_device_index
    }

    /// Bytes it takes on the device, padding included.
    pub fn on_device_size_bytes(&self) -> Result<usize> {
        let mut args = Padded::<sys::PJRT_Buffer_OnDeviceSizeInBytes_Args>::new();
        args.args.buffer = self.raw;
        // SAFETY: the buffer is live.
        unsafe { call!(self.client.api, PJRT_Buffer_OnDeviceSizeInBytes, args) }?;
        Ok(args.args.on_device_size_in_bytes)
    }

    /// Where it lies in the device's memory; two buffers at one address share it, as a result does with the argument
    /// that was donated for it.
    pub fn device_address(&self) -> Result<usize> {
        let mut args = Padded::<sys::PJRT_Buffer_UnsafePointer_Args>::new();
        args.args.buffer = self.raw;
        // SAFETY: the buffer is live. The address is only a number here.
        unsafe { call!(self.client.api, PJRT_Buffer_UnsafePointer, args) }?;
        Ok(args.args.buffer_pointer)
    }

    /// Copies it to the host, row-major, when its contents are there.
    pub fn download(&self) -> Result<HostTensor> {
        let mut tensor = HostTensor::zeros(self.spec.dtype, &self.spec.shape);
        let minor_to_major: Vec<i64> = (0..self.spec.shape.len() as i64).rev().collect();
        let mut layout = Padded::<sys::PJRT_Buffer_MemoryLayout>::new();
        layout.args.type_ = sys::PJRT_Buffer_MemoryLayout_Type_Tiled;
        layout.args.tiled.struct_size = mem::size_of::<sys::PJRT_Buffer_MemoryLayout_Tiled>();
        layout.args.tiled.minor_to_major = list_ptr(&minor_to_major);
        layout.args.tiled.minor_to_major_size = minor_to_major.len();
        let bytes = tensor.bytes_mut();
        let mut args = Padded::<sys::PJRT_Buffer_ToHostBuffer_Args>::new();
        args.args.src = self.raw;
        // Without a layout the bytes would come in the device's order of dimensions.
        args.args.host_layout = layout.as_mut_ptr();
        args.args.dst = bytes.as_mut_ptr().cast::<c_void>();
        args.args.dst_size = bytes.len();
        // SAFETY: the buffer is live; the layout lives until the call returns, and the bytes until the event has come:
        // it is awaited before they are looked at.
        unsafe {
            call!(self.client.api, PJRT_Buffer_ToHostBuffer, args)?;
            self.client.api.await_event(args.args.event)?;
        }
        Ok(tensor)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} on local device {})", self.spec, self.local_device_index)
    }
}

fn to_c_type(dtype: DType) -> c_int {
    match dtype {
        DType::Pred => sys::PJRT_Buffer_Type_PRED,
        DType::S32 => sys::PJRT_Buffer_Type_S32,
        DType::S64 => sys::PJRT_Buffer_Type_S64,
        DType::U32 => sys::PJRT_Buffer_Type_U32,
        DType::F16 => sys::PJRT_Buffer_Type_F16,
        DType::BF16 => sys::PJRT_Buffer_Type_BF16,
        DType::F32 => sys::PJRT_Buffer_Type_F32,
        DType::F64 => sys::PJRT_Buffer_Type_F64,
    }
}

pub(crate) fn from_c_type(value: c_int) -> Result<DType> {
    let all = [DType::Pred, DType::S32, DType::S64, DType::U32, DType::F16, DType::BF16, DType::F32, DType::F64];
    all.into_iter().find(|&dtype| to_c_type(dtype) == value).ok_or_else(|| {
        Error::InvalidArgument(format!("PJRT element type {value} is not one that host tensors can have"))
    })
}
