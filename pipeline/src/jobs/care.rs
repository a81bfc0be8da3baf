//! The care that `run` takes of its own tables, beside the committing writer: packing, retention, clearing away.
//!
//! Never fails the run: what goes wrong is warned of, and tried again. Several workers of a group may all do this. They
//! begin at different moments, and where two meet, a commit of one makes the other drop what it staged and look again.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::run::chain;
use super::store;
use crate::config::Config;
use crate::table::care::{CompactOptions, VacuumOptions, compact, expire, vacuum};
use crate::table::{Store, TableError};

/// Longest wait before the first round, and after one that failed.
const SOON: Duration = Duration::from_secs(600);
/// How often days are looked at where nothing is packed.
const HOUR: Duration = Duration::from_secs(3_600);

/// The `[table]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CareRules {
    /// Small files of closed days are packed every so many hours; 0: never.
    pub compact_hours: f64,
    /// Days leave the tables so many days after they ended; 0: never.
    pub keep_days: u32,
    /// Files that no version needs are deleted after so many hours.
    pub retention_hours: u64,
}

impl CareRules {
    /// What is wrong with the values, by key.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !self.compact_hours.is_finite() || !(0.0..=8_760.0).contains(&self.compact_hours) {
            found.push(("table.compact_hours", "must be between 0 (never) and 8,760".to_owned()));
        }
        if self.retention_hours == 0 || self.retention_hours > 87_600 {
            let message = "must be between 1 and 87,600: less takes away what a writer has staged";
            found.push(("table.retention_hours", message.to_owned()));
        }
        found
    }

    /// How often there is something to do; `None`: never.
    fn period(&self) -> Option<Duration> {
        match (self.compact_hours > 0.0, self.keep_days > 0) {
            (true, _) => Some(Duration::from_secs_f64(self.compact_hours * 3_600.0)),
            (false, true) => Some(HOUR),
            (false, false) => None,
        }
    }
}

/// Work in the background; it ends with the value. What it has staged then, vacuum finds.
pub(crate) struct Caretaker(JoinHandle<()>);

impl Drop for Caretaker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts what `[table]` asks for, if anything.
///
/// # Errors
/// The store's options are wrong.
pub(crate) fn start(config: &Config) -> Result<Option<Caretaker>, TableError> {
    let Some(period) = config.table.period() else {
        return Ok(None);
    };
    let rules = config.table.clone();
    let store = store(config)?;
    let tables = [config.sink.posts.clone(), config.sink.dead_letters.clone()];
    let work = async move {
        let first = period.min(SOON).mul_f64(rand::rng().random_range(0.1..1.0));
        let mut wait = first;
        loop {
            tokio::time::sleep(wait).await;
            wait = period;
            for address in &tables {
                if let Err(error) = look_after(address, &store, &rules).await {
                    wait = period.min(SOON);
                    let error = chain(&error);
                    tracing::warn!(table = address, error, "care of the table failed, to be tried again");
                }
            }
        }
    };
    Ok(Some(Caretaker(tokio::spawn(work))))
}

async fn look_after(address: &str, store: &Store, rules: &CareRules) -> Result<(), TableError> {
    let mut changed = false;
    if rules.keep_days > 0 {
        let expired = expire(address, store, rules.keep_days, false).await?;
        changed |= expired.files > 0;
        if expired.files > 0 {
            tracing::info!(
                table = address,
                days = expired.days.len(),
                rows = expired.rows,
                "old days taken out"
            );
        }
    }
    if rules.compact_hours > 0.0 {
        let packed = compact(address, store, &CompactOptions::default()).await?;
        let files: usize = packed.partitions.iter().map(|partition| partition.files_before).sum();
        changed |= files > 0;
        if files > 0 {
            tracing::info!(
                table = address,
                files,
                partitions = packed.partitions.len(),
                "small files packed"
            );
        }
    }
    let options = VacuumOptions {
        retention: Duration::from_secs(rules.retention_hours * 3_600),
        ..VacuumOptions::default()
    };
    let cleared = vacuum(address, store, &options).await?;
    if changed || cleared.files > 0 {
        tracing::info!(
            table = address,
            files = cleared.files,
            bytes = cleared.bytes,
            "cleared away"
        );
    }
    Ok(())
}
