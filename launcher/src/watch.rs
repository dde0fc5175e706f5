//! Running commands: signals are passed on, output is shown by host, nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::output::{is_noise, parse, Line};

/// How long processes have to end after a signal.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Runs `command` with this process's output; returns its exit code.
pub fn run_plain(command: &[String]) -> Result<u8> {
    let mut child = start(command, false)?;
    wait(&mut child)
}

/// Runs mpirun's `command`, every line with the number of its host in front; returns its exit code.
pub fn run_hosts(command: &[String]) -> Result<u8> {
    let mut child = start(command, true)?;
    let last_error: Arc<Mutex<Option<(usize, String)>>> = Arc::default();
    // both were asked for as pipes
    let (stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let readers = [
        show(stdout, last_error.clone(), |line| println!("{line}")),
        show(stderr, last_error.clone(), |line| eprintln!("{line}")),
    ];
    let code = wait(&mut child)?;
    for reader in readers {
        // a reader only prints
        let _ = reader.join();
    }
    if code != 0 {
        let last = last_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        match last {
            Some((host, error)) => eprintln!("sft-launch: the run failed with exit code {code}; host {host}: {error}"),
            None => eprintln!("sft-launch: the run failed with exit code {code}"),
        }
    }
    Ok(code)
}

fn start(command: &[String], piped: bool) -> Result<Child> {
    let stream = || if piped { Stdio::piped() } else { Stdio::inherit() };
    // a group of its own: the terminal's signals come to us, and we decide what to pass on
    let child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(stream())
        .stderr(stream())
        .process_group(0)
        .spawn();
    child.with_context(|| match command[0].as_str() {
        "mpirun" => "mpirun cannot be started; `make setup` installs OpenMPI".to_owned(),
        program => format!("{program} cannot be started"),
    })
}

/// Waits for `child`; a signal to us goes to its group, and what does not end in time is killed.
fn wait(child: &mut Child) -> Result<u8> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).context("signals cannot be watched")?;
    }
    let group = Pid::from_raw(child.id() as i32);
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().context("waiting for the processes")? {
            return Ok(exit_code(status));
        }
        if interrupted.load(Ordering::Relaxed) && asked.is_none() {
            // the group may have ended in this moment
            let _ = killpg(group, Signal::SIGTERM);
            asked = Some(Instant::now());
        }
        if asked.is_some_and(|at| at.elapsed() > GRACE) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        thread::sleep(POLL);
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    // as shells say it: 128 + signal
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

fn show(
    stream: impl Read + Send + 'static,
    last_error: Arc<Mutex<Option<(usize, String)>>>,
    print: fn(&str),
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        // lines need not be UTF-8; a stream that fails has ended
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes);
            match parse(text.trim_end_matches(['\n', '\r'])) {
                Line::Host(rank, text) => {
                    if let Some(error) = text.strip_prefix("error: ") {
                        let mut last = last_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        last.get_or_insert((rank, error.to_owned()));
                    }
                    print(&format!("[host {rank}] {text}"));
                }
                Line::Launcher(text) if is_noise(&text) => {}
                Line::Launcher(text) => print(&format!("[mpirun] {text}")),
            }
            bytes.clear();
        }
    })
}
