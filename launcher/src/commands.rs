//! The commands that make up a run.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::Cli;

/// The command that prepares the data.
pub fn prepare(cli: &Cli) -> Result<Vec<String>> {
    let mut command = vec![sibling("sft-prep", cli.prep_binary.as_deref())?];
    command.extend(["--config".to_owned(), text(&cli.config)]);
    command.extend(overrides(cli));
    Ok(command)
}

/// The command that starts all hosts.
pub fn hosts(cli: &Cli) -> Result<Vec<String>> {
    let mut command: Vec<String> = ["mpirun", "-n"].map(str::to_owned).to_vec();
    command.push(cli.hosts.to_string());
    match &cli.hostfile {
        Some(file) if !file.is_file() => bail!("--hostfile {}: there is no such file", file.display()),
        Some(file) => command.extend(["--hostfile".to_owned(), text(file)]),
        None => command.push("--oversubscribe".to_owned()),
    }
    command.extend(["--bind-to", "none", "--tag-output"].map(str::to_owned));
    if nix::unistd::geteuid().is_root() {
        command.push("--allow-run-as-root".to_owned());
    }
    command.push(sibling("sft-host", cli.host_binary.as_deref())?);
    command.extend(["--config".to_owned(), text(&cli.config), "--run-mode".to_owned(), cli.run_mode.clone()]);
    if let Some(devices) = cli.devices_per_host {
        command.extend(["--devices-per-host".to_owned(), devices.to_string()]);
    }
    command.extend(overrides(cli));
    Ok(command)
}

fn overrides(cli: &Cli) -> impl Iterator<Item = String> + '_ {
    cli.overrides.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()])
}

/// The program `name` beside this one, or `given`.
fn sibling(name: &str, given: Option<&Path>) -> Result<String> {
    let path: PathBuf = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("this program's path is unknown")?.with_file_name(name),
    };
    if !path.is_file() {
        bail!("{}: there is no such program; build all with `cargo build --release`", path.display());
    }
    Ok(text(&path))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
