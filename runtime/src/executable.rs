//! Programs that are loaded onto devices.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::api::{call, slice, Padded};
use crate::client::{c_program, list_ptr, ClientInner};
use crate::{sys, Buffer, Client, CompileOptions, CompiledMemoryStats, CompiledProgram, CostAnalysis};
use crate::{Error, Result, TensorSpec};

/// An argument of an execution.
#[derive(Debug)]
pub enum Argument<'a> {
    /// The program reads the buffer, which stays as it is, even if the program would reuse its memory.
    Borrow(&'a Buffer),
    /// The program may write a result into the buffer's memory, if it says so by `tf.aliasing_output` or
    /// `jax.buffer_donor` on the argument. The buffer is gone after the execution, whether it succeeds or not.
    Donate(Buffer),
}

impl Argument<'_> {
    fn buffer(&self) -> &Buffer {
        match self {
            Self::Borrow(buffer) => buffer,
            Self::Donate(buffer) => buffer,
        }
    }
}

/// A program, compiled for and loaded onto devices.
pub struct Executable {
    // Dropped in this order: the description first, then the loaded program, then perhaps the client.
    program: CompiledProgram,
    loaded: Loaded,
    local_device_indices: Vec<usize>,
}

/// Owner of the plugin's loaded program.
struct Loaded {
    raw: *mut sys::PJRT_LoadedExecutable,
    client: Arc<ClientInner>,
}

// SAFETY: a loaded PJRT program may be executed and destroyed from any thread, and by several at a time.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        let mut args = Padded::<sys::PJRT_LoadedExecutable_Destroy_Args>::new();
        args.args.executable = self.raw;
        // SAFETY: the program is live and this is its last use; executions are awaited before they return. There is
        // nobody to tell of an error.
        let _ = unsafe { call!(self.client.api, PJRT_LoadedExecutable_Destroy, args) };
    }
}

impl Executable {
    pub(crate) fn compile(client: &Client, text: &str, options: &CompileOptions) -> Result<Self> {
        let client = client.0.clone();
        let options = options.encode()?;
        let mut program = c_program(text);
        let mut args = Padded::<sys::PJRT_Client_Compile_Args>::new();
        args.args.client = client.client;
        args.args.program = program.as_mut_ptr();
        args.args.compile_options = options.as_ptr().cast();
        args.args.compile_options_size = options.len();
        // SAFETY: client, program and options live until the call returns.
        unsafe { call!(client.api, PJRT_Client_Compile, args) }?;
        Self::new(Loaded { raw: args.args.executable, client })
    }

    pub(crate) fn deserialize(client: &Client, serialized: &[u8]) -> Result<Self> {
        let client = client.0.clone();
        let mut args = Padded::<sys::PJRT_Executable_DeserializeAndLoad_Args>::new();
        args.args.client = client.client;
        args.args.serialized_executable = serialized.as_ptr().cast();
        args.args.serialized_executable_size = serialized.len();
        // SAFETY: client and bytes live until the call returns.
        unsafe { call!(client.api, PJRT_Executable_DeserializeAndLoad, args) }?;
        Self::new(Loaded { raw: args.args.loaded_executable, client })
    }

    fn new(loaded: Loaded) -> Result<Self> {
        let client = &loaded.client;
        let mut get = Padded::<sys::PJRT_LoadedExecutable_GetExecutable_Args>::new();
        get.args.loaded_executable = loaded.raw;
        let mut devices = Padded::<sys::PJRT_LoadedExecutable_AddressableDevices_Args>::new();
        devices.args.executable = loaded.raw;
        // SAFETY: the program is live, and so is the list of devices that it returns. The description is ours, and needs
        // the client to live.
        let (program, devices) = unsafe {
            call!(client.api, PJRT_LoadedExecutable_GetExecutable, get)?;
            let program = CompiledProgram::new(client.api, get.args.executable, client.clone())?;
            call!(client.api, PJRT_LoadedExecutable_AddressableDevices, devices)?;
            (program, slice(devices.args.addressable_devices, devices.args.num_addressable_devices))
        };
        let index_of = |device| client.local.iter().position(|&local| local == device);
        let local_device_indices = devices
            .iter()
            .map(|&device| index_of(device).ok_or_else(|| Error::InvalidArgument("a device is unknown".to_owned())))
            .collect::<Result<Vec<_>>>()?;
        if local_device_indices.is_empty() {
            return Err(Error::InvalidArgument(
                "the device assignment of the program holds no device of this process".to_owned(),
            ));
        }
        Ok(Self { program, loaded, local_device_indices })
    }

    /// The local devices that run a replica, in the order of the replicas, as indices into [`Client::local_devices`].
    /// Arguments and results of [`Executable::execute`] come in this order.
    pub fn local_device_indices(&self) -> &[usize] {
        &self.local_device_indices
    }

    /// The program, apart from its devices.
    pub fn program(&self) -> &CompiledProgram {
        &self.program
    }

    /// Types and dimensions of the results of one replica.
    pub fn outputs(&self) -> &[Arc<TensorSpec>] {
        self.program.outputs()
    }

    /// The compiler's estimate of what one execution of one replica costs.
    pub fn cost_analysis(&self) -> Result<CostAnalysis> {
        self.program.cost_analysis()
    }

