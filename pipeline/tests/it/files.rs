//! `tamiz batch` over several files: killed in the middle it goes on where it stopped, run again it adds nothing, and
//! rows that were appended since are picked up.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::doors::write_parquet;
use crate::support::posts::{Feed, ids, made_up};
use crate::support::table::{number, sql, transactions, versions};
use crate::support::{Folder, Running, Summary};

/// Rows of each file at first, and rows that come later.
const ROWS: usize = 8_000;
const MORE: usize = 500;
const FILES: usize = 3;

#[test]
fn lines_resume_after_kill_and_take_up_what_was_appended() {
    let folder = Folder::new();
    let feed = made_up(FILES * ROWS + MORE);
    let lines = |from: usize, to: usize| feed.payloads[from..to].join(&b'\n');
    folder.write("in/a.jsonl", [lines(0, ROWS), b"\n".to_vec()].concat());
    folder.write(
        "in/b/b.jsonl.zst",
        zstd::encode_all(lines(ROWS, 2 * ROWS).as_slice(), 3).unwrap(),
    );
    let last = folder.write("in/c.ndjson", [lines(2 * ROWS, FILES * ROWS), b"\n".to_vec()].concat());
    interrupted(&folder);
    whole(&folder, &feed, FILES * ROWS);
    nothing_more(&folder);

    let mut file = OpenOptions::new().append(true).open(last).unwrap();
    file.write_all(&lines(FILES * ROWS, FILES * ROWS + MORE)).unwrap();
    let summary = folder.run(&call(&folder)).done().summary();
    assert_eq!(summary.read as usize, MORE);
    whole(&folder, &feed, FILES * ROWS + MORE);

    // A file that lost rows is another file: that must be told, not taken.
    folder.write("in/a.jsonl", lines(0, 10));
    let refused = folder.run(&call(&folder));
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused
            .stderr
            .contains("a.jsonl` holds 10 rows, but 8000 were already read"),
        "{refused}"
    );
    whole(&folder, &feed, FILES * ROWS + MORE);
}

#[test]
fn parquet_resumes_after_kill_and_takes_up_what_was_appended() {
    let folder = Folder::new();
    // Only what a table of columns can hold.
    let mut feed = made_up(FILES * ROWS + FILES * ROWS / 50 + MORE);
    let parsed: Vec<Value> = feed
        .payloads
        .iter()
        .filter_map(|payload| serde_json::from_slice(payload).ok())
        .collect();
    feed.payloads
        .retain(|payload| serde_json::from_slice::<Value>(payload).is_ok());
    feed.ids = parsed
        .iter()
        .map(|post| post["text"].is_string().then(|| post["id"].as_str().unwrap().into()))
        .collect();
    std::fs::create_dir(folder.path("in")).unwrap();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let rows = &parsed[number * ROWS..(number + 1) * ROWS];
        write_parquet(&folder.text(&format!("in/{name}.parquet")), rows);
    }
    interrupted(&folder);
    whole(&folder, &feed, FILES * ROWS);
    nothing_more(&folder);

    write_parquet(
        &folder.text("in/c.parquet"),
        &parsed[(FILES - 1) * ROWS..FILES * ROWS + MORE],
    );
    let summary = folder.run(&call(&folder)).done().summary();
    assert_eq!(summary.read as usize, MORE);
    whole(&folder, &feed, FILES * ROWS + MORE);
}

/// The call under test: a commit for every thousand rows.
fn call(folder: &Folder) -> [&'static str; 8] {
    if !folder.path("tamiz.toml").exists() {
        folder.write("tamiz.toml", "[sink]\nflush_bytes = 1\n[limits]\nbatch_rows = 1000\n");
    }
    [
        "batch",
        "--from",
        "in",
        "--to",
        "posts",
        "--no-model",
        "-c",
        "tamiz.toml",
    ]
}

/// Killed twice, asked to stop once, then run to its end.
fn interrupted(folder: &Folder) {
    let posts = folder.path("posts");
    for (commits, late) in [(4, 0), (10, 15)] {
        Running::start(folder.tamiz(&call(folder)))
            .kill_when(Duration::from_millis(late), |_| versions(&posts) > commits);
    }
    let mut run = Running::start(folder.tamiz(&call(folder)));
    run.signal_when(libc::SIGTERM, Duration::ZERO, |_| versions(&posts) > 15);
    let stopped = run.wait().done();
    let summary = stopped.summary();
    let Summary {
        read,
        posts,
        dead_letters,
        replayed,
        ..
    } = summary;
    assert_eq!(read, posts + dead_letters + replayed, "{stopped}");
    folder.run(&call(folder)).done();
}

/// The tables hold the first `count` payloads of the feed, each once.
fn whole(folder: &Folder, feed: &Feed, count: usize) {
    let tables = ["--no-model", "-t", "posts=posts", "-t", "dead=posts_dead_letters"];
    let rows = sql(folder, &tables, "SELECT id FROM posts");
    let found: BTreeSet<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(found.len(), rows.len(), "an id is there twice");
    let query = "SELECT count(*) AS n, count(DISTINCT topic || '#' || \"offset\") AS distinct_n FROM dead";
    let dead = &sql(folder, &tables, query)[0];
    assert_eq!(
        number(dead, "n"),
        number(dead, "distinct_n"),
        "a dead letter is there twice"
    );
    assert_eq!(found.len() + number(dead, "n") as usize, count);
    let sent = Feed {
        preset: feed.preset,
        payloads: Vec::new(),
        ids: feed.ids[..count].to_vec(),
    };
    let wanted = ids(&sent);
    assert!(found.is_subset(&wanted), "{:?}", found.difference(&wanted).next());
    // What is wanted and not found is refused: posts of blanks, of which the feed has a few.
    assert!(
        wanted.len() - found.len() <= count / 100,
        "{} of {}",
        found.len(),
        wanted.len()
    );
    let ends: i64 = transactions(&folder.path("posts"))
        .values()
        .map(|versions| versions.last().unwrap())
        .sum();
    assert_eq!(ends as usize, count);
}

/// Another run reads nothing and commits nothing.
fn nothing_more(folder: &Folder) {
    let before = versions(&folder.path("posts"));
    let again = folder.run(&call(folder)).done();
    assert_eq!(
        (again.summary().read, versions(&folder.path("posts"))),
        (0, before),
        "{again}"
    );
}
