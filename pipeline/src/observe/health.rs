//! Whether the process lives and whether it is ready, told from the moments at which its parts last moved.
//!
//! Alive means that a restart would help if it were not: a thread that hangs, a runtime that does not answer. A broker or
//! a store that is away is no such thing: the process waits or retries, and says so by not being ready.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The runtime is asked every second; a long parse of a table's log holds it up for less than this.
const RUNTIME_SILENT: Duration = Duration::from_secs(30);
/// The source turns every 50 ms, but while partitions change hands it waits for a commit and for answers of the broker.
const SOURCE_SILENT: Duration = Duration::from_secs(120);
/// A batch passes a stage in milliseconds; a large model on few cores takes a minute for one of its own.
const LINE_SILENT: Duration = Duration::from_secs(300);
/// How much longer than the flush interval rows may wait: a commit behind another one, on a slow store.
const COMMIT_MARGIN: Duration = Duration::from_secs(30);
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
    waiting: Moment,
    settled: Moment,
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
            waiting: Moment::default(),
            settled: Moment::default(),
        }
    }
}

impl Health {
    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line starts, or starts again; rows should be committed when they have waited `flush_age`.
    pub fn begin(&self, kind: Kind, flush_age: Duration) {
        for moment in [&self.source, &self.line, &self.waiting, &self.settled] {
            moment.clear();
        }
        self.in_line.store(0, Relaxed);
        *self.begun() = Some(Begun { kind, flush_age });
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
        self.in_line.fetch_add(1, Relaxed);
        self.line_moved();
    }

    /// A batch is through the stages.
    pub fn batch_out(&self) {
        self.in_line.fetch_sub(1, Relaxed);
        self.line_moved();
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

    /// Whether the consumer is a settled member of its group.
    pub fn group_settled(&self, settled: bool) {
        if !settled {
            self.settled.clear();
        } else if self.settled.age(self.born, Instant::now()).is_none() {
            self.settled.set(self.born, Instant::now());
        }
    }

    /// Whether a restart would help. A line whose sink is full waits for commits, which is not for a restart to cure.
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

    fn ready_at(&self, now: Instant, partitions: usize) -> Verdict {
        let Some(Begun { kind, flush_age }) = *self.begun() else {
            return Err("starting".into());
        };
        let waited = self.waiting.age(self.born, now).unwrap_or_default();
        if waited > flush_age + COMMIT_MARGIN {
            return Err(format!("rows have waited for a commit for {} s", waited.as_secs()));
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn later(health: &Health, seconds: u32) -> Instant {
        health.born + SECOND * seconds
    }

    #[test]
    fn nobody_is_dead_before_the_first_sign_of_life() {
        let health = Health::default();
        assert!(health.live_at(later(&health, 9_999), false).is_ok());
    }

    #[test]
    fn each_part_that_falls_silent_is_named() {
        for (part, within, word) in [
            (Health::runtime_turned as fn(&Health), 29, "runtime"),
            (Health::source_turned, 119, "source"),
            (Health::batch_in, 299, "batches"),
        ] {
            let health = Health::default();
            part(&health);
            assert!(health.live_at(later(&health, within), false).is_ok(), "{word}");
            let told = health.live_at(later(&health, within + 3), false).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn a_line_that_waits_for_commits_or_has_nothing_to_do_is_alive() {
        let health = Health::default();
        health.batch_in();
        assert!(health.live_at(later(&health, 999), true).is_ok());
        assert!(health.live_at(later(&health, 999), false).is_err());
        health.batch_out();
        assert!(health.live_at(later(&health, 999), false).is_ok());
        health.source_turned();
        health.source_ended();
        assert!(health.live_at(later(&health, 999), false).is_ok());
    }

    #[test]
    fn ready_is_assigned_and_committing() {
        let health = Health::default();
        assert_eq!(health.ready(1), Err("starting".into()));
        health.begin(Kind::Kafka, SECOND * 10);
        assert!(health.ready(0).unwrap_err().contains("no partitions"));
        assert_eq!(health.ready(2), Ok("ready: 2 partitions".into()));
        health.rows_wait(Some(health.born));
        assert!(health.ready_at(later(&health, 39), 2).is_ok());
        let told = health.ready_at(later(&health, 45), 2).unwrap_err();
        assert!(told.contains("45 s"), "{told}");
        health.rows_wait(None);
        assert!(health.ready_at(later(&health, 45), 2).is_ok());
    }

    #[test]
    fn a_spare_member_is_ready_once_its_group_has_settled() {
        let health = Health::default();
        health.begin(Kind::Kafka, SECOND);
        health.group_settled(true);
        assert!(health.ready_at(later(&health, 5), 0).is_err());
        health.group_settled(true);
        assert!(health.ready_at(later(&health, 15), 0).unwrap().contains("spare"));
        health.group_settled(false);
        assert!(health.ready_at(later(&health, 15), 0).is_err());
    }

    #[test]
    fn files_need_no_partitions_and_a_new_start_forgets_the_old() {
        let health = Health::default();
        health.begin(Kind::Kafka, SECOND);
        health.batch_in();
        health.rows_wait(Some(health.born));
        health.begin(Kind::Files, SECOND);
        assert!(health.ready_at(later(&health, 999), 0).is_ok());
        assert!(health.live_at(later(&health, 999), false).is_ok());
    }
}
