//! Staging: the rows of a commit as data files that no log entry names yet.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use deltalake_core::kernel::Add;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use super::encode::{File, Layout};
use super::error::TableError;
use super::marks;
use super::partitions::{self, Partition};
use super::spec::TableSpec;
use crate::fault::crash_at;

/// Partitions encoded and uploaded at a time. Bounds the memory that finished files take while they wait for the store.
const IN_FLIGHT: usize = 16;

/// Data files that wait for their commit.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) adds: Vec<Add>,
    pub(super) rows: usize,
    pub(super) bytes: u64,
}

/// Where files are staged, and how.
pub(super) struct Staging<'a> {
    pub(super) spec: &'a TableSpec,
    pub(super) address: &'a str,
    pub(super) layout: Arc<Layout>,
    /// Rooted at the table.
    pub(super) store: Arc<dyn ObjectStore>,
}

impl Staging<'_> {
    /// Writes `batches` as data files, each partition's rows into its own. When that fails, what was written is removed:
    /// no log entry can name it.
    pub(super) async fn stage(&self, batches: Vec<RecordBatch>) -> Result<Staged, TableError> {
        let batches: Vec<RecordBatch> = batches.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        if batches.is_empty() {
            return Ok(Staged::default());
        }
        self.check(&batches)?;
        let (layout, columns) = (self.layout.clone(), self.spec.partition_columns.clone());
        let split = on_rayon(move || {
            let partitions = partitions::split(&batches, &columns).map_err(|e| e.to_string())?;
            let batches = batches
                .iter()
                .map(|batch| layout.project(batch))
                .collect::<Result<Vec<_>, _>>();
            Ok((partitions, batches.map_err(|e| e.to_string())?))
        });
        let (partitions, batches) = split.await.map_err(|problem| self.rows(problem))?;
        let batches: Arc<[RecordBatch]> = batches.into();
        // All partitions run to their end even when one fails, so that what has to be removed is known.
        let staged: Vec<(Vec<Add>, Result<(), TableError>)> = stream::iter(partitions)
            .map(|partition| self.stage_partition(partition, batches.clone()))
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let mut all = Staged {
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
            ..Staged::default()
        };
        let mut failure = None;
        for (adds, outcome) in staged {
            all.bytes += adds.iter().map(|add| add.size.unsigned_abs()).sum::<u64>();
            all.adds.extend(adds);
            failure = failure.or(outcome.err());
        }
        match failure {
            None => Ok(all),
            Some(failure) => {
                self.remove(&all.adds).await;
                Err(failure)
            }
        }
    }

    async fn stage_partition(
        &self,
        partition: Partition,
        batches: Arc<[RecordBatch]>,
    ) -> (Vec<Add>, Result<(), TableError>) {
        let mut adds = Vec::new();
        let layout = self.layout.clone();
        let folder = partition.folder();
        let Partition { values, rows } = partition;
        let files = on_rayon(move || layout.encode(&batches, &rows).map_err(|e| e.to_string())).await;
        let files = match files {
            Ok(files) => files,
            Err(problem) => {
                return (
                    adds,
                    Err(TableError::Encode {
                        table: self.spec.name,
                        source: problem.into(),
                    }),
                );
            }
        };
        for (part, file) in files.into_iter().enumerate() {
            match self.put(&path(&folder, part), file, &values).await {
                Ok(add) => adds.push(add),
                Err(error) => return (adds, Err(error)),
            }
        }
        (adds, Ok(()))
    }

    /// Writes a finished file under its name.
    pub(super) async fn put(
        &self,
        path: &str,
        file: File,
        values: &[(String, Option<String>)],
    ) -> Result<Add, TableError> {
        let failed = |e: object_store::Error| TableError::of("write a data file of", self.address, e);
        // Parsed, not converted: a conversion would escape the escapes.
        let location = Path::parse(path).map_err(|e| failed(e.into()))?;
        let size = file.bytes.len() as i64;
        let offsets = file.whereabouts.json().map(|json| (marks::OFFSETS, json));
        let tags = [(marks::SHA256, file.sha256)].into_iter().chain(offsets);
        let tags = tags.map(|(tag, value)| (tag.to_owned(), Some(value))).collect();
        self.store.put(&location, file.bytes.into()).await.map_err(failed)?;
        crash_at("mid_staging");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Add {
            path: path.to_owned(),
            partition_values: values.iter().cloned().collect(),
            size,
            modification_time: now.as_millis() as i64,
            data_change: true,
            stats: Some(file.stats.json()),
            tags: Some(tags),
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }

    /// Best effort: what stays is an orphan that vacuum finds.
    pub(super) async fn remove(&self, adds: &[Add]) {
        let paths: Vec<_> = adds
            .iter()
            .map(|add| Path::parse(&add.path).map_err(object_store::Error::from))
            .collect();
        let removed = self
            .store
            .delete_stream(stream::iter(paths).boxed())
            .try_collect::<Vec<_>>()
            .await;
        if let Err(error) = removed {
            tracing::warn!(table = self.spec.name, %error, "data files of a failed batch stay behind until vacuum");
        }
    }

    /// Names and types only: NULL where there must be none is refused by Arrow when a batch is made.
    fn check(&self, batches: &[RecordBatch]) -> Result<(), TableError> {
        let wanted = self.spec.schema.fields();
        for batch in batches {
            let schema = batch.schema_ref();
            if schema.fields().len() != wanted.len() {
                let (there, here) = (schema.fields().len(), wanted.len());
                return Err(self.rows(format!("they have {there} columns, the table {here}")));
            }
            for (there, here) in schema.fields().iter().zip(wanted) {
                if there.name() != here.name() || there.data_type() != here.data_type() {
                    let (name, kind) = (there.name(), there.data_type());
                    let (wanted, wanted_kind) = (here.name(), here.data_type());
                    return Err(self.rows(format!(
                        "`{name}` ({kind}) stands where `{wanted}` ({wanted_kind}) belongs"
                    )));
                }
            }
        }
        Ok(())
    }

    fn rows(&self, problem: String) -> TableError {
        TableError::Rows {
            table: self.spec.name,
            problem,
        }
    }
}

/// Path below the table of a new file in a partition's folder.
pub(super) fn path(folder: &str, part: usize) -> String {
    let name = format!("part-{part:05}-{}-c000.zstd.parquet", Uuid::new_v4());
    if folder.is_empty() {
        name
    } else {
        format!("{folder}/{name}")
    }
}

/// Runs `work` on rayon; the async thread only waits. A panic becomes an error: it must not take the process along.
pub(super) async fn on_rayon<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the encoder panicked".to_owned()));
        // Nobody waits any more when the commit was cancelled.
        drop(done.send(outcome));
    });
    result
        .await
        .unwrap_or_else(|_| Err("the encoder was stopped".to_owned()))
}
