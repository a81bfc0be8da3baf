//! Every data file that the newest version names: whether it is there, and what was written.

use deltalake_core::protocol::DeltaOperation;
use futures::{StreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tamiz_schemas::columns::{DATE, SOURCE};

use super::{DoctorOptions, Finding, Lost, Report, causes};
use crate::table::care::aside::Aside;
use crate::table::care::commit::{Change, Landed};
use crate::table::care::table::{DataFile, Table};
use crate::table::encode::hex;
use crate::table::error::TableError;
use crate::table::stage::{Staged, on_rayon};

/// Files looked at at a time.
const IN_FLIGHT: usize = 4;
/// Bytes of a file read at a time.
const PIECE: u64 = 8 << 20;
/// How often a change by others is followed while files are taken out.
const ROUNDS: usize = 5;

/// What became of a look at a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// As it was written.
    Fine,
    Missing,
    /// What is wrong with it.
    Corrupt(String),
    /// The store would not say.
    Unknown(String),
}

/// Adds what is found to the report, mended where that was asked for.
pub(super) async fn check(table: &mut Table, options: &DoctorOptions, report: &mut Report) -> Result<(), TableError> {
    let files = table.files()?;
    report.files = files.len();
    report.bytes = files.iter().map(DataFile::size).sum();
    if !options.quick {
        report.hashed = files.iter().filter(|file| file.sha256().is_some()).count();
        report.unhashed = files.len() - report.hashed;
    }
    let store = table.store.as_ref();
    let looks = files.into_iter().map(|file| async move {
        let verdict = look(store, &file, options.quick).await;
        (file, verdict)
    });
    let bad: Vec<(DataFile, Verdict)> = stream::iter(looks)
        .buffered(IN_FLIGHT)
        .filter(|(_, verdict)| std::future::ready(*verdict != Verdict::Fine))
        .collect()
        .await;
    if bad.is_empty() {
        return Ok(());
    }
    // Packed or removed, and vacuumed, while this looked: that is no damage.
    table.refresh().await?;
    let bad: Vec<_> = bad
        .into_iter()
        .filter(|(file, _)| table.holds(std::slice::from_ref(file)))
        .collect();
    let mended = if options.repair {
        mend(table, &bad).await?
    } else {
        Vec::new()
    };
    for (at, (file, verdict)) in bad.iter().enumerate() {
        report
            .findings
            .push(finding(file, verdict, mended.get(at).cloned().flatten()));
    }
    Ok(())
}

async fn look(store: &dyn ObjectStore, file: &DataFile, quick: bool) -> Verdict {
    let verdict = once(store, file, quick).await;
    match verdict {
        // A bad read is no bad file: only what is wrong twice is wrong.
        Verdict::Corrupt(_) => once(store, file, quick).await,
        verdict => verdict,
    }
}

async fn once(store: &dyn ObjectStore, file: &DataFile, quick: bool) -> Verdict {
    let meta = match store.head(&file.path).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => return Verdict::Missing,
        Err(error) => return Verdict::Unknown(causes(&error)),
    };
    if meta.size != file.size() {
        return Verdict::Corrupt(format!("it holds {} bytes, {} were written", meta.size, file.size()));
    }
    if quick {
        return Verdict::Fine;
    }
    let outcome = match file.sha256() {
        Some(wanted) => hashed(store, file, wanted).await,
        None => decoded(store, file).await,
    };
    outcome.unwrap_or_else(|error| match error {
        object_store::Error::NotFound { .. } => Verdict::Missing,
        error => Verdict::Unknown(causes(&error)),
    })
}

async fn hashed(store: &dyn ObjectStore, file: &DataFile, wanted: &str) -> object_store::Result<Verdict> {
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < file.size() {
        let end = file.size().min(at + PIECE);
        hash.update(store.get_range(&file.path, at..end).await?);
        at = end;
    }
    Ok(match hex(hash.finalize()) == wanted {
        true => Verdict::Fine,
        false => Verdict::Corrupt("its bytes are not those that were written (SHA-256 differs)".to_owned()),
    })
}

