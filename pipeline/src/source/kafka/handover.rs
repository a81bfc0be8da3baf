//! What happens when partitions come and go: start offsets from the table, and a drained line before they are given up.

mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::config::{FirstStart, KafkaConfig};
use super::guard::Guard;
use super::{Resume, kafka_error};
use crate::batch::{Item, TopicPartition};
use crate::observe::Lag;
use crate::source::SourceError;
use crate::stages::finish::now_micros;
use crate::stats::Stats;

/// How long partitions that are assigned may be asked for their offsets while they have no leader: all of them together,
/// since the group waits meanwhile.
const LEADERLESS: Duration = Duration::from_secs(30);
/// How long giving up partitions waits for their rows to be committed; the table's fence guards what takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) expected: i64,
    pub(super) epoch: u64,
}

#[derive(Default)]
pub(super) struct Assigned {
    pub(super) positions: BTreeMap<TopicPartition, Position>,
    pub(super) revoked: Vec<TopicPartition>,
    /// Where partitions begin that the table knows nothing of: to be written down before a restart chooses otherwise.
    pub(super) starts: Vec<(TopicPartition, Position)>,
    pub(super) failure: Option<SourceError>,
    /// Changes with every partition that comes.
    pub(super) epoch: u64,
    pub(super) first_at: Option<Instant>,
}

/// Hands the table's offsets over when partitions are assigned, and has the line drained before they are given up.
pub(super) struct Handover {
    resume: Resume,
    first_start: FirstStart,
    first_start_millis: i64,
    out: mpsc::Sender<Item>,
    assigned: Mutex<Assigned>,
    guard: Guard,
    stats: Arc<Stats>,
}

impl ClientContext for Handover {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.guard.hear_log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let watch = self.stats.watch();
        if let Some(group) = watch.lag.broker(statistics) {
            watch.health.group(group);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.guard.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.guard.token()
    }
}

impl ConsumerContext for Handover {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let result = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        };
        if let Err(failure) = result {
            self.lock().failure.get_or_insert(failure);
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|e| TopicPartition {
            topic: e.topic().into(),
            partition: e.partition(),
        })
        .collect()
}

fn cooperative(consumer: &BaseConsumer<Handover>) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}

impl Handover {
    pub(super) fn new(
        config: &KafkaConfig,
        guard: Guard,
        resume: Resume,
        out: mpsc::Sender<Item>,
        stats: Arc<Stats>,
    ) -> Result<Self, SourceError> {
        let millis = match config.first_start {
            FirstStart::Timestamp => tamiz_schemas::time::parse(&config.first_start_timestamp).map(|us| us / 1000),
            _ => Some(0),
        };
        let first_start_millis = millis
            .ok_or_else(|| SourceError::Offsets("`source.kafka.first_start_timestamp` is no RFC 3339 time".into()))?;
        Ok(Handover {
            resume,
            first_start: config.first_start,
            first_start_millis,
            out,
            // Higher than in every line before: what one of those still says of a partition is not about ours.
            assigned: Mutex::new(Assigned {
                epoch: now_micros().max(0) as u64,
                ..Assigned::default()
            }),
            guard,
            stats,
        })
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Shows that the source still turns.
    pub(super) fn turned(&self) {
        self.stats.watch().health.source_turned();
    }

    /// How far the table is behind, and where partitions end.
    pub(super) fn lag(&self) -> &Lag {
        &self.stats.watch().lag
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), SourceError> {
        let wanted = partitions(list);
        let known = (self.resume)(&wanted).map_err(SourceError::Offsets)?;
        let until = Instant::now() + LEADERLESS;
        let mut taken = Vec::with_capacity(wanted.len());
        for at in &wanted {
            self.turned();
            let stored = known.get(at).copied();
            let (start, end) = self.start(consumer, at, stored, until)?;
            list.set_partition_offset(&at.topic, at.partition, Offset::Offset(start))
                .map_err(kafka_error("cannot set a start offset"))?;
            let epoch = self.take_over(at, stored, start);
            taken.push((at, epoch, (start, end)));
        }
        self.lock().first_at.get_or_insert_with(Instant::now);
        let done = if cooperative(consumer) {
            consumer.incremental_assign(list)
        } else {
            consumer.assign(list)
        };
        done.map_err(kafka_error("cannot take the assigned partitions"))?;
        for (at, epoch, bounds) in taken {
            self.lag().assigned(at, epoch, bounds);
        }
        Ok(())
    }

    /// Notes that the partition is ours from `start` on, under a new epoch.
    fn take_over(&self, at: &TopicPartition, stored: Option<i64>, start: i64) -> u64 {
        let mut assigned = self.lock();
        assigned.epoch += 1;
        let epoch = assigned.epoch;
        let position = Position { expected: start, epoch };
        assigned.positions.insert(at.clone(), position);
        if stored.is_none() && !self.starts_at_the_beginning() {
            assigned.starts.push((at.clone(), position));
        }
        drop(assigned);
        tracing::info!(
            topic = &*at.topic,
            partition = at.partition,
            offset = start,
            "partition assigned"
        );
        epoch
    }

    /// What the table knows of partitions.
    pub(super) fn stored(&self, of: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, String> {
        (self.resume)(of)
    }

    /// Whether a partition that the table knows nothing of is read from its beginning.
    pub(super) fn starts_at_the_beginning(&self) -> bool {
        self.first_start == FirstStart::Earliest
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let gone = partitions(list);
        if !consumer.assignment_lost() {
            self.drain();
        }
        self.give_up(gone);
        // The client would remember a pause, and the partition would come back with it.
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(%error, "revoked partitions may stay paused when they come back");
        }
        let done = if cooperative(consumer) {
            consumer.incremental_unassign(list)
        } else {
            consumer.unassign()
        };
        done.map_err(kafka_error("cannot give up partitions"))
    }

    /// Notes that these partitions are not ours any more.
    fn give_up(&self, gone: Vec<TopicPartition>) {
        let mut assigned = self.lock();
        assigned.starts.retain(|(at, _)| !gone.contains(at));
        for at in gone {
            tracing::info!(topic = &*at.topic, partition = at.partition, "partition revoked");
            if let Some(position) = assigned.positions.remove(&at) {
                self.lag().revoked(&at, position.epoch);
            }
            assigned.revoked.push(at);
        }
    }

    /// Has all that was sent committed, so that the next owner starts behind it.
    pub(super) fn drain(&self) {
        self.drain_within(DRAIN_TIMEOUT);
    }

    fn drain_within(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, mut committed) = oneshot::channel();
        let mut flush = Item::Flush(done);
        while let Err(refused) = self.out.try_send(flush) {
            match refused {
                TrySendError::Full(back) => flush = back,
                TrySendError::Closed(_) => return,
            }
            if !self.waits(until) {
                return;
            }
        }
        while let Err(oneshot::error::TryRecvError::Empty) = committed.try_recv() {
            if !self.waits(until) {
                return;
            }
        }
    }

    /// Waits a moment for the line; `false`, with a word, once time is up.
    fn waits(&self, until: Instant) -> bool {
        if Instant::now() >= until {
            tracing::warn!("rows of revoked partitions are not committed yet: the next owner will read them again");
            return false;
        }
        self.turned();
        std::thread::sleep(Duration::from_millis(5));
        true
    }
}
