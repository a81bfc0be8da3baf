//! A disk that fills up, a log that is torn, and files whose bytes are others than were written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::oracle::data_files;
use super::workers::Worker;
use super::{Field, PARTITIONS, PATIENCE, Protocol, report, times};
use crate::support::broker::{Broker, Place};
use crate::support::disk::Disk;
use crate::support::{Ended, skipped};

const RATE: u64 = 400;

#[test]
fn a_disk_that_fills_up_again_and_again_loses_and_doubles_nothing() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    let Some(disk) = Disk::at(field.folder.path("posts"), "256m") else {
        return skipped("a small disk can only be mounted as root");
    };
    let rounds = times(1, 10);
    for _ in 0..rounds {
        let mut workers = [field.worker()];
        field.flowing(&mut workers);
        let balloon = disk.fill();
        let status = workers[0].ended(PATIENCE);
        let said = workers[0].said();
        assert!(
            status.code() == Some(1) && said.contains("no space left"),
            "{status}:\n{said}"
        );
        std::fs::remove_file(balloon).unwrap();
    }
    let mut workers = vec![field.worker()];
    field.recovered(&mut workers);
    let (verdict, orphans) = field.verdict(workers);
    let what = "the table's disk fills up until the worker gives up; room is made and a worker is started";
    report(
        "full_disk",
        what,
        &verdict,
        json!({"rounds": rounds, "orphan_bytes": orphans}),
    );
}

/// The newest entry of a table's log.
fn newest(table: &Path) -> PathBuf {
    let entries = std::fs::read_dir(table.join("_delta_log")).unwrap().flatten();
    let entries = entries.map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .max()
        .unwrap()
}

fn leaves(mut workers: Vec<Worker>) {
    for worker in &mut workers {
        worker.signal(libc::SIGTERM);
        let status = worker.ended(PATIENCE);
        assert!(status.success(), "{status}:\n{}", worker.said());
    }
}

fn doctor(field: &Field, arguments: &[&str]) -> Ended {
    let posts = field.folder.text("posts");
    let call = [
        &["table", "doctor", &posts, "--format", "json", "-c", &field.config],
        arguments,
    ]
    .concat();
    field.folder.run(&call)
}

#[test]
fn a_log_that_is_torn_is_mended_and_its_rows_are_read_again_once() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    let (rounds, mut again) = (times(1, 20), 0);
    for _ in 0..rounds {
        let mut workers = vec![field.worker()];
        field.flowing(&mut workers);
        std::thread::sleep(Duration::from_millis(rand::random_range(0..1_500)));
        leaves(workers);
        let entry = newest(&field.folder.path("posts"));
        let bytes = std::fs::read(&entry).unwrap();
        std::fs::write(&entry, &bytes[..rand::random_range(0..bytes.len() * 9 / 10)]).unwrap();
        assert_eq!(doctor(&field, &[]).status.code(), Some(1));
        let mended = doctor(&field, &["--repair", "--roll-back"]).done();
        let told: Value = serde_json::from_str(&mended.stdout).unwrap();
        again += told["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["read_again"] != json!([]))
            .count();
        doctor(&field, &[]).done();
    }
    assert_eq!(again, rounds);
    let mut workers = vec![field.worker()];
    field.recovered(&mut workers);
    let (verdict, orphans) = field.verdict(workers);
    let what = "the newest entry of the log is cut off at a random byte; `tamiz table doctor --repair --roll-back`; a worker starts";
    report(
        "torn_log",
        what,
        &verdict,
        json!({"rounds": rounds, "orphan_bytes": orphans}),
    );
}

/// What a finding of lost rows names.
fn named(finding: &Value) -> Vec<Place> {
    let spans = finding["lost"]["offsets"].as_array().cloned().unwrap_or_default();
    let span = |span: &Value| {
        let number = |name: &str| span[name].as_i64().unwrap();
        let (partition, first, last) = (number("partition") as i32, number("first"), number("last"));
        assert_eq!(
            number("rows"),
            last - first + 1,
            "spans of this topic have no holes: {span}"
        );
        (first..=last)
            .map(move |offset| (partition, offset))
            .collect::<Vec<_>>()
    };
    spans.iter().flat_map(span).collect()
}

#[test]
fn files_whose_bytes_changed_are_found_and_exactly_what_they_held_is_named() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&broker.servers, &broker.servers), Protocol::Consumer, RATE);
    let (rounds, mut gone) = (times(1, 10), BTreeSet::new());
    for round in 0..rounds {
        let mut workers = vec![field.worker()];
        field.flowing(&mut workers);
        leaves(workers);
        let files = data_files(&field.folder.path("posts"));
        let file = &files[rand::random_range(0..files.len())];
        if round % 3 == 2 {
            std::fs::remove_file(file).unwrap();
        } else {
            let mut bytes = std::fs::read(file).unwrap();
            let at = rand::random_range(0..bytes.len());
            bytes[at] ^= 1 << rand::random_range(0..8);
            std::fs::write(file, bytes).unwrap();
        }
        let found = doctor(&field, &["--repair"]);
        let told: Value = serde_json::from_str(&found.stdout).unwrap();
        let named: Vec<Place> = told["findings"].as_array().unwrap().iter().flat_map(named).collect();
        assert!(!named.is_empty(), "{found}");
        gone.extend(named);
        doctor(&field, &[]).done();
    }
    let mut workers = vec![field.worker()];
    field.recovered(&mut workers);
    let rows = gone.len();
    let (verdict, orphans) = field.verdict_but_for(workers, &gone);
    let what = "a bit of a data file flips, or a data file is gone; `tamiz table doctor --repair` takes it out and names the offsets, and \
                the oracle finds all others";
    report(
        "corrupt_files",
        what,
        &verdict,
        json!({"files": rounds, "rows_named_as_gone": rows, "orphan_bytes": orphans}),
    );
}
