//! Where replayed letters end: posts first, then outcomes. Why that is safe stands at the head of the job.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use chrono::DateTime;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use tamiz_schemas::columns::*;
use tamiz_schemas::dead_letters::{DELETED, FAILED_AGAIN, PASSED};
use tamiz_schemas::deletes;

use super::letters::{Letter, Place};
use super::marks::{Mark, Marks};
use crate::batch::TopicPartition;
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
        for place in places(&finished.deletes)? {
            marks.insert(place, Mark::of(PASSED));
        }
        let all = of(&finished.post_origins);
        let mut posts = finished.posts;
        let mut left = all.clone();
        // A letter may turn out to be a delete, and may mean another letter.
        let own = Deletes::of(std::slice::from_ref(&finished.deletes)).map_err(|e| self.failed(e))?;
        let mut goes = own.mean(&posts, None).map_err(|e| self.failed(e))?;
        goes = arrow::compute::or(&goes, &self.taken_back(&posts).await?).map_err(|e| self.failed(e))?;
        if finished.deletes.num_rows() > 0 && !self.dry_run {
            self.deletes.take_back(vec![finished.deletes], Vec::new()).await?;
        }
        for (place, goes) in all.iter().zip(goes.iter()) {
            let outcome = if goes == Some(true) { DELETED } else { PASSED };
            marks.insert(place.clone(), Mark::of(outcome));
        }
        let stays = not(&goes).map_err(|e| self.failed(e))?;
        posts = filter_record_batch(&posts, &stays).map_err(|e| self.failed(e))?;
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
                return Ok(self.held(places).await?.len() as u64);
            }
            // Opened anew: what it knows of the transaction must be older than the look below, never newer.
            let mut writer = TableWriter::open(&self.config.sink.posts, &self.store, self.posts.clone()).await?;
            let known = writer.next_offsets(std::slice::from_ref(&self.app_id)).await?;
            let first = known.get(&self.app_id).copied().unwrap_or(0);
            let held = self.held(places).await?;
            let new: BooleanArray = places.iter().map(|place| Some(!held.contains(place))).collect();
            let rows = filter_record_batch(&posts, &new).map_err(|e| self.failed(e))?;
            if rows.num_rows() == 0 {
                return Ok(held.len() as u64);
            }
            let next = first + 1;
            let txns = Txns::from([(self.app_id.clone(), TxnRange { first, next })]);
            match writer.commit(vec![rows], &txns).await? {
                Committed::New { .. } => return Ok(held.len() as u64),
                // Another replay has moved the transaction, to the same number or further: it may have had our letters.
                Committed::Already | Committed::Fenced { .. } => {}
            }
        }
        Err(JobError::Failed(
            "other replays keep committing: wait for them, then replay again".into(),
        ))
    }

    /// Which of these places the posts table holds.
    async fn held(&self, places: &[Place]) -> Result<HashSet<Place>, JobError> {
        let address = &self.config.sink.posts;
        let failed = |e: DataFusionError| TableError::read(address, e);
        let mut held = HashSet::new();
        if inspect(address, &self.store, &self.posts).await? == Inspection::Absent {
            return Ok(held);
        }
        let wanted: HashSet<&Place> = places.iter().collect();
        let offsets = || places.iter().map(|place| place.offset);
        let (low, high) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
        let ctx = SessionContext::new();
        table::register(&ctx, "posts", address, &self.store).await?;
        // Files whose offsets lie elsewhere are skipped.
        let query = format!(
            "SELECT kafka['topic'] AS topic, kafka['partition'] AS \"partition\", kafka['offset'] AS \"offset\" \
             FROM posts WHERE kafka['offset'] BETWEEN {low} AND {high}"
        );
        let mut rows = ctx
            .sql(&query)
            .await
            .map_err(failed)?
            .execute_stream()
            .await
            .map_err(failed)?;
        while let Some(rows) = rows.next().await {
            let found = self::places(&rows.map_err(failed)?)?;
            held.extend(found.into_iter().filter(|place| wanted.contains(place)));
        }
        Ok(held)
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
            goes = more.map_err(|e| self.failed(e))?;
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

    fn failed(&self, error: ArrowError) -> JobError {
        JobError::Failed(format!(
            "replayed rows cannot be put together ({error}); report this as a defect"
        ))
    }
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
    for (row, place) in of(&finished.dead_letter_origins).into_iter().enumerate() {
        let words = [&stages, &reasons, &details].map(|column| column.value(row).to_owned());
        let mark = Mark {
            outcome: FAILED_AGAIN,
            refusal: Some(words),
        };
        marks.insert(place, mark);
    }
    Ok(())
}

fn of(origins: &Origins) -> Vec<Place> {
    let (partitions, offsets) = (
        origins.partitions.as_primitive::<Int32Type>(),
        origins.offsets.as_primitive::<Int64Type>(),
    );
    (0..origins.topics.len())
        .map(|row| place(&origins.topics, row, partitions.value(row), offsets.value(row)))
        .collect()
}

pub(super) fn place(topics: &StringArray, row: usize, partition: i32, offset: i64) -> Place {
    Place {
        at: TopicPartition {
            topic: topics.value(row).into(),
            partition,
        },
        offset,
    }
}

/// Topic, partition and offset of rows that have such columns; rows of files have none.
fn places(rows: &RecordBatch) -> Result<Vec<Place>, JobError> {
    let column = |name: &str, data_type: DataType| {
        let missing = || JobError::Failed(format!("no column `{name}`; report this as a defect"));
        let column = rows.column_by_name(name).ok_or_else(missing)?;
        cast(column, &data_type).map_err(|_| missing())
    };
    let (topics, partitions, offsets) = (
        column(TOPIC_NAME, DataType::Utf8)?,
        column(PARTITION, DataType::Int32)?,
        column(OFFSET, DataType::Int64)?,
    );
    let (topics, partitions, offsets) = (
        topics.as_string::<i32>(),
        partitions.as_primitive::<Int32Type>(),
        offsets.as_primitive::<Int64Type>(),
    );
    let known = (0..rows.num_rows()).filter(|row| topics.is_valid(*row) && offsets.is_valid(*row));
    Ok(known
        .map(|row| place(topics, row, partitions.value(row), offsets.value(row)))
        .collect())
}
