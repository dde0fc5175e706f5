//! What a compiled program tells about itself.

use std::any::Any;
use std::sync::Arc;

use crate::api::{call, slice, to_string, Api, Padded};
use crate::buffer::from_c_type;
use crate::{options, sys, Error, OptionValue, Result, TensorSpec};

/// A compiled program, not (or not only) loaded onto devices.
pub struct CompiledProgram {
    api: Api,
    raw: *mut sys::PJRT_Executable,
    outputs: Vec<Arc<TensorSpec>>,
    /// The client or topology it was compiled for, which must outlive it.
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a PJRT executable does not change, and may be asked and destroyed from any thread.
unsafe impl Send for CompiledProgram {}
// SAFETY: as above; what the plugin computes on first use, it guards.
unsafe impl Sync for CompiledProgram {}

impl Drop for CompiledProgram {
    fn drop(&mut self) {
        let mut args = Padded::<sys::PJRT_Executable_Destroy_Args>::new();
        args.args.executable = self.raw;
        // SAFETY: the executable is live and this is its last use; its owner is still alive. There is nobody to tell of
        // an error.
        let _ = unsafe { call!(self.api, PJRT_Executable_Destroy, args) };
    }
}

/// The compiler's estimate of what one execution of one replica costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostAnalysis {
    /// Floating-point operations.
    pub flops: Option<f64>,
    /// Bytes read and written.
    pub bytes_accessed: Option<f64>,
    /// Everything that the plugin says, in its own words and units.
    pub properties: Vec<(String, OptionValue)>,
}

/// Memory that one replica of a program takes while it runs, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompiledMemoryStats {
    /// The code itself.
    pub generated_code: u64,
    /// Arguments.
    pub arguments: u64,
    /// Results.
    pub outputs: u64,
    /// The part of the results that lies in donated arguments.
    pub aliased: u64,
    /// Intermediate values.
    pub temporaries: u64,
    /// The most that is in use at a time; 0 if the plugin does not say.
    pub peak: u64,
}

/// A program as the compiler left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptimizedProgram {
    /// The format of the bytes: `hlo_with_config` is a serialized `xla.HloModuleProtoWithConfig`, `hlo` a
    /// `xla.HloModuleProto`, `mlir` MLIR text or bytecode.
    pub format: String,
    /// The program.
    pub code: Vec<u8>,
}

impl CompiledProgram {
    /// Takes ownership of `raw`.
    ///
    /// # Safety
    /// `raw` is a live executable of the plugin that nobody else destroys, and needs no more than `owner` to live.
    pub(crate) unsafe fn new(
        api: Api,
        raw: *mut sys::PJRT_Executable,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        let mut program = Self { api, raw, outputs: Vec::new(), _owner: owner };
        program.outputs = program.read_outputs()?;
        Ok(program)
    }

    fn read_outputs(&self) -> Result<Vec<Arc<TensorSpec>>> {
        let mut types = Padded::<sys::PJRT_Executable_OutputElementTypes_Args>::new();
        let mut dims = Padded::<sys::PJRT_Executable_OutputDimensions_Args>::new();
        types.args.executable = self.raw;
        dims.args.executable = self.raw;
        // SAFETY: the executable is live, and so are the lists that it returns: there is a rank for each output, and as
        // many dimensions as the ranks sum up to.
        let (types, ranks, dims) = unsafe {
            call!(self.api, PJRT_Executable_OutputElementTypes, types)?;
            call!(self.api, PJRT_Executable_OutputDimensions, dims)?;
            let ranks = slice(dims.args.dim_sizes, dims.args.num_outputs);
            (
                slice(types.args.output_types, types.args.num_output_types),
                ranks,
                slice(dims.args.dims, ranks.iter().sum()),
            )
        };
        if types.len() != ranks.len() {
            let (types, ranks) = (types.len(), ranks.len());
            return Err(Error::InvalidArgument(format!(
                "the plugin tells {types} types and {ranks} shapes of the program's results"
            )));
        }
        let mut outputs = Vec::with_capacity(types.len());
        let mut rest = dims;
        for (index, (&c_type, &rank)) in types.iter().zip(ranks).enumerate() {
            let (own, others) = rest.split_at(rank);
            rest = others;
            let shape = own.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
            let dtype = from_c_type(c_type)
                .map_err(|error| Error::InvalidArgument(format!("result {index} of the program: {error}")))?;
            outputs.push(Arc::new(TensorSpec { dtype, shape }));
        }
        Ok(outputs)
    }

