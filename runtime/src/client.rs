//! The devices that this process drives.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use sft_tensor::HostTensor;

use crate::api::{call, slice, to_string, to_usize, Api, Padded};
use crate::{options, sys};
use crate::{Buffer, CompileOptions, Error, Executable, OptionValue, Platform, Plugin, Result};

/// What a client is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientOptions {
    /// CPU: the devices of this process, each as fast as the cores it gets; 0 means 1. Other platforms have the devices
    /// that the machine has.
    pub cpu_device_count: usize,
    /// The number of this process, if it is to be checked: on CPU it must be the MPI rank.
    pub process_index: Option<usize>,
    /// The number of processes whose devices run programs together. On CPU: `None` means all of MPI's if MPI is
    /// initialized, else this one alone; `Some(1)` keeps collectives within this process even under MPI; more need MPI.
    pub process_count: Option<usize>,
    /// Options for the plugin, beyond those above.
    pub plugin_options: Vec<(String, OptionValue)>,
}

impl ClientOptions {
    /// `device_count` CPU devices in this process; several processes if MPI runs.
    pub fn cpu(device_count: usize) -> Self {
        Self { cpu_device_count: device_count, ..Self::default() }
    }

    fn for_plugin(&self, platform: Platform) -> Result<Vec<(String, OptionValue)>> {
        if let (Some(index), Some(count)) = (self.process_index, self.process_count) {
            if index >= count {
                return Err(Error::InvalidArgument(format!("there is no process {index} among {count}")));
            }
        }
        let mut all = Vec::new();
        let mut add = |name: &str, value| all.push((name.to_owned(), value));
        match platform {
            Platform::Cpu => {
                add("cpu_device_count", OptionValue::Int(self.cpu_device_count.max(1) as i64));
                if let Some(index) = self.process_index {
                    add("process_id", OptionValue::Int(index as i64));
                }
                if let Some(count) = self.process_count {
                    let backend = if count > 1 { "mpi" } else { "local" };
                    add("collectives", OptionValue::Str(backend.to_owned()));
                }
            }
            // libtpu finds the other processes of its slice by itself.
            Platform::Tpu | Platform::Auto => {}
            Platform::Cuda => {
                if self.process_count.is_some_and(|count| count > 1) {
                    return Err(Error::InvalidArgument(
                        "several processes on CUDA need a key-value store between them, which this version does not \
                         offer; run one process, which drives all GPUs of its machine"
                            .to_owned(),
                    ));
                }
            }
        }
        all.extend(self.plugin_options.iter().cloned());
        Ok(all)
    }
}

/// A device that a client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number among the devices of all processes. On CPU: 2048 x process + number within the process.
    pub id: i64,
    /// The process that drives it.
    pub process_index: usize,
    /// What it is, such as `cpu` or `TPU v4`.
    pub kind: String,
}

/// The memory of a device, as far as the plugin tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemoryStats {
    /// Bytes allocated now.
    pub bytes_in_use: u64,
    /// The most bytes that were allocated at a time.
    pub peak_bytes_in_use: Option<u64>,
    /// Bytes that can be allocated at all.
    pub bytes_limit: Option<u64>,
}

/// The devices of this process, ready to take tensors and programs. Clones share them.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<ClientInner>);

/// What buffers and programs keep alive.
pub(crate) struct ClientInner {
    pub(crate) api: Api,
    pub(crate) client: *mut sys::PJRT_Client,
    pub(crate) local: Vec<*mut sys::PJRT_Device>,
    plugin: Plugin,
    platform_name: String,
    platform_version: String,
    process_index: usize,
    devices: Vec<Device>,
    local_devices: Vec<Device>,
}

// SAFETY: PJRT's clients and devices may be used and destroyed from any thread, and by several at a time. The other
// fields do not change after construction.
unsafe impl Send for ClientInner {}
// SAFETY: as above.
unsafe impl Sync for ClientInner {}

impl Drop for ClientInner {
    fn drop(&mut self) {
        let mut args = Padded::<sys::PJRT_Client_Destroy_Args>::new();
        args.args.client = self.client;
        // SAFETY: the client is live and this is its last use: buffers and executables hold the `Arc` around it. There
        // is nobody to tell of an error.
        let _ = unsafe { call!(self.api, PJRT_Client_Destroy, args) };
    }
}

