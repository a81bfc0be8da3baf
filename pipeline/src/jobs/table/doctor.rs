//! `tamiz table doctor`: a line for everything that was found.

use std::io::Write;

use super::{Format, json, say, size};
use crate::config::Config;
use crate::jobs::{JobError, store};
use crate::table::care::{self, DoctorOptions, Finding, Lost, ReadAgain, Report};

/// Offsets that are told of one finding.
const SHOWN: usize = 8;

/// Looks at a table, and mends it where `options` say so.
///
/// # Errors
/// [`JobError::Problems`] where something does harm and is not mended; each has been written. As [`care::doctor`]
/// otherwise.
pub async fn doctor(
    config: &Config,
    table: &str,
    options: &DoctorOptions,
    (format, out): (Format, &mut dyn Write),
) -> Result<(), JobError> {
    if options.roll_back && !options.repair {
        return Err(JobError::Usage(
            "--roll-back says how far --repair may go: give both".into(),
        ));
    }
    let report = care::doctor(table, &store(config)?, options).await?;
    match format {
        Format::Json => json(out, &report)?,
        Format::Table => say(out, &text(&report, options))?,
    }
    match report.harm() {
        0 => Ok(()),
        harm => Err(JobError::Problems(harm)),
    }
}

fn text(report: &Report, options: &DoctorOptions) -> String {
    let mut text: String = report.findings.iter().map(told).collect();
    let is_log = |finding: &&Finding| finding.harms && finding.mended.is_none() && finding.lost.is_none();
    if !report.findings.iter().any(|finding| is_log(&finding)) {
        let from = report
            .checkpoint
            .map_or("the beginning".to_owned(), |version| format!("checkpoint {version}"));
        let version = report.version.map_or("none".to_owned(), |version| version.to_string());
        text += &format!(
            "ok     log: version {version}, {} entries read from {from} on\n",
            report.entries
        );
    }
    if report.files > 0 {
        let how = match (options.quick, report.unhashed) {
            (true, _) => "by their size only".to_owned(),
            (false, 0) => "by their hashes".to_owned(),
            (false, unhashed) => format!(
                "{} by their hashes; {unhashed} were written without one and were decoded instead",
                report.hashed
            ),
        };
        let bad = report.findings.iter().filter(|finding| finding.lost.is_some()).count();
        text += &format!(
            "{:<6} data: {} files ({}) looked at, {how}; {bad} are bad\n",
            if bad == 0 { "ok" } else { "" },
            report.files,
            size(report.bytes)
        );
    }
    text
}

fn told(finding: &Finding) -> String {
    let mark = match (finding.harms, &finding.mended) {
        (_, Some(_)) => "mended",
        (true, None) => "wrong",
        (false, None) => "note",
    };
    let mut text = format!("{mark:<6} {}: {}", finding.what, finding.problem);
    if let Some(mended) = &finding.mended {
        text += &format!("; {mended}");
    }
    if let Some(cure) = &finding.cure {
        text += &format!("; cure: {cure}");
    }
    text.push('\n');
    if let Some(lost) = &finding.lost {
        text += &format!("       lost: {}\n", told_lost(lost));
    }
    if !finding.read_again.is_empty() {
        text += &format!(
            "       reading goes on: {}\n",
            list(finding.read_again.iter().map(told_again))
        );
    }
    text
}

fn told_lost(lost: &Lost) -> String {
    let rows = lost
        .rows
        .map_or("an unknown number of".to_owned(), |rows| rows.to_string());
    let mut text = format!("{rows} rows");
    if let Some(date) = &lost.date {
        text += &format!(" of {date}");
    }
    if let Some(source) = &lost.source {
        text += &format!(" from {source}");
    }
    if !lost.offsets.is_empty() {
        let spans = lost.offsets.iter().map(|span| {
            let (topic, partition) = (&span.topic, span.partition);
            format!(
                "{topic}/{partition} {} to {} ({} rows)",
                span.first, span.last, span.rows
            )
        });
        text += &format!("; offsets {}", list(spans));
    } else if let Some((first, last)) = lost.offset_bounds {
        text += &format!("; offsets {first} to {last} over all partitions");
    }
    text
}

fn told_again(again: &ReadAgain) -> String {
    let from = again.from.map_or("its beginning".to_owned(), |from| from.to_string());
    match again.to {
        Some(to) => format!("{} at {from} (it stood at {to})", again.id),
        None => format!("{} at {from}", again.id),
    }
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let count = items.len();
    let mut shown: Vec<String> = items.take(SHOWN).collect();
    if count > SHOWN {
        shown.push(format!("… and {} more", count - SHOWN));
    }
    shown.join(", ")
}
