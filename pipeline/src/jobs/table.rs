//! `tamiz table compact | vacuum | history | forget | doctor`: what the caretakers of [`crate::table::care`] do, told to
//! a person or as JSON.

mod doctor;
mod forget;
mod person;
mod whose;

use std::io::Write;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use clap::ValueEnum;
use serde::Serialize;

pub use doctor::doctor;
pub use forget::{ForgetOptions, forget};

use super::sql::harmless;
use super::{JobError, store};
use crate::config::Config;
use crate::table::care::{self, CompactOptions, Compacted, Entry, VacuumOptions};

/// Partitions that are told one by one.
const SHOWN: usize = 20;
/// Offsets that are told of one version.
const OFFSETS_SHOWN: usize = 3;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object, or one a line.
    Json,
}

/// Packs small files.
///
/// # Errors
/// As [`care::compact`].
pub async fn compact(
    config: &Config,
    table: &str,
    options: &CompactOptions,
    (format, out): (Format, &mut dyn Write),
) -> Result<(), JobError> {
    if options.target_bytes == 0 {
        return Err(JobError::Usage("--target-mib must be at least 1".into()));
    }
    let done = care::compact(table, &store(config)?, options).await?;
    match format {
        Format::Json => json(out, &done),
        Format::Table => say(out, &packed(&done, options.dry_run)),
    }
}

fn packed(done: &Compacted, dry_run: bool) -> String {
    let sum = |count: fn(&care::PackedPartition) -> u64| done.partitions.iter().map(count).sum::<u64>();
    let (before, after) = (sum(|p| p.files_before as u64), sum(|p| p.files_after as u64));
    let mut text = match (before, dry_run) {
        (0, _) => "nothing to pack".to_owned(),
        (_, true) => format!(
            "would pack {before} files ({}) of {} partitions into about {after}",
            size(sum(|p| p.bytes_before)),
            done.partitions.len()
        ),
        (_, false) => format!(
            "packed {before} files ({}) of {} partitions into {after} ({}), {} rows",
            size(sum(|p| p.bytes_before)),
            done.partitions.len(),
            size(sum(|p| p.bytes_after)),
            sum(|p| p.rows)
        ),
    };
    if done.open_files > 0 {
        text += &format!("; {} small files lie in days that are not closed", done.open_files);
    }
    if done.overtaken > 0 {
        text += &format!("; {} times another process was faster", done.overtaken);
    }
    text.push('\n');
    if !done.partitions.is_empty() {
        let row = |p: &care::PackedPartition| {
            let (before, after) = (p.files_before.to_string(), p.files_after.to_string());
            let bytes = [size(p.bytes_before), size(p.bytes_after)];
            [
                p.partition.clone(),
                before,
                after,
                bytes[0].clone(),
                bytes[1].clone(),
                p.rows.to_string(),
            ]
        };
        let rows: Vec<_> = done.partitions.iter().take(SHOWN).map(row).collect();
        text += &grid(["partition", "files", "files now", "size", "size now", "rows"], &rows);
        if done.partitions.len() > SHOWN {
            text += &format!("… and {} more partitions\n", done.partitions.len() - SHOWN);
        }
    }
    if before > 0 && !dry_run {
        text +=
            "the old files stay for versions that need them; `tamiz table vacuum` deletes them when they have aged\n";
    }
    text
}

