//! When all is read: the ends of our own partitions, and of those that other members of the group hold.
//!
//! A member that was killed keeps its partitions until its session is over. One that is started meanwhile and told to stop
//! when all is read must not take the partitions that it happens to have for all there is.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::{BROKER_TIMEOUT, KafkaSource};
use crate::batch::TopicPartition;

/// How often the partitions of others are looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// What a group takes to hand partitions on, beyond the session.
const HANDING_ON: Duration = Duration::from_secs(10);

impl KafkaSource {
    /// librdkafka names the partition that ended, but not its topic. With several topics the offsets tell which it was, if
    /// nothing but messages stands at its end, and else the client's statistics; see [`KafkaSource::is_caught_up`].
    pub(super) fn note_end(&self, partition: i32, caught_up: &mut HashSet<TopicPartition>) {
        let assigned: Vec<(TopicPartition, i64)> = self
            .consumer
            .context()
            .lock()
            .positions
            .iter()
            .filter(|(at, _)| at.partition == partition)
            .map(|(at, position)| (at.clone(), position.expected))
            .collect();
        for (at, expected) in assigned {
            let ended = self.topics.len() == 1
                || self
                    .consumer
                    .fetch_watermarks(&at.topic, at.partition, BROKER_TIMEOUT)
                    .is_ok_and(|(_, high)| expected >= high);
            if ended {
                caught_up.insert(at);
            }
        }
    }

    /// Whether all that is ours was read.
    pub(super) fn is_caught_up(&self, caught_up: &HashSet<TopicPartition>) -> bool {
        let lag = self.consumer.context().lag();
        let assigned = self.consumer.context().lock();
        let settled = assigned
            .first_at
            .is_some_and(|at| !assigned.positions.is_empty() || at.elapsed().as_secs() > 5);
        let several = self.topics.len() > 1;
        let is_read = |at: &TopicPartition| caught_up.contains(at) || (several && lag.was_read_to_end(at));
        settled && assigned.positions.keys().all(is_read)
    }

    /// The partitions that are not ours.
    fn not_ours(&self) -> Option<Vec<TopicPartition>> {
        let mut all = Vec::new();
        for topic in &self.topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).ok()?;
            let found = metadata.topics().iter().find(|found| found.name() == topic)?;
            all.extend(found.partitions().iter().map(|one| TopicPartition {
                topic: topic.as_str().into(),
                partition: one.id(),
            }));
        }
        let ours = self.consumer.context().lock();
        all.retain(|at| !ours.positions.contains_key(at));
        Some(all)
    }

    /// Of these, those that the table has not up to where they ended at the first look, and where it stands.
    fn behind(&self, partitions: &[TopicPartition], ends: &mut Stands) -> Option<Stands> {
        let handover = self.consumer.context();
        let known = handover.stored(partitions).ok()?;
        let mut behind = Stands::new();
        for at in partitions {
            handover.turned();
            let (low, high) = self
                .consumer
                .fetch_watermarks(&at.topic, at.partition, BROKER_TIMEOUT)
                .ok()?;
            let end = *ends.entry(at.clone()).or_insert(high);
            let next = match known.get(at) {
                Some(next) => *next,
                None if handover.starts_at_the_beginning() => low,
                // Where its owner began is not known.
                None => end,
            };
            if next < end {
                behind.insert(at.clone(), next);
            }
        }
        Some(behind)
    }
}

/// An offset for each partition.
type Stands = BTreeMap<TopicPartition, i64>;

/// What is known of the partitions that are not ours, once all that is ours was read.
pub(super) struct Others {
    patience: Duration,
    asked: Option<Instant>,
    /// Where they ended at the first look: what comes later is not waited for.
    ends: Stands,
    /// What was behind, and since when nothing has moved there.
    behind: Option<(Stands, Instant)>,
}

impl Others {
    pub(super) fn new(session: Duration) -> Others {
        Others {
            patience: session + HANDING_ON,
            asked: None,
            ends: Stands::new(),
            behind: None,
        }
    }

    /// Whether the table holds what there is of the topics, or at least nobody has gone on for longer than it takes the
    /// group to hand a dead member's partitions to us: then markers of transactions are left, or a member hangs.
    pub(super) fn are_done(&mut self, source: &KafkaSource) -> bool {
        if self.asked.is_some_and(|asked| asked.elapsed() < GLANCE) {
            return false;
        }
        if self.asked.is_none() {
            // They may wait for us as we do for them.
            source.consumer.context().drain();
        }
        self.asked = Some(Instant::now());
        let others = source.not_ours();
        let Some(behind) = others.and_then(|others| source.behind(&others, &mut self.ends)) else {
            return false; // nobody answers: asked again
        };
        if behind.is_empty() {
            return true;
        }
        let since = match self.behind.take() {
            Some((before, since)) if before == behind => since,
            Some(_) => Instant::now(),
            None => {
                let partitions = behind.len();
                tracing::info!(
                    partitions,
                    "all of ours is read, others of the group are behind: waiting for them"
                );
                Instant::now()
            }
        };
        let is_over = since.elapsed() > self.patience;
        if is_over {
            let partitions = behind.len();
            tracing::warn!(
                partitions,
                "ended, though members of the group that do not go on hold partitions"
            );
        }
        self.behind = Some((behind, since));
        is_over
    }
}
