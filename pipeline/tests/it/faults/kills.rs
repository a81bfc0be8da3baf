//! kill -9, at random times and at each step of a commit.

use std::time::{Duration, Instant};

use serde_json::json;
use tamiz::fault::STEPS;

use super::{Field, PARTITIONS, PATIENCE, Protocol, Seconds, report, times};
use crate::support::broker::Broker;

/// Posts a second.
const RATE: u64 = 400;

/// Kills one of two workers at random times, one after the other, and starts a new one at once.
fn random(protocol: Protocol, name: &str, kills: usize) {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), protocol, RATE);
    let mut workers = vec![field.worker(), field.worker()];
    field.flowing(&mut workers);
    let begun = Instant::now();
    let mut recoveries = Vec::new();
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..1_200)));
        workers.remove(kill % 2).kill();
        workers.insert(kill % 2, field.worker());
        recoveries.push(field.recovered(&mut workers));
    }
    let took = begun.elapsed().as_secs_f64();
    let (verdict, orphans) = field.verdict(workers);
    let what = "one of two workers is killed with SIGKILL at a random time, again and again; a new one starts at once";
    let figures =
        json!({"kills": kills, "recovery_seconds": Seconds::of(recoveries), "orphan_bytes": orphans, "seconds": took});
    report(name, what, &verdict, figures);
}

#[test]
fn random_kills_lose_and_double_nothing_in_the_classic_protocol() {
    random(Protocol::Classic, "random_kills_classic", times(2, 60));
}

#[test]
fn random_kills_lose_and_double_nothing_in_the_new_protocol() {
    random(Protocol::Consumer, "random_kills_consumer", times(2, 60));
}

#[test]
fn a_kill_at_any_step_of_a_commit_loses_and_doubles_nothing() {
    let Some(broker) = Broker::find() else { return };
    if !cfg!(feature = "failpoints") {
        return crate::support::skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    let mut first = [field.worker()];
    field.flowing(&mut first);
    let [first] = first;
    first.kill();
    let mut kills = serde_json::Map::new();
    for round in 0..times(1, 12) {
        for step in STEPS {
            // A checkpoint is made every 50 commits; the other steps are passed a few times first.
            let passes = if step.contains("checkpoint") {
                0
            } else {
                (round * 3 + 1) % 7
            };
            let mut worker = field.worker_that_fails(&format!("{step}={passes}*off->return"));
            let status = worker.ended(PATIENCE);
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(signal, Some(libc::SIGKILL), "{step}: {status}\n{}", worker.said());
            let count = kills.entry(step).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or(0) + 1);
        }
    }
    let worker = field.worker();
    let (verdict, orphans) = field.verdict(vec![worker]);
    let what = "a worker dies at each step of a commit in turn (SIGKILL from within); the next one takes over";
    report(
        "step_kills",
        what,
        &verdict,
        json!({"kills": kills, "orphan_bytes": orphans}),
    );
}
