//! Lag by hand-made statistics.

use super::*;
use crate::batch::Range;

fn at() -> TopicPartition {
    TopicPartition {
        topic: "posts".into(),
        partition: 3,
    }
}

fn range(first: i64, next: i64, stamped_micros: Option<i64>) -> Offsets {
    let range = Range {
        first,
        next,
        epoch: 1,
        stamped_micros,
    };
    Offsets::from([(at(), range)])
}

fn told(next_offset: i64, app_offset: i64, ls_offset: i64) -> Vec<u8> {
    format!(
        r#"{{"name":"x","time":{},"topics":{{"posts":{{"topic":"posts","partitions":{{
             "3":{{"partition":3,"fetchq_cnt":0,"next_offset":{next_offset},"app_offset":{app_offset},
                   "eof_offset":{ls_offset},"hi_offset":{},"ls_offset":{ls_offset},"consumer_lag":-1}},
             "-1":{{"partition":-1,"fetchq_cnt":0,"next_offset":-1,"app_offset":-1001,"hi_offset":-1001,"ls_offset":-1001}}
           }}}}}},"cgrp":{{"state":"up","join_state":"steady","assignment_size":1}}}}"#,
        now_micros() / 1_000_000,
        ls_offset + 7
    )
    .into_bytes()
}

const SETTLED: Option<Group> = Some(Group {
    coordinated: true,
    settled: true,
});

fn one(lag: &Lag) -> (u64, f64) {
    let now = lag.now();
    assert_eq!(now.len(), 1);
    (now[0].messages, now[0].seconds)
}

#[test]
fn lag_is_what_the_topic_holds_and_the_table_does_not() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (10, 110));
    assert_eq!(one(&lag).0, 100);
    lag.read(&range(10, 60, Some(now_micros() - 30_000_000)));
    lag.read(&range(60, 110, Some(now_micros() - 5_000_000)));
    assert_eq!(one(&lag).0, 100, "read is not committed");
    assert!(
        (29.0..32.0).contains(&one(&lag).1),
        "the oldest counts: {:?}",
        one(&lag)
    );
    lag.committed(&range(10, 60, None));
    assert_eq!(one(&lag).0, 50);
    assert!((4.0..7.0).contains(&one(&lag).1), "{:?}", one(&lag));
    lag.committed(&range(60, 110, None));
    assert_eq!(one(&lag), (0, 0.0));
}

#[test]
fn statistics_move_the_end() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (0, 0));
    assert_eq!(one(&lag), (0, 0.0));
    assert_eq!(lag.broker(&told(0, -1001, 40)), SETTLED);
    let (messages, seconds) = one(&lag);
    assert_eq!(messages, 40, "an open transaction is not ours yet");
    assert!(seconds < 5.0, "unread: its age counts from when it was seen");
}

#[test]
fn marks_of_transactions_at_the_end_are_no_lag() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (0, 10));
    lag.read(&range(0, 9, None));
    // Offset 9 is a mark: the client is past it, we are given nothing for it.
    lag.broker(&told(10, 9, 10));
    assert_eq!(one(&lag).0, 10);
    lag.committed(&range(0, 9, None));
    assert_eq!(one(&lag), (0, 0.0));
    lag.broker(&told(10, 9, 12));
    assert_eq!(one(&lag).0, 3, "new messages are");
}

#[test]
fn a_partition_that_holds_nothing_for_us_is_no_lag() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (5, 8));
    lag.broker(&told(8, -1001, 8));
    assert_eq!(one(&lag), (0, 0.0));
}

#[test]
fn what_an_earlier_assignment_left_in_flight_does_not_count() {
    let lag = Lag::default();
    lag.assigned(&at(), 2, (100, 100));
    lag.read(&range(50, 90, Some(0)));
    lag.committed(&range(50, 90, Some(0)));
    lag.broker(&told(100, 100, 101));
    let (messages, seconds) = one(&lag);
    assert!(messages == 1 && seconds < 5.0, "{messages} {seconds}");
    lag.revoked(&at(), 1);
    assert_eq!(lag.partitions(), 1, "it was not that assignment that went");
    lag.revoked(&at(), 2);
    assert!(lag.now().is_empty());
}

#[test]
fn a_partition_is_read_to_its_end_when_the_client_is_past_the_marks_there_and_has_given_all() {
    let later = now_micros() / 1_000_000 + 60;
    let statistics = |time: i64, queued: i64, next: i64, end: i64| {
        format!(
            r#"{{"time":{time},"topics":{{"posts":{{"partitions":{{"3":{{"fetchq_cnt":{queued},"next_offset":{next},
                 "app_offset":9,"eof_offset":{end},"hi_offset":10,"ls_offset":10}}}}}}}}}}"#
        )
        .into_bytes()
    };
    let lag = Lag::default();
    assert!(!lag.was_read_to_end(&at()), "nobody's");
    lag.assigned(&at(), 1, (0, 10));
    for (unfinished, why) in [
        (statistics(later, 4, 10, 10), "given"),
        (statistics(later, 0, 8, -1001), "fetched"),
        (statistics(later, 0, 10, -1001), "told by this assignment"),
        (statistics(later - 60, 0, 10, 10), "made since it was assigned"),
    ] {
        assert_eq!(lag.broker(&unfinished), None);
        assert!(!lag.was_read_to_end(&at()), "not {why}");
    }
    lag.broker(&statistics(later, 0, 10, 10));
    assert!(lag.was_read_to_end(&at()));
    lag.broker(&statistics(later, 3, 10, 10));
    assert!(lag.was_read_to_end(&at()), "what comes later does not count");
    lag.assigned(&at(), 2, (0, 10));
    assert!(!lag.was_read_to_end(&at()), "read anew");
}

#[test]
fn a_coordinator_that_is_away_is_told_apart_from_a_group_that_settles() {
    let lag = Lag::default();
    for (state, join_state, coordinated, settled) in [
        ("up", "steady", true, true),
        ("up", "wait-join", true, false),
        ("query-coord", "steady", false, false),
    ] {
        let told = format!(r#"{{"cgrp":{{"state":"{state}","join_state":"{join_state}"}}}}"#);
        assert_eq!(lag.broker(told.as_bytes()), Some(Group { coordinated, settled }));
    }
}

#[test]
fn a_clock_ahead_of_ours_is_no_negative_age() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (0, 1));
    lag.read(&range(0, 1, Some(now_micros() + 3_600_000_000)));
    assert_eq!(one(&lag), (1, 0.0));
}

#[test]
fn rubbish_for_statistics_changes_nothing() {
    let lag = Lag::default();
    lag.assigned(&at(), 1, (0, 1));
    for rubbish in [&b"{"[..], b"[]", b"{\"topics\":{\"posts\":7}}"] {
        assert_eq!(lag.broker(rubbish), None);
    }
    assert_eq!(lag.broker(b"{}"), None);
    assert_eq!(one(&lag).0, 1);
}