    /// Types and dimensions of the results of one replica.
    pub fn outputs(&self) -> &[Arc<TensorSpec>] {
        &self.outputs
    }

    /// The compiler's estimate of what one execution of one replica costs.
    pub fn cost_analysis(&self) -> Result<CostAnalysis> {
        let mut args = Padded::<sys::PJRT_Executable_GetCostAnalysis_Args>::new();
        args.args.executable = self.raw;
        // SAFETY: the executable is live, and so are the properties that it returns.
        let properties = unsafe {
            call!(self.api, PJRT_Executable_GetCostAnalysis, args)?;
            options::from_c(args.args.properties, args.args.num_properties)
        };
        let number = |wanted: &str| {
            properties.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| match value {
                OptionValue::Float(value) => Some(f64::from(*value)),
                OptionValue::Int(value) => Some(*value as f64),
                _ => None,
            })
        };
        Ok(CostAnalysis { flops: number("flops"), bytes_accessed: number("bytes accessed"), properties })
    }

    /// The memory that one replica takes on its device.
    pub fn memory_stats(&self) -> Result<CompiledMemoryStats> {
        let mut args = Padded::<sys::PJRT_Executable_GetCompiledMemoryStats_Args>::new();
        args.args.executable = self.raw;
        // SAFETY: the executable is live.
        unsafe { call!(self.api, PJRT_Executable_GetCompiledMemoryStats, args) }?;
        let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(CompiledMemoryStats {
            generated_code: bytes(args.args.generated_code_size_in_bytes),
            arguments: bytes(args.args.argument_size_in_bytes),
            outputs: bytes(args.args.output_size_in_bytes),
            aliased: bytes(args.args.alias_size_in_bytes),
            temporaries: bytes(args.args.temp_size_in_bytes),
            peak: bytes(args.args.peak_memory_in_bytes),
        })
    }

    /// The program after all of the compiler's passes.
    pub fn optimized(&self) -> Result<OptimizedProgram> {
        let mut program = Padded::<sys::PJRT_Program>::new();
        let mut args = Padded::<sys::PJRT_Executable_OptimizedProgram_Args>::new();
        args.args.executable = self.raw;
        args.args.program = program.as_mut_ptr();
        // SAFETY: the executable and the program are live; without a place for the code, only its size is returned.
        unsafe { call!(self.api, PJRT_Executable_OptimizedProgram, args) }?;
        // Read through the pointer that the plugin wrote through.
        // SAFETY: `program` is live and the plugin is done with it.
        let size = unsafe { (*args.args.program).code_size };
        let mut code = vec![0u8; size];
        // SAFETY: as above; there is room for as many bytes as the plugin has asked for.
        let format = unsafe {
            (*args.args.program).code = code.as_mut_ptr().cast();
            call!(self.api, PJRT_Executable_OptimizedProgram, args)?;
            to_string((*args.args.program).format, (*args.args.program).format_size)
        };
        Ok(OptimizedProgram { format, code })
    }

    /// The program in a form that a client of the same plugin loads with [`crate::Client::deserialize`].
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut args = Padded::<sys::PJRT_Executable_Serialize_Args>::new();
        args.args.executable = self.raw;
        // SAFETY: the executable is live. The bytes live until they are given back, after they have been copied.
        unsafe {
            call!(self.api, PJRT_Executable_Serialize, args)?;
            let bytes = slice(args.args.serialized_bytes.cast::<u8>(), args.args.serialized_bytes_size).to_vec();
            if let Some(delete) = args.args.serialized_executable_deleter {
                delete(args.args.serialized_executable);
            }
            Ok(bytes)
        }
    }
}
