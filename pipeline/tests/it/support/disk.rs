//! A small disk in memory.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Mounted while the value lives.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None` where mounting is not allowed.
    pub(crate) fn at(folder: PathBuf, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(&folder).unwrap();
        let disk = Disk(folder);
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tamiz-test"])
            .then_some(disk)
    }

    pub(crate) fn grow(&self, size: &str) {
        assert!(self.mount(&["-o", &format!("remount,size={size}")]));
    }

    /// Leaves no room; the file that takes it.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.0.join(".balloon");
        let mut file = std::fs::File::create(&path).unwrap();
        let air = vec![0; 1 << 16];
        while file.write_all(&air).is_ok() {}
        path
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mounted = Command::new("mount").args(arguments).arg(&self.0).output();
        mounted.is_ok_and(|mounted| mounted.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What stays mounted is small, and a failing test should say its own reason.
        let _ = Command::new("umount").arg(&self.0).output();
    }
}