impl Client {
    /// Makes a client of the plugin's devices. With several processes all of them must do so, and on CPU it waits
    /// until they have.
    pub fn new(plugin: &Plugin, options: &ClientOptions) -> Result<Self> {
        let api = plugin.api();
        let named = options.for_plugin(plugin.platform())?;
        let c_options = options::to_c(&named);
        let mut args = Padded::<sys::PJRT_Client_Create_Args>::new();
        args.args.create_options = c_options.as_ptr();
        args.args.num_options = c_options.len();
        // SAFETY: the options live until the call returns.
        unsafe { call!(api, PJRT_Client_Create, args) }?;
        // Owned from here on, so that an error below destroys it.
        let mut inner = ClientInner {
            api,
            client: args.args.client,
            local: Vec::new(),
            plugin: plugin.clone(),
            platform_name: String::new(),
            platform_version: String::new(),
            process_index: 0,
            devices: Vec::new(),
            local_devices: Vec::new(),
        };
        inner.describe()?;
        if inner.local.is_empty() {
            return Err(Error::InvalidArgument(format!(
                "plugin {} finds no device of platform {} on this machine",
                plugin.path().display(),
                inner.platform_name
            )));
        }
        match options.process_index {
            Some(index) if index != inner.process_index => Err(Error::InvalidArgument(format!(
                "this process was to be number {index}, the plugin says that it is {}",
                inner.process_index
            ))),
            _ => Ok(Self(Arc::new(inner))),
        }
    }

    /// The plugin whose devices these are.
    pub fn plugin(&self) -> &Plugin {
        &self.0.plugin
    }

    /// The platform by the plugin's name for it, such as `cpu`, `tpu` or `cuda`.
    pub fn platform_name(&self) -> &str {
        &self.0.platform_name
    }

    /// The version of compiler and driver, in the plugin's words.
    pub fn platform_version(&self) -> &str {
        &self.0.platform_version
    }

    /// The number of this process, by the plugin's account: on CPU under MPI its rank.
    pub fn process_index(&self) -> usize {
        self.0.process_index
    }

    /// All devices that the plugin lists. On CPU those are only the ones of this process, on TPU the whole slice.
    pub fn devices(&self) -> &[Device] {
        &self.0.devices
    }

    /// The devices of this process; where an index of a local device is asked for, it is one into this list.
    pub fn local_devices(&self) -> &[Device] {
        &self.0.local_devices
    }

    /// Compiles a program given as StableHLO text for the devices that `options` assign to its replicas. Those of other
    /// processes may be among them; this process will execute the replicas on its own.
    pub fn compile(&self, stablehlo_text: &str, options: &CompileOptions) -> Result<Executable> {
        Executable::compile(self, stablehlo_text, options)
    }

    /// Loads a program that [`Executable::serialize`] wrote, with the devices it was compiled for. The plugin must be
    /// of the same version.
    pub fn deserialize(&self, serialized: &[u8]) -> Result<Executable> {
        Executable::deserialize(self, serialized)
    }

    /// Copies a tensor to the device at `local_device_index` of [`Client::local_devices`]. The tensor may change once
    /// this returns.
    pub fn upload(&self, tensor: &HostTensor, local_device_index: usize) -> Result<Buffer> {
        Buffer::upload(self, tensor, local_device_index)
    }

    /// The memory of a local device; `None` if the plugin does not tell.
    pub fn device_memory_stats(&self, local_device_index: usize) -> Result<Option<DeviceMemoryStats>> {
        let mut args = Padded::<sys::PJRT_Device_MemoryStats_Args>::new();
        args.args.device = self.0.local_device(local_device_index)?;
        // SAFETY: the device lives as long as the client.
        match unsafe { call!(self.0.api, PJRT_Device_MemoryStats, args) } {
            Err(error) if error.is_unimplemented() => return Ok(None),
            result => result?,
        }
        let stats = args.args;
        let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(Some(DeviceMemoryStats {
            bytes_in_use: bytes(stats.bytes_in_use),
            peak_bytes_in_use: stats.peak_bytes_in_use_is_set.then(|| bytes(stats.peak_bytes_in_use)),
            bytes_limit: stats.bytes_limit_is_set.then(|| bytes(stats.bytes_limit)),
        }))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.local_devices.len();
        write!(f, "Client({}, process {}, {count} local devices)", self.0.platform_name, self.0.process_index)
    }
}

