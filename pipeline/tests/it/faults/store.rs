//! A store that fails, and one that does what it was told and says that it failed.

use std::time::Duration;

use serde_json::json;

use super::{Field, PARTITIONS, Protocol, report, times};
use crate::support::broker::Broker;
use crate::support::skipped;

const RATE: u64 = 400;

#[test]
fn commits_whose_outcome_is_unknown_lose_and_double_nothing() {
    let Some(broker) = Broker::find() else { return };
    if !cfg!(feature = "failpoints") {
        return skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    // One commit in five is not written, one in four is written without the writer learning of it.
    let failing = "log_write_fails=20%return;log_answer_lost=25%return";
    let mut workers = vec![field.worker_that_fails(failing), field.worker_that_fails(failing)];
    field.flowing(&mut workers);
    std::thread::sleep(Duration::from_secs(times(5, 60) as u64));
    field.recovered(&mut workers);
    let commits = field.tail.versions();
    let (verdict, orphans) = field.verdict(workers);
    let what = "of all log writes 20 % fail, and of those that succeed 25 % answer with an error";
    report(
        "ambiguous_commits",
        what,
        &verdict,
        json!({"commits": commits, "orphan_bytes": orphans}),
    );
}
