//! What happens when partitions come and go: start offsets from the table, and a drained line before they are given up.

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
use tokio::sync::{mpsc, oneshot};

use super::config::{FirstStart, KafkaConfig};
use super::guard::Guard;
use super::{BROKER_TIMEOUT, Resume, kafka_error};
use crate::batch::{Item, TopicPartition};
use crate::source::SourceError;
use crate::stats::Stats;

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
    pub(super) failure: Option<SourceError>,
    epoch: u64,
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
        if let Some(settled) = watch.lag.broker(statistics) {
            watch.health.group_settled(settled);
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
            assigned: Mutex::default(),
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

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), SourceError> {
        let wanted = partitions(list);
        let known = (self.resume)(&wanted).map_err(SourceError::Offsets)?;
        for at in &wanted {
            self.turned();
            let (start, end) = self.start(consumer, at, known.get(at).copied())?;
            list.set_partition_offset(&at.topic, at.partition, Offset::Offset(start))
                .map_err(kafka_error("cannot set a start offset"))?;
            let mut assigned = self.lock();
            assigned.epoch += 1;
            let epoch = assigned.epoch;
            assigned
                .positions
                .insert(at.clone(), Position { expected: start, epoch });
            drop(assigned);
            self.stats.watch().lag.assigned(at, epoch, (start, end));
            tracing::info!(
                topic = &*at.topic,
                partition = at.partition,
                offset = start,
                "partition assigned"
            );
        }
        self.lock().first_at.get_or_insert_with(Instant::now);
        let done = if cooperative(consumer) {
            consumer.incremental_assign(list)
        } else {
            consumer.assign(list)
        };
        done.map_err(kafka_error("cannot take the assigned partitions"))
    }

    /// What the table knows of partitions.
    pub(super) fn stored(&self, of: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, String> {
        (self.resume)(of)
    }

    /// Whether a partition that the table knows nothing of is read from its beginning.
    pub(super) fn starts_at_the_beginning(&self) -> bool {
        self.first_start == FirstStart::Earliest
    }

    /// Where the partition goes on, and where it ends now.
    fn start(
        &self,
        consumer: &BaseConsumer<Self>,
        at: &TopicPartition,
        stored: Option<i64>,
    ) -> Result<(i64, i64), SourceError> {
        let (low, high) = consumer
            .fetch_watermarks(&at.topic, at.partition, BROKER_TIMEOUT)
            .map_err(kafka_error(format!(
                "cannot ask for the offsets of `{}` [{}]",
                at.topic, at.partition
            )))?;
        match stored {
            Some(next) if next < low => Err(SourceError::Offsets(format!(
                "`{}` [{}]: the table ends at offset {next}, but the topic now begins at {low}: {} messages were \
                 deleted unread; restore them, or choose another `pipeline.name` to start afresh",
                at.topic,
                at.partition,
                low - next
            ))),
            Some(next) if next > high => Err(SourceError::Offsets(format!(
                "`{}` [{}]: the table ends at offset {next}, but the topic ends at {high}: it was made anew; \
                 choose another `pipeline.name` to start afresh",
                at.topic, at.partition
            ))),
            Some(next) => Ok((next, high)),
            None => match self.first_start {
                FirstStart::Earliest => Ok((low, high)),
                FirstStart::Latest => Ok((high, high)),
                FirstStart::Timestamp => Ok((self.at_time(consumer, at, high)?, high)),
            },
        }
    }

    fn at_time(&self, consumer: &BaseConsumer<Self>, at: &TopicPartition, high: i64) -> Result<i64, SourceError> {
        let mut ask = TopicPartitionList::new();
        let what = || {
            format!(
                "cannot ask for the offset of a time in `{}` [{}]",
                at.topic, at.partition
            )
        };
        ask.add_partition_offset(&at.topic, at.partition, Offset::Offset(self.first_start_millis))
            .map_err(kafka_error(what()))?;
        let found = consumer
            .offsets_for_times(ask, BROKER_TIMEOUT)
            .map_err(kafka_error(what()))?;
        let offset = found.elements().first().map(|element| element.offset());
        Ok(match offset {
            Some(Offset::Offset(offset)) => offset,
            _ => high,
        })
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), SourceError> {
        let gone = partitions(list);
        if !consumer.assignment_lost() {
            self.drain();
        }
        let mut assigned = self.lock();
        for at in gone {
            tracing::info!(topic = &*at.topic, partition = at.partition, "partition revoked");
            assigned.positions.remove(&at);
            self.stats.watch().lag.revoked(&at);
            assigned.revoked.push(at);
        }
        drop(assigned);
        let done = if cooperative(consumer) {
            consumer.incremental_unassign(list)
        } else {
            consumer.unassign()
        };
        done.map_err(kafka_error("cannot give up partitions"))
    }

    /// Has all that was sent committed, so that the next owner starts behind it.
    pub(super) fn drain(&self) {
        let (done, mut committed) = oneshot::channel();
        if self.out.blocking_send(Item::Flush(done)).is_err() {
            return;
        }
        let until = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < until {
            match committed.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.turned();
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
        tracing::warn!("rows of revoked partitions are not committed yet: the next owner will read them again");
    }
}
