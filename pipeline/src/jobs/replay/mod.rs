//! `tamiz replay`: dead letters through the line again, with the model and the configuration of today.
//!
//! A letter is one row of the dead-letters table, and its outcome is written into that row: `passed` (it is a post now),
//! `failed_again` (it stays a dead letter, for the reason that stands there now), `deleted` (its source took it back
//! meanwhile), `payload_gone` (Kafka no longer holds the message, or another one is there). NULL is a letter that nobody
//! has replayed. `passed`, `deleted` and `payload_gone` are final; the others are taken again by the next replay.
//!
//! # Why no post is there twice, whatever is killed and whoever else runs
//!
//! Posts and outcomes are two tables, so there is a moment between their commits. Four rules make it harmless:
//!
//! 1. A letter is taken only when the posts table's own offset of its partition is past it. Then no `run` will ever read
//!    that message again: from here on only replays can make a post of it. Below that offset a `run` that was killed
//!    between its two commits may still do so, and perhaps otherwise than the first time.
//! 2. A post keeps the whereabouts of its message (`kafka`), with Kafka's timestamp, since a topic that is made anew counts
//!    its offsets from zero again. Before rows are committed, those whose whereabouts the posts table holds already are left
//!    out: a replay that was killed before it could write outcomes, or rule 1's `run`. A `batch` notes no whereabouts: what
//!    it made of a letter's row, when it read that once more, is known by source and identifier.
//! 3. Between that look and the commit another replay might commit the same. So each replay moves one and the same
//!    transaction of the posts table, `{pipeline}/replay`, by one from what it was *before* the look. Of two only one can;
//!    the other one looks again. Runs have other transactions, and are not held up.
//! 4. Outcomes are written after posts, in place, by who they are about; a final one is never written over. Doing it
//!    again, or by two at once, ends the same.
//!
//! So the posts table alone decides, and the outcome column follows it. A letter without an outcome costs work, never a
//! row.
//!
//! What the line remembers is not restored: a replayed row is no duplicate of a post that came before it.
//!
//! Where tombstones take posts back, a post is known by the key of its message, and the dead-letters table keeps no keys. So
//! there messages come from Kafka even where their payloads were kept, and letters whose message is gone are left alone: a
//! post of theirs could never be taken back.

mod held;
mod letters;
mod marks;
mod messages;
mod places;
mod replayed;
mod settle;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tamiz_model::Scorer;
use tamiz_schemas::dead_letters::{DELETED, FAILED_AGAIN, PASSED, PAYLOAD_GONE, REASONS};
use tamiz_schemas::format::PayloadFormat;

use self::letters::Letter;
use self::marks::Mark;
use self::messages::Message;
use self::places::Place;
pub use self::replayed::Replayed;
use self::settle::Settlement;
use super::run::blocking;
use super::{JobError, dead_letters_spec, store};
use crate::batch::{Batch, Permit, TopicPartition};
use crate::config::Config;
use crate::flow;
use crate::line::Line;
use crate::sink::app_id;
use crate::source::kafka::reach;
use crate::source::{Collector, RowAt, Stop};
use crate::stages::decode::Origin;
use crate::stages::finish::now_micros;
use crate::stats::Stats;
use crate::table::{Inspection, Store, inspect, standing};

/// Letters that go through the line together, at most.
const CHUNK_LETTERS: usize = 20_000;
/// Their payloads, at most; a larger one goes alone.
const CHUNK_BYTES: i64 = 64 << 20;

/// Which letters, and whether to commit.
#[derive(Debug, Clone, Default)]
pub struct ReplayOptions {
    /// Only those with one of these reasons; all where there is none.
    pub reasons: Vec<String>,
    /// Only those of this stage.
    pub stage: Option<String>,
    /// Only those refused at this moment or later: microseconds.
    pub since: Option<i64>,
    /// Only those refused before this moment.
    pub until: Option<i64>,
    /// Tell what would become of them, and commit nothing.
    pub dry_run: bool,
}

impl ReplayOptions {
    /// Words that no letter can have.
    ///
    /// # Errors
    /// A sentence with those that there are.
    pub fn check(&self) -> Result<(), JobError> {
        let stages: Vec<&str> = REASONS.iter().map(|(stage, _)| *stage).collect();
        if let Some(stage) = self.stage.as_deref().filter(|stage| !stages.contains(stage)) {
            let known = stages.join(", ");
            return Err(JobError::Usage(format!(
                "no stage `{stage}` refuses rows: there are {known}"
            )));
        }
        let reasons: Vec<&str> = REASONS
            .iter()
            .flat_map(|(_, reasons)| reasons.iter().copied())
            .collect();
        match self.reasons.iter().find(|reason| !reasons.contains(&reason.as_str())) {
            None => Ok(()),
            Some(reason) => Err(JobError::Usage(format!(
                "no row is refused for `{reason}`: reasons are {}",
                reasons.join(", ")
            ))),
        }
    }
}

