//! Giving an existing table new columns.

use deltalake_core::DeltaTable;
use deltalake_core::table::state::DeltaTableState;

use super::error::TableError;
use super::read;
use super::spec::TableSpec;
use super::store::Location;

/// Another process may be changing the table at the same time; then what it has made of it is looked at again.
const ATTEMPTS: usize = 5;

/// Adds the columns of [`TableSpec::growing`] that the table lacks.
pub(super) async fn grow(
    location: &Location,
    spec: &TableSpec,
    mut table: DeltaTableState,
) -> Result<DeltaTableState, TableError> {
    let address = &location.address;
    let mut attempts = ATTEMPTS;
    loop {
        let missing = spec.missing(&table).map_err(|difference| TableError::Mismatch {
            table: spec.name,
            address: address.clone(),
            difference,
        })?;
        if missing.is_empty() {
            return Ok(table);
        }
        let names: Vec<String> = missing.iter().map(|field| field.name().clone()).collect();
        let added = DeltaTable::new(location.log_store.clone())
            .add_columns()
            .with_fields(missing)
            .await;
        attempts -= 1;
        match added {
            Ok(_) => tracing::info!(table = spec.name, columns = names.join(", "), "columns added"),
            Err(error) if attempts == 0 => return Err(TableError::of("add columns to the table at", address, error)),
            Err(error) => tracing::debug!(table = spec.name, %error, "columns not added, looking again"),
        }
        let missing = || TableError::Missing {
            address: address.clone(),
        };
        table = read::load(location).await?.ok_or_else(missing)?;
    }
}
