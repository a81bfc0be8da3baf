//! A table as its caretaker sees it: opened by address alone, with the data files that its newest version names.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use bytes::Bytes;
use chrono::NaiveDate;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake_core::kernel::{Add, LogicalFileView, Remove};
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tamiz_schemas::columns::DATE;

use super::search::Miss;
use crate::table::encode::sha256;
use crate::table::error::TableError;
use crate::table::marks;
use crate::table::partitions::Partition;
use crate::table::read;
use crate::table::spec::TableSpec;
use crate::table::store::{Location, Store};
use crate::table::whereabouts::{self, Span};

/// The property by which a table says which columns may have statistics. Every table that tamiz made has it.
const STATS_PROPERTY: &str = "delta.dataSkippingStatsColumns";

/// An open table.
pub(super) struct Table {
    pub(super) location: Location,
    pub(super) state: DeltaTableState,
    /// Rooted at the table.
    pub(super) store: Arc<dyn ObjectStore>,
}

impl Table {
    pub(super) async fn open(address: &str, store: &Store) -> Result<Table, TableError> {
        let location = store.resolve(address)?;
        let missing = || TableError::Missing {
            address: address.to_owned(),
        };
        let state = match read::load(&location).await {
            Ok(state) => state.ok_or_else(missing)?,
            // For one who takes care of tables, a folder of other files is simply none.
            Err(TableError::Occupied { .. }) => return Err(missing()),
            Err(error) => return Err(error),
        };
        let store = location.log_store.object_store(None);
        Ok(Table { location, state, store })
    }

    pub(super) fn address(&self) -> &str {
        &self.location.address
    }

    /// `posts`, `dead_letters`, or a word for any other.
    pub(super) fn name(&self) -> &'static str {
        match self.state.metadata().name() {
            Some("posts") => "posts",
            Some("dead_letters") => "dead_letters",
            _ => "table",
        }
    }

    /// Sees what was committed meanwhile.
    pub(super) async fn refresh(&mut self) -> Result<(), TableError> {
        let updated = self.state.update(&self.location.log_store, None).await;
        updated.map_err(|e| TableError::of("read the log of", self.address(), e))
    }

    /// Excuses files that were not there when they were looked into, where another process has taken them out of the
    /// table meanwhile: some delete at once what they take out. Sees what was committed since.
    ///
    /// # Errors
    /// One that the table still holds is damage.
    pub(super) async fn excuse(&mut self, missing: &[DataFile]) -> Result<(), TableError> {
        if missing.is_empty() {
            return Ok(());
        }
        self.refresh().await?;
        match missing.iter().find(|file| self.holds(std::slice::from_ref(*file))) {
            None => Ok(()),
            Some(file) => Err(TableError::Damaged {
                address: self.address().to_owned(),
                path: file.add.path.clone(),
                problem: Miss::Gone.to_string(),
            }),
        }
    }

    /// The data files of the newest version seen, oldest first.
    pub(super) fn files(&self) -> Result<Vec<DataFile>, TableError> {
        let files = self.state.log_data().into_iter().map(|view| DataFile::of(&view));
        let mut files: Vec<DataFile> = files
            .collect::<Result<_, _>>()
            .map_err(|e| TableError::of("read the log of", self.address(), e))?;
        files.sort_by(|a, b| (a.add.modification_time, &a.add.path).cmp(&(b.add.modification_time, &b.add.path)));
        Ok(files)
    }

    /// What a file must be that is written into this table.
    pub(super) fn spec(&self) -> Result<TableSpec, TableError> {
        let refused = |problem: String| TableError::Refused {
            address: self.address().to_owned(),
            problem,
        };
        let metadata = self.state.metadata();
        let Some(stats) = metadata.configuration().get(STATS_PROPERTY) else {
            return Err(refused(format!(
                "tamiz did not make this table (it has no `{STATS_PROPERTY}`), and would write files without the \
                 statistics that its readers count on: use the tool that made it"
            )));
        };
        let schema: Result<Schema, ArrowError> = self.state.schema().as_ref().try_into_arrow();
        let schema = schema.map_err(|e| refused(format!("its schema cannot be read ({e})")))?;
        let spec = TableSpec {
            name: self.name(),
            schema: Arc::new(Schema::new(renamed(schema.fields()))),
            partition_columns: metadata.partition_columns().to_vec(),
            stats_columns: stats
                .split(',')
                .map(|column| column.trim().to_owned())
                .filter(|c| !c.is_empty())
                .collect(),
            growing: Vec::new(),
        };
        spec.check().map_err(&refused)?;
        match spec.difference(&self.state).map_err(&refused)? {
            None => Ok(spec),
            Some(difference) => Err(refused(difference)),
        }
    }

    /// Reads a data file and checks it: what is rewritten must be what was written once.
    pub(super) async fn read(&self, file: &DataFile) -> Result<Bytes, TableError> {
        let damaged = |problem: &str| TableError::Damaged {
            address: self.address().to_owned(),
            path: file.add.path.clone(),
            problem: problem.to_owned(),
        };
        if file.add.deletion_vector.is_some() {
            return Err(TableError::Refused {
                address: self.address().to_owned(),
                problem: format!(
                    "`{}` has a deletion vector, which tamiz does not write: purge them with the tool that made them",
                    file.add.path
                ),
            });
        }
        let read = async { self.store.get(&file.path).await?.bytes().await };
        let bytes = match read.await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("is missing")),
            Err(error) => return Err(TableError::of("read a data file of", self.address(), error)),
        };
        if bytes.len() as u64 != file.size() || file.sha256().is_some_and(|wanted| wanted != sha256(&bytes)) {
            return Err(damaged("is not what was written"));
        }
        Ok(bytes)
    }
}

