//! Members that come, go, and come back from the dead.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Field, PARTITIONS, PATIENCE, Protocol, report, times};
use crate::support::broker::{Broker, SESSION_MILLIS};

const RATE: u64 = 400;

#[test]
fn a_worker_that_was_frozen_longer_than_its_session_cannot_commit_what_another_has_taken_over() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Classic, RATE);
    let mut workers = vec![field.worker(), field.worker()];
    field.flowing(&mut workers);
    let (mut frozen_seconds, rounds) = (0.0, times(1, 10));
    for _ in 0..rounds {
        // In mid-stream: rows are waiting, and sometimes a commit is under way.
        std::thread::sleep(Duration::from_millis(rand::random_range(300..900)));
        workers[0].signal(libc::SIGSTOP);
        let frozen = Instant::now();
        std::thread::sleep(Duration::from_millis(u64::from(SESSION_MILLIS) + 1_500));
        let (_, awake) = workers.split_at_mut(1);
        let ends = field.load.ends();
        super::recovery(&mut field.tail, &ends, PATIENCE, awake);
        frozen_seconds += frozen.elapsed().as_secs_f64();
        workers[0].signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_secs(2));
        field.recovered(&mut workers);
    }
    let said = workers[0].said();
    let refused = said.matches("starting again from the tables' offsets").count();
    let (verdict, orphans) = field.verdict(workers);
    let what =
        "one of two workers is stopped with SIGSTOP for longer than its session, then goes on with what it had in hand";
    let figures = json!({"rounds": rounds, "frozen_seconds": frozen_seconds, "stale_commits_rejected": refused, "orphan_bytes": orphans});
    report("frozen_worker", what, &verdict, figures);
}

/// Workers join and leave every second or two, in good order and not.
fn storm(protocol: Protocol, name: &str, changes: usize) {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), protocol, RATE);
    let mut workers = vec![field.worker()];
    field.flowing(&mut workers);
    let mut most = 1;
    for change in 0..changes {
        std::thread::sleep(Duration::from_millis(rand::random_range(500..2_000)));
        if workers.len() == 1 || (workers.len() < 4 && change % 2 == 0) {
            workers.push(field.worker());
        } else {
            let mut leaving = workers.remove(rand::random_range(0..workers.len()));
            leaving.signal(libc::SIGTERM);
            let status = leaving.ended(PATIENCE);
            assert!(status.success(), "{status}:\n{}", leaving.said());
        }
        most = most.max(workers.len());
    }
    let settled = field.recovered(&mut workers);
    let (verdict, orphans) = field.verdict(workers);
    let what = "workers join and leave the group every second or two";
    let figures =
        json!({"changes": changes, "most_workers": most, "settled_seconds": settled, "orphan_bytes": orphans});
    report(name, what, &verdict, figures);
}

#[test]
fn a_storm_of_rebalances_loses_and_doubles_nothing_in_the_classic_protocol() {
    storm(Protocol::Classic, "rebalance_storm_classic", times(4, 40));
}

#[test]
fn a_storm_of_rebalances_loses_and_doubles_nothing_in_the_new_protocol() {
    storm(Protocol::Consumer, "rebalance_storm_consumer", times(4, 40));
}