/// Replays dead letters of the configured tables.
///
/// # Errors
/// The first failure; what was committed until then is marked, or will be found in the posts table by the next replay.
pub async fn replay(
    config: &Config,
    scorer: Option<Scorer>,
    options: &ReplayOptions,
    stats: Arc<Stats>,
    stop: Stop,
) -> Result<Replayed, JobError> {
    config.check()?;
    options.check()?;
    let store = store(config)?;
    if inspect(&config.sink.dead_letters, &store, &dead_letters_spec()).await? == Inspection::Absent {
        return Ok(Replayed::default());
    }
    // Every refusal is the outcome of a letter, also of those that a run only counts.
    let mut config = config.clone();
    config.sink.ignore.clear();
    let files = line_of_files(&config, scorer.clone(), &stats)?;
    let line = Line::new(&config, scorer, Origin::Kafka, stats)?;
    let until = options.until.unwrap_or(i64::MAX).min(now_micros());
    let mut replay = Replay {
        settlement: Settlement::open(&config, &store, &line, options.dry_run).await?,
        forget_before: forget_before(&config, &store).await?,
        needs_keys: config.input.deletes.tombstones && config.mapping()?.key.is_none(),
        config,
        store,
        line,
        files,
        stop,
        prefix: None,
        ends: HashMap::new(),
        done: Replayed::default(),
    };
    let select = ReplayOptions {
        until: Some(until),
        ..options.clone()
    };
    for day in letters::days(&replay.config, &replay.store, &select).await? {
        let found = letters::of_day(&replay.config, &replay.store, &select, day).await?;
        let settled = replay.settled(found).await?;
        let (files, messages): (Vec<_>, Vec<_>) = settled.into_iter().partition(Letter::is_of_file);
        for chunk in chunks(files).into_iter().chain(chunks(messages)) {
            if replay.stop.is_set() {
                return Ok(replay.done);
            }
            replay.chunk(chunk).await?;
        }
    }
    Ok(replay.done)
}

/// Rows of a batch job are JSON whatever the topic's messages are; where those are too, one line does for both.
fn line_of_files(config: &Config, scorer: Option<Scorer>, stats: &Arc<Stats>) -> Result<Option<Line>, JobError> {
    if config.input.format == PayloadFormat::Json {
        return Ok(None);
    }
    let mut config = config.clone();
    config.input.format = PayloadFormat::Json;
    Ok(Some(Line::new(&config, scorer, Origin::Kafka, Arc::clone(stats))?))
}

/// Letters refused before this moment are left alone where posts can be taken back: the delete of one may be forgotten.
async fn forget_before(config: &Config, store: &Store) -> Result<i64, JobError> {
    let deletes = inspect(&config.deletes_address(), store, &crate::deletes::deletes_spec()).await?;
    Ok(match deletes {
        Inspection::Absent => i64::MIN,
        Inspection::Present { .. } => now_micros() - i64::from(config.deletes.remember_hours) * 3_600_000_000,
    })
}

struct Replay {
    config: Config,
    store: Store,
    line: Line,
    /// For rows of batch jobs, where their payloads are written otherwise.
    files: Option<Line>,
    stop: Stop,
    settlement: Settlement,
    forget_before: i64,
    /// Posts of a topic are taken back by the keys of their messages.
    needs_keys: bool,
    /// Of the transactions of Kafka partitions, once the broker was asked.
    prefix: Option<String>,
    /// How far the posts table is.
    ends: HashMap<TopicPartition, Option<i64>>,
    done: Replayed,
}

impl Replay {
    /// The letters that can be replayed; the others are counted.
    async fn settled(&mut self, letters: Vec<Letter>) -> Result<Vec<Letter>, JobError> {
        let mut settled = Vec::new();
        for letter in letters {
            if letter.rejected_at < self.forget_before {
                self.done.forgotten += 1;
            } else if self
                .end(&letter.place.at)
                .await?
                .is_none_or(|end| letter.place.offset >= end)
            {
                self.done.unsettled += 1;
            } else if letter.is_of_file() && !letter.kept {
                self.done.in_files += 1;
            } else {
                settled.push(letter);
            }
        }
        Ok(settled)
    }

    /// How far the posts table is in a partition; asked anew in each replay, and never less than what is true then.
    async fn end(&mut self, at: &TopicPartition) -> Result<Option<i64>, JobError> {
        if let Some(end) = self.ends.get(at) {
            return Ok(*end);
        }
        let id = match places::is_file(&at.topic) {
            true => app_id(&format!("{}/file", self.config.pipeline.name), at),
            false => app_id(&self.kafka_prefix().await?, at),
        };
        let known = standing(&self.config.sink.posts, &self.store, std::slice::from_ref(&id)).await?;
        let end = known.get(&id).copied();
        self.ends.insert(at.clone(), end);
        Ok(end)
    }

