//! Tables in a bucket: written, killed, completed, and read back.

use std::time::Duration;

use crate::support::bucket::{BUCKET, Server};
use crate::support::posts::{PLANTED, made_up};
use crate::support::table::{check, number, rows};
use crate::support::{Folder, Running};

const POSTS: usize = 6_000;

#[test]
fn a_batch_into_a_bucket_resumes_after_kill_and_is_read_back() {
    let Some(server) = Server::find() else { return };
    let folder = Folder::new();
    let feed = made_up(POSTS);
    folder.write("posts.jsonl", feed.payloads.join(&b'\n'));
    folder.write("tamiz.toml", "[sink]\nflush_bytes = 1\n[limits]\nbatch_rows = 500\n");
    let below = format!("it-{}", uuid::Uuid::new_v4());
    let (posts, dead) = (
        format!("s3://{BUCKET}/{below}/posts"),
        format!("s3://{BUCKET}/{below}/posts_dead_letters"),
    );
    let call = [
        "batch",
        "--from",
        "posts.jsonl",
        "--to",
        &posts,
        "--no-model",
        "-c",
        "tamiz.toml",
    ];
    Running::start(server.tamiz(&folder, &call)).kill_when(Duration::from_millis(40), |_| {
        server.versions(&format!("{below}/posts")) > 3
    });
    let done = Running::start(server.tamiz(&folder, &call)).wait().done();
    assert!((done.summary().read as usize) < POSTS, "it began anew\n{done}");
    let again = Running::start(server.tamiz(&folder, &call)).wait().done();
    assert_eq!(again.summary().read, 0, "{again}");

    let (t, d) = (format!("t={posts}"), format!("d={dead}"));
    let query = "SELECT count(*) AS n, count(DISTINCT id) AS ids, (SELECT count(*) FROM d) AS dead FROM t";
    let arguments = ["sql", "--no-model", "--format", "json", "-t", &t, "-t", &d, query];
    let answer = &rows(server.tamiz(&folder, &arguments))[0];
    assert_eq!(number(answer, "n"), number(answer, "ids"));
    assert_eq!((number(answer, "n") + number(answer, "dead")) as usize, POSTS);
    let count = number(answer, "n").to_string();
    let known = [
        posts.as_str(),
        "--rows",
        &count,
        "--distinct-ids",
        &count,
        "--absent",
        PLANTED,
    ];
    let options = ["--dead-letters", &dead, "--option", "AWS_ALLOW_HTTP=true"];
    check(&[&known[..], &options[..]].concat(), &server.environment());
}

#[test]
fn a_missing_bucket_and_plain_http_are_told() {
    let Some(server) = Server::find() else { return };
    let folder = Folder::new();
    folder.write("posts.jsonl", made_up(10).payloads.join(&b'\n'));
    let call = [
        "batch",
        "--from",
        "posts.jsonl",
        "--to",
        "s3://no-such-bucket-here/posts",
        "--no-model",
    ];
    let missing = Running::start(server.tamiz(&folder, &call)).wait();
    missing.refused(1, &["s3://no-such-bucket-here/posts", "no such bucket", "create it"]);
    let mut plain = server.tamiz(
        &folder,
        &["batch", "--from", "posts.jsonl", "--to", "s3://tamiz/x", "--no-model"],
    );
    plain.env_remove("AWS_ALLOW_HTTP");
    Running::start(plain).wait().refused(1, &["plain HTTP", "use https"]);
}
