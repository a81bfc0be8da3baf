//! Where a table stands: what its transactions say, and which rows it holds. Nothing here changes a table.

use std::collections::BTreeMap;
use std::ops::Range;

use deltalake_core::table::state::DeltaTableState;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Committed, TableWriter, TxnRange, Txns};
use crate::table::error::TableError;
use crate::table::read;
use crate::table::retries::Patience;

/// Transactions read from the log at a time.
const READS_IN_FLIGHT: usize = 8;

impl TableWriter {
    /// Where the table stands now, by application id; ids that it does not know are left out. Faults that pass are
    /// waited out, for about a minute.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn next_offsets(&self, app_ids: &[String]) -> Result<BTreeMap<String, i64>, TableError> {
        let mut patience = Patience::new(&self.retries);
        loop {
            match self.ask(app_ids).await {
                Ok(known) => return Ok(known),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn ask(&self, app_ids: &[String]) -> Result<BTreeMap<String, i64>, TableError> {
        let fresh = DeltaTableState::try_new(&self.location.log_store, None);
        let fresh = fresh.await.map_err(|e| self.error("read the log of", e))?;
        let found = self.read_txns(&fresh, app_ids.iter().cloned()).await?;
        Ok(found
            .into_iter()
            .filter_map(|(app_id, version)| Some((app_id, version?)))
            .collect())
    }

    /// From which offsets of a range of a partition the table has rows now, rising; for tables with the columns of dead
    /// letters. Faults that pass are waited out, for about a minute.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn offsets_of_rows(
        &self,
        topic: &str,
        partition: i32,
        range: Range<i64>,
    ) -> Result<Vec<i64>, TableError> {
        let mut patience = Patience::new(&self.retries);
        loop {
            match read::offsets_of_rows(&self.location, (topic, partition), range.clone()).await {
                Ok(offsets) => return Ok(offsets),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// How a batch of so many rows stands to the table: `None` when it is the one that comes next.
    pub(super) async fn standing(&mut self, txns: &Txns, rows: usize) -> Result<Option<Committed>, TableError> {
        let unknown: Vec<String> = txns.keys().filter(|id| !self.txns.contains_key(*id)).cloned().collect();
        let found = self.read_txns(&self.table, unknown).await?;
        self.txns.extend(found);
        let known = |app_id: &String| self.txns.get(app_id).copied().flatten();
        // A range that moves nothing does not tell whether rows are in.
        let tells = |range: &TxnRange| rows == 0 || range.first < range.next;
        let past = |(app_id, range): (&String, &TxnRange)| {
            tells(range) && known(app_id).is_some_and(|version| version >= range.next)
        };
        if !txns.is_empty() && txns.iter().all(past) {
            return Ok(Some(Committed::Already));
        }
        let mut known = txns
            .iter()
            .filter_map(|(id, range)| Some((id, range.first, known(id)?)));
        let moved = known.find(|(_, first, version)| first != version);
        Ok(moved.map(|(app_id, _, version)| Committed::Fenced {
            app_id: app_id.clone(),
            version,
        }))
    }

    async fn read_txns(
        &self,
        table: &DeltaTableState,
        app_ids: impl IntoIterator<Item = String>,
    ) -> Result<Vec<(String, Option<i64>)>, TableError> {
        let read = |app_id: String| async move {
            let version = table.transaction_version(&self.location.log_store, &app_id).await;
            Ok((app_id, version.map_err(|e| self.error("read the offsets of", e))?))
        };
        stream::iter(app_ids)
            .map(read)
            .buffer_unordered(READS_IN_FLIGHT)
            .try_collect()
            .await
    }
}
