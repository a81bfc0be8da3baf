//! The history oracle: what the broker acknowledged, against what the tables hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::support::Folder;
use crate::support::broker::Place;
use crate::support::table::{number, sql, transactions};

/// One message that the broker took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    pub(crate) place: Place,
}

/// What became of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) posts: usize,
    pub(crate) dead_letters: usize,
    /// Acknowledged, and in neither table.
    pub(crate) lost: usize,
    /// Rows beyond the first of an offset, or of an acknowledged id, in either table.
    pub(crate) duplicated: usize,
    /// Rows whose id is not the one that was sent to their offset.
    pub(crate) mistaken: usize,
    /// Commits whose offset is not beyond the one before.
    pub(crate) out_of_order: usize,
}

impl Verdict {
    /// Nothing lost, nothing twice, nothing out of its place.
    pub(crate) fn holds(&self) -> bool {
        (self.lost, self.duplicated, self.mistaken, self.out_of_order) == (0, 0, 0, 0) && self.posts > 0
    }
}

/// Compares the tables `posts` and `dead` of a folder with what was acknowledged.
pub(crate) fn judge(folder: &Folder, acknowledged: &[Acknowledged]) -> Verdict {
    let (posts, dead) = (
        format!("posts={}", folder.text("posts")),
        format!("dead={}", folder.text("dead")),
    );
    let tables = ["--no-model", "-t", &posts, "-t", &dead];
    let rows = sql(
        folder,
        &tables,
        "SELECT id, kafka['partition'] AS p, kafka['offset'] AS o FROM posts",
    );
    let letters = sql(folder, &tables, "SELECT \"partition\" AS p, \"offset\" AS o FROM dead");
    Verdict {
        out_of_order: transactions(&folder.path("posts"))
            .values()
            .map(|versions| versions.windows(2).filter(|pair| pair[1] <= pair[0]).count())
            .sum(),
        ..compare(&rows, &letters, acknowledged)
    }
}

/// The same of rows (`id`, `p`, `o`) and dead letters (`p`, `o`) that were read already; the order of commits is not looked at.
pub(crate) fn compare(rows: &[Value], letters: &[Value], acknowledged: &[Acknowledged]) -> Verdict {
    let place = |row: &Value| (number(row, "p") as i32, number(row, "o"));
    let sent: HashMap<Place, &str> = acknowledged.iter().map(|one| (one.place, one.id.as_str())).collect();
    let held: BTreeSet<Place> = rows.iter().chain(letters).map(place).collect();
    let ids: BTreeSet<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    let id = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
    Verdict {
        acknowledged: acknowledged.len(),
        posts: rows.len(),
        dead_letters: letters.len(),
        lost: sent.keys().filter(|place| !held.contains(place)).count(),
        duplicated: (rows.len() + letters.len() - held.len()).max(rows.len() - ids.len()),
        mistaken: rows
            .iter()
            .filter(|row| sent.get(&place(row)).is_some_and(|sent| *sent != id(row)))
            .count(),
        out_of_order: 0,
    }
}

/// How far a local table's log says that each partition is committed. Reads each entry of the log once.
pub(crate) struct Tail {
    log: PathBuf,
    version: u64,
    next: BTreeMap<i32, i64>,
}

impl Tail {
    pub(crate) fn new(table: &Path) -> Tail {
        Tail {
            log: table.join("_delta_log"),
            version: 0,
            next: BTreeMap::new(),
        }
    }

    /// Versions read so far.
    pub(crate) fn versions(&mut self) -> u64 {
        self.read();
        self.version
    }

    /// Whether every one of these places is committed.
    pub(crate) fn covers(&mut self, ends: &BTreeMap<i32, i64>) -> bool {
        self.read();
        ends.iter()
            .all(|(partition, end)| self.next.get(partition).is_some_and(|next| next >= end))
    }

    fn read(&mut self) {
        while let Ok(text) = std::fs::read_to_string(self.log.join(format!("{:020}.json", self.version))) {
            let actions = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            for txn in actions.map(|action| action["txn"].clone()).filter(|txn| !txn.is_null()) {
                let partition = txn["appId"].as_str().and_then(|id| id.rsplit('/').next()?.parse().ok());
                self.next
                    .extend(partition.map(|partition| (partition, number(&txn, "version"))));
            }
            self.version += 1;
        }
    }
}

/// Bytes of data files that no entry of the log names: what kills leave for vacuum.
pub(crate) fn orphan_bytes(table: &Path) -> u64 {
    let mut named = BTreeSet::new();
    for entry in std::fs::read_dir(table.join("_delta_log"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "json") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let actions = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            named.extend(
                actions.filter_map(|action| Some(action["add"]["path"].as_str()?.rsplit('/').next()?.to_owned())),
            );
        }
    }
    files(table)
        .into_iter()
        .filter(|path| !path.components().any(|part| part.as_os_str() == "_delta_log"))
        .filter(|path| !named.contains(&path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .sum()
}

/// The data files of a local table.
pub(crate) fn data_files(table: &Path) -> Vec<PathBuf> {
    let hidden = |path: &PathBuf| {
        let below = path.strip_prefix(table).unwrap().to_string_lossy().into_owned();
        below.starts_with(['_', '.'])
    };
    let mut files = files(table);
    files.retain(|path| path.extension().is_some_and(|end| end == "parquet") && !hidden(path));
    files.sort();
    files
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
