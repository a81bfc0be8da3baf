//! What a table must be: its columns, its partitioning, and what may be told about its values.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::{StructField, StructType};
use deltalake_core::table::state::DeltaTableState;

/// Commits between two checkpoints of the log. A checkpoint costs time in proportion to the files of the table; without
/// one, whoever opens the table reads that many small files.
const CHECKPOINT_INTERVAL: u64 = 50;

/// A table as its writer wants it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Name for messages.
    pub name: &'static str,
    /// All columns, those of the partitioning included.
    pub schema: SchemaRef,
    /// Partition columns, in the order of the folders: strings, dates or integers.
    pub partition_columns: Vec<String>,
    /// Columns whose minimum and maximum may be known to anybody who can list the table; `a.b` is a field of a struct.
    pub stats_columns: Vec<String>,
    /// Columns that are added to an existing table that lacks them; earlier rows are NULL there.
    pub growing: Vec<String>,
}

impl TableSpec {
    /// The schema in Delta's terms, or what stands against it.
    pub(super) fn delta_schema(&self) -> Result<StructType, String> {
        let schema: &Schema = &self.schema;
        schema
            .try_into_kernel()
            .map_err(|e| format!("its schema is none that Delta knows ({e})"))
    }

    /// Faults that no table can cure.
    pub(super) fn check(&self) -> Result<(), String> {
        for name in &self.partition_columns {
            let field = self
                .schema
                .field_with_name(name)
                .map_err(|_| format!("there is no partition column `{name}`"))?;
            match field.data_type() {
                DataType::Utf8 | DataType::Date32 | DataType::Int32 | DataType::Int64 => {}
                other => return Err(format!("partition column `{name}` has type {other}")),
            }
        }
        for path in &self.stats_columns {
            let mut fields = self.schema.fields();
            let mut parts = path.split('.').peekable();
            while let Some(part) = parts.next() {
                match fields
                    .iter()
                    .find(|field| field.name() == part)
                    .map(|field| field.data_type())
                {
                    Some(DataType::Struct(inner)) if parts.peek().is_some() => fields = inner,
                    Some(DataType::Struct(_) | DataType::List(_)) | None => {
                        return Err(format!("there is no plain column `{path}` to keep statistics of"));
                    }
                    Some(_) if parts.peek().is_some() => return Err(format!("`{part}` in `{path}` is no struct")),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Properties of a new table. `delta.setTransactionRetentionDuration` must stay unset: offsets would expire.
    pub(super) fn properties(&self) -> HashMap<String, Option<String>> {
        HashMap::from([
            ("delta.appendOnly".to_owned(), Some("false".to_owned())),
            (
                "delta.checkpointInterval".to_owned(),
                Some(CHECKPOINT_INTERVAL.to_string()),
            ),
            (
                "delta.dataSkippingStatsColumns".to_owned(),
                Some(self.stats_columns.join(",")),
            ),
        ])
    }

    /// Columns that an existing table still has to be given.
    pub(super) fn missing(&self, table: &DeltaTableState) -> Result<Vec<StructField>, String> {
        let found = table.schema();
        let wanted = self.delta_schema()?;
        let missing = wanted.fields().filter(|field| found.field(field.name()).is_none());
        Ok(missing.cloned().collect())
    }

    /// What keeps this writer from appending to an existing table, in words that follow `table … at …:`.
    pub(super) fn difference(&self, table: &DeltaTableState) -> Result<Option<String>, String> {
        let wanted = self.delta_schema()?;
        let found = table.schema();
        for field in wanted.fields() {
            let name = field.name();
            let Some(there) = found.field(name) else {
                if self.growing.contains(name) {
                    continue;
                }
                return Ok(Some(format!("it has no column `{name}`")));
            };
            if there.data_type() != field.data_type() {
                let (there, here) = (there.data_type(), field.data_type());
                return Ok(Some(format!(
                    "its column `{name}` is {there}, but {here} is to be written"
                )));
            }
            if field.is_nullable() && !there.is_nullable() {
                return Ok(Some(format!(
                    "its column `{name}` refuses NULL, which may have to be written"
                )));
            }
        }
        if let Some(extra) = found
            .fields()
            .find(|f| !f.is_nullable() && wanted.field(f.name()).is_none())
        {
            return Ok(Some(format!(
                "its column `{}` refuses NULL, and nothing is to be written there",
                extra.name()
            )));
        }
        let there = table.metadata().partition_columns();
        if *there != self.partition_columns {
            let (there, here) = (there.join(", "), self.partition_columns.join(", "));
            return Ok(Some(format!("it is partitioned by ({there}), not by ({here})")));
        }
        if table
            .metadata()
            .configuration()
            .get("delta.columnMapping.mode")
            .is_some_and(|mode| mode != "none")
        {
            return Ok(Some(
                "it maps its columns to other names, which cannot be written".to_owned(),
            ));
        }
        Ok(None)
    }
}
