//! Tables in a bucket: workers that are killed, two writers at once, commits whose outcome is unknown.

use std::time::Duration;

use serde_json::json;

use super::load::{Feed, Load};
use super::oracle::compare;
use super::workers::Worker;
use super::{PARTITIONS, PATIENCE, report, times};
use crate::support::broker::Broker;
use crate::support::bucket::{BUCKET, Server};
use crate::support::table::rows;
use crate::support::{Folder, Running, skipped};

/// One commit in ten is not written, one in ten is written without the writer learning of it.
const FAILING: &str = "log_write_fails=10%return;log_answer_lost=10%return";

#[test]
fn a_table_in_a_bucket_loses_and_doubles_nothing() {
    let (Some(broker), Some(server)) = (Broker::find(), Server::find()) else {
        return;
    };
    if !cfg!(feature = "failpoints") {
        return skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let (topic, folder) = (broker.topic(PARTITIONS, &[]), Folder::new());
    let below = format!("it-{}", uuid::Uuid::new_v4());
    let [posts, dead] = ["posts", "dead"].map(|table| format!("s3://{BUCKET}/{below}/{table}"));
    let config = folder.write(
        "tamiz.toml",
        topic.source_of_mortals()
            + &format!("[sink]\nposts = \"{posts}\"\ndead_letters = \"{dead}\"\nflush_seconds = 0.25\n")
            + "[limits]\nlinger_millis = 20\nbatch_rows = 256\n",
    );
    let call = ["run", "--no-model", "-c", &config];
    let feed = Feed {
        rate: 200,
        poison: false,
    };
    let load = Load::start(&broker.servers, &topic.name, PARTITIONS, feed);
    let kills = times(2, 20);
    for _ in 0..kills {
        let before = server.versions(&format!("{below}/posts"));
        let [mut stays, dies] = [(); 2].map(|()| Worker::spawn(server.tamiz(&folder, &call), FAILING));
        let until = std::time::Instant::now() + PATIENCE;
        while server.versions(&format!("{below}/posts")) < before + 3 {
            assert!(std::time::Instant::now() < until, "no commits:\n{}", stays.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(rand::random_range(0..700)));
        dies.kill();
        stays.signal(libc::SIGTERM);
        let status = stays.ended(PATIENCE);
        assert!(status.success(), "{status}:\n{}", stays.said());
    }
    let acknowledged = load.finish();
    let rest = [&call[..], &["--until-caught-up"]].concat();
    let mut last = server.tamiz(&folder, &rest);
    last.env("FAILPOINTS", FAILING);
    Running::start(last).wait().done();

    let query = |table: &str, query: &str| {
        let named = format!("t={table}");
        rows(server.tamiz(&folder, &["sql", "--no-model", "--format", "json", "-t", &named, query]))
    };
    let held = query(
        &posts,
        "SELECT id, kafka['partition'] AS p, kafka['offset'] AS o FROM t",
    );
    let letters = query(&dead, "SELECT \"partition\" AS p, \"offset\" AS o FROM t");
    let verdict = compare(&held, &letters, &acknowledged);
    let what = "tables on an S3 server; two workers at once, one is killed with SIGKILL, the other leaves, again and again; of all log \
                writes 10 % fail, and of those that succeed 10 % answer with an error";
    report("bucket", what, &verdict, json!({"kills": kills}));
}
