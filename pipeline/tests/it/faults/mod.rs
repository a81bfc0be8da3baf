//! What breaks, and whether the delivery holds: kills, frozen workers, rebalances, dying brokers, a bad network, full disks,
//! damaged files, messages that are none, a model that fails.
//!
//! Each test is a scenario of the fault report. In `cargo test` they run in a short form; `make faults` runs the long one
//! and writes `benchmarks/results/faults.json` and `.md`. A producer goes on sending all the while, and notes what the
//! broker acknowledged; at the end the oracle compares that with what the tables hold.

mod bounds;
mod brokers;
mod bucket;
mod damage;
mod groups;
mod inputs;
mod kills;
mod load;
mod network;
mod oracle;
mod proxy;
mod store;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use self::load::{Feed, Load};
use self::oracle::{Tail, Verdict, judge, orphan_bytes};
use self::workers::{Worker, recovery};
use crate::support::Folder;
use crate::support::broker::{Place, SESSION_MILLIS, Topic};

/// Partitions of every topic here.
const PARTITIONS: i32 = 4;
/// No recovery takes longer, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `make faults` wants the outcomes; without it the short form runs.
fn long_form() -> Option<std::path::PathBuf> {
    std::env::var_os("TAMIZ_FAULTS").map(Into::into)
}

/// How often a fault strikes: the first number in `cargo test`, the second in `make faults`.
fn times(short: usize, long: usize) -> usize {
    if long_form().is_some() { long } else { short }
}

/// Which group protocol the workers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Classic,
    Consumer,
}

/// A topic with a producer at it, and tables that workers fill.
struct Field {
    folder: Folder,
    config: String,
    load: Load,
    tail: Tail,
}

impl Field {
    /// `servers` is where the workers find the broker, which is not always where the producer does.
    fn new(topic: &Topic, servers: (&str, &str), protocol: Protocol, rate: u64) -> Field {
        Field::with(topic, servers, protocol, Feed { rate, poison: false })
    }

    fn with(topic: &Topic, (producer, workers): (&str, &str), protocol: Protocol, feed: Feed) -> Field {
        let folder = Folder::new();
        let group = match protocol {
            Protocol::Classic => format!("options = {{ \"session.timeout.ms\" = \"{SESSION_MILLIS}\" }}\n"),
            Protocol::Consumer => "group_protocol = \"consumer\"\n".to_owned(),
        };
        let text = format!(
            "[source.kafka]\nbrokers = \"{workers}\"\ntopics = [\"{name}\"]\ngroup = \"{name}\"\n{group}\
             [sink]\nposts = \"{}\"\ndead_letters = \"{}\"\nflush_seconds = 0.25\nignore = []\n[limits]\nlinger_millis = 20\nbatch_rows = 256\n",
            folder.text("posts"),
            folder.text("dead"),
            name = topic.name,
        );
        Field {
            config: folder.write("tamiz.toml", text),
            load: Load::start(producer, &topic.name, PARTITIONS, feed),
            tail: Tail::new(&folder.path("posts")),
            folder,
        }
    }

    fn worker(&self) -> Worker {
        self.worker_that_fails("")
    }

    fn worker_that_fails(&self, failpoints: &str) -> Worker {
        Worker::start(&self.folder, &["run", "--no-model", "-c", &self.config], failpoints)
    }

    /// With the model in the folder `model`.
    fn worker_with_model(&self, failpoints: &str) -> Worker {
        let arguments = ["run", "--model", "model", "--device", "cpu", "-c", &self.config];
        Worker::start(&self.folder, &arguments, failpoints)
    }

    /// Seconds until the table holds what is acknowledged by now.
    fn recovered(&mut self, workers: &mut [Worker]) -> f64 {
        let ends = self.load.ends();
        recovery(&mut self.tail, &ends, PATIENCE, workers)
    }

    /// Waits until commits flow.
    fn flowing(&mut self, workers: &mut [Worker]) {
        let seen = self.tail.versions();
        let begun = std::time::Instant::now();
        while self.tail.versions() < seen + 2 {
            workers.iter_mut().for_each(Worker::check);
            assert!(begun.elapsed() < PATIENCE, "no commits:\n{}", workers[0].said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the producer, lets the workers catch up and leave in good order, and has the oracle judge. Also the bytes that
    /// lie beside the table.
    fn verdict(self, workers: Vec<Worker>) -> (Verdict, u64) {
        self.verdict_but_for(workers, &BTreeSet::new())
    }

    /// The same, of all but what lay at these places.
    fn verdict_but_for(mut self, mut workers: Vec<Worker>, gone: &BTreeSet<Place>) -> (Verdict, u64) {
        let mut acknowledged = self.load.finish();
        let mut ends = BTreeMap::new();
        for one in &acknowledged {
            let end = ends.entry(one.place.0).or_insert(0);
            *end = (*end).max(one.place.1 + 1);
        }
        recovery(&mut self.tail, &ends, PATIENCE, &mut workers);
        for worker in &mut workers {
            worker.signal(libc::SIGTERM);
            let status = worker.ended(PATIENCE);
            assert!(status.success(), "{status}:\n{}", worker.said());
        }
        acknowledged.retain(|one| !gone.contains(&one.place));
        let verdict = judge(&self.folder, &acknowledged);
        (verdict, orphan_bytes(&self.folder.path("posts")))
    }
}

/// Ordered figures of times.
#[derive(Debug, Serialize)]
struct Seconds {
    count: usize,
    p50: f64,
    p99: f64,
    longest: f64,
}

impl Seconds {
    fn of(mut seconds: Vec<f64>) -> Seconds {
        seconds.sort_by(f64::total_cmp);
        // The nearest rank: with few values the 99th percentile is the longest.
        let at = |share: f64| seconds[((seconds.len() as f64 * share).ceil() as usize).clamp(1, seconds.len()) - 1];
        Seconds {
            count: seconds.len(),
            p50: at(0.5),
            p99: at(0.99),
            longest: at(1.0),
        }
    }
}

/// Writes an outcome for the report, and fails the test when the delivery does not hold.
fn report(name: &str, what: &str, verdict: &Verdict, figures: Value) {
    if let Some(folder) = long_form() {
        let mut outcome = Map::from_iter([
            ("scenario".to_owned(), json!(name)),
            ("what".to_owned(), json!(what)),
            ("verdict".to_owned(), json!(verdict)),
        ]);
        outcome.extend(figures.as_object().cloned().unwrap_or_default());
        std::fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string_pretty(&Value::Object(outcome)).unwrap();
        std::fs::write(folder.join(format!("{name}.json")), text).unwrap();
    }
    assert!(verdict.holds(), "{name}: {verdict:?}");
}
