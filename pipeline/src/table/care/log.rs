//! The log as files: entries, checkpoints, and the hint where to begin. Read without deltalake, so that what is wrong
//! with a log can be told when nothing opens it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalake_core::kernel::{Add, Remove, Transaction};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde_json::{Map, Value};

use crate::table::error::TableError;
use crate::table::marks;

/// Name of the hint.
const HINT: &str = "_last_checkpoint";

/// The files of a log.
#[derive(Debug, Default)]
pub(super) struct LogFiles {
    /// By version.
    pub(super) entries: BTreeMap<u64, ObjectMeta>,
    /// By version; several where it is in parts.
    pub(super) checkpoints: BTreeMap<u64, Vec<ObjectMeta>>,
    pub(super) hint: Option<ObjectMeta>,
}

impl LogFiles {
    /// Lists the log. An empty one is no error: that there is no table is for the caller to say.
    pub(super) async fn list(store: &dyn ObjectStore, address: &str) -> Result<LogFiles, TableError> {
        let listed = match store.list_with_delimiter(Some(&Path::from("_delta_log"))).await {
            Ok(listed) => listed.objects,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(TableError::of("list", address, error)),
        };
        let mut files = LogFiles::default();
        for file in listed {
            match kind(file.location.filename().unwrap_or_default()) {
                Some(Kind::Entry(version)) => drop(files.entries.insert(version, file)),
                Some(Kind::Checkpoint(version)) => files.checkpoints.entry(version).or_default().push(file),
                Some(Kind::Hint) => files.hint = Some(file),
                None => {}
            }
        }
        Ok(files)
    }

    /// Newest version.
    pub(super) fn last(&self) -> Option<u64> {
        self.entries.keys().next_back().copied()
    }
}

enum Kind {
    Entry(u64),
    Checkpoint(u64),
    Hint,
}

/// `{20 digits}.json`, `{20 digits}.checkpoint….parquet` (or `.json`, of the newer kind), or the hint.
fn kind(name: &str) -> Option<Kind> {
    if name == HINT {
        return Some(Kind::Hint);
    }
    let (digits, rest) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let version = digits.parse().ok()?;
    let is_checkpoint = rest.starts_with("checkpoint.") && (rest.ends_with(".parquet") || rest.ends_with(".json"));
    match rest {
        "json" => Some(Kind::Entry(version)),
        _ if is_checkpoint => Some(Kind::Checkpoint(version)),
        _ => None,
    }
}

/// Where an entry lies.
pub(super) fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// A whole file of the log.
pub(super) async fn read(store: &dyn ObjectStore, address: &str, path: &Path) -> Result<Bytes, TableError> {
    let read = async { store.get(path).await?.bytes().await };
    read.await.map_err(|e| TableError::of("read the log of", address, e))
}

/// An entry, taken apart.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) info: Map<String, Value>,
    pub(super) adds: Vec<Add>,
    pub(super) removes: Vec<Remove>,
    pub(super) txns: Vec<Transaction>,
    /// All but the commit's own line.
    actions: usize,
}

impl Parsed {
    /// Where the transactions begin, in their order, if the commit says so.
    pub(super) fn firsts(&self) -> Option<Vec<i64>> {
        let firsts = self.info.get(marks::FIRSTS)?.as_array()?;
        let firsts: Vec<i64> = firsts.iter().map(Value::as_i64).collect::<Option<_>>()?;
        (firsts.len() == self.txns.len()).then_some(firsts)
    }

    /// A figure of the commit's metrics, which are numbers or numbers as text.
    pub(super) fn metric(&self, name: &str) -> Option<u64> {
        let value = self.info.get("operationMetrics")?.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It has no content.
    Empty,
    /// A line is no action of Delta.
    Torn(usize),
    /// Actions that it says it has, and those that it has.
    Short(u64, usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Empty => f.write_str("is empty"),
            Fault::Torn(line) => write!(f, "is torn: line {line} is no action of Delta"),
            Fault::Short(wanted, found) => write!(f, "is cut off: it says {wanted} actions and holds {found}"),
        }
    }
}