    async fn kafka_prefix(&mut self) -> Result<String, JobError> {
        if let Some(prefix) = &self.prefix {
            return Ok(prefix.clone());
        }
        let mut kafka = self.config.source.kafka.clone();
        kafka.topics.clear(); // those of letters may be gone
        let cluster = blocking(move || reach(&kafka)).await?;
        let prefix = format!("{}/{cluster}", self.config.pipeline.name);
        self.prefix = Some(prefix.clone());
        Ok(prefix)
    }

    /// Letters through the line, into the tables: all of files, or none.
    async fn chunk(&mut self, letters: Vec<Letter>) -> Result<(), JobError> {
        let messages = self.messages(&letters).await?;
        let (letters, keyless): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .partition(|letter| !self.is_keyless(letter, &messages));
        self.done.keyless += keyless.len() as u64;
        let mut marks: HashMap<Place, Mark> = HashMap::new();
        let mut collector = Collector::new();
        for letter in &letters {
            match message_of(letter, &messages) {
                Some(message) => collect(&mut collector, letter, message),
                None => drop(marks.insert(letter.place.clone(), Mark::of(PAYLOAD_GONE))),
            }
        }
        if collector.rows() > 0 {
            let bytes = collector.bytes();
            let batch: Batch = collector.take(Permit::unbounded(bytes));
            let of_files = letters.first().is_some_and(Letter::is_of_file);
            let line = self.files.as_ref().filter(|_| of_files).unwrap_or(&self.line);
            let finished = flow::alone(line, batch, &self.stop).await.map_err(JobError::Flow)?;
            self.done.already += self.settlement.posts(finished, &mut marks).await?;
        }
        if marks.len() != letters.len() {
            let (told, there) = (marks.len(), letters.len());
            return Err(JobError::Failed(format!(
                "{there} dead letters went in and {told} came out; nothing was marked; report this as a defect"
            )));
        }
        for mark in marks.values() {
            *match mark.outcome {
                PASSED => &mut self.done.passed,
                FAILED_AGAIN => &mut self.done.failed_again,
                DELETED => &mut self.done.deleted,
                _ => &mut self.done.payload_gone,
            } += 1;
        }
        self.settlement.outcomes(&letters, marks).await
    }

    /// Whether only the key of a letter is gone.
    fn is_keyless(&self, letter: &Letter, messages: &HashMap<Place, Message>) -> bool {
        self.needs_keys && letter.kept && !letter.is_of_file() && message_of(letter, messages).is_none()
    }

    /// Payloads, from the table where they were kept and are enough, otherwise from Kafka.
    async fn messages(&self, letters: &[Letter]) -> Result<HashMap<Place, Message>, JobError> {
        let of_files = letters.first().is_some_and(Letter::is_of_file);
        let mut found = match self.needs_keys && !of_files {
            true => HashMap::new(),
            false => letters::kept(&self.config, &self.store, letters).await?,
        };
        let mut wanted: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
        // A payload of no bytes may be one that is not there: only Kafka knows.
        for letter in letters
            .iter()
            .filter(|letter| !letter.is_of_file() && !found.contains_key(&letter.place))
        {
            wanted
                .entry(letter.place.at.clone())
                .or_default()
                .push(letter.place.offset);
        }
        if !wanted.is_empty() {
            let kafka = self.config.source.kafka.clone();
            found.extend(blocking(move || messages::fetch(&kafka, wanted)).await?);
        }
        Ok(found)
    }
}

/// The message that was refused, if it is among these.
fn message_of<'m>(letter: &Letter, messages: &'m HashMap<Place, Message>) -> Option<&'m Message> {
    messages.get(&letter.place).filter(|message| letter.is(message))
}

fn collect(collector: &mut Collector, letter: &Letter, message: &Message) {
    let row = RowAt {
        offset: letter.place.offset,
        expected: letter.place.offset,
        epoch: 0,
        timestamp_micros: letter.place.timestamp,
        key: message.key.as_deref(),
    };
    collector.push(&letter.place.at, row, message.payload.as_deref());
}

/// Letters that go through the line together.
fn chunks(letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    let mut chunks: Vec<Vec<Letter>> = Vec::new();
    let mut bytes = 0;
    for letter in letters {
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_LETTERS && bytes + letter.bytes <= CHUNK_BYTES => {
                bytes += letter.bytes;
                chunk.push(letter);
            }
            _ => {
                bytes = letter.bytes;
                chunks.push(vec![letter]);
            }
        }
    }
    chunks
}
