//! Creating a table where there is none.

use deltalake_core::kernel::StructField;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::table::state::DeltaTableState;

use super::error::TableError;
use super::read;
use super::spec::TableSpec;
use super::store::Location;

/// Creates the table; when another process was faster, its table is as good.
pub(super) async fn create(location: &Location, spec: &TableSpec) -> Result<DeltaTableState, TableError> {
    let address = &location.address;
    let failed = |e| TableError::of("create a table at", address, e);
    location.create_folder()?;
    let schema = spec.delta_schema().map_err(|difference| TableError::Mismatch {
        table: spec.name,
        address: address.clone(),
        difference,
    })?;
    let created = CreateBuilder::new()
        .with_log_store(location.log_store.clone())
        .with_table_name(spec.name)
        .with_columns(schema.fields().cloned().collect::<Vec<StructField>>())
        .with_partition_columns(spec.partition_columns.clone())
        .with_configuration(spec.properties())
        .with_save_mode(SaveMode::ErrorIfExists)
        // With retries, of two who create at once the second would put its schema on top of the first one's.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .await;
    match (created, read::load(location).await) {
        (_, Ok(Some(table))) => Ok(table),
        (Err(error), _) => Err(failed(error)),
        (Ok(_), Err(error)) => Err(error),
        (Ok(_), Ok(None)) => Err(TableError::Missing {
            address: address.clone(),
        }),
    }
}