/// Clears away; before that takes out days older than `keep_days`.
///
/// # Errors
/// As [`care::expire`] and [`care::vacuum`].
pub async fn vacuum(
    config: &Config,
    table: &str,
    (options, keep_days): (&VacuumOptions, Option<u32>),
    (format, out): (Format, &mut dyn Write),
) -> Result<(), JobError> {
    let store = store(config)?;
    let expired = match keep_days {
        Some(days) => Some(care::expire(table, &store, days, options.dry_run).await?),
        None => None,
    };
    let done = care::vacuum(table, &store, options).await?;
    if format == Format::Json {
        return json(out, &serde_json::json!({ "expired": expired, "vacuumed": done }));
    }
    let (take, delete) = match options.dry_run {
        true => ("would take", "would delete"),
        false => ("took", "deleted"),
    };
    let mut text = String::new();
    if let Some(expired) = expired {
        text += &match (expired.days.first(), expired.days.last()) {
            (Some(first), Some(last)) => format!(
                "{take} out {} days, {first} to {last}: {} rows in {} files ({})\n",
                expired.days.len(),
                expired.rows,
                expired.files,
                size(expired.bytes)
            ),
            _ => "no day is old enough to go\n".to_owned(),
        };
    }
    text += &format!("{delete} {} files ({})", done.files, size(done.bytes));
    if done.leftovers > 0 {
        text += &format!(
            " and {} staging left-overs ({})",
            done.leftovers,
            size(done.leftover_bytes)
        );
    }
    if done.kept > 0 {
        let hours = options.retention.as_secs() / 3_600;
        text += &format!(
            "; {} files that no version names are younger than {hours} hours and stay",
            done.kept
        );
    }
    text.push('\n');
    say(out, &text)
}

/// Tells what was committed.
///
/// # Errors
/// As [`care::history`].
pub async fn history(
    config: &Config,
    table: &str,
    limit: usize,
    (format, out): (Format, &mut dyn Write),
) -> Result<(), JobError> {
    let entries = care::history(table, &store(config)?, limit).await?;
    if format == Format::Json {
        return entries.iter().try_for_each(|entry| json(out, entry));
    }
    let rows: Vec<_> = entries.iter().map(line).collect();
    let heads = ["version", "time", "operation", "rows", "files", "bytes", "offsets"];
    say(out, &grid(heads, &rows))
}

fn line(entry: &Entry) -> [String; 7] {
    let change = |added: Option<u64>, removed: Option<u64>| {
        let part = |sign: &str, count: Option<u64>| match count {
            Some(0) => String::new(),
            Some(count) => format!("{sign}{count}"),
            None => format!("{sign}?"),
        };
        [part("+", added), part("−", removed)].join(" ").trim().to_owned()
    };
    let files = |count: usize| Some(count as u64);
    let moved = |moved: &care::Moved| {
        // The whole id names pipeline and cluster as well, which are the same on every line.
        let id: Vec<&str> = moved.id.rsplitn(3, '/').collect();
        let id = format!("{}/{}", id.get(1).unwrap_or(&""), id[0]);
        match moved.first {
            Some(first) => format!("{id} {first}→{}", moved.next),
            None => format!("{id} →{}", moved.next),
        }
    };
    let mut offsets: Vec<String> = entry.offsets.iter().take(OFFSETS_SHOWN).map(moved).collect();
    if entry.offsets.len() > OFFSETS_SHOWN {
        offsets.push(format!("… {} more", entry.offsets.len() - OFFSETS_SHOWN));
    }
    let bytes = [(entry.bytes_added, "+"), (entry.bytes_removed, "−")];
    let bytes = bytes.into_iter().filter(|(bytes, _)| *bytes > 0);
    let bytes: Vec<String> = bytes.map(|(bytes, sign)| format!("{sign}{}", size(bytes))).collect();
    [
        entry.version.to_string(),
        entry.time.format("%Y-%m-%d %H:%M:%S").to_string(),
        entry.operation.clone(),
        change(entry.rows_added, entry.rows_removed),
        change(files(entry.files_added), files(entry.files_removed)),
        bytes.join(" "),
        offsets.join(", "),
    ]
}

fn size(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A table for people.
fn grid<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let column =
        |at: usize| -> ArrayRef { std::sync::Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[at]))) };
    let columns = heads.iter().enumerate().map(|(at, head)| (*head, column(at)));
    let batch = RecordBatch::try_from_iter(columns);
    let text = batch.and_then(|batch| Ok(pretty_format_batches(&[batch])?.to_string()));
    // Columns of one length and type cannot fail; were they to, the figures are in the JSON.
    text.unwrap_or_default() + "\n"
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), JobError> {
    out.write_all(harmless(text).as_bytes())
        .map_err(JobError::io("cannot write the answer"))
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), JobError> {
    let text = serde_json::to_string(value).map_err(|error| JobError::Failed(format!("cannot write JSON: {error}")))?;
    writeln!(out, "{text}").map_err(JobError::io("cannot write the answer"))
}
