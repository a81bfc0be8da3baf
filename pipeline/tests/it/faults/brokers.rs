//! Brokers that die: one alone, and one of three.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::{Field, PARTITIONS, Protocol, Seconds, report, times};
use crate::support::broker::Broker;
use crate::support::{root, skipped};

const RATE: u64 = 400;

/// A Kafka of this test's own, by the project's script; it goes with the value.
pub(super) struct Cluster {
    dir: TempDir,
    pub(super) broker: Broker,
}

impl Cluster {
    /// `None`, with a word, where the tests were given somebody's broker: then there may be no Java here.
    pub(super) fn start(nodes: usize, arguments: &[&str]) -> Option<Cluster> {
        if std::env::var_os("TAMIZ_KAFKA_OWN").is_none() {
            skipped("it needs a Kafka of its own, to kill it (scripts/test and make faults allow that)");
            return None;
        }
        let dir = TempDir::with_prefix("tamiz-kafka-").unwrap();
        let nodes_text = nodes.to_string();
        let started = script(&dir, &[&["start", "--nodes", &nodes_text], arguments].concat());
        let broker = Broker {
            servers: started.trim().to_owned(),
        };
        Some(Cluster { dir, broker })
    }

    pub(super) fn kill(&self, node: usize) {
        script(&self.dir, &["kill", &node.to_string()]);
    }

    /// Starts what is down.
    pub(super) fn mend(&self) {
        script(&self.dir, &["start"]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script(&self.dir, &["clean"]);
    }
}

fn script(dir: &TempDir, arguments: &[&str]) -> String {
    let script: PathBuf = root().join("scripts/kafka");
    let folder = dir.path().join("kafka");
    let answer = Command::new(script)
        .args(arguments)
        .arg("--dir")
        .arg(folder)
        .output()
        .unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

/// Kills a node, leaves it dead for `dead`, brings it back, and measures gap and recovery.
fn crashes(nodes: usize, name: &str, rounds: usize, what: &str) {
    let Some(cluster) = Cluster::start(nodes, &["--port", "auto"]) else {
        return;
    };
    let topic = cluster.broker.replicated_topic(PARTITIONS, nodes as i32);
    let mut field = Field::new(
        &topic,
        (&cluster.broker.servers, &cluster.broker.servers),
        Protocol::Consumer,
        RATE,
    );
    let mut workers = vec![field.worker(), field.worker()];
    field.flowing(&mut workers);
    let (mut gaps, mut drains) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(rand::random_range(200..1_000)));
        cluster.kill(1 + round % nodes);
        let killed = Instant::now();
        if nodes == 1 {
            std::thread::sleep(Duration::from_secs(2));
            cluster.mend();
        }
        // Until something that was sent after the crash is committed: nobody may stand still for long.
        let sent = field.load.ends();
        while field.load.ends().values().sum::<i64>() < sent.values().sum::<i64>() + 50 {
            workers.iter_mut().for_each(super::Worker::check);
            std::thread::sleep(Duration::from_millis(20));
            assert!(killed.elapsed() < super::PATIENCE * 2, "the producer did not recover");
        }
        field.recovered(&mut workers);
        gaps.push(killed.elapsed().as_secs_f64());
        if nodes > 1 {
            cluster.mend();
        }
        drains.push(field.recovered(&mut workers));
    }
    let (verdict, _) = field.verdict(workers);
    let figures = json!({"crashes": rounds, "gap_seconds": Seconds::of(gaps), "drain_seconds": Seconds::of(drains)});
    report(name, what, &verdict, figures);
}

#[test]
fn a_broker_that_crashes_and_comes_back_loses_and_doubles_nothing() {
    let what = "the only broker is killed with SIGKILL and started again after two seconds";
    crashes(1, "broker_crash_one_node", times(1, 8), what);
}

#[test]
fn a_leader_that_crashes_loses_and_doubles_nothing() {
    if super::long_form().is_none() {
        return skipped("three nodes take a gigabyte and half a minute: make faults runs it");
    }
    let what = "one of three brokers, leader of a third of the partitions, is killed with SIGKILL; the others go on without it";
    crashes(3, "leader_loss_three_nodes", times(1, 9), what);
}