/// Names of a table's columns.
///
/// # Errors
/// No table there, or one that cannot be read.
pub async fn columns(address: &str, store: &Store) -> Result<Vec<String>, TableError> {
    let table = Table::open(address, store).await?;
    Ok(table
        .state
        .schema()
        .fields()
        .map(|field| field.name().clone())
        .collect())
}

/// Writers call the items of a list `item`, Delta calls them `element`: files keep the one name.
fn renamed(fields: &Fields) -> Vec<Field> {
    let data_type = |field: &Field| match field.data_type() {
        DataType::List(item) => {
            let item = renamed(&Fields::from(vec![item.as_ref().clone().with_name("item")])).remove(0);
            DataType::List(Arc::new(item))
        }
        DataType::Struct(inner) => DataType::Struct(renamed(inner).into()),
        other => other.clone(),
    };
    let field = |field: &Arc<Field>| Field::new(field.name(), data_type(field), field.is_nullable());
    fields.iter().map(field).collect()
}

/// The batch with the columns of `schema`: cast where their types differ in name only, NULL where it has none.
pub(super) fn fit(rows: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// A data file that the log names.
#[derive(Debug, Clone)]
pub(super) struct DataFile {
    pub(super) add: Add,
    /// Where it lies in the store.
    pub(super) path: Path,
    /// Rows, as the log counts them.
    pub(super) rows: Option<u64>,
}

impl DataFile {
    pub(super) fn of(view: &LogicalFileView) -> Result<DataFile, object_store::Error> {
        #[expect(deprecated, reason = "the one way to a file's tags")]
        let add = view.add_action();
        Ok(DataFile {
            path: Path::parse(&add.path)?,
            rows: view.num_records().map(|rows| rows as u64),
            add,
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.add.size.unsigned_abs()
    }

    fn tag(&self, name: &str) -> Option<&str> {
        self.add.tags.as_ref()?.get(name)?.as_deref()
    }

    /// As it was hashed when it was written; `None` for a file of earlier versions, or of another writer.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.tag(marks::SHA256)
    }

    /// Where its rows came from.
    pub(super) fn spans(&self) -> Option<Vec<Span>> {
        whereabouts::parse(self.tag(marks::OFFSETS)?)
    }

    /// The size that was aimed at when it was packed.
    pub(super) fn packed(&self) -> Option<u64> {
        self.tag(marks::PACKED)?.parse().ok()
    }

    /// The value of a partition column.
    pub(super) fn value(&self, column: &str) -> Option<&str> {
        self.add.partition_values.get(column)?.as_deref()
    }

    /// The day of its partition.
    pub(super) fn date(&self) -> Option<NaiveDate> {
        self.value(DATE)?.parse().ok()
    }

    /// Values of the partition columns, in their order.
    pub(super) fn values(&self, spec: &TableSpec) -> Vec<(String, Option<String>)> {
        let value = |column: &String| (column.clone(), self.value(column).map(str::to_owned));
        spec.partition_columns.iter().map(value).collect()
    }

    /// Folder of its partition.
    pub(super) fn folder(&self, spec: &TableSpec) -> String {
        let values = self.values(spec);
        Partition {
            values,
            rows: Vec::new(),
        }
        .folder()
    }

    /// The action that takes it out.
    pub(super) fn remove(&self, data_change: bool) -> Remove {
        Remove {
            path: self.add.path.clone(),
            data_change,
            deletion_timestamp: Some(chrono::Utc::now().timestamp_millis()),
            extended_file_metadata: Some(true),
            partition_values: Some(self.add.partition_values.clone()),
            size: Some(self.add.size),
            deletion_vector: self.add.deletion_vector.clone(),
            tags: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }
}

/// Files by the folder of their partition, in the order of the folders.
pub(super) fn by_folder(files: Vec<DataFile>, spec: &TableSpec) -> Vec<(String, Vec<DataFile>)> {
    let mut found: HashMap<String, Vec<DataFile>> = HashMap::new();
    for file in files {
        found.entry(file.folder(spec)).or_default().push(file);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}
