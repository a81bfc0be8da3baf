//! SIGTERM and SIGINT: what was read is committed, exit code 0, and the next run goes on from there.

use std::time::Duration;

use crate::support::broker::{Broker, Topic};
use crate::support::posts::made_up;
use crate::support::table::{check, count, versions};
use crate::support::{Folder, Running, Summary};

const POSTS: usize = 30_000;

#[test]
fn sigterm_drains_and_the_next_run_goes_on() {
    drains(libc::SIGTERM);
}

#[test]
fn sigint_drains_and_the_next_run_goes_on() {
    drains(libc::SIGINT);
}

fn drains(signal: i32) {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(3, &[]);
    let feed = made_up(POSTS);
    topic.send(feed.payloads.iter().map(|payload| Some(payload.as_slice())));
    let config = config(&folder, &topic, feed.bytes() / 15);
    let posts = folder.path("posts");

    let mut run = Running::start(folder.tamiz(&["run", "--no-model", "-c", &config]));
    run.signal_when(signal, Duration::from_millis(10), |_| versions(&posts) > 3);
    let first = run.wait().done();
    let drained = first.summary();
    let (rows, dead) = counts(&folder);
    assert!(
        (drained.read as usize) < POSTS,
        "it was through before the signal came\n{first}"
    );
    assert_eq!(drained.read, drained.posts + drained.dead_letters, "{first}");
    assert_eq!(
        (drained.posts as i64, drained.dead_letters as i64),
        (rows, dead),
        "{first}"
    );

    let second = folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
        .done();
    let Summary { read, .. } = second.summary();
    assert_eq!((drained.read + read) as usize, POSTS, "{second}");
    let (rows, dead) = counts(&folder);
    assert_eq!((rows + dead) as usize, POSTS, "{second}");
    let (table, letters, rows) = (folder.text("posts"), folder.text("dead"), rows.to_string());
    check(
        &[
            &table,
            "--dead-letters",
            &letters,
            "--rows",
            &rows,
            "--distinct-ids",
            &rows,
        ],
        &[],
    );

    idle_ends_too(&folder, &config, signal);
}

/// A run that waits for messages ends as well, and commits nothing.
fn idle_ends_too(folder: &Folder, config: &str, signal: i32) {
    let before = versions(&folder.path("posts"));
    let call = folder.tamiz(&["run", "--no-model", "-c", config]);
    let mut run = Running::start(call);
    run.signal_when(signal, Duration::from_millis(500), |run| {
        run.stderr().contains("partition assigned")
    });
    let ended = run.wait().done();
    assert!(ended.took < Duration::from_secs(30), "{ended}");
    assert_eq!(ended.summary().read, 0, "{ended}");
    assert_eq!(versions(&folder.path("posts")), before, "{ended}");
}

fn config(folder: &Folder, topic: &Topic, flush_bytes: usize) -> String {
    let (posts, dead) = (folder.text("posts"), folder.text("dead"));
    let sink = format!("[sink]\nposts = \"{posts}\"\ndead_letters = \"{dead}\"\nflush_bytes = {flush_bytes}\n");
    // A slow and narrow line, so that the signal finds work in every part of it.
    folder.write(
        "tamiz.toml",
        topic.source() + &sink + "[limits]\nbatch_rows = 500\nlinger_millis = 10\n",
    )
}

fn counts(folder: &Folder) -> (i64, i64) {
    let count = |table: &str| count(folder, &folder.text(table), "count(*)");
    (count("posts"), count("dead"))
}
