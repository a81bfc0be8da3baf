//! Going back to the last whole version: the broken entry and all after it are moved aside.
//!
//! Rows are not lost by that where they came from Kafka: offsets stand in the log with the rows, so they go back
//! together, and what was taken back is read again, once.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::Chain;
use super::elsewhere::Target;
use super::log_check::LogCheck;
use super::{DoctorOptions, Finding, ReadAgain};
use crate::table::care::log::{self, LogFiles};
use crate::table::error::TableError;

/// The first entry that breaks the log.
pub(super) struct Broken {
    version: u64,
    problem: String,
    /// Where each source stood before it.
    chain: Chain,
}

impl Broken {
    pub(super) fn at(version: u64, problem: String, chain: Chain) -> Broken {
        Broken {
            version,
            problem,
            chain,
        }
    }

    /// Where other damage has to be mended before this can be looked into.
    pub(super) fn later(self) -> Finding {
        let mut finding = Finding::harmful(format!("version {}", self.version), self.problem);
        finding.cure = Some("mend the rest of the log first, then look again".to_owned());
        finding
    }
}

/// Tells what going back means, and does it where that was asked for.
pub(super) async fn mend(
    log: &LogCheck,
    files: &LogFiles,
    broken: Broken,
    options: &DoctorOptions,
) -> Result<Finding, TableError> {
    let Broken {
        version,
        problem,
        chain,
    } = broken;
    let mut finding = Finding::harmful(format!("version {version}"), problem);
    let Some(target) = version.checked_sub(1) else {
        finding.cure = Some("none: it is the first, so there is no version to go back to".to_owned());
        return Ok(finding);
    };
    let after = After::read(log, files, version).await?;
    let there = match Target::look(log, target).await? {
        Ok(there) => there,
        Err(problem) => {
            finding.cure = Some(format!("none here: version {target} cannot be read either ({problem})"));
            return Ok(finding);
        }
    };
    if there.elsewhere > 0 {
        finding.cure = Some(format!(
            "none here: {} files of version {target} are deleted already, and their rows lie in files that only the broken \
             versions name; restore the log entry from a copy",
            there.elsewhere
        ));
        return Ok(finding);
    }
    finding.read_again = after.read_again(&chain);
    let what = match after.versions.len() {
        1 => format!("version {version}"),
        count => format!(
            "{count} versions, {version} to {}",
            after.versions.last().unwrap_or(&version)
        ),
    };
    let mut losing = match there.name.as_deref() {
        Some("dead_letters") => {
            "; the posts table says where reading goes on, so dead letters of these offsets come back only if it goes back \
             too"
        }
        _ => "; their offsets go back with them, so their rows are read again where Kafka still holds them",
    }
    .to_owned();
    if there.missing > 0 {
        losing += &format!("; {} files of version {target} are missing, and stay so", there.missing);
    }
    if (after.whole > 0 || there.missing > 0) && !options.roll_back {
        let whole = after.whole;
        finding.cure = Some(format!(
            "--repair --roll-back takes back {what}, of which {whole} are whole{losing}"
        ));
    } else if !options.repair {
        finding.cure = Some(format!("--repair takes back {what}{losing}"));
    } else {
        let to = take_back(log, files, &after).await?;
        finding.mended = Some(format!("{what} set aside in {to}{losing}"));
    }
    Ok(finding)
}

/// The entries from the broken one on.
struct After {
    versions: BTreeSet<u64>,
    /// Of these, how many hold a whole commit.
    whole: usize,
    /// Where they say that each source stands, as far as they can be read.
    stood: BTreeMap<String, i64>,
}

impl After {
    async fn read(log: &LogCheck, files: &LogFiles, from: u64) -> Result<After, TableError> {
        let mut after = After {
            versions: BTreeSet::new(),
            whole: 0,
            stood: BTreeMap::new(),
        };
        for (version, file) in files.entries.range(from..) {
            after.versions.insert(*version);
            let read = log::read(log.store.as_ref(), log.address(), &file.location).await?;
            if let Ok(parsed) = log::parse(&read) {
                after.whole += 1;
                after
                    .stood
                    .extend(parsed.txns.into_iter().map(|txn| (txn.app_id, txn.version)));
            }
        }
        Ok(after)
    }

    fn read_again(&self, chain: &Chain) -> Vec<ReadAgain> {
        let ids: BTreeSet<&String> = chain.0.keys().chain(self.stood.keys()).collect();
        let again = |id: &String| ReadAgain {
            id: id.clone(),
            from: chain.0.get(id).copied(),
            to: self.stood.get(id).copied(),
        };
        ids.into_iter()
            .map(again)
            .filter(|again| again.to.is_none() || again.to != again.from)
            .collect()
    }
}

/// From the newest down: cut short, the log is still whole up to where it was.
async fn take_back(log: &LogCheck, files: &LogFiles, after: &After) -> Result<String, TableError> {
    let now = LogFiles::list(log.store.as_ref(), log.address()).await?;
    if now.last() != files.last() {
        return Err(TableError::Refused {
            address: log.address().to_owned(),
            problem: "a writer is at work on the table: stop all writers, then repair".to_owned(),
        });
    }
    let aside = log.aside();
    let mut to = String::new();
    for version in after.versions.iter().rev() {
        to = aside.take(&log::entry_path(*version)).await?;
    }
    Ok(to.rsplit_once('/').map_or(to.clone(), |(folder, _)| folder.to_owned()))
}
