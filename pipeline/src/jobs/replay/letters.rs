//! Dead letters as they lie in their table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::prelude::{Expr, SessionContext, ident, lit};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tamiz_schemas::columns::*;
use tamiz_schemas::dead_letters::FAILED_AGAIN;

use super::ReplayOptions;
use super::messages::Message;
use crate::batch::TopicPartition;
use crate::config::Config;
use crate::jobs::JobError;
use crate::source::files::format_of;
use crate::table::{self, Store, TableError};

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) at: TopicPartition,
    pub(super) offset: i64,
}

/// One dead letter.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) timestamp: Option<i64>,
    pub(super) rejected_at: i64,
    /// Day of its partition.
    pub(super) day: i32,
    hash: String,
    pub(super) bytes: i64,
    /// Whether the table holds the payload.
    pub(super) kept: bool,
}

impl Letter {
    /// Whether it is a row of a batch job.
    pub(super) fn is_of_file(&self) -> bool {
        is_file(&self.place.at.topic)
    }

    /// Whether this is the message that was refused.
    pub(super) fn is(&self, message: &Message) -> bool {
        let payload = message.payload.as_deref().unwrap_or_default();
        payload.len() as i64 == self.bytes && format!("{:x}", Sha256::digest(payload)) == self.hash
    }
}

/// Whether a topic is a file of a batch job: those have the endings that a batch job reads.
pub(super) fn is_file(topic: &str) -> bool {
    format_of(std::path::Path::new(topic)).is_some()
}

fn failed(config: &Config) -> impl Fn(DataFusionError) -> TableError {
    let address = config.sink.dead_letters.clone();
    move |error| TableError::read(&address, error)
}

/// The letters that are asked for and not settled for good.
async fn open(config: &Config, store: &Store, options: &ReplayOptions) -> Result<DataFrame, JobError> {
    let failed = failed(config);
    let ctx = SessionContext::new();
    table::register(&ctx, "dead_letters", &config.sink.dead_letters, store).await?;
    let mut frame = ctx.table("dead_letters").await.map_err(&failed)?;
    let mut wanted: Vec<Expr> = Vec::new();
    // A table that nobody has replayed from has no such column yet.
    if frame.schema().has_column_with_unqualified_name(OUTCOME) {
        wanted.push(ident(OUTCOME).is_null().or(ident(OUTCOME).eq(lit(FAILED_AGAIN))));
    }
    if !options.reasons.is_empty() {
        wanted.push(ident(REASON).in_list(options.reasons.iter().map(lit).collect(), false));
    }
    wanted.extend(options.stage.iter().map(|stage| ident(STAGE).eq(lit(stage))));
    wanted.extend(
        options
            .since
            .iter()
            .map(|since| ident(REJECTED_AT).gt_eq(moment(*since))),
    );
    wanted.extend(options.until.iter().map(|until| ident(REJECTED_AT).lt(moment(*until))));
    for one in wanted {
        frame = frame.filter(one).map_err(&failed)?;
    }
    Ok(frame)
}

fn moment(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
}

/// The days that hold such letters, from the oldest.
pub(super) async fn days(config: &Config, store: &Store, options: &ReplayOptions) -> Result<Vec<i32>, JobError> {
    let failed = failed(config);
    let frame = open(config, store, options).await?;
    let frame = frame
        .select(vec![ident(DATE)])
        .and_then(DataFrame::distinct)
        .map_err(&failed)?;
    let mut days = Vec::new();
    for rows in frame.collect().await.map_err(&failed)? {
        let dates = cast(rows.column(0), &DataType::Date32).map_err(|e| failed(e.into()))?;
        days.extend(dates.as_primitive::<Date32Type>().iter().flatten());
    }
    days.sort_unstable();
    Ok(days)
}

/// The letters of a day, in the order in which they were refused, which is that of the table's files.
pub(super) async fn of_day(
    config: &Config,
    store: &Store,
    options: &ReplayOptions,
    day: i32,
) -> Result<Vec<Letter>, JobError> {
    let failed = failed(config);
    let plain = [
        TOPIC_NAME,
        PARTITION,
        OFFSET,
        TIMESTAMP,
        REJECTED_AT,
        PAYLOAD_HASH,
        PAYLOAD_BYTES,
    ];
    let mut columns: Vec<Expr> = plain.iter().map(|name| ident(*name)).collect();
    columns.push(ident(PAYLOAD).is_not_null().alias("kept"));
    let frame = open(config, store, options).await?;
    let frame = frame.filter(ident(DATE).eq(lit(ScalarValue::Date32(Some(day)))));
    let frame = frame.and_then(|frame| frame.select(columns)).map_err(&failed)?;
    let mut stream = frame.execute_stream().await.map_err(&failed)?;
    let mut letters = Vec::new();
    let mut topics: HashMap<String, Arc<str>> = HashMap::new();
    while let Some(rows) = stream.next().await {
        read(&rows.map_err(&failed)?, day, &mut topics, &mut letters).map_err(|e| failed(e.into()))?;
    }
    letters.sort_by(|a, b| {
        (a.rejected_at, &a.place.at, a.place.offset).cmp(&(b.rejected_at, &b.place.at, b.place.offset))
    });
    letters.dedup_by(|a, b| a.place == b.place);
    Ok(letters)
}

