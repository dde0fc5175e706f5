//! What the end-to-end tests share: the programs, workspaces with data, and the goldens.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use sft_data::sample::{write_sample, SampleOptions};

/// Longer than any run of a test takes: a hang fails instead of blocking.
const LIMIT: Duration = Duration::from_secs(240);

/// A program of the workspace, built in release mode before the tests run.
pub fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let path = target.join("release").join(name);
    assert!(path.is_file(), "{}: build first, with `cargo build --release --workspace`", path.display());
    path
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    // the manifest's folder lies in the root
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a parent folder").to_owned()
}

/// A file of the shared data; `None`, loudly, where there is none.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = repository().join("../shared");
    if !root.exists() {
        eprintln!("SKIPPED: {} is absent", root.display());
        return None;
    }
    Some(root.join(path))
}

/// What a program printed and how it ended.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Panics with everything that was printed unless the program succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless the program failed with one `error: …` line that holds all of `parts`.
    #[track_caller]
    pub fn failure(self, parts: &[&str]) {
        assert_ne!(self.code, 0, "{}", self.stdout);
        let errors: Vec<&str> = self.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is not in {:?}", errors[0]);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Runs `command` in the repository's root; panics if it takes longer than any test may.
pub fn run(command: &mut Command) -> Ran {
    let child = command
        .current_dir(repository())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let finished = done.clone();
    let watchdog = std::thread::spawn(move || {
        let started = Instant::now();
        while !finished.load(std::sync::atomic::Ordering::Relaxed) {
            if started.elapsed() > LIMIT {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child can be waited for");
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = watchdog.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

/// Runs `sft-host` in `hosts` processes under mpirun, or alone.
pub fn host(hosts: usize, arguments: &[String]) -> Ran {
    run(&mut host_command(hosts, arguments))
}

/// The command of [`host`].
pub fn host_command(hosts: usize, arguments: &[String]) -> Command {
    if hosts == 1 {
        let mut command = Command::new(program("sft-host"));
        command.args(arguments);
        return command;
    }
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none", "-n", &hosts.to_string()]);
    if nix::unistd::geteuid().is_root() {
        command.arg("--allow-run-as-root");
    }
    command.arg(program("sft-host")).args(arguments);
    command
}

/// A folder with a small sample and settings that train on it for a few steps.
pub struct Workspace {
    dir: tempfile::TempDir,
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// Writes the sample and `config.yaml`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = SampleOptions { users: 80, ..SampleOptions::default() };
        write_sample(&dir.path().join("data"), &options).expect("the sample");
        let data = |name: &str| dir.path().join("data").join(name).display().to_string();
        let yaml = format!(
            "base_model: {model}\noutput_dir: {out}\nruntime: {{platform: cpu}}\n\
             data: {{train_file: {train}, eval_file: {valid}, test_file: {test}, info_file: {info}, \
             sid_index_path: {index}, item_meta_path: {item}, max_len: 256}}\n\
             jax: {{mesh_shape: auto, compute_dtype: float32}}\n\
             train: {{train_from_scratch: true, per_device_train_batch_size: 2, learning_rate: 1e-3, max_steps: 3, \
             logging_steps: 1}}\n\
             eval: {{batch_size: 4, num_beams: 5, topk: [1, 5], length_buckets: [128, 256]}}\n\
             wandb: {{mode: disabled}}\n",
            model = data("model"),
            out = dir.path().join("out").display(),
            train = data("train/Sample.csv"),
            valid = data("valid/Sample.csv"),
            test = data("test/Sample.csv"),
            info = data("info/Sample.txt"),
            index = data("index/Sample.index.json"),
            item = data("index/Sample.item.json"),
        );
        std::fs::write(dir.path().join("config.yaml"), yaml).expect("a file in it");
        Self { dir }
    }

    /// A file of the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Arguments for the programs: this workspace's settings with changes.
    pub fn arguments(&self, settings: &[&str]) -> Vec<String> {
        let config = self.path("config.yaml").display().to_string();
        let changes = settings.iter().flat_map(|s| ["--set".to_owned(), (*s).to_owned()]);
        ["--config".to_owned(), config].into_iter().chain(changes).collect()
    }

    /// Prepares the data.
    #[track_caller]
    pub fn prepare(&self, settings: &[&str]) {
        run(Command::new(program("sft-prep")).args(self.arguments(settings))).success();
    }
}
