//! Loading plugins.

use std::collections::HashMap;
use std::ffi::{c_char, CStr};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::api::{call, Api, Padded};
use crate::{elf, options, platform, sys, Error, OptionValue, Platform, Result};

/// A loaded PJRT plugin: the compiler and driver of one kind of device. It stays loaded until the process ends.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    path: PathBuf,
    platform: Platform,
    api: Api,
    counters: Option<Counters>,
}

/// The CPU plugin's functions that report the traffic of collectives, see `plugin/mpi_engine.h`.
#[derive(Clone, Copy)]
struct Counters {
    bytes: unsafe extern "C" fn(*mut u64, usize) -> usize,
    name: unsafe extern "C" fn(usize) -> *const c_char,
}

/// What this process has moved for one kind of collective since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectiveBytes {
    /// The collective, such as `all_gather`.
    pub collective: String,
    /// Bytes sent to other processes.
    pub between_processes: u64,
    /// Bytes copied between devices of this process.
    pub within_process: u64,
}

/// Plugins of this process by canonical path: each may be initialized only once.
static LOADED: Mutex<Option<HashMap<PathBuf, Plugin>>> = Mutex::new(None);

impl Plugin {
    /// Finds and loads the plugin of a platform: the file `explicit_path` if given, else the one that the environment
    /// variable `SFT_PJRT_PLUGIN` names, else the one that is installed for the platform.
    pub fn discover(platform: Platform, explicit_path: Option<&Path>) -> Result<Self> {
        let (path, platform) = platform::discover(platform, explicit_path)?;
        Self::load_for(platform, &path)
    }

    /// Loads the plugin in the file `path`.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_for(Platform::Auto, path)
    }

    fn load_for(platform: Platform, path: &Path) -> Result<Self> {
        let canonical = path.canonicalize().map_err(|error| Error::PluginNotFound {
            platform,
            remedy: format!("cannot open {} ({error}); {}", path.display(), platform.remedy()),
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_with(HashMap::new);
        if let Some(plugin) = loaded.get(&canonical) {
            return Ok(plugin.clone());
        }
        let plugin = Self::open(platform, &canonical)?;
        loaded.insert(canonical, plugin.clone());
        Ok(plugin)
    }

    fn open(platform: Platform, path: &Path) -> Result<Self> {
        let not_a_plugin = |reason: String| Error::NotAPlugin {
            path: path.to_owned(),
            reason: format!("{reason}; {}", platform.remedy()),
        };
        match elf::defect(path) {
            Ok(None) => {}
            Ok(Some(defect)) => return Err(not_a_plugin(defect.to_owned())),
            Err(error) => return Err(not_a_plugin(format!("it cannot be read ({error})"))),
        }
        // SAFETY: loading runs the initializers of the library. The caller chose it as a plugin; there is no way to
        // look first. RTLD_LOCAL: several plugins bring their own copies of XLA.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| not_a_plugin(libloading_reason(&error)))?;
        // SAFETY: the signatures are those of the C API and of the CPU plugin (plugin/mpi_engine.h).
        let (get_api, counters) = unsafe {
            let get_api = library
                .get::<unsafe extern "C" fn() -> *const sys::PJRT_Api>(b"GetPjrtApi\0")
                .map(|symbol| *symbol)
                .map_err(|_| not_a_plugin("it has no function GetPjrtApi".to_owned()))?;
            let bytes = library.get(b"sft_cpu_collective_bytes\0").map(|symbol| *symbol);
            let name = library.get(b"sft_cpu_collective_name\0").map(|symbol| *symbol);
            (get_api, bytes.ok().zip(name.ok()).map(|(bytes, name)| Counters { bytes, name }))
        };
        // SAFETY: the function of the C API takes no arguments.
        let table = unsafe { get_api() };
        if table.is_null() {
            return Err(not_a_plugin("its GetPjrtApi returns nothing".to_owned()));
        }
        // The table is used from here on, for as long as the process lives.
        std::mem::forget(library);
        // SAFETY: `table` is what GetPjrtApi returned, and the library has just been leaked.
        let api = unsafe { Api::new(table) };
        let (major, minor) = api.version();
        if major != sys::PJRT_API_MAJOR {
            let ours = sys::PJRT_API_MAJOR;
            return Err(not_a_plugin(format!("it speaks PJRT {major}.{minor}, this program speaks {ours}.x")));
        }
        let mut initialize = Padded::<sys::PJRT_Plugin_Initialize_Args>::new();
        // SAFETY: the arguments hold no pointers, and `LOADED` sees to it that this runs once a plugin.
        unsafe { call!(api, PJRT_Plugin_Initialize, initialize) }?;
        let platform = if counters.is_some() { Platform::Cpu } else { platform_of(platform, path) };
        Ok(Self(Arc::new(Inner { path: path.to_owned(), platform, api, counters })))
    }

    /// The file, with links resolved.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The platform whose options the plugin takes: what it was discovered for, or what it shows to be.
    /// [`Platform::Auto`] if neither tells.
    pub fn platform(&self) -> Platform {
        self.0.platform
    }

    /// Major and minor version of the PJRT C API that the plugin was built for.
    pub fn api_version(&self) -> (i32, i32) {
        self.0.api.version()
    }

    /// What the plugin tells about itself, such as the versions of StableHLO it takes.
    pub fn attributes(&self) -> Result<Vec<(String, OptionValue)>> {
        let mut args = Padded::<sys::PJRT_Plugin_Attributes_Args>::new();
        // SAFETY: the plugin sets pointer and number of attributes, which live as long as it does.
        unsafe {
            call!(self.api(), PJRT_Plugin_Attributes, args)?;
            Ok(options::from_c(args.args.attributes, args.args.num_attributes))
        }
    }

    /// What the collectives of this process have moved so far, by kind; `None` if the plugin does not count.
    ///
    /// The CPU plugin counts the collectives of clients that use MPI.
    pub fn collective_bytes(&self) -> Option<Vec<CollectiveBytes>> {
        let counters = self.0.counters?;
        // SAFETY: with no room, the function only returns how many counters there are.
        let count = unsafe { (counters.bytes)(std::ptr::null_mut(), 0) };
        let mut bytes = vec![0; count];
        // SAFETY: there is room for as many counters as is said.
        unsafe { (counters.bytes)(bytes.as_mut_ptr(), count) };
        let kinds = count / 2;
        let of_kind = |index: usize| {
            // SAFETY: the function takes any index.
            let name = unsafe { (counters.name)(index) };
            let collective = if name.is_null() {
                format!("collective {index}")
            } else {
                // SAFETY: a name is a constant of the plugin, which stays loaded.
                unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
            };
            CollectiveBytes { collective, between_processes: bytes[index], within_process: bytes[kinds + index] }
        };
        Some((0..kinds).map(of_kind).collect())
    }

    pub(crate) fn api(&self) -> Api {
        self.0.api
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.api_version();
        write!(f, "Plugin({}, {}, PJRT {major}.{minor})", self.path().display(), self.platform())
    }
}

fn platform_of(platform: Platform, path: &Path) -> Platform {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match platform {
        Platform::Auto if name.contains("cuda") => Platform::Cuda,
        Platform::Auto if name.contains("tpu") => Platform::Tpu,
        known => known,
    }
}

/// The loader's own words; libloading's message alone says only that `dlopen` failed.
fn libloading_reason(error: &libloading::Error) -> String {
    use std::error::Error as _;
    match (error, error.source()) {
        (libloading::Error::DlOpen { desc }, _) => format!("{desc:?}").trim_matches('"').to_owned(),
        (_, Some(source)) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}
