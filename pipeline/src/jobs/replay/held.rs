//! Which posts the table holds already.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionContext, ident, lit};
use futures::StreamExt;
use tamiz_schemas::columns::{ID, OFFSET, SOURCE};

use super::places::{Place, Places};
use crate::jobs::JobError;
use crate::table::{self, Store, TableError, conform};

/// Source and identifier.
type Name = (String, String);

/// Of these posts from these places, those that the table holds: a post of the same place; or, for a row of a file, the
/// post that a batch job made of it, which tells of no place and is known by its name.
///
/// # Errors
/// No table there, or one that cannot be read.
pub(super) async fn held(
    address: &str,
    store: &Store,
    posts: &RecordBatch,
    places: &[Place],
) -> Result<BooleanArray, JobError> {
    let ctx = SessionContext::new();
    table::register(&ctx, "posts", address, store).await?;
    let known = by_place(&ctx, address, places).await?;
    let names: Vec<Option<Name>> = names(posts)
        .zip(places)
        .map(|(name, place)| name.filter(|_| place.is_in_file()))
        .collect();
    let wanted: HashSet<&Name> = names.iter().flatten().collect();
    let made = made_by_batches(&ctx, address, &wanted).await?;
    let is_held = |(place, name): (&Place, &Option<Name>)| {
        known.contains(place) || name.as_ref().is_some_and(|name| made.contains(name))
    };
    Ok(places.iter().zip(&names).map(|one| Some(is_held(one))).collect())
}

/// What the rows of a batch are called.
fn names(posts: &RecordBatch) -> impl Iterator<Item = Option<Name>> {
    let column = |name| {
        posts
            .column_by_name(name)
            .and_then(|column| column.as_string_opt::<i32>())
    };
    let columns = column(SOURCE).zip(column(ID));
    let text = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    (0..posts.num_rows()).map(move |row| {
        let (sources, ids) = columns?;
        text(sources, row).zip(text(ids, row))
    })
}

/// Which of these places the table holds.
async fn by_place(ctx: &SessionContext, address: &str, places: &[Place]) -> Result<HashSet<Place>, JobError> {
    let failed = |e: DataFusionError| TableError::read(address, e);
    let wanted: HashSet<&Place> = places.iter().collect();
    let offsets = || places.iter().map(|place| place.offset);
    let (low, high) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0));
    // Files whose offsets lie elsewhere are skipped.
    let query = format!(
        "SELECT kafka['topic'] AS topic, kafka['partition'] AS \"partition\", kafka['offset'] AS \"offset\", \
         kafka['timestamp'] AS \"timestamp\" FROM posts WHERE kafka['offset'] BETWEEN {low} AND {high}"
    );
    let frame = ctx.sql(&query).await.map_err(failed)?;
    let mut stream = frame.execute_stream().await.map_err(failed)?;
    let mut held = HashSet::new();
    while let Some(rows) = stream.next().await {
        let found = Places::of(&rows.map_err(failed)?).map_err(|e| failed(e.into()))?;
        held.extend(found.all().flatten().filter(|place| wanted.contains(place)));
    }
    Ok(held)
}

/// Which of these names posts without a place have.
async fn made_by_batches(
    ctx: &SessionContext,
    address: &str,
    wanted: &HashSet<&Name>,
) -> Result<HashSet<Name>, JobError> {
    let mut made = HashSet::new();
    if wanted.is_empty() {
        return Ok(made);
    }
    let failed = |e: DataFusionError| TableError::read(address, e);
    let sources: BTreeSet<&str> = wanted.iter().map(|(source, _)| source.as_str()).collect();
    let frame = ctx.sql("SELECT source, id, kafka['offset'] AS \"offset\" FROM posts");
    let frame = frame.await.map_err(failed)?;
    // Folders of other sources are skipped.
    let of_sources = ident(SOURCE).in_list(sources.into_iter().map(lit).collect(), false);
    let frame = frame.filter(of_sources).map_err(failed)?;
    let mut stream = frame.execute_stream().await.map_err(failed)?;
    let schema = Arc::new(Schema::new(vec![
        Field::new(SOURCE, DataType::Utf8, true),
        Field::new(ID, DataType::Utf8, true),
        Field::new(OFFSET, DataType::Int64, true),
    ]));
    while let Some(rows) = stream.next().await {
        let rows = conform(&rows.map_err(failed)?, &schema).map_err(|e| failed(e.into()))?;
        let offsets = rows.column(2).as_primitive::<Int64Type>();
        let nowhere = names(&rows).enumerate().filter(|(row, _)| offsets.is_null(*row));
        made.extend(
            nowhere
                .filter_map(|(_, name)| name)
                .filter(|name| wanted.contains(name)),
        );
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use arrow::json::ReaderBuilder;
    use serde_json::{Value, json};
    use tamiz_schemas::posts;

    use super::super::places::tests::place;
    use super::*;
    use crate::jobs::posts_spec;
    use crate::table::{StoreOptions, TableWriter, Txns};

    /// 2026-01-02T03:04:05Z.
    const SENT: i64 = 1_767_323_045_000_000;

    fn post(id: &str, kafka: Value) -> Value {
        json!({"id": id, "source": "x", "date": "2026-01-02", "created_at": "2026-01-02T03:04:05Z",
            "ingested_at": "2026-01-02T03:04:05Z", "text": "t", "text_hash": "0", "kafka": kafka})
    }

    fn rows(posts: &[Value]) -> RecordBatch {
        let lines: String = posts.iter().map(|row| format!("{row}\n")).collect();
        let mut reader = ReaderBuilder::new(posts::schema()).build(lines.as_bytes()).unwrap();
        reader.next().unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_post_is_held_by_its_place_and_time_and_one_that_a_batch_made_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let address = folder.path().join("posts").display().to_string();
        let store = Store::new(&StoreOptions::new()).unwrap();
        let there = [
            post(
                "a",
                json!({"topic": "t", "partition": 0, "offset": 5, "timestamp": "2026-01-02T03:04:05Z"}),
            ),
            post("b", Value::Null),
            post("c", json!({"topic": "a.jsonl", "partition": 0, "offset": 3})),
        ];
        let mut writer = TableWriter::open(&address, &store, posts_spec(&[])).await.unwrap();
        writer.commit(vec![rows(&there)], &Txns::new()).await.unwrap();
        let cases = [
            ("a", place("t", 5, Some(SENT)), true),
            // The topic was made anew, with or without a post of the same name.
            ("a", place("t", 5, Some(SENT + 1_000)), false),
            ("z", place("t", 5, Some(SENT - 1_000)), false),
            ("b", place("t", 6, Some(SENT)), false),
            ("b", place("b.jsonl", 9, None), true),
            ("a", place("b.jsonl", 10, None), false),
            ("c", place("a.jsonl", 3, None), true),
            ("d", place("a.jsonl", 4, None), false),
        ];
        let posts: Vec<Value> = cases.iter().map(|(id, ..)| post(id, Value::Null)).collect();
        let places: Vec<Place> = cases.iter().map(|(_, place, _)| place.clone()).collect();
        let held = held(&address, &store, &rows(&posts), &places).await.unwrap();
        let expected: Vec<bool> = cases.iter().map(|(.., held)| *held).collect();
        assert_eq!(held.iter().flatten().collect::<Vec<_>>(), expected);
    }
}