impl ClientInner {
    pub(crate) fn local_device(&self, index: usize) -> Result<*mut sys::PJRT_Device> {
        self.local.get(index).copied().ok_or_else(|| {
            Error::InvalidArgument(format!("there is no local device {index}, this process has {}", self.local.len()))
        })
    }

    /// Asks the plugin for what does not change.
    fn describe(&mut self) -> Result<()> {
        let mut name = Padded::<sys::PJRT_Client_PlatformName_Args>::new();
        let mut version = Padded::<sys::PJRT_Client_PlatformVersion_Args>::new();
        let mut process = Padded::<sys::PJRT_Client_ProcessIndex_Args>::new();
        let mut all = Padded::<sys::PJRT_Client_Devices_Args>::new();
        let mut local = Padded::<sys::PJRT_Client_AddressableDevices_Args>::new();
        name.args.client = self.client;
        version.args.client = self.client;
        process.args.client = self.client;
        all.args.client = self.client;
        local.args.client = self.client;
        // SAFETY: the client is live; texts and lists that it returns live as long as it does.
        unsafe {
            call!(self.api, PJRT_Client_PlatformName, name)?;
            self.platform_name = to_string(name.args.platform_name, name.args.platform_name_size);
            call!(self.api, PJRT_Client_PlatformVersion, version)?;
            self.platform_version = to_string(version.args.platform_version, version.args.platform_version_size);
            call!(self.api, PJRT_Client_ProcessIndex, process)?;
            self.process_index = to_usize(process.args.process_index);
            call!(self.api, PJRT_Client_Devices, all)?;
            let all = slice(all.args.devices, all.args.num_devices);
            self.devices = all.iter().map(|&device| describe_device(self.api, device)).collect::<Result<_>>()?;
            call!(self.api, PJRT_Client_AddressableDevices, local)?;
            self.local = slice(local.args.addressable_devices, local.args.num_addressable_devices).to_vec();
            self.local_devices =
                self.local.iter().map(|&device| describe_device(self.api, device)).collect::<Result<_>>()?;
        }
        Ok(())
    }
}

/// # Safety
/// The device is live.
unsafe fn describe_device(api: Api, device: *mut sys::PJRT_Device) -> Result<Device> {
    let mut args = Padded::<sys::PJRT_Device_GetDescription_Args>::new();
    args.args.device = device;
    // SAFETY: the device is live, promised by the caller; its description lives as long as it does.
    unsafe {
        call!(api, PJRT_Device_GetDescription, args)?;
        from_description(api, args.args.device_description)
    }
}

/// # Safety
/// The description is live.
pub(crate) unsafe fn from_description(api: Api, description: *mut sys::PJRT_DeviceDescription) -> Result<Device> {
    let mut id = Padded::<sys::PJRT_DeviceDescription_Id_Args>::new();
    let mut process = Padded::<sys::PJRT_DeviceDescription_ProcessIndex_Args>::new();
    let mut kind = Padded::<sys::PJRT_DeviceDescription_Kind_Args>::new();
    id.args.device_description = description;
    process.args.device_description = description;
    kind.args.device_description = description;
    // SAFETY: the description is live, promised by the caller.
    unsafe {
        call!(api, PJRT_DeviceDescription_Id, id)?;
        call!(api, PJRT_DeviceDescription_ProcessIndex, process)?;
        call!(api, PJRT_DeviceDescription_Kind, kind)?;
        Ok(Device {
            id: i64::from(id.args.id),
            process_index: to_usize(process.args.process_index),
            kind: to_string(kind.args.device_kind, kind.args.device_kind_size),
        })
    }
}

/// `PJRT_Program` of StableHLO text; valid while `text` is.
pub(crate) fn c_program(text: &str) -> Padded<sys::PJRT_Program> {
    let mut program = Padded::<sys::PJRT_Program>::new();
    // The plugin reads only, though the field is mutable: other calls write into it.
    program.args.code = text.as_ptr().cast_mut().cast();
    program.args.code_size = text.len();
    (program.args.format, program.args.format_size) = crate::api::text_arg("mlir");
    program
}

/// The pointer of an empty list must not be looked at; null says so plainly.
pub(crate) fn list_ptr<T>(list: &[T]) -> *const T {
    if list.is_empty() {
        ptr::null()
    } else {
        list.as_ptr()
    }
}
