//! A model that fails in the middle of a job: rows that it cannot do are dead letters, a device that is gone ends the job.

use serde_json::json;
use tamiz_model::testing::tiny_checkpoint;

use crate::support::table::{number, sql};
use crate::support::{Ended, Folder, Running};

const POSTS: usize = 300;
/// Every so many-th text is too long for what memory there is.
const LONG: usize = 25;

/// A batch of posts with a tiny model, on which each forward pass goes by `failure`.
fn run(folder: &Folder, failure: &str) -> Ended {
    tiny_checkpoint(&folder.path("model")).unwrap();
    let text = |at: usize| match at % LONG {
        0 => "the market fell today ".repeat(20) + &at.to_string(),
        _ => format!("the team played well {at}"),
    };
    let post = |at: usize| json!({"id": at, "source": "test", "created_at": "2026-01-02T03:04:05Z", "text": text(at)});
    let lines: Vec<String> = (0..POSTS).map(|at| post(at).to_string()).collect();
    folder.write("posts.jsonl", lines.join("\n"));
    let arguments = [
        "batch",
        "--from",
        "posts.jsonl",
        "--to",
        "posts",
        "--model",
        "model",
        "--device",
        "cpu",
    ];
    let mut command = folder.tamiz(&arguments);
    command.env("FAILPOINTS", format!("model::forward=return({failure})"));
    Running::start(command).wait()
}

#[test]
fn rows_that_memory_does_not_suffice_for_are_dead_letters_and_all_others_are_scored() {
    let folder = Folder::new();
    // A long text has 32 tokens, which is all that the model reads.
    let ended = run(&folder, "memory>30").done();
    let summary = ended.summary();
    assert_eq!(
        (summary.posts as usize, summary.dead_letters as usize),
        (POSTS - POSTS / LONG, POSTS / LONG),
        "{ended}"
    );
    assert!(
        !ended.stderr.contains("panicked") && ended.stderr.contains("ran out of memory"),
        "{ended}"
    );
    let tables = ["--no-model", "-t", "posts=posts", "-t", "dead=posts_dead_letters"];
    let scored =
        "SELECT count(*) AS n FROM posts WHERE sentiment['label'] IS NOT NULL AND n_tokens > 0 AND model <> ''";
    assert_eq!(
        number(&sql(&folder, &tables, scored)[0], "n") as usize,
        POSTS - POSTS / LONG
    );
    let letters = sql(
        &folder,
        &tables,
        "SELECT \"offset\" AS o, stage, reason, detail FROM dead ORDER BY 1",
    );
    for (at, letter) in letters.iter().enumerate() {
        assert_eq!(number(letter, "o") as usize, at * LONG);
        assert_eq!(
            (&letter["stage"], &letter["reason"]),
            (&json!("score"), &json!("model_failed"))
        );
        assert!(letter["detail"].as_str().unwrap().contains("out of memory"), "{letter}");
    }
}

#[test]
fn a_device_that_is_gone_ends_the_job_and_commits_nothing() {
    let folder = Folder::new();
    for failure in ["device", "memory>1"] {
        let ended = run(&folder, failure);
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        for words in ["could not score a batch", "look at the device"] {
            assert!(ended.stderr.contains(words), "{ended}");
        }
        assert!(!ended.stderr.contains("panicked"), "{ended}");
        let rows = sql(&folder, &["--no-model", "-t", "t=posts"], "SELECT count(*) AS n FROM t");
        assert_eq!(number(&rows[0], "n"), 0);
    }
}
