//! The log: its hint, its newest checkpoint, and the entries after that.

use std::sync::Arc;

use object_store::ObjectStore;
use serde_json::Value;

use super::chain::Chain;
use super::roll_back::{self, Broken};
use super::{DoctorOptions, Finding, Report};
use crate::table::care::aside::Aside;
use crate::table::care::log::{self, Fault, LogFiles};
use crate::table::error::TableError;
use crate::table::store::{Location, Store};

/// Words for an entry without content.
const EMPTY: &str = "its log entry is empty";

/// A look at a log.
pub(super) struct LogCheck {
    pub(super) location: Location,
    pub(super) store: Arc<dyn ObjectStore>,
}

/// Where the log is read from, and where each source stood there.
struct Base {
    checkpoint: Option<u64>,
    chain: Chain,
}

impl LogCheck {
    pub(super) fn new(address: &str, store: &Store) -> Result<LogCheck, TableError> {
        let location = store.resolve(address)?;
        let store = location.log_store.object_store(None);
        Ok(LogCheck { location, store })
    }

    pub(super) fn address(&self) -> &str {
        &self.location.address
    }

    pub(super) fn aside(&self) -> Aside<'_> {
        Aside::new(self.store.as_ref(), self.address())
    }

    /// Adds what is found to the report, mended where that was asked for.
    pub(super) async fn run(&self, options: &DoctorOptions, report: &mut Report) -> Result<(), TableError> {
        let files = LogFiles::list(self.store.as_ref(), self.address()).await?;
        if files.entries.is_empty() && files.checkpoints.is_empty() {
            return Err(TableError::Missing {
                address: self.address().to_owned(),
            });
        }
        let (base, checkpoints) = self.base(&files).await?;
        self.hint(&files, base.checkpoint, options, report).await?;
        report.checkpoint = base.checkpoint;
        self.checkpoints(&files, (&base, checkpoints), options, report).await?;
        if base.checkpoint.is_none() && !files.entries.contains_key(&0) {
            let problem = "the first versions are not in the log, and no whole checkpoint stands for them";
            let mut finding = Finding::harmful("log", problem);
            finding.cure = Some("restore the folder `_delta_log` from a copy".to_owned());
            report.findings.push(finding);
            return Ok(());
        }
        let checkpoint = base.checkpoint;
        if let Some(broken) = self.entries(&files, base, report).await? {
            let finding = match report.harm() {
                0 => roll_back::mend(self, &files, broken, options).await?,
                _ => broken.later(),
            };
            report.findings.push(finding);
        }
        report.version = files.last().max(checkpoint);
        Ok(())
    }

    /// The newest checkpoint that can be read, and those newer than it that cannot.
    async fn base(&self, files: &LogFiles) -> Result<(Base, Vec<(u64, String)>), TableError> {
        let mut broken = Vec::new();
        for (version, parts) in files.checkpoints.iter().rev() {
            let mut chain = Chain::default();
            match self.checkpoint(parts, &mut chain).await? {
                None => {
                    let checkpoint = Some(*version);
                    return Ok((Base { checkpoint, chain }, broken));
                }
                Some(problem) => broken.push((*version, problem)),
            }
        }
        let base = Base {
            checkpoint: None,
            chain: Chain::default(),
        };
        Ok((base, broken))
    }

    /// What is wrong with a checkpoint.
    async fn checkpoint(
        &self,
        parts: &[object_store::ObjectMeta],
        chain: &mut Chain,
    ) -> Result<Option<String>, TableError> {
        // `{version}.checkpoint.{part}.{parts}.parquet` says of how many it is one.
        let names = parts.iter().map(|part| part.location.filename().unwrap_or_default());
        let wanted = names
            .filter_map(|name| name.split('.').nth(3)?.parse::<usize>().ok())
            .max();
        if wanted.is_some_and(|wanted| wanted != parts.len()) {
            return Ok(Some(format!(
                "{} of its {} parts are there",
                parts.len(),
                wanted.unwrap_or_default()
            )));
        }
        for part in parts.iter().filter(|part| part.location.as_ref().ends_with(".parquet")) {
            let read = log::read(self.store.as_ref(), self.address(), &part.location).await?;
            if let Err(problem) = chain.follow_checkpoint(read) {
                return Ok(Some(format!("it cannot be read ({problem})")));
            }
        }
        Ok(None)
    }

    /// A hint that is broken, or that names what is not there, misleads readers; without one they list the log.
    async fn hint(
        &self,
        files: &LogFiles,
        base: Option<u64>,
        options: &DoctorOptions,
        report: &mut Report,
    ) -> Result<(), TableError> {
        let Some(hint) = &files.hint else { return Ok(()) };
        let read = log::read(self.store.as_ref(), self.address(), &hint.location).await?;
        let hint_version = serde_json::from_slice::<Value>(&read).ok();
        let hint_version = hint_version.and_then(|hint| hint["size"].as_i64().and(hint["version"].as_u64()));
        let problem = match hint_version {
            None => "it is no hint of Delta, so that some readers refuse the table".to_owned(),
            Some(version) if base.is_none_or(|base| version > base) => {
                format!("it names checkpoint {version}, which is not there or broken, so that readers refuse the table")
            }
            Some(_) => return Ok(()),
        };
        let mut finding = Finding::harmful("_last_checkpoint", problem);
        if options.repair {
            let to = self.aside().take(&hint.location).await?;
            finding.mended = Some(format!(
                "set aside as {to}; readers list the log instead, the next checkpoint writes it anew"
            ));
        } else {
            finding.cure = Some("--repair sets it aside; readers list the log instead".to_owned());
        }
        report.findings.push(finding);
        Ok(())
    }

    /// A broken checkpoint can go where the entries reach back to the one before, or to the beginning.
    async fn checkpoints(
        &self,
        files: &LogFiles,
        (base, broken): (&Base, Vec<(u64, String)>),
        options: &DoctorOptions,
        report: &mut Report,
    ) -> Result<(), TableError> {
        for (version, problem) in broken {
            let mut finding = Finding::harmful(format!("checkpoint {version}"), problem);
            let first = base.checkpoint.map_or(0, |base| base + 1);
            let missing = (first..=version).find(|version| !files.entries.contains_key(version));
            match (missing, options.repair) {
                (Some(missing), _) => {
                    finding.cure = Some(format!(
                        "none here: entry {missing} before it is gone, so nothing else tells what the table held; restore \
                         the folder `_delta_log` from a copy"
                    ));
                }
                (None, true) => {
                    let mut moved = Vec::new();
                    for part in files.checkpoints.get(&version).into_iter().flatten() {
                        moved.push(self.aside().take(&part.location).await?);
                    }
                    finding.mended = Some(format!(
                        "set aside as {}; the entries before it tell the same",
                        moved.join(", ")
                    ));
                }
                (None, false) => {
                    finding.cure = Some("--repair sets it aside; the entries before it tell the same".to_owned());
                }
            }
            report.findings.push(finding);
        }
        Ok(())
    }

    /// Reads the entries after the checkpoint; gives the first that breaks the log.
    async fn entries(&self, files: &LogFiles, base: Base, report: &mut Report) -> Result<Option<Broken>, TableError> {
        let first = base.checkpoint.map_or(0, |checkpoint| checkpoint + 1);
        let Some(last) = files.last().filter(|last| *last >= first) else {
            return Ok(None);
        };
        let mut chain = base.chain;
        // An empty entry, and where each source stood before it.
        let mut empty: Option<(u64, Chain)> = None;
        for version in first..=last {
            let Some(file) = files.entries.get(&version) else {
                return Ok(Some(Broken::at(version, "its log entry is missing".to_owned(), chain)));
            };
            report.entries += 1;
            let parsed = match log::parse(&log::read(self.store.as_ref(), self.address(), &file.location).await?) {
                Ok(parsed) => parsed,
                Err(Fault::Empty) => {
                    empty.get_or_insert_with(|| (version, chain.clone()));
                    continue;
                }
                Err(fault) => {
                    let problem = format!("its log entry {fault}");
                    return Ok(Some(broken_at(empty, version, problem, chain)));
                }
            };
            match chain.follow(&parsed) {
                Ok(true) => {
                    if let Some((version, _)) = empty.take() {
                        report.findings.push(healed(version));
                    }
                }
                Ok(false) => {}
                Err(gap) => {
                    let problem = format!(
                        "offsets {} to {} of `{}` are in no version before it",
                        gap.stood,
                        gap.first - 1,
                        gap.id
                    );
                    return Ok(Some(broken_at(empty, version, problem, chain)));
                }
            }
        }
        Ok(empty.map(|(version, chain)| Broken::at(version, EMPTY.to_owned(), chain)))
    }
}

/// What lies after an empty entry goes back with it.
fn broken_at(empty: Option<(u64, Chain)>, version: u64, problem: String, chain: Chain) -> Broken {
    match empty {
        Some((empty, chain)) => Broken::at(empty, format!("{EMPTY}; of version {version}, {problem}"), chain),
        None => Broken::at(version, problem, chain),
    }
}

fn healed(version: u64) -> Finding {
    Finding {
        what: format!("version {version}"),
        problem: "its log entry is empty; the offsets after it show that what it held was read again".to_owned(),
        ..Finding::default()
    }
}
