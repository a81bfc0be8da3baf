//! Left-overs of staging on the local file system: `name#digits`, a file that a crash kept from getting its name.
//!
//! Object stores have none, and listings of the local store leave them out: only a walk through the folder finds them.
//! Tables in folders below have theirs cleared away by themselves.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};

use super::aside;
use crate::table::error::TableError;
use crate::table::store::Location;

/// A file that never got its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leftover {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Left-overs of the table that are at least `age` old.
///
/// # Errors
/// A folder that cannot be read.
pub(super) async fn find(location: &Location, age: Duration) -> Result<Vec<Leftover>, TableError> {
    let Some(folder) = location.folder().map(FilePath::to_owned) else {
        return Ok(Vec::new());
    };
    let found = tokio::task::spawn_blocking(move || walk(&folder, age)).await;
    let found = found.unwrap_or_else(|_| Err(io::Error::other("the walk panicked")));
    found.map_err(|e| TableError::of("list", &location.address, e))
}

/// Removes them; one that is gone already is as good.
pub(super) async fn remove(location: &Location, leftovers: &[Leftover]) -> Result<(), TableError> {
    let paths: Vec<PathBuf> = leftovers.iter().map(|leftover| leftover.path.clone()).collect();
    let removed =
        tokio::task::spawn_blocking(move || paths.iter().try_for_each(|path| absent_is_fine(fs::remove_file(path))));
    let removed = removed
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the removal panicked")));
    removed.map_err(|e| TableError::of("delete files of", &location.address, e))
}

/// Removes the folders of partitions that hold nothing any more. A writer that needs one makes it again.
pub(super) async fn remove_empty_folders(location: &Location) {
    let Some(folder) = location.folder().map(FilePath::to_owned) else {
        return;
    };
    // A folder that stays does no harm.
    let _ = tokio::task::spawn_blocking(move || {
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().contains('=') {
                prune(&entry.path());
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// From the bottom up; `remove_dir` refuses a folder that holds anything.
fn prune(folder: &FilePath) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        prune(&entry.path());
    }
    let _ = fs::remove_dir(folder);
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn walk(root: &FilePath, age: Duration) -> io::Result<Vec<Leftover>> {
    let now = SystemTime::now();
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if is_another_table(root, &folder) {
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Somebody removes empty folders meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_leftover(&entry.file_name().to_string_lossy()) {
                let Ok(metadata) = entry.metadata() else { continue };
                let written = metadata.modified().unwrap_or(now);
                if now.duration_since(written).unwrap_or_default() >= age {
                    found.push(Leftover {
                        path: entry.path(),
                        bytes: metadata.len(),
                    });
                }
            }
        }
    }
    Ok(found)
}

/// A folder below with a log, unless that log was set aside.
fn is_another_table(root: &FilePath, folder: &FilePath) -> bool {
    folder != root && !folder.starts_with(root.join(aside::FOLDER)) && folder.join("_delta_log").is_dir()
}

/// `#` and digits at the end.
fn is_leftover(name: &str) -> bool {
    let digits = name.rsplit_once('#').map_or("", |(_, digits)| digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::is_leftover;

    #[test]
    fn only_a_hash_and_digits_at_the_end_mark_a_leftover() {
        assert!(is_leftover("part-0.zstd.parquet#17") && is_leftover("00000000000000000001.json#0"));
        for name in ["part-0.zstd.parquet", "a#1.parquet", "a#", "a#1b", "#"] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
