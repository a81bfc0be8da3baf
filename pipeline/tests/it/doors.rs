//! Three doors, one code: the same posts through Kafka, from files and by SQL are the same rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::table::{number, sql};
use crate::support::{Folder, root};

/// How far two runs of the model may differ: texts stand in other batches.
const TOLERANCE: f64 = 1e-5;

const COLUMNS: &str = "id, source, date, created_at, author, lang, lang_confidence, text, text_hash, duplicate_of, noise, \
                       pii, sentiment, topic, n_tokens, truncated, model";

/// Lines of the fixture that are refused, and why.
const REFUSED: [(i64, &str); 4] = [(19, "empty"), (24, "not_json"), (25, "missing_field"), (26, "too_old")];

fn fixture() -> PathBuf {
    root().join("pipeline/tests/fixtures/doors.jsonl")
}

fn lines() -> Vec<Vec<u8>> {
    let bytes = std::fs::read(fixture()).unwrap();
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

#[test]
fn a_stream_a_batch_and_sql_give_the_same_rows() {
    let folder = Folder::new();
    let batch = batch(&folder, &fixture().display().to_string(), "batch");
    assert_eq!(batch.len(), lines().len() - REFUSED.len());
    assert_eq!(
        refused(&folder, "batch_dead_letters"),
        REFUSED.map(|(at, why)| (at, why.to_owned()))
    );
    expected(&batch);
    by_sql(&folder, &batch);
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(1, &[]);
    topic.send(lines().iter().map(|line| Some(line.as_slice())));
    let sink = format!(
        "[sink]\nposts = \"{}\"\ndead_letters = \"{}\"\n",
        folder.text("stream"),
        folder.text("dead")
    );
    let config = folder.write("tamiz.toml", topic.source() + &sink);
    folder.run(&["run", "--until-caught-up", "-c", &config]).done();
    same("stream", &rows(&folder, "stream"), &batch);
    assert_eq!(refused(&folder, "dead"), REFUSED.map(|(at, why)| (at, why.to_owned())));
}

#[test]
fn lines_compressed_lines_and_parquet_give_the_same_rows() {
    let folder = Folder::new();
    let plain = batch(&folder, &fixture().display().to_string(), "plain");
    let zstd = folder.write(
        "in/doors.jsonl.zst",
        zstd::encode_all(File::open(fixture()).unwrap(), 0).unwrap(),
    );
    same("zstd", &batch(&folder, &zstd, "zstd"), &plain);
    assert_eq!(
        refused(&folder, "zstd_dead_letters"),
        refused(&folder, "plain_dead_letters")
    );
    let posts: Vec<Value> = lines()
        .iter()
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let parquet = folder.text("doors.parquet");
    write_parquet(&parquet, &posts);
    same("parquet", &batch(&folder, &parquet, "parquet"), &plain);
    let parsed = |(at, why): &(i64, &str)| (at - i64::from(*at > 24), (*why).to_owned());
    let without_broken: Vec<_> = REFUSED
        .iter()
        .filter(|(_, why)| *why != "not_json")
        .map(parsed)
        .collect();
    assert_eq!(refused(&folder, "parquet_dead_letters"), without_broken);
}

/// A few rows by hand, so that not all doors are wrong alike.
fn expected(rows: &BTreeMap<String, Value>) {
    let text = |id: &str| rows[id]["text"].as_str().unwrap().to_owned();
    assert_eq!(text("f-02"), "Rain again 🌧️ & no umbrella, I hate this week <3");
    assert_eq!(text("f-03"), "Write to [EMAIL] or call [PHONE], thanks @user!");
    assert_eq!(
        text("f-04"),
        "My IBAN is [IBAN] and the card [CARD], server [IPV4] and [IPV6]"
    );
    for (id, lang) in [
        ("f-01", "en"),
        ("f-07", "de"),
        ("f-08", "fr"),
        ("f-09", "es"),
        ("f-10", "ja"),
        ("f-11", "ru"),
    ] {
        assert_eq!(rows[id]["lang"], lang, "{id}");
    }
    assert_eq!(rows["f-14"]["duplicate_of"], Value::Null);
    for id in ["f-15", "f-16"] {
        assert_eq!(rows[id]["duplicate_of"], "f-14", "{id}");
    }
    assert_eq!(rows["f-17"]["noise"], serde_json::json!(["link_only"]));
    assert_eq!(
        (&rows["f-14"]["date"], &rows["f-15"]["date"]),
        (&"2026-01-02".into(), &"2026-01-03".into())
    );
    assert!(rows["f-06"]["sentiment"]["score"].as_f64() > rows["f-05"]["sentiment"]["score"].as_f64());
    assert!(
        rows.values()
            .all(|row| row["model"].as_str().is_some_and(|model| model.contains('@')))
    );
}

/// The functions of SQL over the same lines.
fn by_sql(folder: &Folder, batch: &BTreeMap<String, Value>) {
    let broken = |number: usize| REFUSED.iter().any(|(at, _)| *at == number as i64);
    let kept: Vec<Vec<u8>> = lines()
        .into_iter()
        .enumerate()
        .filter(|(n, _)| !broken(*n))
        .map(|(_, line)| line)
        .collect();
    let file = format!("t={}", folder.write("kept.jsonl", kept.join(&b'\n')));
    let query = "SELECT id, scrub_pii(t) AS text, language(t) AS lang, pii_entities(t) AS pii, \
                 sentiment(scrub_pii(t)) AS sentiment, topic(scrub_pii(t)) AS topic \
                 FROM (SELECT id, normalize(text) AS t FROM t)";
    let rows = sql(folder, &["-t", &file], query);
    assert_eq!(rows.len(), batch.len());
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let other = &batch[id];
        for name in ["text", "lang", "sentiment", "topic"] {
            alike(&format!("sql {id} {name}"), &row[name], &other[name]);
        }
        let mut kinds: BTreeMap<&str, i64> = BTreeMap::new();
        for found in row["pii"].as_array().unwrap() {
            *kinds.entry(found["kind"].as_str().unwrap()).or_default() += 1;
        }
        let counted = other["pii"].as_array().unwrap().iter();
        let counted: BTreeMap<&str, i64> = counted
            .map(|one| (one["kind"].as_str().unwrap(), number(one, "count")))
            .collect();
        assert_eq!(kinds, counted, "sql {id}");
    }
}

