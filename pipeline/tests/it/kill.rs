//! SIGKILL in the middle of a stream: nothing is lost, nothing is there twice, and the table knows where to go on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::broker::{Broker, Place, Topic};
use crate::support::posts::{Feed, PLANTED, addresses, feed, made_up};
use crate::support::table::{check, count, number, sql, transactions, versions};
use crate::support::{Folder, Running};

const POSTS: usize = 100_000;
const PARTITIONS: i32 = 4;

#[test]
fn a_stream_killed_three_times_keeps_every_post_once() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let feed = feed(POSTS);
    let topic = broker.topic(PARTITIONS, &[]);
    let places = topic.send(feed.payloads.iter().map(|payload| Some(payload.as_slice())));
    // About forty commits in all.
    let flush = feed.bytes() / 40;
    let source = topic.source_of_mortals();
    let config = config(&folder, source, feed.preset, &limits(flush, flush / 2));
    let call = ["run", "--until-caught-up", "--no-model", "-c", &config];
    // Later and later after a commit, so that staging, dead letters and posts are met alike.
    for (commits, late) in [(5, 0), (14, 30), (25, 75)] {
        let posts = folder.path("posts");
        Running::start(folder.tamiz(&call)).kill_when(Duration::from_millis(late), |_| versions(&posts) > commits);
    }
    folder.run(&call).done();
    each_once(&folder, &topic, &feed, &places);
    // Caught up: another run finds nothing to do.
    let before = versions(&folder.path("posts"));
    let summary = folder.run(&call).done().summary();
    assert_eq!((summary.read, versions(&folder.path("posts"))), (0, before));
}

#[test]
fn a_scored_stream_killed_once_has_every_score() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(2, &[]);
    let feed = made_up(2_000);
    let file = folder.write("posts.jsonl", feed.payloads.join(&b'\n'));
    let config = config(
        &folder,
        topic.source_by_new_protocol(),
        feed.preset,
        &(limits(1, 100_000) + "batch_rows = 200\n"),
    );
    folder
        .run(&["produce", "--topic", &topic.name, &file, "-c", &config])
        .done();
    let call = ["run", "--until-caught-up", "-c", &config];
    let posts = folder.path("posts");
    Running::start(folder.tamiz(&call)).kill_when(Duration::from_millis(20), |_| versions(&posts) > 3);
    folder.run(&call).done();
    let table = folder.text("posts");
    let rows = count(&folder, &table, "count(*)");
    let dead = count(&folder, &folder.text("dead"), "count(*)");
    assert_eq!(rows + dead, feed.payloads.len() as i64);
    let scored = "count(*) FILTER (WHERE sentiment['label'] IS NOT NULL AND topic['confidence'] > 0 AND n_tokens > 0)";
    assert_eq!(count(&folder, &table, scored), rows);
    assert_eq!(count(&folder, &table, "count(DISTINCT model)"), 1);
    read_by_others(&folder, rows);
    ends_match(&folder, &topic);
}

/// The configuration of a stream into `posts` and `dead` of the folder.
fn config(folder: &Folder, source: String, preset: &str, limits: &str) -> String {
    let sink = format!(
        "[sink]\nposts = \"{}\"\ndead_letters = \"{}\"\n",
        folder.text("posts"),
        folder.text("dead")
    );
    let input = format!("[input]\npreset = \"{preset}\"\n");
    let text = source + &input + &sink + limits;
    folder.write("tamiz.toml", text)
}

/// The rest of `[sink]`, and the beginning of `[limits]`.
fn limits(flush_bytes: usize, batch_bytes: usize) -> String {
    format!("flush_bytes = {flush_bytes}\n[limits]\nbatch_bytes = {batch_bytes}\n")
}

/// Every acknowledged message is one row of one of the two tables, in its place, and the tables know where they are.
fn each_once(folder: &Folder, topic: &Topic, feed: &Feed, places: &[Place]) {
    let (posts, dead) = (
        format!("posts={}", folder.text("posts")),
        format!("dead={}", folder.text("dead")),
    );
    let tables = ["--no-model", "-t", &posts, "-t", &dead];
    let place = |row: &serde_json::Value| (number(row, "p") as i32, number(row, "o"));
    let query = "SELECT id, kafka['partition'] AS p, kafka['offset'] AS o FROM posts";
    let rows = sql(folder, &tables, query);
    let kept: BTreeMap<Place, &str> = rows
        .iter()
        .map(|row| (place(row), row["id"].as_str().unwrap()))
        .collect();
    let query = "SELECT reason, \"partition\" AS p, \"offset\" AS o FROM dead";
    let letters = sql(folder, &tables, query);
    let refused: BTreeMap<Place, &str> = letters
        .iter()
        .map(|row| (place(row), row["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        (kept.len(), refused.len()),
        (rows.len(), letters.len()),
        "an offset is there twice"
    );
    assert_eq!(kept.len() + refused.len(), feed.payloads.len());
    for (place, id) in places.iter().zip(&feed.ids) {
        match (kept.get(place), id) {
            (Some(kept), Some(sent)) => assert_eq!(kept, sent, "{place:?}"),
            (Some(kept), None) => panic!("the broken payload at {place:?} became post {kept}"),
            (None, _) => assert!(refused.contains_key(place), "{place:?} is in neither table"),
        }
    }
    // A text of which nothing is left is refused too; more than a handful would mean that something else is wrong.
    assert!(
        (0..=feed.payloads.len() / 100).contains(&(refused.len() - feed.broken())),
        "{} refused",
        refused.len()
    );
    let masked = count(
        folder,
        &folder.text("posts"),
        "count(*) FILTER (WHERE starts_with(text, 'write to [EMAIL]'))",
    );
    assert_eq!(masked, addresses(feed) as i64);
    read_by_others(folder, kept.len() as i64);
    ends_match(folder, topic);
}

/// deltalake, pyarrow and DuckDB see the same, and find no planted address in any byte.
fn read_by_others(folder: &Folder, rows: i64) {
    let (posts, dead, rows) = (folder.text("posts"), folder.text("dead"), rows.to_string());
    let known = [
        posts.as_str(),
        "--dead-letters",
        &dead,
        "--rows",
        &rows,
        "--distinct-ids",
        &rows,
        "--absent",
        PLANTED,
    ];
    let report = check(&known, &[]);
    assert!(report["scanned"]["bytes"].as_i64().unwrap() > 100_000, "{report:#}");
}

/// The posts table's transactions only grow, and end where the topic ends.
fn ends_match(folder: &Folder, topic: &Topic) {
    let transactions = transactions(&folder.path("posts"));
    let ends = topic.ends();
    let filled = ends.iter().enumerate().filter(|(_, end)| **end > 0);
    assert_eq!(transactions.len(), filled.clone().count(), "{:?}", transactions.keys());
    for (partition, end) in filled {
        let ending = format!("/{}/{partition}", topic.name);
        let found = transactions.iter().find(|(id, _)| id.ends_with(&ending));
        let (id, versions) = found.unwrap_or_else(|| panic!("no transaction {ending}"));
        assert!(id.starts_with("tamiz/") && versions.is_sorted(), "{id}: {versions:?}");
        assert_eq!(versions.last(), Some(end), "{id}");
    }
}
