//! Platforms, and where their plugins are found.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::{env, fmt};

use crate::{Error, Result};

/// What the devices of a run are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// The best of this machine: TPU, else CUDA, else CPU.
    #[default]
    Auto,
    /// The host's cores, through the plugin that `make setup` builds.
    Cpu,
    /// TPU, through `libtpu.so`.
    Tpu,
    /// NVIDIA GPUs, through `xla_cuda_plugin.so`.
    Cuda,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Tpu => "tpu",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "tpu" => Ok(Self::Tpu),
            "cuda" | "gpu" => Ok(Self::Cuda),
            _ => Err(Error::InvalidArgument(format!("unknown platform {name:?}; known: auto, cpu, tpu, cuda"))),
        }
    }
}

impl Platform {
    /// The platform that [`Platform::Auto`] stands for on this machine; any other is itself.
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if has_tpu() => Self::Tpu,
            Self::Auto if Path::new("/dev/nvidia0").exists() && find_cuda().is_some() => Self::Cuda,
            Self::Auto => Self::Cpu,
            chosen => chosen,
        }
    }

    /// How to get a working plugin of this platform.
    pub(crate) fn remedy(self) -> String {
        match self {
            Self::Tpu => "run `pip install libtpu`, or set TPU_LIBRARY_PATH to libtpu.so".to_owned(),
            Self::Cuda => "run `pip install jax-cuda13-pjrt`, or set SFT_PJRT_PLUGIN to xla_cuda_plugin.so".to_owned(),
            Self::Cpu | Self::Auto => match cpu_plugin_path() {
                Some(path) => format!("run `make setup`, which builds the CPU plugin {}", path.display()),
                None => "set HOME or SFT_CACHE, then run `make setup`, which builds the CPU plugin".to_owned(),
            },
        }
    }
}

/// The plugin of a platform: `explicit` if given, else `$SFT_PJRT_PLUGIN`, else where the platform's is usually found;
/// and the platform, which stays [`Platform::Auto`] if only a file was named. Only checks that the file exists;
/// [`crate::Plugin::load`] tells whether it is a plugin.
pub(crate) fn discover(platform: Platform, explicit: Option<&Path>) -> Result<(PathBuf, Platform)> {
    let named = explicit.map(|path| (path.to_owned(), "the path given"));
    let variable = || variable_path("SFT_PJRT_PLUGIN").map(|path| (path, "SFT_PJRT_PLUGIN"));
    if let Some((path, origin)) = named.or_else(variable) {
        return match existing(path.clone()) {
            Some(path) => Ok((path, platform)),
            None => {
                let remedy = format!("there is no file {} ({origin}); {}", path.display(), platform.remedy());
                Err(Error::PluginNotFound { platform, remedy })
            }
        };
    }
    let platform = platform.resolve();
    let found = match platform {
        Platform::Tpu => find_tpu(),
        Platform::Cuda => find_cuda(),
        Platform::Cpu | Platform::Auto => cpu_plugin_path().and_then(existing),
    };
    let path = found.ok_or_else(|| Error::PluginNotFound { platform, remedy: platform.remedy() })?;
    Ok((path, platform))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

fn variable_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where `scripts/setup.sh` puts what it fetches and builds.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    variable_path("SFT_CACHE")
        .or_else(|| variable_path("XDG_CACHE_HOME").map(|path| path.join("sft")))
        .or_else(|| variable_path("HOME").map(|path| path.join(".cache/sft")))
}

fn cpu_plugin_path() -> Option<PathBuf> {
    Some(cache_folder()?.join("pjrt/pjrt_cpu_mpi.so"))
}

/// TPU VMs show their chips as /dev/accel0.. or, newer ones, as VFIO groups, which other devices use too.
fn has_tpu() -> bool {
    let vfio = || {
        let variables = ["TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID", "TPU_SKIP_MDS_QUERY", "TPU_CHIPS_PER_HOST_BOUNDS"];
        Path::new("/dev/vfio/0").exists() && variables.iter().any(|name| env::var_os(name).is_some())
    };
    Path::new("/dev/accel0").exists() || vfio()
}

fn find_tpu() -> Option<PathBuf> {
    if let Some(path) = variable_path("TPU_LIBRARY_PATH") {
        return existing(path);
    }
    let installed = python_paths().into_iter().find_map(|path| existing(path.join("libtpu/libtpu.so")));
    installed.or_else(|| ["/usr/lib/libtpu.so", "/lib/libtpu.so"].iter().find_map(|path| existing(path.into())))
}

fn find_cuda() -> Option<PathBuf> {
    let plugins = ["jax_plugins/xla_cuda13/xla_cuda_plugin.so", "jax_plugins/xla_cuda12/xla_cuda_plugin.so"];
    let paths = python_paths();
    paths.iter().find_map(|path| plugins.iter().find_map(|plugin| existing(path.join(plugin))))
}

/// Where Python finds modules, by its own account; nothing if there is no Python.
fn python_paths() -> Vec<PathBuf> {
    let listed =
        Command::new("python3").args(["-c", "import sys; print('\\n'.join(p for p in sys.path if p))"]).output();
    match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_as_they_are_shown() {
        for platform in [Platform::Auto, Platform::Cpu, Platform::Tpu, Platform::Cuda] {
            assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        }
        let error = "tpuu".parse::<Platform>().unwrap_err().to_string();
        assert!(error.contains("tpuu") && error.contains("cuda"), "{error}");
    }

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        let error = discover(Platform::Tpu, Some(Path::new("/nowhere/libtpu.so"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/libtpu.so") && error.contains("tpu"), "{error}");
    }
}
