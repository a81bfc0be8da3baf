//! A Kafka consumer group as a source.
//!
//! Where to start is what the table says, never what the group stored: on assignment each partition is given the
//! offset that the table's last commit ends with. Offsets are committed to Kafka too, but only for lag tools to read.
//!
//! Architecture Invariant: no offset is skipped in silence. A stored offset that the topic no longer holds stops the run.

mod access;
mod config;
mod ends;
mod guard;
mod handover;
mod probe;
mod security;
mod share;
mod tokens;
mod trouble;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

pub use access::Access;
pub use config::{FirstStart, GroupProtocol, KafkaConfig};
pub use guard::Guard;
pub use security::{
    CLIENT_SECRET_VARIABLE, KEY_PASSWORD_VARIABLE, Mechanism, PASSWORD_VARIABLE, SaslConfig, TlsConfig,
};

use super::{BatchLimits, Budget, Collector, RowAt, SourceError, Stop};
use crate::batch::{Item, Permit, TopicPartition};
use crate::stats::Stats;
use ends::Others;
use handover::Handover;

/// How long the broker may take to answer a question about a topic.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
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
    keys: bool,
    topics: Vec<String>,
    session: Duration,
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
    /// Keys of messages are wanted.
    pub keys: bool,
    /// Where it is shown how far reading is.
    pub stats: Arc<Stats>,
}

impl KafkaSource {
    /// Connects, and makes sure that the topics exist.
    ///
    /// # Errors
    /// Unknown options, no broker, a missing topic.
    pub fn connect(config: &KafkaConfig, parts: KafkaParts) -> Result<Self, SourceError> {
        let access = config.consumer(parts.until_caught_up)?;
        let handover = Handover::new(config, access.guard(), parts.resume, parts.out.clone(), parts.stats)?;
        let consumer: BaseConsumer<Handover> = access.open(handover)?;
        check_topics(&consumer, consumer.context().guard(), config, None)?;
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
            keys: parts.keys,
            topics: config.topics.clone(),
            session: config.session(),
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
        let (mut reported, mut others) = (Instant::now(), Others::new(self.session));
        while !stop.is_set() && !self.out.is_closed() {
            self.consumer.context().turned();
            if let Some(failure) = self.consumer.context().lock().failure.take() {
                return Err(failure);
            }
            if share.is_none() {
                let state = (&mut collector, &mut caught_up);
                share = self.wait_for_share(self.limits.bytes, state, || stop.is_set())?;
                continue;
            }
            let message = self.consumer.poll(self.limits.linger.min(Duration::from_millis(50)));
            self.follow_assignment(&mut collector, &mut caught_up);
            self.take_in(message, &mut collector, &mut caught_up)?;
            let done = self.until_caught_up && self.is_caught_up(&caught_up);
            let over = done && collector.is_empty() && others.are_done(&self);
            if collector.is_due(&self.limits) || (done && !collector.is_empty()) {
                self.hand_over(&mut collector, &mut share, &mut caught_up)?;
            }
            if reported.elapsed() > REPORT_EVERY {
                self.report(CommitMode::Async);
                reported = Instant::now();
            }
            if over {
                break;
            }
        }
        if !collector.is_empty() && !self.out.is_closed() {
            self.hand_over(&mut collector, &mut share, &mut caught_up)?;
        }
        // The group's offsets are to be the table's when the consumer leaves.
        self.consumer.context().drain();
        self.report(CommitMode::Sync);
        Ok(())
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
            Some(Err(error)) => judge(error, self.consumer.context().guard()),
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
            key: message.key().filter(|_| self.keys),
        };
        position.expected = message.offset() + 1;
        collector.push(at, row, message.payload());
    }

    fn hand_over(
        &self,
        collector: &mut Collector,
        share: &mut Option<Permit>,
        caught_up: &mut HashSet<TopicPartition>,
    ) -> Result<(), SourceError> {
        let bytes = collector.bytes();
        let permit = match share.take() {
            Some(permit) if bytes <= permit.bytes => Some(permit.shrink(bytes)),
            // A message larger than a batch: its share must be larger too.
            smaller => {
                drop(smaller);
                self.wait_for_share(bytes, (collector, caught_up), || false)?
            }
        };
        // Its partitions may be another's by now.
        if let Some(permit) = permit.filter(|_| !collector.is_empty()) {
            let has_starts = collector.has_starts();
            super::send(&self.out, Item::Batch(Box::new(collector.take(permit))));
            if has_starts {
                // After a crash before the first commit, reading would begin behind what arrived meanwhile. Nobody waits
                // for the answer; where the line has no room, the commit by age must do.
                let (done, _) = oneshot::channel();
                let _ = self.out.try_send(Item::Flush(done));
            }
        }
        Ok(())
    }

    /// Drops what was read of partitions that went away, and takes up where those begin that came.
    fn follow_assignment(&self, collector: &mut Collector, caught_up: &mut HashSet<TopicPartition>) {
        let mut assigned = self.consumer.context().lock();
        let revoked = std::mem::take(&mut assigned.revoked);
        let starts = std::mem::take(&mut assigned.starts);
        drop(assigned);
        if !revoked.is_empty() {
            collector.discard(&revoked);
            caught_up.retain(|at| !revoked.contains(at));
        }
        for (at, position) in starts {
            collector.start(&at, position.expected, position.epoch);
        }
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
fn judge(error: KafkaError, guard: &Guard) -> Result<(), SourceError> {
    use RDKafkaErrorCode::*;
    if let Some(SaslAuthenticationFailed | Authentication) = error.rdkafka_error_code() {
        return guard.login_failed().map_or(Ok(()), Err);
    }
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

/// Fails if no broker answers, or with all the topics that are missing; `letters` is that of dead letters.
fn check_topics<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    guard: &Guard,
    config: &KafkaConfig,
    letters: Option<&str>,
) -> Result<(), SourceError> {
    let read = config
        .topics
        .iter()
        .map(|topic| (topic.as_str(), "source.kafka.topics"));
    let written = letters.map(|topic| (topic, "sink.dead_letter_topic.topic"));
    let mut missing = Vec::new();
    for (topic, key) in read.chain(written) {
        let metadata = guard.ask(
            |time| drop(consumer.poll(time)),
            |time| consumer.fetch_metadata(Some(topic), time),
        )?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.is_none_or(|found| found.error().is_some() || found.partitions().is_empty()) {
            missing.push(format!(
                "topic `{topic}` does not exist at {}: create it, or mend `{key}`",
                config.brokers
            ));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(SourceError::Kafka {
        what: missing.join("; "),
        cause: "unknown topic".into(),
    })
}

/// The cluster's id, part of the name under which the table keeps offsets, if a broker answers and the topics exist.
/// Blocks.
///
/// # Errors
/// The configuration cannot be used, no broker answers or lets us in, topics are missing.
pub fn reach(config: &KafkaConfig) -> Result<String, SourceError> {
    reach_with(config, None)
}

/// As [`reach`], where the topic that dead letters go to must exist as well.
///
/// # Errors
/// As [`reach`]'s.
pub fn reach_with(config: &KafkaConfig, letters: Option<&str>) -> Result<String, SourceError> {
    let access = config.client()?;
    let consumer: BaseConsumer<Guard> = access.open(access.guard())?;
    let guard = consumer.context();
    let cluster = guard.ask(
        |time| drop(consumer.poll(time)),
        |time| {
            let id = consumer.client().fetch_cluster_id(time);
            id.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))
        },
    )?;
    check_topics(&consumer, guard, config, letters)?;
    Ok(cluster)
}
