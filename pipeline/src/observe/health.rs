//! Whether the process lives and whether it is ready, told from the moments at which its parts last moved.
//!
//! Alive means that a restart would help if it were not: a thread that hangs, a runtime that does not answer. A broker or
//! a store that is away is no such thing: the process waits or retries, and says so by not being ready.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lag::Group;

/// The runtime is asked every second; a long parse of a table's log holds it up for less than this.
const RUNTIME_SILENT: Duration = Duration::from_secs(30);
/// The source turns every 50 ms, but while partitions change hands it waits for a commit and for answers of the broker.
const SOURCE_SILENT: Duration = Duration::from_secs(120);
/// A batch passes a stage in milliseconds; a large model on few cores takes a minute for one of its own.
const LINE_SILENT: Duration = Duration::from_secs(300);
/// How much longer than the flush interval rows may wait: a commit behind another one, on a slow store.
const COMMIT_MARGIN: Duration = Duration::from_secs(30);
/// How long a batch may wait for its schemas: a registry answers within seconds.
const REGISTRY_SILENT: Duration = Duration::from_secs(30);
/// How long none of the batches in the stages may come out while nothing else moves there either, …
const NONE_OUT: Duration = Duration::from_secs(120);
/// … and how long although other batches move: those behind one that is stuck do until all room is taken.
const NONE_OUT_AT_ALL: Duration = Duration::from_secs(900);
/// A group finds its coordinator again within seconds, be it that a broker is started again. By the new protocol a member
/// keeps its partitions for as long as it does not, and reads on or does not.
const COORDINATOR_SILENT: Duration = Duration::from_secs(60);
/// A member without partitions is one that the group has none for, not one that is about to get some, after this long.
const STANDBY_AFTER: Duration = Duration::from_secs(10);

/// Yes, with a remark; or no, with the reason.
pub type Verdict = Result<String, String>;

/// What a line reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Partitions of Kafka, once it is assigned some.
    Kafka,
    /// Files.
    Files,
}

/// When something happened last; readable and writable from any thread without a lock.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    /// Milliseconds since `born`, plus one; zero is never.
    fn set(&self, born: Instant, at: Instant) {
        let millis = at.saturating_duration_since(born).as_millis() as u64;
        self.0.store(millis + 1, Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn age(&self, born: Instant, now: Instant) -> Option<Duration> {
        let millis = self.0.load(Relaxed).checked_sub(1)?;
        let at = born + Duration::from_millis(millis);
        Some(now.saturating_duration_since(at))
    }
}

/// The line that runs.
#[derive(Debug, Clone, Copy)]
struct Begun {
    kind: Kind,
    flush_age: Duration,
}

/// Signs of life.
#[derive(Debug)]
pub struct Health {
    born: Instant,
    begun: Mutex<Option<Begun>>,
    runtime: Moment,
    source: Moment,
    line: Moment,
    /// Batches read and not yet sent to the sink.
    in_line: AtomicI64,
    /// Since when the oldest of them is the next to come out.
    next_out: Moment,
    /// Batches that wait for their schemas.
    at_registry: AtomicI64,
    registry: Moment,
    waiting: Moment,
    settled: Moment,
    /// Since when the group's coordinator is away.
    alone: Moment,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            born: Instant::now(),
            begun: Mutex::default(),
            runtime: Moment::default(),
            source: Moment::default(),
            line: Moment::default(),
            in_line: AtomicI64::default(),
            next_out: Moment::default(),
            at_registry: AtomicI64::default(),
            registry: Moment::default(),
            waiting: Moment::default(),
            settled: Moment::default(),
            alone: Moment::default(),
        }
    }
}

impl Health {
    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line starts, or starts again; rows should be committed when they have waited `flush_age`.
    pub fn begin(&self, kind: Kind, flush_age: Duration) {
        self.end();
        *self.begun() = Some(Begun { kind, flush_age });
    }

    /// The line has ended: what it showed is not true any more.
    pub fn end(&self) {
        *self.begun() = None;
        let of_line = [&self.source, &self.line, &self.next_out, &self.waiting];
        for moment in of_line.into_iter().chain([&self.settled, &self.alone]) {
            moment.clear();
        }
        self.in_line.store(0, Relaxed);
    }

    /// The runtime ran a task.
    pub fn runtime_turned(&self) {
        self.runtime.set(self.born, Instant::now());
    }

    /// The source's loop went round.
    pub fn source_turned(&self) {
        self.source.set(self.born, Instant::now());
    }

    /// The source has come to its end.
    pub fn source_ended(&self) {
        self.source.clear();
    }

    /// A stage or the model finished a piece of work.
    pub fn line_moved(&self) {
        self.line.set(self.born, Instant::now());
    }

    /// A batch was read.
    pub fn batch_in(&self) {
        if self.in_line.fetch_add(1, Relaxed) == 0 {
            self.next_out.set(self.born, Instant::now());
        }
        self.line_moved();
    }

