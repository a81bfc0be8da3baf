//! A disk that fills up: the run says so, the table stays whole, and with more room the next run completes it.

use std::time::Duration;

use crate::support::disk::Disk;
use crate::support::posts::made_up;
use crate::support::table::{count, versions};
use crate::support::{Folder, skipped};

const POSTS: usize = 40_000;

#[test]
fn a_full_disk_leaves_a_whole_table_and_a_rerun_completes_it() {
    let folder = Folder::new();
    let Some(disk) = Disk::at(folder.path("disk"), "1500k") else {
        return skipped("a small disk can only be mounted as root");
    };
    let feed = made_up(POSTS);
    folder.write("posts.jsonl", feed.payloads.join(&b'\n'));
    folder.write("tamiz.toml", "[sink]\nflush_bytes = 1\n[limits]\nbatch_rows = 1000\n");
    let call = [
        "batch",
        "--from",
        "posts.jsonl",
        "--to",
        "disk/posts",
        "--no-model",
        "-c",
        "tamiz.toml",
    ];
    let full = folder.run(&call);
    assert_eq!(full.status.code(), Some(1), "{full}");
    let own: Vec<&str> = full.stderr.lines().filter(|line| line.starts_with("tamiz: ")).collect();
    assert!(
        matches!(own[..], [line] if line.contains("no space left") && line.contains("disk/posts")),
        "{full}"
    );
    assert!(
        !full.stderr.contains("panicked") && full.took < Duration::from_secs(60),
        "{full}"
    );
    // Some commits went in, and each of them is whole.
    let summary = full.summary();
    assert!(versions(&folder.path("disk/posts")) > 1 && summary.posts > 0, "{full}");
    let rows = count(&folder, "disk/posts", "count(*)");
    assert_eq!(rows, count(&folder, "disk/posts", "count(DISTINCT id)"));
    assert!(
        rows >= summary.posts as i64 && rows < POSTS as i64,
        "{rows} rows; {full}"
    );
    let again = folder.run(&call);
    assert_eq!(again.status.code(), Some(1), "{again}");

    disk.grow("64m");
    folder.run(&call).done();
    let rows = count(&folder, "disk/posts", "count(*)");
    assert_eq!(rows, count(&folder, "disk/posts", "count(DISTINCT id)"));
    assert_eq!(
        rows + count(&folder, "disk/posts_dead_letters", "count(*)"),
        POSTS as i64
    );
}
