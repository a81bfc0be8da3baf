//! A look into a data file for rows that are to go: only the columns that decide are fetched.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::compute::{filter_record_batch, not};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::erase::Select;
use super::table::{DataFile, Table};
use crate::table::error::TableError;

/// What a look into a file found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Rows that go.
    pub(super) goes: u64,
    /// Rows that stay and refer to such.
    pub(super) refers: u64,
    /// Rows that stay and that a person should know about.
    pub(super) notable: u64,
}

/// Why a file could not be looked into.
#[derive(Debug)]
pub(super) enum Miss {
    /// It is not there.
    Gone,
    /// It is no Parquet file, or a broken one.
    Unreadable(ParquetError),
    /// The store failed.
    Store(object_store::Error),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Gone => f.write_str("is missing"),
            Miss::Unreadable(error) => write!(f, "cannot be read ({error})"),
            Miss::Store(error) => write!(f, "cannot be reached ({error})"),
        }
    }
}

impl From<ParquetError> for Miss {
    fn from(error: ParquetError) -> Miss {
        match error {
            ParquetError::External(source) => match source.downcast::<object_store::Error>() {
                Ok(error) => match *error {
                    object_store::Error::NotFound { .. } => Miss::Gone,
                    error => Miss::Store(error),
                },
                Err(source) => Miss::Unreadable(ParquetError::External(source)),
            },
            error => Miss::Unreadable(error),
        }
    }
}

/// What a look into the files of a table found.
pub(super) struct Looked<F> {
    /// Those that have to be written anew, with what they hold.
    pub(super) dirty: Vec<(DataFile, F)>,
    /// Another process took some out before they were looked into: what it made of them is new to the next round.
    pub(super) overtaken: bool,
}

/// As [`search`], into a file of the table; `None` where it is not there.
pub(super) async fn look_into(
    table: &Table,
    file: &DataFile,
    select: &dyn Select,
    remember: bool,
) -> Result<Option<Found>, TableError> {
    match search(table, (&file.path, file.size()), select, remember).await {
        Ok(found) => Ok(Some(found)),
        Err(Miss::Gone) => Ok(None),
        Err(Miss::Store(error)) => Err(TableError::of("read a data file of", table.address(), error)),
        Err(miss @ Miss::Unreadable(_)) => Err(TableError::Damaged {
            address: table.address().to_owned(),
            path: file.add.path.clone(),
            problem: miss.to_string(),
        }),
    }
}

/// Looks for rows that go, and has them remembered; or, without that, for what refers to them as well.
pub(super) async fn search(
    table: &Table,
    (path, size): (&Path, u64),
    select: &dyn Select,
    remember: bool,
) -> Result<Found, Miss> {
    let file = Remote {
        store: Arc::clone(&table.store),
        path: path.clone(),
        size,
    };
    let builder = ParquetRecordBatchStreamBuilder::new(file).await?;
    let wanted = select.columns();
    let fields = builder.schema().fields().iter().enumerate();
    let roots = fields
        .filter(|(_, field)| wanted.contains(&field.name().as_str()))
        .map(|(at, _)| at);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
    let mut batches = builder.with_projection(mask).build()?;
    let mut found = Found::default();
    while let Some(rows) = batches.try_next().await? {
        let goes = select.goes(&rows).map_err(ParquetError::from)?;
        found.goes += goes.true_count() as u64;
        if remember {
            select.remember(&filter_record_batch(&rows, &goes).map_err(ParquetError::from)?);
            continue;
        }
        let stays = filter_record_batch(&rows, &not(&goes).map_err(ParquetError::from)?).map_err(ParquetError::from)?;
        found.refers += select.refers(&stays).map_err(ParquetError::from)?.true_count() as u64;
        found.notable += select.notable(&stays).map_err(ParquetError::from)?;
    }
    Ok(found)
}

/// A file in the store, of which ranges are fetched.
struct Remote {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(error.into())
}

impl AsyncFileReader for Remote {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new().load_and_finish(self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}