async fn decoded(store: &dyn ObjectStore, file: &DataFile) -> object_store::Result<Verdict> {
    let bytes = store.get(&file.path).await?.bytes().await?;
    let counted = file.rows;
    let rows = on_rayon(move || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
        let mut rows = 0;
        for batch in reader.build().map_err(|e| e.to_string())? {
            rows += batch.map_err(|e| e.to_string())?.num_rows() as u64;
        }
        Ok(rows)
    });
    Ok(match rows.await {
        Err(problem) => Verdict::Corrupt(format!("it cannot be read ({problem})")),
        Ok(rows) if counted.is_some_and(|counted| counted != rows) => Verdict::Corrupt(format!(
            "it holds {rows} rows, the log counts {}",
            counted.unwrap_or_default()
        )),
        Ok(_) => Verdict::Fine,
    })
}

/// Sets corrupt files aside and takes all that are bad out of the table; what was done, by file.
async fn mend(table: &mut Table, bad: &[(DataFile, Verdict)]) -> Result<Vec<Option<String>>, TableError> {
    let mut done = vec![None; bad.len()];
    let mut removed = Vec::new();
    {
        let aside = Aside::new(table.store.as_ref(), table.address());
        for (at, (file, verdict)) in bad.iter().enumerate() {
            done[at] = match verdict {
                Verdict::Corrupt(_) => Some(format!(
                    "taken out of the table and set aside as {}",
                    aside.take(&file.path).await?
                )),
                Verdict::Missing => Some("taken out of the table".to_owned()),
                Verdict::Fine | Verdict::Unknown(_) => continue,
            };
            removed.push(file.clone());
        }
    }
    for _ in 0..ROUNDS {
        removed.retain(|file| table.holds(std::slice::from_ref(file)));
        if removed.is_empty() {
            return Ok(done);
        }
        let change = Change {
            operation: DeltaOperation::FileSystemCheck {},
            removed: &removed,
            staged: &Staged::default(),
            data_change: true,
            deleted_rows: removed.iter().filter_map(|file| file.rows).sum(),
        };
        if table.land(&change).await? == Landed::Done {
            return Ok(done);
        }
    }
    Err(TableError::Refused {
        address: table.address().to_owned(),
        problem: "other processes keep changing the files that are to be taken out: stop them and repair again"
            .to_owned(),
    })
}

fn finding(file: &DataFile, verdict: &Verdict, mended: Option<String>) -> Finding {
    let problem = match verdict {
        Verdict::Fine => String::new(),
        Verdict::Missing => "it is missing".to_owned(),
        Verdict::Corrupt(problem) => problem.clone(),
        Verdict::Unknown(problem) => format!("it could not be looked at: {problem}"),
    };
    let mut finding = Finding::harmful(&file.add.path, problem);
    let is_lost = matches!(verdict, Verdict::Missing | Verdict::Corrupt(_));
    finding.lost = is_lost.then(|| lost(file));
    if is_lost && mended.is_none() {
        finding.cure = Some("a copy put back in its place, or --repair, which takes it out of the table".to_owned());
    }
    finding.mended = mended;
    finding
}

fn lost(file: &DataFile) -> Lost {
    let stats: Option<Value> = file
        .add
        .stats
        .as_ref()
        .and_then(|stats| serde_json::from_str(stats).ok());
    let bound = |side: &str| {
        let values = &stats.as_ref()?[side];
        values["kafka"]["offset"].as_i64().or_else(|| values["offset"].as_i64())
    };
    Lost {
        date: file.value(DATE).map(str::to_owned),
        source: file.value(SOURCE).map(str::to_owned),
        rows: file.rows,
        offsets: file.spans().unwrap_or_default(),
        offset_bounds: bound("minValues").zip(bound("maxValues")),
    }
}
