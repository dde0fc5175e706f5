//! Runs programs on CPU devices of this process, one a replica.
#![allow(dead_code)] // Each test file uses its part.

use std::path::PathBuf;
use std::sync::OnceLock;

use sft_model::program::Program;
use sft_runtime::{Argument, Buffer, Client, ClientOptions, CompileOptions, Executable, Platform, Plugin};
use sft_tensor::HostTensor;

const DEVICES: usize = 8;

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let plugin = Plugin::discover(Platform::Cpu, None).unwrap_or_else(|error| panic!("run `make setup`: {error}"));
        let options = ClientOptions { process_count: Some(1), ..ClientOptions::cpu(DEVICES) };
        Client::new(&plugin, &options).unwrap()
    })
}

/// A compiled program.
pub struct Runner {
    program: Program,
    executable: Executable,
}

impl Runner {
    pub fn new(program: Program) -> Self {
        let devices = client().local_devices()[..program.replicas].iter().map(|d| d.id).collect();
        let compiled = client().compile(&program.text, &CompileOptions::replicated(devices));
        let executable = compiled.unwrap_or_else(|error| panic!("{error}\n{}", program.text));
        Self { program, executable }
    }

    /// Inputs and outputs are `[replica][port]`.
    pub fn run(&self, inputs: &[Vec<HostTensor>]) -> Vec<Vec<HostTensor>> {
        let buffers: Vec<Vec<Buffer>> = inputs
            .iter()
            .enumerate()
            .map(|(replica, inputs)| {
                for (tensor, port) in inputs.iter().zip(&self.program.inputs) {
                    assert_eq!((tensor.dtype(), tensor.shape()), (port.dtype, port.shape.as_slice()), "{}", port.name);
                }
                assert_eq!(inputs.len(), self.program.inputs.len());
                inputs.iter().map(|t| client().upload(t, replica).unwrap()).collect()
            })
            .collect();
        let arguments = buffers.into_iter().map(|b| b.into_iter().map(Argument::Donate).collect()).collect();
        let results = self.executable.execute(arguments).unwrap();
        results.iter().map(|r| r.iter().map(|b| b.download().unwrap()).collect()).collect()
    }
}

/// Data that the tests compare with; `None`, loudly, where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    if !root.exists() {
        eprintln!("SKIPPED: {} is absent", root.display());
        return None;
    }
    Some(root.join(path))
}