    /// The memory that one replica takes on its device.
    pub fn memory_stats(&self) -> Result<CompiledMemoryStats> {
        self.program.memory_stats()
    }

    /// The program in a form that [`Client::deserialize`] loads.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.program.serialize()
    }

    /// Executes the replicas of this process, one on each of [`Executable::local_device_indices`], and waits until all
    /// of them are done.
    ///
    /// `args` holds the arguments of each replica, `[local replica][argument]`; the results are
    /// `[local replica][result]`. The other processes of the device assignment must execute the program, too. Waiting
    /// after every execution keeps few launches in flight: XLA:CPU deadlocks when there are too many.
    ///
    /// # Errors
    /// If arguments do not fit the program or each other, before anything runs; if the plugin fails on any device.
    pub fn execute(&self, args: Vec<Vec<Argument<'_>>>) -> Result<Vec<Vec<Buffer>>> {
        self.check(&args)?;
        let client = &self.loaded.client;
        let borrowed: Vec<i64> = args[0]
            .iter()
            .enumerate()
            .filter(|(_, argument)| matches!(argument, Argument::Borrow(_)))
            .map(|(index, _)| index as i64)
            .collect();
        let mut options = Padded::<sys::PJRT_ExecuteOptions>::new();
        options.args.non_donatable_input_indices = list_ptr(&borrowed);
        options.args.num_non_donatable_input_indices = borrowed.len();

        let inputs: Vec<Vec<_>> =
            args.iter().map(|list| list.iter().map(|argument| argument.buffer().raw).collect()).collect();
        let input_lists: Vec<_> = inputs.iter().map(|list| list.as_ptr()).collect();
        let mut outputs = vec![vec![ptr::null_mut::<sys::PJRT_Buffer>(); self.outputs().len()]; args.len()];
        let output_lists: Vec<_> = outputs.iter_mut().map(|list| list.as_mut_ptr()).collect();
        let mut events = vec![ptr::null_mut::<sys::PJRT_Event>(); args.len()];

        let mut call_args = Padded::<sys::PJRT_LoadedExecutable_Execute_Args>::new();
        call_args.args.executable = self.loaded.raw;
        call_args.args.options = options.as_mut_ptr();
        call_args.args.argument_lists = input_lists.as_ptr();
        call_args.args.num_devices = args.len();
        call_args.args.num_args = args[0].len();
        call_args.args.output_lists = output_lists.as_ptr();
        call_args.args.device_complete_events = events.as_mut_ptr();
        // SAFETY: the program and the arguments are live, the lists live until the call returns, and there is room for
        // all results of every local device. The arguments themselves live until the replicas are done: `args` is
        // dropped at the end. The buffer of every donated argument was moved here, so nobody can use it any more.
        unsafe { call!(client.api, PJRT_LoadedExecutable_Execute, call_args) }?;

        let results = outputs
            .into_iter()
            .zip(&self.local_device_indices)
            .map(|(list, &local_device_index)| {
                let of_spec = |(raw, spec): (_, &Arc<TensorSpec>)| {
                    let (client, spec) = (client.clone(), spec.clone());
                    Buffer { client, raw, spec, local_device_index }
                };
                list.into_iter().zip(self.outputs()).map(of_spec).collect()
            })
            .collect();
        let mut done = Ok(());
        for event in events {
            // SAFETY: the plugin has set the events, and each is used once.
            let replica = unsafe { client.api.await_event(event) };
            done = done.and(replica);
        }
        drop(args);
        done.map(|()| results)
    }

    /// What can be told without the plugin. All replicas must agree, for if one of them cannot start, the others wait
    /// for it in their first collective.
    fn check(&self, args: &[Vec<Argument<'_>>]) -> Result<()> {
        let fail = |message: String| Err(Error::InvalidArgument(message));
        if args.len() != self.local_device_indices.len() {
            return fail(format!(
                "the program has {} replicas in this process, got arguments for {}",
                self.local_device_indices.len(),
                args.len()
            ));
        }
        for (replica, (list, &device)) in args.iter().zip(&self.local_device_indices).enumerate() {
            if list.len() != args[0].len() {
                let (first, own) = (args[0].len(), list.len());
                return fail(format!("local replica 0 got {first} arguments, local replica {replica} got {own}"));
            }
            for (index, (argument, first)) in list.iter().zip(&args[0]).enumerate() {
                let at = || format!("argument {index} of local replica {replica}");
                let buffer = argument.buffer();
                if !Arc::ptr_eq(&buffer.client, &self.loaded.client) {
                    return fail(format!("{} belongs to another client", at()));
                }
                if buffer.local_device_index != device {
                    let is = buffer.local_device_index;
                    return fail(format!("{} is on local device {is}, the replica runs on {device}", at()));
                }
                if buffer.spec != first.buffer().spec {
                    let (own, first) = (buffer.spec(), first.buffer().spec());
                    return fail(format!("{} is {own}, that of local replica 0 is {first}", at()));
                }
                if matches!(argument, Argument::Donate(_)) != matches!(first, Argument::Donate(_)) {
                    return fail(format!("argument {index} is donated by some replicas and borrowed by others"));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executable({} results, local devices {:?})", self.outputs().len(), self.local_device_indices)
    }
}
