//! Repetitions → medians, spreads, shares and the verdict on the aims; as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::machine::Machine;
use crate::posts::Feed;
use crate::scenario::{Measured, Work};

/// The stages alone shall reach this many posts a second on two cores.
const POSTS_PER_SECOND: f64 = 100_000.0;
/// The pipeline shall add at most this share to the time of the model alone.
const OVERHEAD: f64 = 0.10;
/// Nothing shall hold more memory than this.
const MEMORY_BYTES: f64 = 1.5e9;

/// Median and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; zeros of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Spread {
                median: 0.0,
                min: 0.0,
                max: 0.0,
            };
        };
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Spread { median, min, max }
    }
}

/// What one step of a job takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Step {
    /// Microseconds of one thread per post, the median.
    pub micros_per_post: f64,
    /// Of the time of all steps.
    pub share: f64,
}

/// A scenario with all its repetitions.
#[derive(Debug, Serialize)]
pub struct Scenario {
    /// What was measured.
    pub work: Work,
    /// On which posts.
    pub feed: Feed,
    /// Posts per second of the whole job.
    pub posts_per_second: Spread,
    /// The largest of all repetitions.
    pub peak_memory_bytes: u64,
    /// Microseconds of processor time per post, all threads together.
    pub processor_micros_per_post: Spread,
    /// Cores that the job kept busy, and cores that others did meanwhile.
    pub cores: (f64, f64),
    /// Stages, commits and the model. What is missing up to the processor time is reading, the runtime and the kernel.
    pub steps: BTreeMap<String, Step>,
    /// As measured.
    pub repetitions: Vec<Measured>,
}

impl Scenario {
    /// Sums its repetitions up.
    pub fn new(work: Work, feed: Feed, repetitions: Vec<Measured>) -> Self {
        let spread = |value: fn(&Measured) -> f64| Spread::of(repetitions.iter().map(value));
        Scenario {
            work,
            feed,
            posts_per_second: spread(Measured::rate),
            peak_memory_bytes: repetitions.iter().map(|one| one.peak_memory_bytes).max().unwrap_or(0),
            processor_micros_per_post: spread(|one| one.processor.own_seconds * 1e6 / one.posts as f64),
            cores: (
                spread(|one| one.processor.own_seconds / one.seconds).median,
                spread(|one| (one.processor.all_seconds - one.processor.own_seconds) / one.seconds).median,
            ),
            steps: steps(&repetitions),
            repetitions,
        }
    }
}

/// Seconds per post by step. The stage `score` only waits when there is a model, whose own counters stand in its place.
fn steps(repetitions: &[Measured]) -> BTreeMap<String, Step> {
    let mut micros: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for one in repetitions {
        let mut add = |name: &str, seconds: f64, rows: u64| {
            let values = micros.entry(name.to_owned()).or_default();
            values.push(seconds * 1e6 / rows.max(1) as f64);
        };
        for (name, time) in &one.stages {
            if one.model.is_none() || name != tamiz::stages::score::NAME {
                add(name, time.seconds, time.rows);
            }
        }
        if one.commits > 0 {
            add("commit", one.commit_seconds, one.posts);
        }
        if let Some(model) = &one.model {
            add("model: tokens", model.tokenize_seconds, model.rows);
            add("model: forward", model.forward_seconds, model.rows);
        }
    }
    let medians: BTreeMap<String, f64> = micros
        .into_iter()
        .map(|(name, values)| (name, Spread::of(values).median))
        .collect();
    let all: f64 = medians.values().sum();
    let step = |micros_per_post: f64| Step {
        micros_per_post,
        share: micros_per_post / all.max(f64::MIN_POSITIVE),
    };
    medians.into_iter().map(|(name, micros)| (name, step(micros))).collect()
}

/// Whether an aim is reached.
#[derive(Debug, Serialize)]
pub struct Aim {
    /// What was aimed at.
    pub aim: String,
    /// What was measured.
    pub measured: String,
    /// The verdict, on the median (memory: on the largest).
    pub holds: bool,
}

/// All that a run of the end-to-end benchmark found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where and of what.
    pub machine: Machine,
    /// How to run it again.
    pub command: String,
    /// What the pipeline adds to the model's own time, as a share, by pairs of repetitions side by side.
    pub overhead: Option<Spread>,
    /// The aims.
    pub aims: Vec<Aim>,
    /// Every scenario.
    pub scenarios: Vec<Scenario>,
}