    /// A batch is through the stages.
    pub fn batch_out(&self) {
        if self.in_line.fetch_sub(1, Relaxed) > 1 {
            self.next_out.set(self.born, Instant::now());
        } else {
            self.next_out.clear();
        }
        self.line_moved();
    }

    /// A batch waits for its schemas, until the value is dropped.
    pub fn asks_registry(&self) -> AtRegistry<'_> {
        if self.at_registry.fetch_add(1, Relaxed) == 0 {
            self.registry.set(self.born, Instant::now());
        }
        AtRegistry(self)
    }

    /// Since when the oldest row in the sink waits for its commit.
    pub fn rows_wait(&self, since: Option<Instant>) {
        match since {
            Some(since) => self.waiting.set(self.born, since),
            None => self.waiting.clear(),
        }
    }

    /// How long the oldest row in the sink has waited for its commit; zero where none waits.
    pub fn waited(&self) -> Duration {
        self.waiting.age(self.born, Instant::now()).unwrap_or_default()
    }

    /// How the consumer stands to its group.
    pub fn group(&self, group: Group) {
        for (moment, lasts) in [(&self.settled, group.settled), (&self.alone, !group.coordinated)] {
            if !lasts {
                moment.clear();
            } else if moment.age(self.born, Instant::now()).is_none() {
                moment.set(self.born, Instant::now());
            }
        }
    }

    /// Whether a restart would help. A line whose sink is full waits for commits, and one whose registry is away waits for
    /// that: neither is for a restart to cure.
    pub fn live(&self, sink_is_full: bool) -> Verdict {
        self.live_at(Instant::now(), sink_is_full)
    }

    fn live_at(&self, now: Instant, sink_is_full: bool) -> Verdict {
        let silent = |moment: &Moment, limit: Duration| moment.age(self.born, now).filter(|age| *age > limit);
        if let Some(age) = silent(&self.runtime, RUNTIME_SILENT) {
            return Err(format!("the runtime has not answered for {} s", age.as_secs()));
        }
        if let Some(age) = silent(&self.source, SOURCE_SILENT) {
            return Err(format!("the source has not turned for {} s", age.as_secs()));
        }
        let batches = self.in_line.load(Relaxed);
        if batches > 0
            && !sink_is_full
            && self.at_registry.load(Relaxed) <= 0
            && let Some(age) = silent(&self.line, LINE_SILENT)
        {
            return Err(format!(
                "{batches} batches have not moved in the stages for {} s",
                age.as_secs()
            ));
        }
        Ok("alive".into())
    }

    /// Whether it does its work: partitions assigned, rows committed in time.
    pub fn ready(&self, partitions: usize) -> Verdict {
        self.ready_at(Instant::now(), partitions)
    }

    /// What the batches in the stages wait for, once it is for too long.
    fn held_up(&self, now: Instant) -> Option<String> {
        let age = |moment: &Moment| moment.age(self.born, now).unwrap_or_default();
        let registry = age(&self.registry);
        if registry > REGISTRY_SILENT {
            let seconds = registry.as_secs();
            return Some(format!("the line has waited for the schema registry for {seconds} s"));
        }
        let none_out = age(&self.next_out);
        let all_is_still = none_out > NONE_OUT && age(&self.line) > NONE_OUT;
        (all_is_still || none_out > NONE_OUT_AT_ALL).then(|| {
            let seconds = none_out.as_secs();
            format!("a batch is older than it should be: none has come out of the stages and the model for {seconds} s")
        })
    }

    fn ready_at(&self, now: Instant, partitions: usize) -> Verdict {
        let Some(Begun { kind, flush_age }) = *self.begun() else {
            return Err("starting".into());
        };
        let waited = self.waiting.age(self.born, now).unwrap_or_default();
        if waited > flush_age + COMMIT_MARGIN {
            return Err(format!("rows have waited for a commit for {} s", waited.as_secs()));
        }
        if let Some(held_up) = self.held_up(now) {
            return Err(held_up);
        }
        if let Some(age) = self.alone.age(self.born, now).filter(|age| *age > COORDINATOR_SILENT) {
            let seconds = age.as_secs();
            return Err(format!("the group's coordinator has not answered for {seconds} s"));
        }
        match (kind, partitions) {
            (Kind::Files, _) => Ok("ready".into()),
            (Kind::Kafka, 0) => match self.settled.age(self.born, now) {
                // One worker more than there are partitions is a spare, not a failure: a rollout that waits for it to be
                // ready must not wait for ever.
                Some(age) if age > STANDBY_AFTER => Ok("ready: a spare, the group has no partition for it".into()),
                _ => Err("no partitions assigned yet".into()),
            },
            (Kind::Kafka, partitions) => Ok(format!("ready: {partitions} partitions")),
        }
    }
}

/// A batch that waits for its schemas.
#[must_use]
pub struct AtRegistry<'h>(&'h Health);

impl Drop for AtRegistry<'_> {
    fn drop(&mut self) {
        if self.0.at_registry.fetch_sub(1, Relaxed) == 1 {
            self.0.registry.clear();
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
