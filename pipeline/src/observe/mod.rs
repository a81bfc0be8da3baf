//! What a running line shows of itself: metrics and health over HTTP, logs, traces.
//!
//! The line counts in [`crate::stats::Stats`] and notes in [`Watch`] what counters cannot say: how far behind it is, what
//! is in flight, whether it moves. Everything here reads those; nothing here is asked by the line.
//!
//! Architecture Invariant: no post text, no author and no secret becomes a metric, a label, a span or a log line. No
//! answer waits for the line: what is read is atomics, and locks that are held for a copy.

pub(crate) mod buckets;
mod config;
mod gauges;
mod health;
mod histogram;
mod lag;
pub mod logs;
pub mod metrics;
mod process;
mod repeats;
mod server;
pub mod traces;

pub use config::{MetricsConfig, TracesConfig};
pub use gauges::{Gauges, Queue};
pub use health::{Health, Kind, Verdict};
pub use histogram::{Distribution, Histogram};
pub use lag::{Lag, PartitionLag};
pub(crate) use server::bind;
pub use server::{Server, View};

use std::time::Duration;

use tokio::sync::mpsc;

use crate::batch::Item;
use crate::source::Budget;

/// What the line notes beside its counters.
#[derive(Debug, Default)]
pub struct Watch {
    /// How far each partition's rows in the table are behind the topic.
    pub lag: Lag,
    /// Whether everything moves.
    pub health: Health,
    /// What is in flight.
    pub gauges: Gauges,
}

impl Watch {
    /// A line starts, or starts again: what the one before left is forgotten.
    pub fn begin(&self, kind: Kind, flush_age: Duration, budget: &Budget, source_queue: &mpsc::Sender<Item>) {
        self.lag.clear();
        self.gauges.clear();
        self.gauges.budget(budget);
        self.gauges.queue("source", source_queue);
        self.health.begin(kind, flush_age);
    }
}
