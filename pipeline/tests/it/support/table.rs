//! Tables as they lie there: by SQL through the binary, by the log's own files, and through other people's readers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{Folder, Running, root};

/// Answers of a query, one value a row. `arguments` name the tables (`-t NAME=PATH`).
pub(crate) fn sql(folder: &Folder, arguments: &[&str], query: &str) -> Vec<Value> {
    let mut command = folder.tamiz(&["sql", "--format", "json"]);
    command.args(arguments).arg(query);
    rows(command)
}

/// As [`sql`], of a call that was prepared otherwise.
pub(crate) fn rows(command: Command) -> Vec<Value> {
    let answer = Running::start(command).wait().done();
    answer
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A whole number of a row.
pub(crate) fn number(row: &Value, name: &str) -> i64 {
    row[name]
        .as_i64()
        .unwrap_or_else(|| panic!("no number `{name}` in {row}"))
}

/// The number that a query answers with.
pub(crate) fn count(folder: &Folder, table: &str, query: &str) -> i64 {
    let named = format!("t={table}");
    let rows = sql(
        folder,
        &["--no-model", "-t", &named],
        &format!("SELECT {query} AS n FROM t"),
    );
    number(&rows[0], "n")
}

/// Entries of a local table's log; 0 where there is no table yet.
pub(crate) fn versions(table: &Path) -> usize {
    log_files(table).count()
}

fn log_files(table: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let found = std::fs::read_dir(table.join("_delta_log"))
        .into_iter()
        .flatten()
        .flatten();
    found.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.len() == 25 && name.ends_with(".json")
    })
}

/// The application transactions in a local table's log: per id the versions, in the order of the commits.
pub(crate) fn transactions(table: &Path) -> BTreeMap<String, Vec<i64>> {
    let mut files: Vec<_> = log_files(table).collect();
    files.sort();
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let actions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        for action in actions.filter(|action| !action["txn"].is_null()) {
            let id = action["txn"]["appId"].as_str().unwrap().to_owned();
            found.entry(id).or_default().push(number(&action["txn"], "version"));
        }
    }
    found
}

/// The data files that the newest version of a local table names. Only for tables without a checkpoint.
pub(crate) fn active(table: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = log_files(table).collect();
    files.sort();
    let mut named: BTreeMap<String, ()> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for action in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            if let Some(path) = action["add"]["path"].as_str() {
                named.insert(path.to_owned(), ());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                named.remove(path);
            }
        }
    }
    named.into_keys().map(|path| table.join(path)).collect()
}

/// Every text in the columns of these files, and the files' bytes as they are.
pub(crate) fn contents(files: &[std::path::PathBuf]) -> (Vec<String>, Vec<u8>) {
    let (mut texts, mut bytes) = (Vec::new(), Vec::new());
    for path in files {
        bytes.extend(std::fs::read(path).unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap());
        for rows in reader.unwrap().build().unwrap() {
            let rows = rows.unwrap();
            let plain = rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
            texts.extend(plain.flat_map(|column| column.iter().flatten().map(str::to_owned)));
        }
    }
    (texts, bytes)
}

/// Opens the table with deltalake, pyarrow and DuckDB (`pipeline/tests/py/check_table.py`) and tells what they saw.
pub(crate) fn check(arguments: &[&str], environment: &[(&str, &str)]) -> Value {
    let script = root().join("pipeline/tests/py/check_table.py");
    let mut command = Command::new(root().join("scripts/python"));
    command.arg(script).args(arguments).envs(environment.iter().copied());
    let answer = Running::start(command).wait();
    let report: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("no report\n{answer}"));
    assert_eq!(answer.status.code(), Some(0), "{:#}\n{answer}", report["problems"]);
    report
}