impl Report {
    /// Of these scenarios.
    pub fn new(machine: Machine, command: String, scenarios: Vec<Scenario>) -> Self {
        let overhead = overhead(&scenarios);
        Report {
            aims: aims(&scenarios, overhead),
            overhead,
            scenarios,
            command,
            machine,
        }
    }

    /// For a person.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:<30} {:<25} {:>9} {:>17} {:>9} {:>8} {:>6} {:>6}",
            "scenario", "posts", "posts/s", "from - to", "µs cpu", "peak MB", "cores", "others"
        );
        for one in &self.scenarios {
            let rate = one.posts_per_second;
            let _ = writeln!(
                text,
                "{:<30} {:<25} {:>9.0} {:>17} {:>9.2} {:>8.0} {:>6.2} {:>6.2}",
                one.work.name(),
                one.feed.name(),
                rate.median,
                format!("{:.0} - {:.0}", rate.min, rate.max),
                one.processor_micros_per_post.median,
                one.peak_memory_bytes as f64 / 1e6,
                one.cores.0,
                one.cores.1,
            );
        }
        for one in &self.scenarios {
            let _ = write!(
                text,
                "\n{}, {}: µs of one thread per post\n ",
                one.work.name(),
                one.feed.name()
            );
            for (name, step) in &one.steps {
                let _ = write!(
                    text,
                    " {name} {:.2} ({:.0} %)",
                    step.micros_per_post,
                    step.share * 100.0
                );
            }
            text.push('\n');
        }
        text.push('\n');
        for aim in &self.aims {
            let verdict = if aim.holds { "holds " } else { "MISSED" };
            let _ = writeln!(text, "{verdict} {}: {}", aim.aim, aim.measured);
        }
        text
    }
}

/// The scored job's seconds over those of the model alone, less one; repetitions are paired as they ran.
fn overhead(scenarios: &[Scenario]) -> Option<Spread> {
    let of = |work| scenarios.iter().find(|one| one.work == work);
    let (scored, model) = (
        of(Work::Scored)?,
        of(Work::Model).filter(|model| !model.repetitions.is_empty())?,
    );
    let pairs = scored.repetitions.iter().zip(&model.repetitions);
    Some(Spread::of(
        pairs.map(|(scored, model)| scored.seconds / model.seconds - 1.0),
    ))
}

fn aims(scenarios: &[Scenario], overhead: Option<Spread>) -> Vec<Aim> {
    let mut aims = Vec::new();
    for one in scenarios
        .iter()
        .filter(|one| matches!(one.work, Work::Stages | Work::Kafka))
    {
        let rate = one.posts_per_second;
        aims.push(Aim {
            aim: format!(
                "{}, {}: at least {POSTS_PER_SECOND:.0} posts/s",
                one.work.name(),
                one.feed.name()
            ),
            measured: format!("{:.0} ({:.0} - {:.0})", rate.median, rate.min, rate.max),
            holds: rate.median >= POSTS_PER_SECOND,
        });
    }
    if let Some(share) = overhead {
        let percent = |share: f64| share * 100.0;
        aims.push(Aim {
            aim: format!(
                "the pipeline adds at most {:.0} % to the model's own time",
                percent(OVERHEAD)
            ),
            measured: format!(
                "{:.1} % ({:.1} - {:.1})",
                percent(share.median),
                percent(share.min),
                percent(share.max)
            ),
            holds: share.median <= OVERHEAD,
        });
    }
    let peak = scenarios.iter().map(|one| one.peak_memory_bytes).max().unwrap_or(0) as f64;
    aims.push(Aim {
        aim: format!("less than {:.1} GB of memory in every scenario", MEMORY_BYTES / 1e9),
        measured: format!("{:.2} GB at most", peak / 1e9),
        holds: peak < MEMORY_BYTES,
    });
    aims
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_lies_in_the_middle() {
        for (values, median) in [
            (vec![3.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 3.0], 2.5),
            (vec![], 0.0),
        ] {
            assert_eq!(Spread::of(values.clone()).median, median, "{values:?}");
        }
        let spread = Spread::of([2.0, 5.0, 1.0]);
        assert_eq!((spread.min, spread.max), (1.0, 5.0));
    }
}
