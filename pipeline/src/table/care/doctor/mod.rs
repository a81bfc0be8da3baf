//! What is wrong with a table, all at once, and its mending.
//!
//! First the log, since nothing else can be looked at while it is broken: the hint, the newest checkpoint, and every
//! entry after it. Then every data file by its hash; one without a hash is decoded.
//!
//! Never: a file deleted. Log entries, checkpoints and corrupt data files are moved aside. Never a step that leaves the
//! table worse: a version is gone back to only when all its files are there.

mod chain;
mod elsewhere;
mod files;
mod log_check;
mod roll_back;

use std::time::Duration;

use serde::Serialize;

use super::table::Table;
use super::vacuum::{VacuumOptions, vacuum};
use crate::table::error::TableError;
use crate::table::store::Store;
use crate::table::whereabouts::Span;
use log_check::LogCheck;

/// What to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Mending may take back whole versions, whose rows are read again from their source.
    pub roll_back: bool,
    /// Only whether data files are there and as long as they should be.
    pub quick: bool,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Where the table lies.
    pub table: String,
    /// Its newest version, after mending; `None` where the log is too broken to tell.
    pub version: Option<u64>,
    /// The checkpoint that the log was read from.
    pub checkpoint: Option<u64>,
    /// Log entries read.
    pub entries: usize,
    /// Data files looked at.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Files whose hash was checked.
    pub hashed: usize,
    /// Files without a hash, written by earlier versions or others: decoded instead.
    pub unhashed: usize,
    /// What is wrong, or worth knowing.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Findings that do harm and are not mended.
    pub fn harm(&self) -> usize {
        let left = |finding: &&Finding| finding.harms && finding.mended.is_none();
        self.findings.iter().filter(left).count()
    }
}

/// Something that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Finding {
    /// On what: a version, a checkpoint, a file.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it does harm, or is only worth knowing.
    pub harms: bool,
    /// What was done about it.
    pub mended: Option<String>,
    /// What can be done about it, where nothing was done.
    pub cure: Option<String>,
    /// Rows that are gone.
    pub lost: Option<Lost>,
    /// Offsets that are read again.
    pub read_again: Vec<ReadAgain>,
}

/// Rows of a data file that is gone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Lost {
    /// Day of its partition.
    pub date: Option<String>,
    /// Source of its partition.
    pub source: Option<String>,
    /// How many, as the log counts them.
    pub rows: Option<u64>,
    /// Exactly where they came from; empty for rows of files and for data files of earlier versions.
    pub offsets: Vec<Span>,
    /// Lowest and highest offset over all partitions, from the log's statistics.
    pub offset_bounds: Option<(i64, i64)>,
}

/// An offset that goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadAgain {
    /// Whose: `{pipeline}/{cluster}/{topic}/{partition}`.
    pub id: String,
    /// Where reading begins; `None`: where a new partition begins.
    pub from: Option<i64>,
    /// Where it stood, as far as that can be read.
    pub to: Option<i64>,
}

impl Finding {
    fn harmful(what: impl Into<String>, problem: impl Into<String>) -> Finding {
        Finding {
            what: what.into(),
            problem: problem.into(),
            harms: true,
            ..Finding::default()
        }
    }
}

/// Looks at everything, and mends what can be mended where `options` say so. Stop writers before mending a log.
///
/// # Errors
/// No table there, or a store that fails. What is wrong with the table is no error but a finding.
pub async fn doctor(address: &str, store: &Store, options: &DoctorOptions) -> Result<Report, TableError> {
    let mut report = Report {
        table: address.to_owned(),
        ..Report::default()
    };
    let log = LogCheck::new(address, store)?;
    log.run(options, &mut report).await?;
    if report.harm() > 0 {
        report.findings.push(Finding {
            what: "data files".to_owned(),
            problem: "were not looked at: the log comes first".to_owned(),
            ..Finding::default()
        });
        return Ok(report);
    }
    let mut table = match Table::open(address, store).await {
        Ok(table) => table,
        Err(error @ TableError::Store { .. }) => {
            let problem = format!("the table does not open: {}", causes(&error));
            report.findings.push(Finding::harmful("log", problem));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    files::check(&mut table, options, &mut report).await?;
    report.version = Some(table.state.version());
    untidy(address, store, &mut report).await?;
    Ok(report)
}

/// What vacuum would take is worth knowing.
async fn untidy(address: &str, store: &Store, report: &mut Report) -> Result<(), TableError> {
    let options = VacuumOptions {
        dry_run: true,
        retention: Duration::from_secs(7 * 24 * 3_600),
        ..VacuumOptions::default()
    };
    let would = vacuum(address, store, &options).await?;
    if would.files + would.leftovers > 0 {
        report.findings.push(Finding {
            what: "clearing away".to_owned(),
            problem: format!(
                "{} files and {} staging left-overs are older than a week and in no version",
                would.files, would.leftovers
            ),
            cure: Some("`tamiz table vacuum` deletes them".to_owned()),
            ..Finding::default()
        });
    }
    Ok(())
}

/// An error with its causes, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Many libraries repeat their causes in their own words.
        if !line.contains(&words) {
            line = format!("{line}: {words}");
        }
        cause = error.source();
    }
    line
}
