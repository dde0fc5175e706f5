//! Compiling for devices that this machine does not have.

use std::ptr;
use std::sync::Arc;

use crate::api::{call, slice, text_arg, Api, Padded};
use crate::client::{c_program, from_description};
use crate::{options, sys, CompileOptions, CompiledProgram, Device, OptionValue, Plugin, Result};

/// Devices by description, such as `v5e:2x2` of libtpu: enough to compile for them, not to run on them.
pub struct Topology(Arc<Inner>);

struct Inner {
    api: Api,
    raw: *mut sys::PJRT_TopologyDescription,
    devices: Vec<Device>,
}

// SAFETY: a PJRT topology does not change, and may be used and destroyed from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut args = Padded::<sys::PJRT_TopologyDescription_Destroy_Args>::new();
        args.args.topology = self.raw;
        // SAFETY: the topology is live and this is its last use: programs hold the `Arc` around it. There is nobody to
        // tell of an error.
        let _ = unsafe { call!(self.api, PJRT_TopologyDescription_Destroy, args) };
    }
}

impl Topology {
    /// The topology that the plugin knows under `name`. On a machine without TPU, libtpu needs `TPU_SKIP_MDS_QUERY=1`
    /// in the environment, else it looks for one for minutes.
    pub fn new(plugin: &Plugin, name: &str, options: &[(String, OptionValue)]) -> Result<Self> {
        let api = plugin.api();
        let c_options = options::to_c(options);
        let mut args = Padded::<sys::PJRT_TopologyDescription_Create_Args>::new();
        (args.args.topology_name, args.args.topology_name_size) = text_arg(name);
        args.args.create_options = c_options.as_ptr();
        args.args.num_options = c_options.len();
        // SAFETY: name and options live until the call returns.
        unsafe { call!(api, PJRT_TopologyDescription_Create, args) }?;
        let mut inner = Inner { api, raw: args.args.topology, devices: Vec::new() };
        let mut list = Padded::<sys::PJRT_TopologyDescription_GetDeviceDescriptions_Args>::new();
        list.args.topology = inner.raw;
        // SAFETY: the topology is live, and so are the descriptions that it returns.
        unsafe {
            call!(api, PJRT_TopologyDescription_GetDeviceDescriptions, list)?;
            let descriptions = slice(list.args.descriptions, list.args.num_descriptions);
            inner.devices = descriptions.iter().map(|&device| from_description(api, device)).collect::<Result<_>>()?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Its devices; their ids are what [`CompileOptions::device_assignment`] takes.
    pub fn devices(&self) -> &[Device] {
        &self.0.devices
    }

    /// Compiles a program given as StableHLO text.
    pub fn compile(&self, stablehlo_text: &str, options: &CompileOptions) -> Result<CompiledProgram> {
        let options = options.encode()?;
        let mut program = c_program(stablehlo_text);
        let mut args = Padded::<sys::PJRT_Compile_Args>::new();
        args.args.topology = self.0.raw;
        args.args.program = program.as_mut_ptr();
        args.args.compile_options = options.as_ptr().cast();
        args.args.compile_options_size = options.len();
        args.args.client = ptr::null_mut();
        // SAFETY: topology, program and options live until the call returns. The executable is ours, and needs the
        // topology to live.
        unsafe {
            call!(self.0.api, PJRT_Compile, args)?;
            CompiledProgram::new(self.0.api, args.args.executable, self.0.clone())
        }
    }
}
