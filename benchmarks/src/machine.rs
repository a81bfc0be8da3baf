//! Where and of what a measurement was made, and what a process used. Linux only: all of it stands in `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::folder;

/// Versions of these packages are kept with the figures.
const PACKAGES: [&str; 8] = [
    "arrow",
    "criterion",
    "datafusion",
    "deltalake-core",
    "parquet",
    "rdkafka",
    "tch",
    "tokenizers",
];

/// The kernel counts processor time in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Machine, commit and versions.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// UTC, RFC 3339.
    pub date: String,
    /// As the kernel names it.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Installed memory.
    pub memory_bytes: u64,
    /// Load average of the minute before; what exceeds 0 ran alongside.
    pub load_before: f64,
    /// Commit of the source tree; `+` at the end where files differ from it.
    pub commit: String,
    /// The cargo profile's flags that matter.
    pub profile: &'static str,
    /// Versions from `Cargo.lock`.
    pub versions: BTreeMap<String, String>,
}

impl Machine {
    /// Of this process.
    ///
    /// # Errors
    /// `/proc` or `Cargo.lock` cannot be read.
    pub fn here(date: String) -> Result<Self> {
        let first = |text: String, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = first(read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let load = read("/proc/loadavg")?;
        Ok(Machine {
            date,
            processor: first(read("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib * 1024,
            load_before: load.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
            commit: commit(),
            profile: if cfg!(debug_assertions) {
                "dev (optimised, with debug assertions and overflow checks)"
            } else {
                "release"
            },
            versions: versions()?,
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// The benchmarks' own results do not count as a difference.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let out = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":!benchmarks/results",
        ":!*.md",
    ]);
    let mark = if changed.is_none_or(|changed| changed.is_empty()) {
        ""
    } else {
        "+"
    };
    commit + mark
}

fn root() -> PathBuf {
    folder().join("..")
}

fn versions() -> Result<BTreeMap<String, String>> {
    let lock = read(root().join("Cargo.lock"))?;
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches([' ', '=', '"']).to_owned());
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let (name, version) = (value(pair[0], "name")?, value(pair[1], "version")?);
        PACKAGES.contains(&name.as_str()).then_some((name, version))
    });
    Ok(pairs.collect())
}

/// Processor time so far: of this process, and of the whole machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Seconds of this process, over all threads.
    pub own_seconds: f64,
    /// Seconds of all processes, the kernel's among them.
    pub all_seconds: f64,
}

impl Processor {
    /// Until now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now() -> Result<Self> {
        let own = read("/proc/self/stat")?;
        // The second field, the program's name in brackets, may hold blanks; the times are the 12th and 13th after it.
        let fields = own.rsplit_once(')').map_or("", |(_, rest)| rest);
        let all = read("/proc/stat")?;
        // user, nice, system, idle, iowait, irq, softirq, steal
        let all: Vec<f64> = numbers(all.lines().next().unwrap_or_default());
        let busy = all
            .iter()
            .enumerate()
            .filter(|(place, _)| ![3, 4].contains(place) && *place < 8);
        Ok(Processor {
            own_seconds: fields
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|one| one.parse::<f64>().ok())
                .sum::<f64>()
                / TICKS_PER_SECOND,
            all_seconds: busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SECOND,
        })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Processor) -> Processor {
        Processor {
            own_seconds: self.own_seconds - earlier.own_seconds,
            all_seconds: self.all_seconds - earlier.all_seconds,
        }
    }
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter_map(|one| one.parse().ok()).collect()
}

/// The most memory that this process has held so far.
///
/// # Errors
/// `/proc` cannot be read.
pub fn peak_memory_bytes() -> Result<u64> {
    let status = read("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).context("`/proc/self/status` holds no VmHWM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = Machine::here("now".into()).unwrap();
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert_eq!(machine.versions.len(), PACKAGES.len(), "{:?}", machine.versions);
    }

    #[test]
    fn a_process_uses_no_more_than_the_machine() {
        let before = Processor::now().unwrap();
        let mut x = 1_u64;
        while Processor::now().unwrap().since(before).own_seconds < 0.05 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let used = Processor::now().unwrap().since(before);
        // Both are rounded to ticks, and read one after the other.
        assert!(used.all_seconds + 0.05 >= used.own_seconds, "{used:?} {x}");
        assert!(peak_memory_bytes().unwrap() > 1 << 20);
    }
}
