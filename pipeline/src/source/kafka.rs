//! A Kafka consumer group as a source.
//!
//! Where to start is what the table says, never what the group stored: on assignment each partition is given the
//! offset that the table's last commit ends with. Offsets are committed to Kafka too, but only for lag tools to read.
//!
//! Architecture Invariant: no offset is skipped in silence. A stored offset that the topic no longer holds stops the run.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{BatchLimits, Budget, Collector, RowAt, SourceError, Stop};
use crate::batch::{Item, Permit, TopicPartition};

/// How long the broker may take to answer a question about a topic.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long giving up partitions waits for their rows to be committed; the table's fence guards what takes longer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Without budget, polling is held back this long before the partitions are paused: a pause throws prefetched data away.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// How often the group's offsets are brought up to the table's.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Where a partition starts that the table knows nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstStart {
    /// The oldest message.
    Earliest,
    /// What arrives from now on.
    Latest,
    /// The first message at or after `first_start_timestamp`.
    Timestamp,
}

/// Which group protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// The classic one, cooperative-sticky.
    Classic,
    /// KIP-848, Kafka 4 and later.
    Consumer,
}

/// The `[source.kafka]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port,host:port`.
    pub brokers: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Consumer group.
    pub group: String,
    /// Group protocol.
    pub group_protocol: GroupProtocol,
    /// Where a new partition starts.
    pub first_start: FirstStart,
    /// RFC 3339 moment for `first_start = "timestamp"`.
    pub first_start_timestamp: String,
    /// Further librdkafka options, by their own names.
    pub options: BTreeMap<String, String>,
}

/// Options that the delivery guarantee rests on; `options` may not change them.
const FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
];

impl KafkaConfig {
    /// The client configuration that producers, consumers and checks share.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "tamiz");
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }

    fn consumer(&self, tell_end: bool) -> ClientConfig {
        let mut client = self.client();
        client
            .set("group.id", &self.group)
            .set("enable.partition.eof", tell_end.to_string());
        match self.group_protocol {
            GroupProtocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
            GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
        };
        for (name, value) in FIXED {
            client.set(name, value);
        }
        client
    }

    /// Options that contradict the delivery guarantee.
    pub fn forbidden_options(&self) -> Vec<&str> {
        self.options
            .keys()
            .map(String::as_str)
            .filter(|name| FIXED.iter().any(|(fixed, _)| fixed == name))
            .collect()
    }
}

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

#[derive(Debug, Clone, Copy)]
struct Position {
    expected: i64,
    epoch: u64,
}

#[derive(Default)]
struct Assigned {
    positions: BTreeMap<TopicPartition, Position>,
    revoked: Vec<TopicPartition>,
    failure: Option<SourceError>,
    epoch: u64,
    first_at: Option<Instant>,
}

/// Hands the table's offsets over when partitions are assigned, and has the line drained before they are given up.
pub struct Handover {
    resume: Resume,
    first_start: FirstStart,
    first_start_millis: i64,
    out: mpsc::Sender<Item>,
    assigned: Mutex<Assigned>,
}

impl ClientContext for Handover {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
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
    fn lock(&self) -> std::sync::MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), SourceError> {
        let wanted = partitions(list);
        let known = (self.resume)(&wanted).map_err(SourceError::Offsets)?;
        for at in &wanted {
            let start = self.start(consumer, at, known.get(at).copied())?;
            list.set_partition_offset(&at.topic, at.partition, Offset::Offset(start))
                .map_err(kafka_error("cannot set a start offset"))?;
            let mut assigned = self.lock();
            assigned.epoch += 1;
            let epoch = assigned.epoch;
            assigned
                .positions
                .insert(at.clone(), Position { expected: start, epoch });
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

    fn start(
        &self,
        consumer: &BaseConsumer<Self>,
        at: &TopicPartition,
        stored: Option<i64>,
    ) -> Result<i64, SourceError> {
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
            Some(next) => Ok(next),
            None => match self.first_start {
                FirstStart::Earliest => Ok(low),
                FirstStart::Latest => Ok(high),
                FirstStart::Timestamp => self.at_time(consumer, at, high),
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
    fn drain(&self) {
        let (done, mut committed) = oneshot::channel();
        if self.out.blocking_send(Item::Flush(done)).is_err() {
            return;
        }
        let until = Instant::now() + DRAIN_TIMEOUT;
        while Instant::now() < until {
            match committed.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        tracing::warn!("rows of revoked partitions are not committed yet: the next owner will read them again");
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
        let millis = match config.first_start {
            FirstStart::Timestamp => tamiz_schemas::time::parse(&config.first_start_timestamp).map(|us| us / 1000),
            _ => Some(0),
        };
        let handover = Handover {
            resume: parts.resume,
            first_start: config.first_start,
            first_start_millis: millis.ok_or_else(|| {
                SourceError::Offsets("`source.kafka.first_start_timestamp` is no RFC 3339 time".into())
            })?,
            out: parts.out.clone(),
            assigned: Mutex::default(),
        };
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