fn batch(folder: &Folder, from: &str, to: &str) -> BTreeMap<String, Value> {
    folder.run(&["batch", "--from", from, "--to", &folder.text(to)]).done();
    rows(folder, to)
}

fn rows(folder: &Folder, table: &str) -> BTreeMap<String, Value> {
    let named = format!("t={}", folder.text(table));
    let rows = sql(
        folder,
        &["--no-model", "-t", &named],
        &format!("SELECT {COLUMNS} FROM t"),
    );
    rows.into_iter()
        .map(|row| (row["id"].as_str().unwrap().to_owned(), row))
        .collect()
}

/// Offsets and reasons of a table of dead letters.
fn refused(folder: &Folder, table: &str) -> Vec<(i64, String)> {
    let named = format!("t={}", folder.text(table));
    let rows = sql(
        folder,
        &["--no-model", "-t", &named],
        "SELECT \"offset\" AS o, reason FROM t ORDER BY 1",
    );
    rows.iter()
        .map(|row| (number(row, "o"), row["reason"].as_str().unwrap().to_owned()))
        .collect()
}

fn same(door: &str, rows: &BTreeMap<String, Value>, others: &BTreeMap<String, Value>) {
    assert_eq!(
        rows.keys().collect::<Vec<_>>(),
        others.keys().collect::<Vec<_>>(),
        "{door}"
    );
    for (id, row) in rows {
        alike(&format!("{door} {id}"), row, &others[id]);
    }
}

/// Equal, but for the last digits of fractions.
fn alike(place: &str, one: &Value, other: &Value) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let at = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or_default();
                alike(&format!("{place} {name}"), &at(one), &at(other));
            }
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            assert!((one - other).abs() <= TOLERANCE, "{place}: {one} and {other}");
        }
        _ => assert_eq!(one, other, "{place}"),
    }
}

/// The posts as a Parquet file of text columns; a number stands there as its digits.
pub(crate) fn write_parquet(path: &str, posts: &[Value]) {
    let column = |name: &str| {
        let text = |post: &Value| match &post[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Arc::new(posts.iter().map(text).collect::<StringArray>()) as ArrayRef
    };
    let names = ["id", "source", "created_at", "author", "text"];
    let batch = RecordBatch::try_from_iter_with_nullable(names.map(|name| (name, column(name), true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
