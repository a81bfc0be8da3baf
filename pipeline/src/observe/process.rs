//! What Linux tells of this process, under the names that dashboards know. Elsewhere nothing is told.

use std::time::{SystemTime, UNIX_EPOCH};

/// `USER_HZ`: what `/proc` counts processor time in, on every architecture since Linux 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of the process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// Seconds of all processors, user and system.
    pub(super) cpu_seconds: Option<f64>,
    /// Memory that it holds.
    pub(super) resident_bytes: Option<u64>,
    /// Files, sockets and pipes.
    pub(super) open_files: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Process {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        Process {
            cpu_seconds: read("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: read("status").as_deref().and_then(resident_bytes),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64),
        }
    }
}

/// The moment, for `process_start_time_seconds`.
pub(super) fn seconds_now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Fields 14 and 15 of proc(5); the second field, a name in parentheses, may hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (x"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        assert_eq!(resident_bytes("VmRSS:\t  12 kB\n"), Some(12 * 1024));
        assert!(Process::now().resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
