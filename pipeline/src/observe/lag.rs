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

/// How the client stands to its group, as far as its statistics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// It has a connection to the group's coordinator.
    pub coordinated: bool,
    /// It is a settled member.
    pub settled: bool,
}

#[derive(Debug)]
struct Partition {
    epoch: u64,
    /// When it was assigned, in whole seconds since 1970, as the client tells when its statistics were made.
    since: i64,
    committed: i64,
    end: i64,
    /// Offset after the last message given to us, where nothing more is to come: what lies between it and `end` are
    /// marks of transactions and messages compacted away.
    read_to_end: Option<i64>,
    /// All that there was at some moment since it was assigned has been given to us.
    ended: bool,
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
            since: now_micros() / 1_000_000,
            committed: start,
            end,
            read_to_end: None,
            ended: false,
            in_flight: VecDeque::new(),
            behind_since: None,
        };
        partition.note_behind();
        self.lock().insert(at.clone(), partition);
    }

    /// A partition that was assigned under this epoch is somebody else's from now on.
    pub fn revoked(&self, at: &TopicPartition, epoch: u64) {
        let mut partitions = self.lock();
        if partitions.get(at).is_some_and(|one| one.epoch == epoch) {
            partitions.remove(at);
        }
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

    /// Takes up the client's statistics; says how it stands to its group, where they tell.
    pub fn broker(&self, statistics: &[u8]) -> Option<Group> {
        let statistics: Statistics = serde_json::from_slice(statistics).ok()?;
        let mut partitions = self.lock();
        for (at, partition) in partitions.iter_mut() {
            let topic = statistics.topics.get(&*at.topic);
            let told = topic.and_then(|topic| topic.partitions.get(at.partition.to_string().as_str()));
            if let Some(told) = told {
                told.enter(partition, statistics.time);
            }
        }
        statistics.cgrp.map(|group| Group {
            coordinated: group.state == "up",
            settled: group.state == "up" && group.join_state == "steady",
        })
    }

    /// Whether all that the partition held at some moment since it was assigned has been given to us, be it that markers of
    /// transactions stand at its end.
    pub fn was_read_to_end(&self, at: &TopicPartition) -> bool {
        self.lock().get(at).is_some_and(|partition| partition.ended)
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
    /// When they were made, in seconds since 1970.
    time: Option<i64>,
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
    /// Where the client told us an end last; forgotten with each assignment.
    eof_offset: Option<i64>,
    hi_offset: i64,
    ls_offset: i64,
}

impl ToldPartition {
    fn enter(&self, partition: &mut Partition, made: Option<i64>) {
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
        // What was made about an earlier assignment may wait for us behind this one; offsets in it are up to a second old.
        let of_this_assignment = made.is_some_and(|made| made > partition.since + 1);
        partition.ended |= all_given && of_this_assignment && self.eof_offset.is_some_and(|offset| offset >= 0);
        partition.note_behind();
    }
}

#[cfg(test)]
#[path = "lag_tests.rs"]
mod tests;
