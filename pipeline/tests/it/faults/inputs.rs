//! Messages that nobody can read, and a model that fails.

use std::time::Duration;

use serde_json::json;
use tamiz_model::testing::tiny_checkpoint;

use super::load::{Feed, is_poison};
use super::{Field, PARTITIONS, PATIENCE, Protocol, report, times};
use crate::support::broker::Broker;
use crate::support::skipped;

const RATE: u64 = 400;

#[test]
fn poison_among_the_posts_becomes_dead_letters_each_once_whoever_is_killed() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let servers = (broker.servers.as_str(), broker.servers.as_str());
    let mut field = Field::with(
        &topic,
        servers,
        Protocol::Consumer,
        Feed {
            rate: RATE,
            poison: true,
        },
    );
    let mut workers = vec![field.worker(), field.worker()];
    field.flowing(&mut workers);
    let kills = times(1, 20);
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(rand::random_range(200..1_500)));
        workers.remove(kill % 2).kill();
        workers.push(field.worker());
        field.recovered(&mut workers);
    }
    let (verdict, orphans) = field.verdict(workers);
    // Numbers run through, and all were taken: which of them are poison is known.
    let poison = (0..verdict.acknowledged as u64)
        .filter(|number| is_poison(*number))
        .count();
    assert_eq!(verdict.dead_letters, poison);
    let what = "one message in seven is no post (cut off, no UTF-8, nested 100,000 deep, without a text, 300 kB of text, empty …), and workers are killed";
    report(
        "poison",
        what,
        &verdict,
        json!({"kills": kills, "dead_letters": poison, "orphan_bytes": orphans}),
    );
}

#[test]
fn a_model_that_fails_loses_and_doubles_nothing() {
    let Some(broker) = Broker::find() else { return };
    if !cfg!(feature = "failpoints") {
        return skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    tiny_checkpoint(&field.folder.path("model")).unwrap();
    let ends = times(1, 10);
    for _ in 0..ends {
        // Now and then a batch does not fit into memory; then the device is gone.
        let failing = "model::forward=40%20*return(memory>400)->30*off->return(device)";
        let mut worker = field.worker_with_model(failing);
        let status = worker.ended(PATIENCE);
        let said = worker.said();
        assert!(
            status.code() == Some(1) && said.contains("look at the device"),
            "{status}:\n{said}"
        );
    }
    let mut workers = vec![field.worker_with_model("")];
    field.recovered(&mut workers);
    let (verdict, orphans) = field.verdict(workers);
    let what = "batches run out of memory and are done in halves; then the device is gone and the worker ends; another is started";
    report(
        "model_failure",
        what,
        &verdict,
        json!({"ends": ends, "orphan_bytes": orphans}),
    );
}
