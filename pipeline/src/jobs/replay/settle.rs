//! Where replayed letters end: posts first, then outcomes. Why that is safe stands at the head of the job.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::error::ArrowError;
use chrono::DateTime;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tamiz_schemas::columns::{DETAIL, REASON, STAGE};
use tamiz_schemas::dead_letters::{DELETED, FAILED_AGAIN, PASSED};
use tamiz_schemas::deletes;

use super::held::held;
use super::letters::Letter;
use super::marks::{Mark, Marks};
use super::places::{Place, Places};
use crate::config::Config;
use crate::deletes::{Deletes, DeletesTable, deletes_spec};
use crate::jobs::{JobError, dead_letters_spec, posts_spec};
use crate::line::Line;
use crate::stages::finish::{Finished, Origins, now_micros};
use crate::table::care::edit;
use crate::table::{
    self, Committed, Inspection, Store, TableError, TableSpec, TableWriter, TxnRange, Txns, conform, inspect,
};

/// Times that another replay may be faster before this one gives up.
const ROUNDS: usize = 100;

/// The tables, as a replay uses them.
pub(super) struct Settlement {
    config: Config,
    store: Store,
    posts: TableSpec,
    /// Transaction of all replays into one posts table.
    app_id: String,
    deletes: DeletesTable,
    /// What outcomes of this replay are dated with, microseconds.
    at: i64,
    dry_run: bool,
}

impl Settlement {
    /// Opens the tables, and gives them the columns that they lack; a dry run touches nothing.
    pub(super) async fn open(config: &Config, store: &Store, line: &Line, dry_run: bool) -> Result<Self, JobError> {
        let posts = posts_spec(line.further_heads());
        if !dry_run {
            TableWriter::open(&config.sink.posts, store, posts.clone()).await?;
            TableWriter::open(&config.sink.dead_letters, store, dead_letters_spec()).await?;
        }
        Ok(Settlement {
            app_id: format!("{}/replay", config.pipeline.name),
            deletes: DeletesTable::new(config.deletes_address(), store.clone()),
            config: config.clone(),
            store: store.clone(),
            posts,
            at: now_micros(),
            dry_run,
        })
    }

    /// Commits what passed, and notes what became of each letter. Tells how many posts were there already.
    pub(super) async fn posts(
        &mut self,
        finished: Finished,
        marks: &mut HashMap<Place, Mark>,
    ) -> Result<u64, JobError> {
        refusals(&finished, marks)?;
        for place in Places::of(&finished.deletes).map_err(defect)?.all().flatten() {
            marks.insert(place, Mark::of(PASSED));
        }
        let all = of(&finished.post_origins)?;
        let mut posts = finished.posts;
        let mut left = all.clone();
        // A letter may turn out to be a delete, and may mean another letter.
        let own = Deletes::of(std::slice::from_ref(&finished.deletes)).map_err(defect)?;
        let mut goes = own.mean(&posts, None).map_err(defect)?;
        goes = arrow::compute::or(&goes, &self.taken_back(&posts).await?).map_err(defect)?;
        if finished.deletes.num_rows() > 0 && !self.dry_run {
            self.deletes.take_back(vec![finished.deletes], Vec::new()).await?;
        }
        for (place, goes) in all.iter().zip(goes.iter()) {
            let outcome = if goes == Some(true) { DELETED } else { PASSED };
            marks.insert(place.clone(), Mark::of(outcome));
        }
        let stays = not(&goes).map_err(defect)?;
        posts = filter_record_batch(&posts, &stays).map_err(defect)?;
        let mut keep = stays.iter().map(|stays| stays == Some(true));
        left.retain(|_| keep.next().unwrap_or(false));
        self.commit(posts, &left).await
    }

    /// Commits posts that are not in the table yet; tells how many were.
    async fn commit(&self, posts: RecordBatch, places: &[Place]) -> Result<u64, JobError> {
        if places.is_empty() {
            return Ok(0);
        }
        for _ in 0..ROUNDS {
            if self.dry_run {
                return Ok(self.held(&posts, places).await?.true_count() as u64);
            }
            // Opened anew: what it knows of the transaction must be older than the look below, never newer.
            let mut writer = TableWriter::open(&self.config.sink.posts, &self.store, self.posts.clone()).await?;
            let known = writer.next_offsets(std::slice::from_ref(&self.app_id)).await?;
            let first = known.get(&self.app_id).copied().unwrap_or(0);
            let held = self.held(&posts, places).await?;
            let already = held.true_count() as u64;
            let rows = not(&held).and_then(|new| filter_record_batch(&posts, &new));
            let rows = rows.map_err(defect)?;
            if rows.num_rows() == 0 {
                return Ok(already);
            }
            let next = first + 1;
            let txns = Txns::from([(self.app_id.clone(), TxnRange { first, next })]);
            match writer.commit(vec![rows], &txns).await? {
                Committed::New { .. } => return Ok(already),
                // Another replay has moved the transaction, to the same number or further: it may have had our letters.
                Committed::Already | Committed::Fenced { .. } => {}
            }
        }
        Err(JobError::Failed(
            "other replays keep committing: wait for them, then replay again".into(),
        ))
    }

