//! A Kafka consumer group as a source.
//!
//! Where to start is what the table says, never what the group stored: on assignment each partition is given the
//! offset that the table's last commit ends with. Offsets are committed to Kafka too, but only for lag tools to read.
//!
//! Architecture Invariant: no offset is skipped in silence. A stored offset that the topic no longer holds stops the run.

mod config;
mod handover;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

pub use config::{FirstStart, GroupProtocol, KafkaConfig};

use super::{BatchLimits, Budget, Collector, RowAt, SourceError, Stop};
use crate::batch::{Item, Permit, TopicPartition};
use handover::Handover;

/// How long the broker may take to answer a question about a topic.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// Without budget, polling is held back this long before the partitions are paused: a pause throws prefetched data away.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// How often the group's offsets are brought up to the table's.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What the table knows of partitions: the next offset to read, for those that it knows.
pub type Resume = Box<dyn Fn(&[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>, String> + Send + Sync>;

/// Offsets that are safe in the table; the sink writes, the source reports them to Kafka.
pub type Committed = Arc<Mutex<BTreeMap<TopicPartition, i64>>>;

fn kafka_error(what: impl Into<String>) -> impl FnOnce(KafkaError) -> SourceError {
    let what = what.into();
    move |error| SourceError::Kafka {
        what,
        cause: error.to_string(),
    }
}

/// The source.
pub struct KafkaSource {
    consumer: BaseConsumer<Handover>,
    limits: BatchLimits,
    budget: Budget,
    out: mpsc::Sender<Item>,
    committed: Committed,
    until_caught_up: bool,
    single_topic: bool,
}

/// What a Kafka source needs beside its configuration.
pub struct KafkaParts {
    /// What the table knows.
    pub resume: Resume,
    /// How large batches grow.
    pub limits: BatchLimits,
    /// The byte budget.
    pub budget: Budget,
    /// Where items go.
    pub out: mpsc::Sender<Item>,
    /// What the sink has committed.
    pub committed: Committed,
    /// Stop once every assigned partition was read to its end.
    pub until_caught_up: bool,
}

impl KafkaSource {
    /// Connects, and makes sure that the topics exist.
    ///
    /// # Errors
    /// Unknown options, no broker, a missing topic.
    pub fn connect(config: &KafkaConfig, parts: KafkaParts) -> Result<Self, SourceError> {
        let handover = Handover::new(config, parts.resume, parts.out.clone())?;
        let consumer: BaseConsumer<Handover> = config
            .consumer(parts.until_caught_up)
            .create_with_context(handover)
            .map_err(kafka_error("the options in `source.kafka` are refused"))?;
        check_topics(&consumer, &config.brokers, &config.topics)?;
        let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(kafka_error(format!("cannot subscribe to {}", topics.join(", "))))?;
        Ok(KafkaSource {
            consumer,
            limits: parts.limits,
            budget: parts.budget,
            out: parts.out,
            committed: parts.committed,
            until_caught_up: parts.until_caught_up,
            single_topic: topics.len() == 1,
        })
    }

    /// The cluster's id, part of the name under which the table keeps offsets.
    ///
    /// # Errors
    /// The broker does not tell.
    pub fn cluster_id(client: &ClientConfig) -> Result<String, SourceError> {
        let consumer: BaseConsumer = client
            .create()
            .map_err(kafka_error("the options in `source.kafka` are refused"))?;
        consumer
            .client()
            .fetch_cluster_id(BROKER_TIMEOUT)
            .ok_or_else(|| SourceError::Kafka {
                what: format!(
                    "no broker answers at {}: check `source.kafka.brokers` and that Kafka runs",
                    client.get("bootstrap.servers").unwrap_or("")
                ),
                cause: "timed out asking for the cluster id".into(),
            })
    }

    /// Reads until told to stop, or until caught up.
    ///
    /// # Errors
    /// The broker refuses for good, or offsets do not fit the table.
    pub fn run(self, stop: &Stop) -> Result<(), SourceError> {
        let mut collector = Collector::new();
        let mut share: Option<Permit> = None;
        let mut caught_up = HashSet::new();
        let mut reported = Instant::now();
        while !stop.is_set() && !self.out.is_closed() {
            if let Some(failure) = self.consumer.context().lock().failure.take() {
                return Err(failure);
            }
            if share.is_none() {
                share = self.wait_for_budget(stop, &mut collector, &mut caught_up)?;
                continue;
            }
            let message = self.consumer.poll(self.limits.linger.min(Duration::from_millis(50)));
            self.forget_revoked(&mut collector, &mut caught_up);
            self.take_in(message, &mut collector, &mut caught_up)?;
            let done = self.until_caught_up && self.is_caught_up(&caught_up);
            if collector.is_due(&self.limits) || (done && collector.rows() > 0) {
                self.hand_over(&mut collector, &mut share);
            }
            if reported.elapsed() > REPORT_EVERY {
                self.report(CommitMode::Async);
                reported = Instant::now();
            }
            if done {
                break;
            }
        }
        if collector.rows() > 0 && !self.out.is_closed() {
            self.hand_over(&mut collector, &mut share);
        }
        // The group's offsets are to be the table's when the consumer leaves.
        self.consumer.context().drain();
        self.report(CommitMode::Sync);
        Ok(())
    }

    /// A share for a batch; while there is none, the group must still hear from us.
    fn wait_for_budget(
        &self,
        stop: &Stop,
        collector: &mut Collector,
        caught_up: &mut HashSet<TopicPartition>,
    ) -> Result<Option<Permit>, SourceError> {
        let started = Instant::now();
        let mut paused = None;
        let share = loop {
            if self.out.capacity() > 0
                && let Some(share) = self.budget.try_take(self.limits.bytes)
            {
                break Some(share);
            }
            if stop.is_set() || self.out.is_closed() {
                break None;
            }
            if started.elapsed() < PAUSE_AFTER {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            if paused.is_none() {
                let list = self
                    .consumer
                    .assignment()
                    .map_err(kafka_error("cannot list assigned partitions"))?;
                self.consumer.pause(&list).map_err(kafka_error("cannot pause"))?;
                tracing::debug!("paused: the byte budget is spent");
                paused = Some(list);
            }
            let message = self.consumer.poll(Duration::from_millis(50));
            self.forget_revoked(collector, caught_up);
            self.take_in(message, collector, caught_up)?;
        };
        if paused.is_some() {
            let list = self
                .consumer
                .assignment()
                .map_err(kafka_error("cannot list assigned partitions"))?;
            self.consumer.resume(&list).map_err(kafka_error("cannot resume"))?;
        }
        Ok(share)
    }

    fn take_in(
        &self,
        message: Option<Result<BorrowedMessage<'_>, KafkaError>>,
        collector: &mut Collector,
        caught_up: &mut HashSet<TopicPartition>,
    ) -> Result<(), SourceError> {
        match message {
            None => Ok(()),
            Some(Ok(message)) => {
                self.collect(&message, collector);
                Ok(())
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.note_end(partition, caught_up);
                Ok(())
            }
            Some(Err(error)) => judge(error),
        }
    }

    fn collect(&self, message: &BorrowedMessage<'_>, collector: &mut Collector) {
        let mut assigned = self.consumer.context().lock();
        let here = assigned
            .positions
            .iter_mut()
            .find(|(at, _)| at.partition == message.partition() && *at.topic == *message.topic());
        let Some((at, position)) = here else { return };
        if message.offset() < position.expected {
            return;
        }
        let row = RowAt {
            offset: message.offset(),
            expected: position.expected,
            epoch: position.epoch,
            timestamp_micros: message.timestamp().to_millis().map(|millis| millis * 1000),
        };
        position.expected = message.offset() + 1;
        collector.push(at, row, message.payload());
    }

    fn hand_over(&self, collector: &mut Collector, share: &mut Option<Permit>) {
        let bytes = collector.bytes();
        let permit = match share.take() {
            Some(permit) if bytes <= permit.bytes => Some(permit.shrink(bytes)),
            // A message larger than a batch: its share must be larger too.
            smaller => {
                drop(smaller);
                super::wait_for_share(&self.budget, bytes, || self.out.is_closed())
            }
        };
        if let Some(permit) = permit {
            super::send(&self.out, Item::Batch(Box::new(collector.take(permit))));
        }
    }

    fn forget_revoked(&self, collector: &mut Collector, caught_up: &mut HashSet<TopicPartition>) {
        let revoked = std::mem::take(&mut self.consumer.context().lock().revoked);
        if !revoked.is_empty() {
            collector.discard(&revoked);
            caught_up.retain(|at| !revoked.contains(at));
        }
    }

    /// librdkafka names the partition that ended, but not its topic.
    fn note_end(&self, partition: i32, caught_up: &mut HashSet<TopicPartition>) {
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
            let ended = self.single_topic
                || self
                    .consumer
                    .fetch_watermarks(&at.topic, at.partition, BROKER_TIMEOUT)
                    .is_ok_and(|(_, high)| expected >= high);
            if ended {
                caught_up.insert(at);
            }
        }
    }

    fn is_caught_up(&self, caught_up: &HashSet<TopicPartition>) -> bool {
        let assigned = self.consumer.context().lock();
        let settled = assigned
            .first_at
            .is_some_and(|at| !assigned.positions.is_empty() || at.elapsed().as_secs() > 5);
        settled && assigned.positions.keys().all(|at| caught_up.contains(at))
    }

    /// Tells the group what is in the table.
    fn report(&self, mode: CommitMode) {
        let committed = std::mem::take(&mut *self.committed.lock().unwrap_or_else(PoisonError::into_inner));
        let owned = &self.consumer.context().lock().positions.clone();
        let mut list = TopicPartitionList::new();
        for (at, next) in committed.iter().filter(|(at, _)| owned.contains_key(*at)) {
            if let Err(error) = list.add_partition_offset(&at.topic, at.partition, Offset::Offset(*next)) {
                tracing::debug!(%error, "offset not reported");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, mode)
        {
            tracing::debug!(%error, "offsets not reported to the group; the table has them");
        }
    }
}

/// Which client errors end the run; the others the client mends by itself.
fn judge(error: KafkaError) -> Result<(), SourceError> {
    use RDKafkaErrorCode::*;
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                AutoOffsetReset
                    | OffsetOutOfRange
                    | UnknownTopicOrPartition
                    | UnknownTopic
                    | TopicAuthorizationFailed
                    | GroupAuthorizationFailed
                    | SaslAuthenticationFailed
                    | Authentication
            )
        );
    if fatal {
        let what = "the broker refuses for good; see the topic, its retention and this user's rights".to_string();
        return Err(SourceError::Kafka {
            what,
            cause: error.to_string(),
        });
    }
    tracing::warn!(%error, "kafka");
    Ok(())
}

/// Fails with one sentence if a topic is missing or no broker answers.
///
/// # Errors
/// As said.
pub fn check_topics<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    brokers: &str,
    topics: &[String],
) -> Result<(), SourceError> {
    for topic in topics {
        let metadata = consumer
            .fetch_metadata(Some(topic), BROKER_TIMEOUT)
            .map_err(kafka_error(format!(
                "no broker answers at {brokers}: check `source.kafka.brokers` and that Kafka runs"
            )))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.is_none_or(|found| found.error().is_some() || found.partitions().is_empty()) {
            return Err(SourceError::Kafka {
                what: format!("topic `{topic}` does not exist at {brokers}: create it, or mend `source.kafka.topics`"),
                cause: "unknown topic".into(),
            });
        }
    }
    Ok(())
}
