//! What was committed, from the newest version back, as far as the log's entries reach.

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde_json::Value;

use super::log::{self, LogFiles, Parsed};
use crate::table::error::TableError;
use crate::table::marks;
use crate::table::store::Store;

/// One version.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Entry {
    /// Its number.
    pub version: u64,
    /// When it was committed; of an entry that does not say, when its file was written.
    pub time: DateTime<Utc>,
    /// What the commit calls itself; of a broken entry, what is wrong with it.
    pub operation: String,
    /// Rows that came; `None` where the log does not count them.
    pub rows_added: Option<u64>,
    /// Rows that went; `None` where the log does not tell.
    pub rows_removed: Option<u64>,
    /// Files that came.
    pub files_added: usize,
    /// Files that went.
    pub files_removed: usize,
    /// Bytes that came.
    pub bytes_added: u64,
    /// Bytes that went.
    pub bytes_removed: u64,
    /// Offsets that moved.
    pub offsets: Vec<Moved>,
}

/// An offset that a commit moved.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Whose: `{pipeline}/{cluster}/{topic}/{partition}`.
    pub id: String,
    /// Where it stood; `None` where the commit does not tell.
    pub first: Option<i64>,
    /// Where it stands since.
    pub next: i64,
}

/// The newest versions of the table, newest first.
///
/// # Errors
/// No table there, or a store that fails. A broken entry is none: it is told as such.
pub async fn history(address: &str, store: &Store, limit: usize) -> Result<Vec<Entry>, TableError> {
    let location = store.resolve(address)?;
    let store = location.log_store.object_store(None);
    let files = LogFiles::list(store.as_ref(), address).await?;
    if files.entries.is_empty() && files.checkpoints.is_empty() {
        return Err(TableError::Missing {
            address: address.to_owned(),
        });
    }
    let mut entries = Vec::new();
    for (version, file) in files.entries.iter().rev().take(limit) {
        entries.push(entry(store.as_ref(), address, *version, file).await?);
    }
    Ok(entries)
}

async fn entry(
    store: &dyn ObjectStore,
    address: &str,
    version: u64,
    file: &object_store::ObjectMeta,
) -> Result<Entry, TableError> {
    let read = log::read(store, address, &file.location).await?;
    Ok(match log::parse(&read) {
        Ok(parsed) => told(version, file.last_modified, &parsed),
        Err(fault) => Entry {
            version,
            time: file.last_modified,
            operation: format!("broken: it {fault}"),
            rows_added: None,
            rows_removed: None,
            files_added: 0,
            files_removed: 0,
            bytes_added: 0,
            bytes_removed: 0,
            offsets: Vec::new(),
        },
    })
}

fn told(version: u64, written: DateTime<Utc>, parsed: &Parsed) -> Entry {
    let rows = |stats: &Option<String>| {
        let stats: Value = serde_json::from_str(stats.as_ref()?).ok()?;
        stats["numRecords"].as_u64()
    };
    // Files that only lie elsewhere bring no rows.
    let new = parsed.adds.iter().filter(|add| add.data_change);
    let is_rewrite = parsed.removes.iter().any(|remove| remove.data_change);
    let deleted = parsed.metric("numDeletedRows");
    let rows_removed = if is_rewrite { deleted } else { Some(0) };
    // Where tamiz replaces files, the rows of the new ones were there before; what others do then is not known.
    let is_own = parsed.info.contains_key(marks::COMMIT_ID);
    let rows_added = match (is_rewrite, is_own) {
        (true, true) => Some(0),
        (true, false) if !parsed.adds.is_empty() => None,
        _ => new.map(|add| rows(&add.stats)).sum(),
    };
    let firsts = parsed.firsts();
    let moved = |(at, txn): (usize, &deltalake_core::kernel::Transaction)| Moved {
        id: txn.app_id.clone(),
        first: firsts.as_ref().map(|firsts| firsts[at]),
        next: txn.version,
    };
    let at = parsed.info.get("timestamp").and_then(Value::as_i64);
    let operation = parsed.info.get("operation").and_then(Value::as_str);
    Entry {
        version,
        time: at.and_then(DateTime::from_timestamp_millis).unwrap_or(written),
        operation: operation.unwrap_or("unknown").to_owned(),
        rows_added,
        rows_removed,
        files_added: parsed.adds.len(),
        files_removed: parsed.removes.len(),
        bytes_added: parsed.adds.iter().map(|add| add.size.unsigned_abs()).sum(),
        bytes_removed: parsed
            .removes
            .iter()
            .filter_map(|remove| remove.size)
            .map(i64::unsigned_abs)
            .sum(),
        offsets: parsed.txns.iter().enumerate().map(moved).collect(),
    }
}
