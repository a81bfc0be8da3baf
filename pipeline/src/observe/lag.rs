//! How far the table is behind the topic, per partition: in messages, and as the age of the oldest message that is not
//! committed yet.
//!
//! Costs no question to the broker: where a partition ends comes with the Kafka client's own statistics, which it makes
//! from the answers to its fetches.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;

use crate::batch::{Offsets, TopicPartition};
use crate::stages::finish::now_micros;

/// How far one partition is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionLag {
    /// The partition.
    pub at: TopicPartition,
    /// Messages that the topic holds and the table does not.
    pub messages: u64,
    /// Age of the oldest of them; 0 where there is none.
    pub seconds: f64,
}

/// The partitions that this process reads.
#[derive(Debug, Default)]
pub struct Lag(Mutex<BTreeMap<TopicPartition, Partition>>);

#[derive(Debug)]
struct Partition {
    epoch: u64,
    committed: i64,
    end: i64,
    /// Offset after the last message given to us, where nothing more is to come: what lies between it and `end` are
    /// marks of transactions and messages compacted away.
    read_to_end: Option<i64>,
    in_flight: VecDeque<Mark>,
    behind_since: Option<Instant>,
}

/// A batch's share of the partition.
#[derive(Debug)]
struct Mark {
    next: i64,
    micros: i64,
}

impl Partition {
    fn messages(&self) -> u64 {
        let all_committed = |read: i64| read < 0 || self.committed >= read;
        if self.read_to_end.is_some_and(all_committed) {
            return 0;
        }
        (self.end - self.committed).max(0) as u64
    }

    fn note_behind(&mut self) {
        if self.messages() == 0 {
            self.behind_since = None;
        } else {
            self.behind_since.get_or_insert_with(Instant::now);
        }
    }

    /// What was read tells its own age. What still waits at the broker does not: its age is counted from when we saw it.
    fn seconds(&self, now_micros: i64) -> f64 {
        match (self.messages(), self.in_flight.front(), self.behind_since) {
            (0, _, _) => 0.0,
            (_, Some(oldest), _) => (now_micros - oldest.micros).max(0) as f64 / 1e6,
            (_, None, Some(since)) => since.elapsed().as_secs_f64(),
            (_, None, None) => 0.0,
        }
    }
}

impl Lag {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Partition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all partitions.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// A partition is read from now on, from offset `start`; it ends at `end`.
    pub fn assigned(&self, at: &TopicPartition, epoch: u64, (start, end): (i64, i64)) {
        let mut partition = Partition {
            epoch,
            committed: start,
            end,
            read_to_end: None,
            in_flight: VecDeque::new(),
            behind_since: None,
        };
        partition.note_behind();
        self.lock().insert(at.clone(), partition);
    }

    /// A partition is somebody else's from now on.
    pub fn revoked(&self, at: &TopicPartition) {
        self.lock().remove(at);
    }

    /// A batch was read.
    pub fn read(&self, offsets: &Offsets) {
        let mut partitions = self.lock();
        for (at, range) in offsets {
            if let Some(partition) = partitions.get_mut(at).filter(|one| one.epoch == range.epoch) {
                let micros = range.stamped_micros.unwrap_or_else(now_micros);
                partition.in_flight.push_back(Mark {
                    next: range.next,
                    micros,
                });
            }
        }
    }

    /// All up to these offsets is in the table.
    pub fn committed(&self, offsets: &Offsets) {
        let mut partitions = self.lock();
        for (at, range) in offsets {
            if let Some(partition) = partitions.get_mut(at).filter(|one| one.epoch == range.epoch) {
                partition.committed = partition.committed.max(range.next);
                while partition.in_flight.front().is_some_and(|mark| mark.next <= range.next) {
                    partition.in_flight.pop_front();
                }
                // Those behind are what is late now.
                partition.behind_since = None;
                partition.note_behind();
            }
        }
    }

    /// Takes up the client's statistics; says whether the client is a settled member of its group, where they tell.
    pub fn broker(&self, statistics: &[u8]) -> Option<bool> {
        let statistics: Statistics = serde_json::from_slice(statistics).ok()?;
        let mut partitions = self.lock();
        for (at, partition) in partitions.iter_mut() {
            let topic = statistics.topics.get(&*at.topic);
            let told = topic.and_then(|topic| topic.partitions.get(at.partition.to_string().as_str()));
            if let Some(told) = told {
                told.enter(partition);
            }
        }
        statistics
            .cgrp
            .map(|group| group.state == "up" && group.join_state == "steady")
    }

    /// Number of partitions that this process reads.
    pub fn partitions(&self) -> usize {
        self.lock().len()
    }

    /// How far behind each is now.
    pub fn now(&self) -> Vec<PartitionLag> {
        let now = now_micros();
        let partitions = self.lock();
        let lag = partitions.iter().map(|(at, partition)| PartitionLag {
            at: at.clone(),
            messages: partition.messages(),
            seconds: partition.seconds(now),
        });
        lag.collect()
    }
}

/// What we need of librdkafka's `STATISTICS.md`.
#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow, default)]
    topics: HashMap<Cow<'a, str>, ToldTopic<'a>>,
    #[serde(borrow)]
    cgrp: Option<ToldGroup<'a>>,
}

#[derive(Deserialize)]
struct ToldTopic<'a> {
    #[serde(borrow, default)]
    partitions: HashMap<&'a str, ToldPartition>,
}

#[derive(Deserialize)]
struct ToldGroup<'a> {
    state: &'a str,
    join_state: &'a str,
}

/// Offsets below zero mean that the client does not know.
#[derive(Deserialize)]
struct ToldPartition {
    fetchq_cnt: i64,
    next_offset: i64,
    app_offset: i64,
    hi_offset: i64,
    ls_offset: i64,
}

impl ToldPartition {
    fn enter(&self, partition: &mut Partition) {
        // Messages of open transactions are not ours yet: what we read ends at the last stable offset.
        let end = if self.ls_offset >= 0 {
            self.ls_offset
        } else {
            self.hi_offset
        };
        if end < 0 {
            return;
        }
        partition.end = end;
        let all_given = self.fetchq_cnt == 0 && self.next_offset >= end;
        partition.read_to_end = all_given.then_some(self.app_offset);
        partition.note_behind();
    }
}

#[cfg(test)]
mod tests {
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
            r#"{{"name":"x","topics":{{"posts":{{"topic":"posts","partitions":{{
                 "3":{{"partition":3,"fetchq_cnt":0,"next_offset":{next_offset},"app_offset":{app_offset},
                       "hi_offset":{},"ls_offset":{ls_offset},"consumer_lag":-1}},
                 "-1":{{"partition":-1,"fetchq_cnt":0,"next_offset":-1,"app_offset":-1001,"hi_offset":-1001,"ls_offset":-1001}}
               }}}}}},"cgrp":{{"state":"up","join_state":"steady","assignment_size":1}}}}"#,
            ls_offset + 7
        )
        .into_bytes()
    }

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
        assert_eq!(lag.broker(&told(0, -1001, 40)), Some(true));
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
        lag.revoked(&at());
        assert!(lag.now().is_empty());
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
}
