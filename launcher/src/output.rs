//! mpirun's tagged output as lines of hosts.

/// A line of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Of the host with this rank.
    Host(usize, String),
    /// Of mpirun itself.
    Launcher(String),
}

/// Takes the tag off a line: `[1,3]<stdout>:text` is host 3's. A line that continues one without its end has no tag.
pub fn parse(line: &str) -> Line {
    let tagged = || {
        let rest = line.strip_prefix('[')?;
        let (tag, rest) = rest.split_once(']')?;
        let text = ["<stdout>:", "<stderr>:"].iter().find_map(|stream| rest.strip_prefix(stream))?;
        let (_, rank) = tag.rsplit_once(',')?;
        Some(Line::Host(rank.trim().parse().ok()?, text.strip_prefix(' ').unwrap_or(text).to_owned()))
    };
    tagged().unwrap_or_else(|| Line::Launcher(line.to_owned()))
}

/// What mpirun says when a process has failed, which the process itself has said better.
pub fn is_noise(line: &str) -> bool {
    let noise = ["---------", "mpirun detected", "MPI_ABORT", "with errorcode", "NOTE: invoking MPI_ABORT"];
    let more = ["You may or may not see", "exactly when Open MPI", "the job to be terminated", "Primary job  term"];
    let rest = ["Process name:", "Exit code:", "a non-zero exit code", "more process", "Set MCA parameter"];
    line.trim().is_empty() || noise.iter().chain(&more).chain(&rest).any(|n| line.contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_both_major_versions_are_taken_off() {
        let host = |rank, text: &str| Line::Host(rank, text.to_owned());
        assert_eq!(parse("[1,0]<stdout>:[sft] step=1/2"), host(0, "[sft] step=1/2"));
        assert_eq!(parse("[1,12]<stderr>: error: x"), host(12, "error: x"));
        assert_eq!(parse("[prterun-vm-77@1,2]<stdout>: y"), host(2, "y"));
        assert_eq!(parse("[sft] step"), Line::Launcher("[sft] step".into()));
        assert_eq!(parse("There are not enough slots"), Line::Launcher("There are not enough slots".into()));
    }

    #[test]
    fn what_mpirun_repeats_is_dropped() {
        assert!(
            is_noise("mpirun detected that one or more processes exited with non-zero status")
                && is_noise("-----------")
        );
        assert!(!is_noise("There are not enough slots available in the system"));
    }
}
