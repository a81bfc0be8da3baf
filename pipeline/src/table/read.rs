//! Looking at tables without writing them: what lies at an address, and tables for SQL.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionContext, ident, lit};
use deltalake_core::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use tamiz_schemas::columns::{OFFSET, PARTITION, TOPIC_NAME};

use super::error::TableError;
use super::spec::TableSpec;
use super::store::{Location, Store};

/// What lies at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// Nothing yet; a writer would create the table.
    Absent,
    /// A table that fits.
    Present {
        /// Its version.
        version: u64,
        /// Its data files.
        files: usize,
    },
}

/// Looks whether a writer could open the table. Touches nothing, so a missing right to write shows only later.
///
/// # Errors
/// Those of [`TableWriter::open`](super::TableWriter::open), as far as they show without writing.
pub async fn inspect(address: &str, store: &Store, spec: &TableSpec) -> Result<Inspection, TableError> {
    let location = store.resolve(address)?;
    let mismatch = |difference| TableError::Mismatch {
        table: spec.name,
        address: address.to_owned(),
        difference,
    };
    spec.check().map_err(mismatch)?;
    let Some(table) = load(&location).await? else {
        return Ok(Inspection::Absent);
    };
    match spec.difference(&table).map_err(mismatch)? {
        None => Ok(Inspection::Present {
            version: table.version(),
            files: table.log_data().num_files(),
        }),
        Some(difference) => Err(mismatch(difference)),
    }
}

/// Makes the Delta table at `address` known to SQL as `name`, for reading. The table is seen as it is now; registering
/// it again under its name shows what was committed since. Filters on partition columns and on columns with statistics
/// skip files.
///
/// # Errors
/// No table there, or one that cannot be read.
pub async fn register(ctx: &SessionContext, name: &str, address: &str, store: &Store) -> Result<(), TableError> {
    let location = store.resolve(address)?;
    let missing = || TableError::Missing {
        address: address.to_owned(),
    };
    let table = load(&location).await?.ok_or_else(missing)?;
    offer(ctx, name, (&location, &table))
}

/// Makes a table that was opened known to SQL.
fn offer(ctx: &SessionContext, name: &str, (location, table): (&Location, &DeltaTableState)) -> Result<(), TableError> {
    let address = &location.address;
    let failed = |e: DataFusionError| TableError::read(address, e);
    // Partition columns come as plain strings: as dictionaries, functions would have to know them too.
    let config = DeltaScanConfig::new_from_session(&ctx.state()).with_wrap_partition_values(false);
    let scan = DeltaScanNext::new(table.snapshot().clone(), config).map_err(failed)?;
    DeltaTable::new(location.log_store.clone())
        .update_datafusion_session(&ctx.state())
        .map_err(|e| TableError::read(address, e))?;
    ctx.deregister_table(name).map_err(failed)?;
    ctx.register_table(name, Arc::new(scan)).map_err(failed)?;
    Ok(())
}

/// From which offsets of a range of a partition the table has rows, rising; for tables with the columns of dead letters.
/// Files whose offsets lie elsewhere are skipped.
pub(super) async fn offsets_of_rows(
    location: &Location,
    (topic, partition): (&str, i32),
    range: Range<i64>,
) -> Result<Vec<i64>, TableError> {
    let address = &location.address;
    let failed = |e: DataFusionError| TableError::read(address, e);
    let missing = || TableError::Missing {
        address: address.clone(),
    };
    let table = load(location).await?.ok_or_else(missing)?;
    let ctx = SessionContext::new();
    offer(&ctx, "rows", (location, &table))?;
    let here = ident(TOPIC_NAME)
        .eq(lit(topic))
        .and(ident(PARTITION).eq(lit(partition)));
    let within = ident(OFFSET)
        .gt_eq(lit(range.start))
        .and(ident(OFFSET).lt(lit(range.end)));
    let rows = ctx.table("rows").await.map_err(failed)?;
    let rows = rows.filter(here.and(within)).map_err(failed)?;
    let rows = rows.select(vec![ident(OFFSET)]).map_err(failed)?;
    let mut offsets = Vec::new();
    for rows in rows.collect().await.map_err(failed)? {
        let found = cast(rows.column(0), &DataType::Int64).map_err(|e| failed(e.into()))?;
        offsets.extend(found.as_primitive::<Int64Type>().iter().flatten());
    }
    offsets.sort_unstable();
    Ok(offsets)
}

/// Where the table at `address` stands, by application id; ids that it does not know are left out. Touches nothing.
///
/// # Errors
/// When the log cannot be read.
pub async fn standing(address: &str, store: &Store, app_ids: &[String]) -> Result<BTreeMap<String, i64>, TableError> {
    let location = store.resolve(address)?;
    let mut found = BTreeMap::new();
    let Some(table) = load(&location).await? else {
        return Ok(found);
    };
    for id in app_ids {
        let version = table.transaction_version(&location.log_store, id).await;
        let version = version.map_err(|e| TableError::of("read the offsets of", address, e))?;
        found.extend(version.map(|version| (id.clone(), version)));
    }
    Ok(found)
}

/// Rows as a query gives them, with the columns of `schema`: queries give texts in other types than tables hold.
///
/// # Errors
/// A column is missing, or cannot be what it should be.
pub fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| {
        cast(
            rows.column(rows.schema_ref().index_of(field.name())?),
            field.data_type(),
        )
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// The table, or `None` where one could be created.
pub(super) async fn load(location: &Location) -> Result<Option<DeltaTableState>, TableError> {
    let address = &location.address;
    loop {
        let looked = has_log(location).await?;
        match DeltaTableState::try_new(&location.log_store, None).await {
            Ok(table) => return Ok(Some(table)),
            Err(DeltaTableError::NotATable(_)) => return vacant(location).await.map(|()| None),
            Err(error) if looked => return Err(TableError::of("open the table at", address, error)),
            // A folder that is not there is an error of its own kind in every store.
            Err(_) if !has_log(location).await? => return vacant(location).await.map(|()| None),
            // It came into being just now.
            Err(_) => {}
        }
    }
}

/// Refuses a place where files of others lie: vacuum would take them for orphans.
async fn vacant(location: &Location) -> Result<(), TableError> {
    let listed = match location.log_store.object_store(None).list_with_delimiter(None).await {
        Ok(listed) => listed,
        Err(error @ object_store::Error::NotFound { .. }) => match TableError::of("list", &location.address, error) {
            error @ TableError::NoBucket { .. } => return Err(error),
            _ => return Ok(()),
        },
        Err(error) => return Err(TableError::of("list", &location.address, error)),
    };
    let own = |path: &Path| {
        path.filename()
            .is_some_and(|name| name == "_delta_log" || name == "lost+found" || name.starts_with('.'))
    };
    let files = listed.objects.iter().map(|object| &object.location);
    if files.chain(&listed.common_prefixes).all(own) {
        return Ok(());
    }
    Err(TableError::Occupied {
        address: location.address.clone(),
    })
}

async fn has_log(location: &Location) -> Result<bool, TableError> {
    let found = location.log_store.is_delta_table_location().await;
    found.map_err(|e| TableError::of("list", &location.address, e))
}
