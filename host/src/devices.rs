//! The mesh of all devices of all hosts, and programs on it.

use std::time::Instant;

use anyhow::{bail, Context, Result};
use sft_model::mesh::Mesh;
use sft_model::program::Program;
use sft_runtime::{Argument, Buffer, Client, ClientOptions, CompileOptions, Executable, Platform, Plugin};
use sft_settings::{Config, PlatformChoice};
use sft_tensor::HostTensor;

use crate::world::World;

/// The devices of this host and their places in the mesh.
pub struct Devices {
    client: Client,
    mesh: Mesh,
    /// Global device ids by replica.
    assignment: Vec<i64>,
    /// Rank of the host that each replica's device belongs to.
    owners: Vec<usize>,
    /// Replicas of this host in ascending order, with the index of their device in the client.
    local: Vec<(usize, usize)>,
}

impl Devices {
    /// Opens this host's devices and agrees with the others on the mesh.
    pub fn open(config: &Config, world: &World) -> Result<Self> {
        let client = world.agree(open_client(config))?;
        let ids: Vec<i64> = client.local_devices().iter().map(|d| d.id).collect();
        let mut mine = vec![client.process_index() as i64];
        mine.extend(&ids);
        // hosts in the order that the runtime gives them, which need not be MPI's
        let mut hosts: Vec<(usize, Vec<i64>)> = world
            .all_gather(bytemuck::cast_slice(&mine))
            .iter()
            .map(|bytes| bytemuck::allocation::pod_collect_to_vec(bytes))
            .enumerate()
            .collect();
        hosts.sort_by_key(|(_, ids)| ids[0]);
        let per_host: Vec<usize> = hosts.iter().map(|(_, ids)| ids.len() - 1).collect();
        let mesh = world.agree((|| {
            if per_host.windows(2).any(|w| w[0] != w[1]) {
                bail!("hosts have different numbers of devices ({per_host:?}); use hosts that are alike");
            }
            Ok(Mesh::parse(&config.jax.mesh_shape, world.size(), per_host[0])?)
        })())?;
        let flat = |(rank, ids): &(usize, Vec<i64>)| ids[1..].iter().map(|&id| (*rank, id)).collect::<Vec<_>>();
        let (owners, assignment): (Vec<usize>, Vec<i64>) = hosts.iter().flat_map(flat).unzip();
        let local = assignment.iter().enumerate().filter_map(|(replica, id)| {
            let device = ids.iter().position(|own| own == id)?;
            Some((replica, device))
        });
        Ok(Self { local: local.collect(), client, mesh, assignment, owners })
    }

    /// The mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What the devices are.
    pub fn platform(&self) -> &str {
        self.client.platform_name()
    }

    /// Replicas of this host, in the order of a program's arguments and results.
    pub fn local_replicas(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.local.iter().map(|(replica, _)| *replica)
    }

    /// Rank of the host that runs `replica`.
    pub fn owner(&self, replica: usize) -> usize {
        self.owners[replica]
    }

    /// Compiles `program` for all devices.
    pub fn compile(&self, program: &Program) -> Result<Compiled> {
        let started = Instant::now();
        let options = CompileOptions::replicated(self.assignment.clone());
        let executable = self
            .client
            .compile(&program.text, &options)
            .with_context(|| format!("program {} does not compile", program.name))?;
        let expected: Vec<usize> = self.local.iter().map(|(_, device)| *device).collect();
        if executable.local_device_indices() != expected {
            bail!("program {}: its replicas are on other devices than it was compiled for", program.name);
        }
        Ok(Compiled { name: program.name.clone(), executable, compile_seconds: started.elapsed().as_secs_f64() })
    }

    /// Copies `tensors` to the device of the `index`-th local replica.
    pub fn upload(&self, index: usize, tensors: &[HostTensor]) -> Result<Vec<Buffer>> {
        let (_, device) = self.local[index];
        tensors.iter().map(|t| Ok(self.client.upload(t, device)?)).collect()
    }
}

/// A program on the devices.
pub struct Compiled {
    name: String,
    executable: Executable,
    /// Time that compiling took.
    pub compile_seconds: f64,
}

impl Compiled {
    /// Runs the program on all local devices and waits for it; arguments and results are `[local replica][port]`.
    pub fn run(&self, arguments: Vec<Vec<Argument<'_>>>) -> Result<Vec<Vec<Buffer>>> {
        self.executable.execute(arguments).with_context(|| format!("program {} failed", self.name))
    }
}

fn open_client(config: &Config) -> Result<Client> {
    let platform = match config.runtime.platform {
        PlatformChoice::Auto => Platform::Auto,
        PlatformChoice::Cpu => Platform::Cpu,
        PlatformChoice::Tpu => Platform::Tpu,
        PlatformChoice::Cuda => Platform::Cuda,
    };
    let plugin = Plugin::discover(platform, config.runtime.plugin.as_deref())?;
    let cpu = ClientOptions::cpu(config.runtime.devices_per_host.unwrap_or(1));
    let options = if plugin.platform() == Platform::Cpu { cpu } else { ClientOptions::default() };
    let client = Client::new(&plugin, &options)?;
    match config.runtime.devices_per_host {
        Some(wanted) if wanted != client.local_devices().len() => {
            bail!("runtime.devices_per_host is {wanted}, this host has {} devices", client.local_devices().len())
        }
        _ => Ok(client),
    }
}
