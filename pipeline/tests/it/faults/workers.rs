//! Workers of one group: started, killed, frozen and thawed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::oracle::Tail;
use crate::support::Folder;

/// How often the log is looked at: the error of every time that is reported.
const GLANCE: Duration = Duration::from_millis(20);

/// A `tamiz run` that goes on until it is told otherwise; dropped, it is killed.
pub(crate) struct Worker {
    child: Child,
    stderr: File,
}

impl Worker {
    /// Starts one with these arguments; `failpoints` as in the environment variable of that name, empty for none.
    pub(crate) fn start(folder: &Folder, arguments: &[&str], failpoints: &str) -> Worker {
        Worker::spawn(folder.tamiz(arguments), failpoints)
    }

    /// As [`Worker::start`], of a call that was prepared otherwise.
    pub(crate) fn spawn(mut command: Command, failpoints: &str) -> Worker {
        let stderr = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap());
        if !failpoints.is_empty() {
            command.env("FAILPOINTS", failpoints);
        }
        Worker {
            child: command.spawn().unwrap(),
            stderr,
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // The child has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Kills it as the system would: without a word.
    pub(crate) fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) fn ended(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "the worker did not end within {patience:?}:\n{}",
                self.said()
            );
            std::thread::sleep(GLANCE);
        }
    }

    /// What it has written to standard error.
    pub(crate) fn said(&self) -> String {
        let mut bytes = vec![0; self.stderr.metadata().unwrap().len() as usize];
        self.stderr.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// It must still be at work.
    pub(crate) fn check(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("a worker ended by itself ({status}):\n{}", self.said());
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds until the table holds all that was acknowledged before; panics, with what the workers say, when it does not.
pub(crate) fn recovery(tail: &mut Tail, ends: &BTreeMap<i32, i64>, patience: Duration, workers: &mut [Worker]) -> f64 {
    let begun = Instant::now();
    while !tail.covers(ends) {
        workers.iter_mut().for_each(Worker::check);
        if begun.elapsed() > patience {
            let said: Vec<String> = workers.iter().map(Worker::said).collect();
            panic!(
                "not recovered within {patience:?}; the workers said:\n{}",
                said.join("\n---\n")
            );
        }
        std::thread::sleep(GLANCE);
    }
    begun.elapsed().as_secs_f64()
}
