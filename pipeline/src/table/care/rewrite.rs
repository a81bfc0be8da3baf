//! Files of one partition written anew: the same rows in the same order, or those that stay.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::table::{DataFile, Table, fit};
use crate::table::encode::{Encoder, File, Layout};
use crate::table::error::TableError;
use crate::table::marks;
use crate::table::spec::TableSpec;
use crate::table::stage::{self, Staged, Staging, on_rayon};

/// Rows decoded at a time.
const ROWS: usize = 8_192;

/// What becomes of rows on their way.
pub(super) type Change = Arc<dyn Fn(RecordBatch) -> Result<RecordBatch, ArrowError> + Send + Sync>;

/// How files of a table are written anew.
pub(super) struct Rewriter {
    pub(super) spec: TableSpec,
    layout: Arc<Layout>,
    /// The size aimed at, where files are packed.
    packed: Option<u64>,
}

/// Files written anew, not committed yet.
pub(super) struct Rewritten {
    pub(super) staged: Staged,
    /// By group.
    pub(super) shares: Vec<Share>,
}

/// What became of a group of files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) rows: u64,
}

impl Rewriter {
    /// Writes files of about `target` bytes, and marks them as packed.
    pub(super) fn packing(table: &Table, target: u64) -> Result<Rewriter, TableError> {
        let spec = table.spec()?;
        Ok(Rewriter {
            layout: Arc::new(Layout::of_size(&spec, usize::try_from(target).unwrap_or(usize::MAX))),
            packed: Some(target),
            spec,
        })
    }

    /// Writes files as a writer would.
    pub(super) fn plain(table: &Table) -> Result<Rewriter, TableError> {
        let spec = table.spec()?;
        Ok(Rewriter {
            layout: Arc::new(Layout::new(&spec)),
            packed: None,
            spec,
        })
    }

    /// The size aimed at.
    pub(super) fn target(&self) -> u64 {
        self.packed.unwrap_or_default()
    }

    /// Stages the rows of each group of files, which lie in one partition. Holds one file that is read and one that is
    /// written in memory. When that fails, what was written is removed.
    ///
    /// # Errors
    /// A file that is missing or damaged; as staging otherwise.
    pub(super) async fn rewrite(
        &self,
        table: &Table,
        groups: &[&[DataFile]],
        change: Option<&Change>,
    ) -> Result<Rewritten, TableError> {
        let staging = self.staging(table);
        let (mut staged, mut shares) = (Staged::default(), Vec::new());
        for files in groups {
            let before = (staged.adds.len(), staged.bytes, staged.rows);
            if let Err(error) = self.work(&staging, table, (files, change), &mut staged).await {
                staging.remove(&staged.adds).await;
                return Err(error);
            }
            shares.push(Share {
                files: staged.adds.len() - before.0,
                bytes: staged.bytes - before.1,
                rows: (staged.rows - before.2) as u64,
            });
        }
        Ok(Rewritten { staged, shares })
    }

    /// Removes what was staged and will never be committed.
    pub(super) async fn discard(&self, table: &Table, staged: &Staged) {
        self.staging(table).remove(&staged.adds).await;
    }

    fn staging<'t>(&'t self, table: &'t Table) -> Staging<'t> {
        Staging {
            spec: &self.spec,
            address: table.address(),
            layout: Arc::clone(&self.layout),
            store: Arc::clone(&table.store),
        }
    }

    async fn work(
        &self,
        staging: &Staging<'_>,
        table: &Table,
        (files, change): (&[DataFile], Option<&Change>),
        staged: &mut Staged,
    ) -> Result<(), TableError> {
        let mut encoder = Encoder::new(Arc::clone(&self.layout));
        for file in files {
            let bytes = table.read(file).await?;
            let (layout, change) = (Arc::clone(&self.layout), change.cloned());
            let worked = on_rayon(move || {
                let done = recode(&mut encoder, bytes, &layout, change.as_ref());
                done.map(|files| (files, encoder))
            });
            let (done, rest) = worked.await.map_err(|problem| TableError::Damaged {
                address: table.address().to_owned(),
                path: file.add.path.clone(),
                problem: format!("cannot be read ({problem})"),
            })?;
            encoder = rest;
            for done in done {
                self.put(staging, done, files, staged).await?;
            }
        }
        let last = on_rayon(move || encoder.finish().map_err(|e| e.to_string())).await;
        let last = last.map_err(|problem| TableError::Encode {
            table: self.spec.name,
            source: problem.into(),
        })?;
        match last {
            Some(last) => self.put(staging, last, files, staged).await,
            None => Ok(()),
        }
    }

    async fn put(
        &self,
        staging: &Staging<'_>,
        file: File,
        from: &[DataFile],
        staged: &mut Staged,
    ) -> Result<(), TableError> {
        let Some(first) = from.first() else { return Ok(()) };
        let path = stage::path(&first.folder(&self.spec), staged.adds.len());
        let rows = file.stats.rows();
        let mut add = staging.put(&path, file, &first.values(&self.spec)).await?;
        // As old as its youngest row: files are told apart by age, and so are their rows.
        add.modification_time = from
            .iter()
            .map(|file| file.add.modification_time)
            .max()
            .unwrap_or_default();
        if let (Some(tags), Some(target)) = (add.tags.as_mut(), self.packed) {
            tags.insert(marks::PACKED.to_owned(), Some(target.to_string()));
        }
        staged.rows += rows;
        staged.bytes += add.size.unsigned_abs();
        staged.adds.push(add);
        Ok(())
    }
}

/// Decodes a file, changes its rows and encodes them; gives the files that this filled.
fn recode(encoder: &mut Encoder, bytes: Bytes, layout: &Layout, change: Option<&Change>) -> Result<Vec<File>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let reader = reader.with_batch_size(ROWS).build().map_err(|e| e.to_string())?;
    let mut files = Vec::new();
    for rows in reader {
        let rows = rows
            .and_then(|rows| fit(&rows, layout.schema()))
            .map_err(|e| e.to_string())?;
        let rows = match change {
            Some(change) => change(rows).map_err(|e| e.to_string())?,
            None => rows,
        };
        files.extend(encoder.push(&rows).map_err(|e| e.to_string())?);
    }
    Ok(files)
}