/// Takes an entry apart.
pub(super) fn parse(entry: &[u8]) -> Result<Parsed, Fault> {
    let mut parsed = Parsed::default();
    let mut lines = 0;
    for (number, line) in entry.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        lines += 1;
        take(line, &mut parsed).ok_or(Fault::Torn(number + 1))?;
    }
    if lines == 0 {
        return Err(Fault::Empty);
    }
    match parsed.info.get(marks::ACTIONS).and_then(Value::as_u64) {
        Some(wanted) if wanted != parsed.actions as u64 => Err(Fault::Short(wanted, parsed.actions)),
        _ => Ok(parsed),
    }
}

/// One line: an object with one key, the action's name.
fn take(line: &[u8], parsed: &mut Parsed) -> Option<()> {
    let Value::Object(action) = serde_json::from_slice(line).ok()? else {
        return None;
    };
    let (name, value) = action.into_iter().next()?;
    parsed.actions += usize::from(name != "commitInfo");
    match name.as_str() {
        "commitInfo" => parsed.info = value.as_object()?.clone(),
        "add" => parsed.adds.push(serde_json::from_value(value).ok()?),
        "remove" => parsed.removes.push(serde_json::from_value(value).ok()?),
        "txn" => parsed.txns.push(serde_json::from_value(value).ok()?),
        _ => {}
    }
    Some(())
}

/// Paths of the files that commits took out after `cutoff`, as far as their entries are still there.
pub(super) async fn removed_since(
    store: &dyn ObjectStore,
    address: &str,
    cutoff: DateTime<Utc>,
) -> Result<Vec<String>, TableError> {
    let mut found = Vec::new();
    for (version, file) in LogFiles::list(store, address).await?.entries {
        if file.last_modified < cutoff {
            continue;
        }
        let parsed = parse(&read(store, address, &file.location).await?);
        let parsed = parsed.map_err(|fault| TableError::Refused {
            address: address.to_owned(),
            problem: format!("the log entry of version {version} {fault}: run `tamiz table doctor` first"),
        })?;
        let is_recent = |remove: &Remove| {
            let at = remove.deletion_timestamp.and_then(DateTime::from_timestamp_millis);
            at.is_none_or(|at| at > cutoff)
        };
        found.extend(parsed.removes.into_iter().filter(is_recent).map(|remove| remove.path));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_names() {
        let version = |name: &str| match kind(name) {
            Some(Kind::Entry(version)) => ("entry", version),
            Some(Kind::Checkpoint(version)) => ("checkpoint", version),
            Some(Kind::Hint) => ("hint", 0),
            None => ("", 0),
        };
        for (name, expected) in [
            ("00000000000000000012.json", ("entry", 12)),
            ("00000000000000000049.checkpoint.parquet", ("checkpoint", 49)),
            (
                "00000000000000000049.checkpoint.0000000001.0000000002.parquet",
                ("checkpoint", 49),
            ),
            ("_last_checkpoint", ("hint", 0)),
            ("00000000000000000012.json.tmp", ("", 0)),
            ("00000000000000000012.crc", ("", 0)),
            ("12.json", ("", 0)),
        ] {
            assert_eq!(version(name), expected, "{name}");
        }
    }

    #[test]
    fn an_entry_is_whole_only_with_all_its_actions() {
        let info = r#"{"commitInfo":{"tamizActions":2,"tamizFirst":[5]}}"#;
        let add =
            r#"{"add":{"path":"a%20b.parquet","partitionValues":{},"size":1,"modificationTime":1,"dataChange":true}}"#;
        let txn = r#"{"txn":{"appId":"p/0","version":9}}"#;
        let whole = format!("{info}\n{add}\n{txn}\n");
        let parsed = parse(whole.as_bytes()).unwrap();
        assert_eq!(parsed.adds[0].path, "a b.parquet");
        assert_eq!(parsed.firsts(), Some(vec![5]));
        let check = |entry: &str, fault: Fault| assert_eq!(parse(entry.as_bytes()).unwrap_err(), fault, "{entry}");
        check("", Fault::Empty);
        check("\n \n", Fault::Empty);
        check(&format!("{info}\n{add}\n{}", &txn[..20]), Fault::Torn(3));
        check(&format!("{info}\n{add}"), Fault::Short(2, 1));
        check("[]", Fault::Torn(1));
        check(r#"{"add":{"size":1}}"#, Fault::Torn(1));
        // Entries of others say nothing of their length.
        assert!(parse(add.as_bytes()).is_ok());
    }
}
