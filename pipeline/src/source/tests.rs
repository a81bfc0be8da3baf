//! Batches under construction.

use super::*;

const LIMITS: BatchLimits = BatchLimits {
    rows: 100,
    bytes: 1 << 20,
    linger: Duration::from_secs(3_600),
};

fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "feed".into(),
        partition,
    }
}

fn row(offset: i64, expected: i64) -> RowAt<'static> {
    RowAt {
        offset,
        expected,
        epoch: 7,
        timestamp_micros: Some(offset * 10),
        key: None,
    }
}

fn range(first: i64, next: i64, stamped_micros: Option<i64>) -> Range {
    Range {
        first,
        next,
        epoch: 7,
        stamped_micros,
    }
}

fn taken(collector: &mut Collector) -> (usize, Offsets) {
    let batch = collector.take(Permit::unbounded(1));
    (batch.rows.num_rows(), batch.offsets)
}

#[test]
fn a_start_is_due_at_once_and_needs_no_rows() {
    let mut collector = Collector::new();
    assert!(collector.is_empty() && !collector.is_due(&LIMITS));
    collector.start(&at(0), 100, 7);
    assert!(!collector.is_empty() && collector.is_due(&LIMITS) && collector.has_starts());
    let (rows, offsets) = taken(&mut collector);
    assert_eq!((rows, offsets), (0, Offsets::from([(at(0), range(100, 100, None))])));
    assert!(collector.is_empty() && !collector.has_starts());
    collector.push(&at(0), row(100, 100), Some(b"x"));
    assert!(!collector.is_due(&LIMITS), "rows wait for company");
}

#[test]
fn rows_go_on_from_a_start() {
    let mut collector = Collector::new();
    collector.start(&at(0), 100, 7);
    // Two offsets are marks of a transaction.
    collector.push(&at(0), row(102, 100), Some(b"x"));
    collector.push(&at(0), row(103, 103), Some(b"y"));
    let (rows, offsets) = taken(&mut collector);
    let expected = range(100, 104, Some(1_020));
    assert_eq!((rows, offsets), (2, Offsets::from([(at(0), expected)])));
}

#[test]
fn what_is_kept_beside_a_partition_that_went_keeps_its_start() {
    let mut collector = Collector::new();
    collector.start(&at(0), 100, 7);
    collector.start(&at(1), 200, 7);
    collector.push(&at(2), row(300, 298), Some(b"x"));
    collector.push(&at(1), row(200, 200), Some(b"y"));
    collector.push(&at(2), row(305, 301), Some(b"z"));
    collector.discard(&[at(1)]);
    assert!(collector.has_starts());
    let (rows, offsets) = taken(&mut collector);
    let expected = Offsets::from([(at(0), range(100, 100, None)), (at(2), range(298, 306, Some(3_000)))]);
    assert_eq!((rows, offsets), (2, expected));
}

#[test]
fn nothing_is_left_to_hand_over_when_all_partitions_went() {
    let mut collector = Collector::new();
    collector.start(&at(0), 100, 7);
    collector.discard(&[at(0), at(1)]);
    assert!(collector.is_empty() && !collector.has_starts() && !collector.is_due(&LIMITS));
}
