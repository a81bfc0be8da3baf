//! Dead letters as they lie in their table.

use std::collections::{HashMap, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
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
use super::places::{Place, Places};
use crate::config::Config;
use crate::jobs::JobError;
use crate::table::{self, Store, TableError};

/// One dead letter.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) place: Place,
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
        self.place.is_in_file()
    }

    /// Whether this is the message that was refused.
    pub(super) fn is(&self, message: &Message) -> bool {
        let payload = message.payload.as_deref().unwrap_or_default();
        payload.len() as i64 == self.bytes && format!("{:x}", Sha256::digest(payload)) == self.hash
    }
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

/// The letters of a day, in the order in which they were refused, which is that of the table's files. A message that was
/// refused several times, by several pipelines or once more after a step back, is one letter.
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
    while let Some(rows) = stream.next().await {
        read(&rows.map_err(&failed)?, day, &mut letters).map_err(|e| failed(e.into()))?;
    }
    Ok(in_order(letters))
}

fn in_order(mut letters: Vec<Letter>) -> Vec<Letter> {
    letters.sort_by(|a, b| {
        (a.rejected_at, &a.place.at, a.place.offset).cmp(&(b.rejected_at, &b.place.at, b.place.offset))
    });
    let mut seen = HashSet::new();
    letters.retain(|letter| seen.insert(letter.place.clone()));
    letters
}

fn read(rows: &RecordBatch, day: i32, letters: &mut Vec<Letter>) -> Result<(), ArrowError> {
    let column = |name: &str, data_type: &DataType| cast(rows.column(rows.schema_ref().index_of(name)?), data_type);
    let places = Places::of(rows)?;
    let (rejected, hashes) = (
        column(REJECTED_AT, &tamiz_schemas::posts::timestamp())?,
        column(PAYLOAD_HASH, &DataType::Utf8)?,
    );
    let (bytes, kept) = (
        column(PAYLOAD_BYTES, &DataType::Int64)?,
        column("kept", &DataType::Boolean)?,
    );
    for (row, place) in places.all().enumerate() {
        let place = place.ok_or_else(|| ArrowError::SchemaError("a dead letter has no place".into()))?;
        letters.push(Letter {
            place,
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
    let wanted: HashSet<&Place> = letters.iter().filter(|one| one.kept).map(|one| &one.place).collect();
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
    let columns = [TOPIC_NAME, PARTITION, OFFSET, TIMESTAMP, PAYLOAD].map(ident);
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
    while let Some(rows) = stream.next().await {
        payloads(&rows.map_err(&failed)?, &wanted, &mut found).map_err(|e| failed(e.into()))?;
    }
    Ok(found)
}

fn payloads(
    rows: &RecordBatch,
    wanted: &HashSet<&Place>,
    found: &mut HashMap<Place, Message>,
) -> Result<(), ArrowError> {
    let places = Places::of(rows)?;
    let payloads = cast(rows.column(rows.schema_ref().index_of(PAYLOAD)?), &DataType::Binary)?;
    let payloads = payloads.as_binary::<i32>();
    for (row, place) in places.all().enumerate() {
        if let Some(place) = place.filter(|place| wanted.contains(place)) {
            let payload = Some(payloads.value(row).to_vec());
            found.insert(place, Message { payload, key: None });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::places::tests::place;
    use super::*;

    fn letter(place: Place, payload: &[u8]) -> Letter {
        Letter {
            place,
            rejected_at: 0,
            day: 0,
            hash: format!("{:x}", Sha256::digest(payload)),
            bytes: payload.len() as i64,
            kept: false,
        }
    }

    #[test]
    fn only_the_message_that_was_refused_is_taken() {
        let letter = |payload: &[u8]| letter(place("t", 1, None), payload);
        let message = |payload: Option<&[u8]>| Message {
            payload: payload.map(<[u8]>::to_vec),
            key: None,
        };
        assert!(letter(b"one").is(&message(Some(b"one"))));
        assert!(!letter(b"one").is(&message(Some(b"two"))) && !letter(b"one").is(&message(None)));
        assert!(letter(b"").is(&message(None)) && letter(b"").is(&message(Some(b""))));
    }

    #[test]
    fn a_message_is_one_letter_however_often_it_was_refused_and_one_in_its_place_is_another() {
        let at = |offset, timestamp, rejected_at| Letter {
            rejected_at,
            ..letter(place("t", offset, Some(timestamp)), b"one")
        };
        // The first one once more, with another between them; then the first one of a topic that was made anew.
        let letters = vec![at(1, 10, 30), at(2, 11, 20), at(1, 10, 10), at(1, 99, 40)];
        let kept: Vec<_> = in_order(letters)
            .into_iter()
            .map(|one| (one.place.offset, one.place.timestamp, one.rejected_at))
            .collect();
        assert_eq!(kept, [(1, Some(10), 10), (2, Some(11), 20), (1, Some(99), 40)]);
    }
}
