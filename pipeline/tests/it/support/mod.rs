//! What every test needs: a folder, calls of the binary with a time limit, and what became of them.

pub(crate) mod broker;
pub(crate) mod bucket;
pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod observed;
pub(crate) mod posts;
pub(crate) mod secure;
pub(crate) mod table;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// No call takes longer than this on two busy cores.
const LIMIT: Duration = Duration::from_secs(150);
/// How often a running call is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Says on the terminal, past the test harness's capture, that a test does nothing here.
pub(crate) fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::io::stderr()
        .write_all(format!("skipped: {name}: {why}\n").as_bytes())
        .unwrap();
}

/// The folder with the public data sets, where there is one.
pub(crate) fn data() -> Option<PathBuf> {
    std::env::var_os("TAMIZ_DATA").map(PathBuf::from)
}

/// The root of the repository, as cargo says when it runs this: clones may share what is compiled.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    here.parent().unwrap().to_owned()
}

/// A folder of one test; it goes with the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(TempDir::with_prefix("tamiz-it-").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as text, for arguments and configurations.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, its folders included.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.text(name)
    }

    /// A call of the binary from here, with a key for pseudonyms and without what the caller's environment would change.
    pub(crate) fn tamiz(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tamiz"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TAMIZ_") || name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("TAMIZ_PII_KEY", "00112233445566778899aabbccddeeff");
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Running::start(self.tamiz(arguments)).wait()
    }
}

/// A call under way. Its output goes to files, so that it never waits for a reader; dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    shown: String,
    stdout: File,
    stderr: File,
    started: Instant,
    peak_bytes: u64,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap());
        Running {
            shown: format!("{:?}", command.get_args().collect::<Vec<_>>()),
            child: command.spawn().unwrap(),
            stdout,
            stderr,
            started: Instant::now(),
            peak_bytes: 0,
        }
    }

    /// Waits for the end. A call that takes too long is killed and fails the test.
    pub(crate) fn wait(mut self) -> Ended {
        loop {
            if let Some(status) = self.glance() {
                return self.ended(status);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Sends `signal` as soon as `ready`, and `late` after that. Fails where the call ends by itself before.
    pub(crate) fn signal_when(&mut self, signal: i32, late: Duration, ready: impl FnMut(&Running) -> bool) {
        self.wait_for(ready);
        std::thread::sleep(late);
        // The child has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until it is `ready`. Fails where the call ends by itself before.
    pub(crate) fn wait_for(&mut self, mut ready: impl FnMut(&Running) -> bool) {
        while !ready(self) {
            if let Some(status) = self.glance() {
                panic!("{} ended ({status}) too early:\n{}", self.shown, text(&self.stderr));
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Kills the call as soon as `ready`, and `late` after that.
    pub(crate) fn kill_when(mut self, late: Duration, ready: impl FnMut(&Running) -> bool) -> Ended {
        self.signal_when(libc::SIGKILL, late, ready);
        let ended = self.wait();
        assert_eq!(ended.status.signal(), Some(libc::SIGKILL), "{ended}");
        ended
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    fn glance(&mut self) -> Option<ExitStatus> {
        let peak = peak_bytes(self.child.id()).unwrap_or(0);
        self.peak_bytes = self.peak_bytes.max(peak);
        let status = self.child.try_wait().unwrap();
        if status.is_none() && self.started.elapsed() > LIMIT {
            panic!("{} did not end within {LIMIT:?}:\n{}", self.shown, text(&self.stderr));
        }
        status
    }

    fn ended(&self, status: ExitStatus) -> Ended {
        Ended {
            call: self.shown.clone(),
            status,
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            took: self.started.elapsed(),
            peak_bytes: self.peak_bytes,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where the call has ended, which is how most go.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The most memory that a process has held so far.
fn peak_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// What became of a call.
pub(crate) struct Ended {
    call: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    pub(crate) peak_bytes: u64,
}

/// What a run says of itself at its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) read: u64,
    pub(crate) posts: u64,
    pub(crate) dead_letters: u64,
    pub(crate) ignored: u64,
    /// Dead letters that the table held already: their commit went in before the kill, that of the posts did not.
    pub(crate) replayed: u64,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Ended { call, status, took, .. } = self;
        write!(
            f,
            "tamiz {call}: {status} after {took:?}; standard error:\n{}",
            self.stderr
        )
    }
}

impl Ended {
    /// Exit code 0, or the test fails.
    pub(crate) fn done(self) -> Ended {
        assert_eq!(self.status.code(), Some(0), "{self}");
        self
    }

    /// The call was refused as it should be: with this code, and a few lines that hold these words and no panic.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not told\n{self}");
        }
        for never in [
            "panicked",
            "RUST_BACKTRACE",
            "stack backtrace",
            "DataFusionError",
            "Error {",
            "Err(",
        ] {
            assert!(!self.stderr.contains(never), "{self}");
        }
        let own: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("tamiz: ")).collect();
        // A mistake in a file is shown with its line, which takes five.
        assert!(
            (1..=5).contains(&own.len()) && self.stderr.lines().count() <= 7,
            "{self}"
        );
        assert!(own.iter().all(|line| line.len() < 600), "{self}");
    }

    /// The figures of the last line `read … rows in …`.
    pub(crate) fn summary(&self) -> Summary {
        let number = |line: &str, before: &str| -> u64 {
            let word = line.split(before).next().unwrap().split(' ').next_back().unwrap();
            word.parse()
                .unwrap_or_else(|_| panic!("no figure before `{before}` in `{line}`\n{self}"))
        };
        let line = self
            .stderr
            .lines()
            .rfind(|line| line.starts_with("read ") && line.contains(" rows in "));
        let line = line.unwrap_or_else(|| panic!("no summary\n{self}"));
        let other = |what: &str| {
            let found = self.stderr.lines().find_map(|line| line.trim().strip_prefix(what));
            found.map_or(0, |count| count.parse().unwrap())
        };
        Summary {
            read: number(line, " rows in "),
            posts: number(line, " posts and "),
            dead_letters: number(line, " dead letters in "),
            ignored: other("counted, not stored: "),
            replayed: other("already in the table: "),
        }
    }
}