fn read(
    rows: &RecordBatch,
    day: i32,
    topics: &mut HashMap<String, Arc<str>>,
    letters: &mut Vec<Letter>,
) -> Result<(), arrow::error::ArrowError> {
    let schema = tamiz_schemas::dead_letters::schema();
    let column = |name: &str| {
        cast(
            rows.column(rows.schema_ref().index_of(name)?),
            schema.field_with_name(name)?.data_type(),
        )
    };
    let (names, partitions, offsets) = (column(TOPIC_NAME)?, column(PARTITION)?, column(OFFSET)?);
    let (timestamps, rejected, hashes, bytes) = (
        column(TIMESTAMP)?,
        column(REJECTED_AT)?,
        column(PAYLOAD_HASH)?,
        column(PAYLOAD_BYTES)?,
    );
    let kept = cast(rows.column(rows.schema_ref().index_of("kept")?), &DataType::Boolean)?;
    let timestamps = timestamps.as_primitive::<TimestampMicrosecondType>();
    for row in 0..rows.num_rows() {
        let name = names.as_string::<i32>().value(row);
        let topic = match topics.get(name) {
            Some(topic) => Arc::clone(topic),
            None => Arc::clone(topics.entry(name.to_owned()).or_insert_with(|| name.into())),
        };
        letters.push(Letter {
            place: Place {
                at: TopicPartition {
                    topic,
                    partition: partitions.as_primitive::<Int32Type>().value(row),
                },
                offset: offsets.as_primitive::<Int64Type>().value(row),
            },
            timestamp: timestamps.is_valid(row).then(|| timestamps.value(row)),
            rejected_at: rejected.as_primitive::<TimestampMicrosecondType>().value(row),
            day,
            hash: hashes.as_string::<i32>().value(row).to_owned(),
            bytes: bytes.as_primitive::<Int64Type>().value(row),
            kept: kept.as_boolean().value(row),
        });
    }
    Ok(())
}

/// The payloads that the table holds, of these letters; the message's key is not among what it keeps.
pub(super) async fn kept(
    config: &Config,
    store: &Store,
    letters: &[Letter],
) -> Result<HashMap<Place, Message>, JobError> {
    let wanted: HashMap<&Place, ()> = letters
        .iter()
        .filter(|one| one.kept)
        .map(|one| (&one.place, ()))
        .collect();
    let (Some(first), Some(last)) = (letters.first(), letters.last()) else {
        return Ok(HashMap::new());
    };
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let failed = failed(config);
    let options = ReplayOptions {
        since: Some(first.rejected_at),
        until: Some(last.rejected_at.saturating_add(1)),
        ..ReplayOptions::default()
    };
    let frame = open(config, store, &options).await?;
    let columns = [TOPIC_NAME, PARTITION, OFFSET, PAYLOAD].map(ident);
    let frame = frame.filter(
        ident(PAYLOAD)
            .is_not_null()
            .and(ident(DATE).eq(lit(ScalarValue::Date32(Some(first.day))))),
    );
    let frame = frame
        .and_then(|frame| frame.select(columns.to_vec()))
        .map_err(&failed)?;
    let mut stream = frame.execute_stream().await.map_err(&failed)?;
    let mut found = HashMap::new();
    let schema: SchemaRef = tamiz_schemas::dead_letters::schema();
    while let Some(rows) = stream.next().await {
        let rows = rows.map_err(&failed)?;
        let column = |name: &str| {
            let data_type = schema.field_with_name(name)?.data_type();
            cast(rows.column(rows.schema_ref().index_of(name)?), data_type)
        };
        let all = [TOPIC_NAME, PARTITION, OFFSET, PAYLOAD].map(column);
        let [Ok(names), Ok(partitions), Ok(offsets), Ok(payloads)] = all else {
            return Err(failed(DataFusionError::Internal("a column has another type".into())).into());
        };
        for row in 0..rows.num_rows() {
            let place = Place {
                at: TopicPartition {
                    topic: names.as_string::<i32>().value(row).into(),
                    partition: partitions.as_primitive::<Int32Type>().value(row),
                },
                offset: offsets.as_primitive::<Int64Type>().value(row),
            };
            if wanted.contains_key(&place) {
                let payload = Some(payloads.as_binary::<i32>().value(row).to_vec());
                found.insert(place, Message { payload, key: None });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_that_was_refused_is_taken() {
        let letter = |payload: &[u8]| Letter {
            place: Place {
                at: TopicPartition {
                    topic: "t".into(),
                    partition: 0,
                },
                offset: 1,
            },
            timestamp: None,
            rejected_at: 0,
            day: 0,
            hash: format!("{:x}", Sha256::digest(payload)),
            bytes: payload.len() as i64,
            kept: false,
        };
        let message = |payload: Option<&[u8]>| Message {
            payload: payload.map(<[u8]>::to_vec),
            key: None,
        };
        assert!(letter(b"one").is(&message(Some(b"one"))));
        assert!(!letter(b"one").is(&message(Some(b"two"))) && !letter(b"one").is(&message(None)));
        assert!(letter(b"").is(&message(None)) && letter(b"").is(&message(Some(b""))));
    }

    #[test]
    fn files_of_batch_jobs_are_told_from_topics() {
        assert!(is_file("2026/a.jsonl.zst") && is_file("b.parquet"));
        assert!(!is_file("posts") && !is_file("posts.v1"));
    }
}