    /// Of these posts from these places, those that the posts table holds.
    async fn held(&self, posts: &RecordBatch, places: &[Place]) -> Result<BooleanArray, JobError> {
        let address = &self.config.sink.posts;
        if inspect(address, &self.store, &self.posts).await? == Inspection::Absent {
            return Ok(BooleanArray::from(vec![false; places.len()]));
        }
        held(address, &self.store, posts, places).await
    }

    /// Of these posts, those that their sources have taken back.
    async fn taken_back(&self, posts: &RecordBatch) -> Result<BooleanArray, JobError> {
        let address = self.config.deletes_address();
        let failed = |e: DataFusionError| TableError::read(&address, e);
        let mut goes = BooleanArray::from(vec![false; posts.num_rows()]);
        if inspect(&address, &self.store, &deletes_spec()).await? == Inspection::Absent {
            return Ok(goes);
        }
        let ctx = SessionContext::new();
        table::register(&ctx, "deletes", &address, &self.store).await?;
        let mut rows = ctx
            .table("deletes")
            .await
            .map_err(failed)?
            .execute_stream()
            .await
            .map_err(failed)?;
        while let Some(rows) = rows.next().await {
            let more = conform(&rows.map_err(failed)?, &deletes::schema())
                .and_then(|rows| Deletes::of(&[rows])?.mean(posts, None))
                .and_then(|more| arrow::compute::or(&goes, &more));
            goes = more.map_err(defect)?;
        }
        Ok(goes)
    }

    /// Writes outcomes into the letters' rows.
    pub(super) async fn outcomes(&self, letters: &[Letter], marks: HashMap<Place, Mark>) -> Result<(), JobError> {
        if self.dry_run || letters.is_empty() {
            return Ok(());
        }
        let day = |letter: &Letter| {
            let day = DateTime::from_timestamp(i64::from(letter.day) * 86_400, 0);
            day.map(|day| day.date_naive()).unwrap_or_default()
        };
        let marks = Marks {
            days: letters.iter().map(day).collect(),
            marks,
            at: self.at,
        };
        edit(&self.config.sink.dead_letters, &self.store, Arc::new(marks)).await?;
        Ok(())
    }
}

fn defect(error: ArrowError) -> JobError {
    JobError::Failed(format!(
        "replayed rows cannot be put together ({error}); report this as a defect"
    ))
}

/// Notes the rows that the line refused once more.
fn refusals(finished: &Finished, marks: &mut HashMap<Place, Mark>) -> Result<(), JobError> {
    let rows = &finished.dead_letters;
    let text = |name: &str| {
        rows.column_by_name(name)
            .map(|column| column.as_string::<i32>().clone())
    };
    let (Some(stages), Some(reasons), Some(details)) = (text(STAGE), text(REASON), text(DETAIL)) else {
        return Err(JobError::Failed(
            "a dead letter has no reason; report this as a defect".into(),
        ));
    };
    for (row, place) in of(&finished.dead_letter_origins)?.into_iter().enumerate() {
        let words = [&stages, &reasons, &details].map(|column| column.value(row).to_owned());
        let mark = Mark {
            outcome: FAILED_AGAIN,
            refusal: Some(words),
        };
        marks.insert(place, mark);
    }
    Ok(())
}

/// Where each row came from.
fn of(origins: &Origins) -> Result<Vec<Place>, JobError> {
    let Origins {
        topics,
        partitions,
        offsets,
        timestamps,
    } = origins;
    let places = Places::new([topics, partitions, offsets, timestamps]).map_err(defect)?;
    let known = |place: Option<Place>| place.ok_or_else(|| ArrowError::SchemaError("a row has no place".into()));
    places.all().map(known).collect::<Result<_, _>>().map_err(defect)
}
