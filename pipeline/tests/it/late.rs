//! Late posts are kept and marked, and marked alike whoever reads them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::table::{count, sql, versions};
use crate::support::{Folder, Running};

const POSTS: usize = 20_000;
/// 2026-01-02T03:04:05Z.
const WRITTEN: i64 = 1_767_323_045;
const LIMIT: i64 = 3_600;

/// Posts that arrived from an hour before to two hours after they were written; a few say nothing of it.
fn payloads() -> Vec<Vec<u8>> {
    let post = |at: usize| {
        let late = (at as i64 * 37) % (3 * LIMIT) - LIMIT;
        let mut post = json!({"id": at.to_string(), "source": "test", "created_at": WRITTEN, "text": format!("the text of number {at}"),
            "received_at": WRITTEN + late});
        if at % 100 == 7 {
            post["received_at"] = Value::Null;
        }
        post.to_string().into_bytes()
    };
    (0..POSTS).map(post).collect()
}

fn marks(folder: &Folder, table: &str) -> Vec<Value> {
    let named = format!("t={table}");
    // Kafka says of the others when they arrived; a file does not.
    let query =
        format!("SELECT id, late FROM t WHERE CAST(id AS INT) % 100 <> 7 ORDER BY CAST(id AS INT) LIMIT {POSTS}");
    sql(folder, &["--no-model", "-t", &named], &query)
}

#[test]
fn late_posts_are_marked_alike_by_a_batch_and_by_a_stream_that_was_killed() {
    let folder = Folder::new();
    let payloads = payloads();
    folder.write("posts.jsonl", payloads.join(&b'\n'));
    let late = format!("[late]\nseconds = {LIMIT}\n");
    let config = folder.write("batch.toml", &late);
    folder
        .run(&[
            "batch",
            "--from",
            "posts.jsonl",
            "--to",
            "batch",
            "--no-model",
            "-c",
            &config,
        ])
        .done();
    let batch = marks(&folder, "batch");
    assert_eq!(count(&folder, "batch", "count(*)"), POSTS as i64, "none is dropped");
    for (row, at) in batch.iter().zip((0..POSTS).filter(|at| at % 100 != 7)) {
        let expected = (at as i64 * 37) % (3 * LIMIT) - LIMIT > LIMIT;
        assert_eq!(row, &json!({"id": at.to_string(), "late": expected}));
    }
    assert_eq!(
        count(&folder, "batch", "count(*) FILTER (WHERE late IS NULL)"),
        POSTS as i64 / 100
    );

    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(2, &[]);
    topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
    let flush = payloads.iter().map(Vec::len).sum::<usize>() / 10;
    let rest = format!(
        "[sink]\nposts = \"stream\"\ndead_letters = \"dead\"\nflush_bytes = {flush}\n[limits]\nbatch_bytes = {}\n",
        flush / 2
    );
    let config = folder.write("stream.toml", topic.source_of_mortals() + &late + &rest);
    let call = ["run", "--until-caught-up", "--no-model", "-c", &config];
    let table = folder.path("stream");
    Running::start(folder.tamiz(&call)).kill_when(Duration::from_millis(10), |_| versions(&table) > 3);
    folder.run(&call).done();
    assert_eq!(marks(&folder, "stream"), batch);
    // Long after it was written, by Kafka's clock.
    assert_eq!(count(&folder, "stream", "count(*) FILTER (WHERE late IS NULL)"), 0);
    let told = "count(*) FILTER (WHERE late AND CAST(id AS INT) % 100 = 7)";
    assert_eq!(count(&folder, "stream", told), POSTS as i64 / 100);
}
