//! How far a log says that each source was read: the offsets of its transactions, and whether they chain.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::table::care::log::Parsed;

/// Where each source stands, by application id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain(pub(super) BTreeMap<String, i64>);

/// An offset that does not follow from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) id: String,
    pub(super) stood: i64,
    pub(super) first: i64,
}

impl Chain {
    /// Takes up a commit. Whether it confirms that nothing is missing before it, if it tells.
    pub(super) fn follow(&mut self, commit: &Parsed) -> Result<bool, Gap> {
        let mut confirmed = false;
        if let Some(firsts) = commit.firsts() {
            for (txn, first) in commit.txns.iter().zip(firsts) {
                match self.0.get(&txn.app_id) {
                    Some(stood) if *stood != first => {
                        return Err(Gap {
                            id: txn.app_id.clone(),
                            stood: *stood,
                            first,
                        });
                    }
                    Some(_) => confirmed = true,
                    None => {}
                }
            }
        }
        self.0
            .extend(commit.txns.iter().map(|txn| (txn.app_id.clone(), txn.version)));
        Ok(confirmed)
    }

    /// Takes up a part of a checkpoint, every value of which is decoded on the way.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn follow_checkpoint(&mut self, part: Bytes) -> Result<(), String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(part).map_err(|e| e.to_string())?;
        let reader = reader.build().map_err(|e| e.to_string())?;
        for rows in reader {
            self.take(&rows.map_err(|e| e.to_string())?);
        }
        Ok(())
    }

    fn take(&mut self, rows: &RecordBatch) {
        let Some(txns) = rows.column_by_name("txn").and_then(|column| column.as_struct_opt()) else {
            return;
        };
        let ids = txns
            .column_by_name("appId")
            .and_then(|column| column.as_string_opt::<i32>());
        let versions = txns
            .column_by_name("version")
            .and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(ids), Some(versions)) = (ids, versions) else {
            return;
        };
        for row in (0..rows.num_rows()).filter(|row| txns.is_valid(*row) && ids.is_valid(*row)) {
            self.0.insert(ids.value(row).to_owned(), versions.value(row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::care::log::parse;

    fn commit(first: i64, next: i64) -> Parsed {
        let info = format!(r#"{{"commitInfo":{{"tamizActions":1,"tamizFirst":[{first}]}}}}"#);
        let txn = format!(r#"{{"txn":{{"appId":"p/0","version":{next}}}}}"#);
        parse(format!("{info}\n{txn}").as_bytes()).unwrap()
    }

    #[test]
    fn a_commit_begins_where_the_one_before_ended() {
        let mut chain = Chain::default();
        assert_eq!(
            chain.follow(&commit(100, 110)),
            Ok(false),
            "the first tells of nothing before"
        );
        assert_eq!(chain.follow(&commit(110, 120)), Ok(true));
        let gap = Gap {
            id: "p/0".to_owned(),
            stood: 120,
            first: 130,
        };
        assert_eq!(chain.follow(&commit(130, 140)), Err(gap));
        assert_eq!(chain.0["p/0"], 120, "what does not follow is not taken up");
    }
}
