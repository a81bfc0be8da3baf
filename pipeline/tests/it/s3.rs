//! Tables in a bucket: written, killed, completed, and read back.

use std::process::Command;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;

use crate::support::posts::{PLANTED, made_up};
use crate::support::table::{check, number, rows};
use crate::support::{Folder, Running, skipped};

const POSTS: usize = 6_000;
const BUCKET: &str = "tamiz";

/// The server in TAMIZ_S3; any key is good there.
struct Server {
    endpoint: String,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn find() -> Option<Server> {
        let endpoint = std::env::var("TAMIZ_S3").ok().filter(|endpoint| !endpoint.is_empty());
        if endpoint.is_none() {
            skipped("TAMIZ_S3 names no S3 server (scripts/test starts one)");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Some(Server {
            endpoint: endpoint?,
            runtime,
        })
    }

    fn environment(&self) -> [(&str, &str); 6] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
    }

    fn tamiz(&self, folder: &Folder, arguments: &[&str]) -> Command {
        let mut command = folder.tamiz(arguments);
        command.envs(self.environment());
        command
    }

    /// Entries of the log below a prefix of the bucket.
    fn versions(&self, table: &str) -> usize {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(BUCKET)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_region("us-east-1")
            .with_allow_http(true)
            .build()
            .unwrap();
        let log = Path::from(format!("{table}/_delta_log"));
        let found: Vec<_> = self.runtime.block_on(store.list(Some(&log)).try_collect()).unwrap();
        found
            .iter()
            .filter(|file: &&object_store::ObjectMeta| file.location.as_ref().ends_with(".json"))
            .count()
    }
}

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
