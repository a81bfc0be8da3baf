//! Every fixture of every version still reads.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tamiz_schemas::extract::{ExtractError, Extractor, Fields, Found, Record, Scalar};
use tamiz_schemas::mapping::{DeletesConfig, InputConfig, Place, Preset};
use tamiz_schemas::{dead_letters, deletes, posts, time};

fn fixture(name: &str) -> String {
    // As cargo says when it runs this: clones may share what is compiled.
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let path = here.join("fixtures/v1").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(found: &Found) -> Value {
    match found {
        Found::Missing => Value::Null,
        Found::Scalar(scalar) => json!(scalar.text()),
    }
}

fn micros(found: &Found) -> Value {
    match found {
        Found::Scalar(Scalar::Text(text)) => json!(time::parse(text)),
        Found::Scalar(Scalar::Whole(n)) => json!(time::from_epoch(*n as f64)),
        Found::Scalar(Scalar::Float(n)) => json!(time::from_epoch(*n)),
        _ => Value::Null,
    }
}

fn post<'a>(extractor: &'a Extractor, payload: &'a str) -> Fields<'a> {
    match extractor.extract(payload.as_bytes()).unwrap() {
        Record::Post(fields) => fields,
        Record::Delete(delete) => panic!("{payload} is a delete: {delete:?}"),
    }
}

fn read(extractor: &Extractor, payload: &str) -> Value {
    let fields = post(extractor, payload);
    json!({"id": text(&fields.id), "source": text(&fields.source), "created_at": micros(&fields.created_at),
           "author": text(&fields.author), "text": text(&fields.text)})
}

#[test]
fn every_preset_reads_its_fixture() {
    for preset in Preset::ALL {
        let extractor = Extractor::new(&preset.mapping());
        let payloads = fixture(&format!("{}.jsonl", preset.name()));
        let expected = fixture(&format!("{}.expected.jsonl", preset.name()));
        assert_eq!(payloads.lines().count(), expected.lines().count(), "{}", preset.name());
        for (payload, expected) in payloads.lines().zip(expected.lines()) {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(read(&extractor, payload), expected, "{}: {payload}", preset.name());
        }
    }
}

fn check_rows(name: &str, schema: SchemaRef) {
    let rows = fixture(name);
    let reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
        .with_strict_mode(true)
        .build(rows.as_bytes());
    let batches: Vec<_> = reader.unwrap().collect::<Result<_, _>>().unwrap();
    let read: usize = batches.iter().map(|b| b.num_rows()).sum();
    assert_eq!(read, rows.lines().count());
    assert!(batches.iter().all(|b| b.schema() == schema));
}

#[test]
fn rows_of_version_1_still_read() {
    check_rows("posts_rows.jsonl", posts::schema());
    check_rows("dead_letters_rows.jsonl", dead_letters::schema());
    check_rows("deletes_rows.jsonl", deletes::schema());
}

fn refusal(payload: &[u8], preset: Preset) -> ExtractError {
    Extractor::new(&preset.mapping()).extract(payload).unwrap_err()
}

#[test]
fn bad_payloads_are_errors_that_quote_nothing() {
    let secret = "ada@example.org";
    for payload in [
        "",
        "{",
        "{\"text\":}",
        "[1,2",
        "{\"text\":\"a\"} #",
        "{\"text\":\"\\ud800\"}",
        "nul",
        "{\"id\":1e999}",
    ] {
        let payload = payload.replace('#', secret);
        let error = refusal(payload.as_bytes(), Preset::Tamiz);
        assert!(matches!(error, ExtractError::Json(_)), "{payload}");
        assert!(!error.to_string().contains(secret), "{error}");
    }
    assert_eq!(refusal(b"{\"text\":\"\xff\"}", Preset::Tamiz), ExtractError::Utf8(9));
}

#[test]
fn a_nesting_bomb_is_no_stack_overflow() {
    let bomb = "[".repeat(3_000_000);
    assert!(matches!(refusal(bomb.as_bytes(), Preset::Tamiz), ExtractError::Json(_)));
    let hidden = format!(
        "{{\"id\":\"1\",\"junk\":{}{}}}",
        "[".repeat(500_000),
        "]".repeat(500_000)
    );
    let extractor = Extractor::new(&Preset::Tamiz.mapping());
    assert_eq!(text(&post(&extractor, &hidden).id), json!("1"));
}

#[test]
fn other_records_of_a_feed_are_not_posts() {
    let like =
        br#"{"did":"did:plc:x","kind":"commit","commit":{"operation":"create","collection":"app.bsky.feed.like"}}"#;
    assert_eq!(
        refusal(like, Preset::Bluesky),
        ExtractError::NotAPost("/commit/collection".into())
    );
}

#[test]
fn objects_where_text_is_wanted_are_told_apart_from_missing_ones() {
    let extractor = Extractor::new(&Preset::Tamiz.mapping());
    let fields = post(&extractor, r#"{"id":{"a":1},"text":[1]}"#);
    assert_eq!(fields.id, Found::Scalar(Scalar::Compound));
    assert_eq!(fields.text, Found::Scalar(Scalar::Compound));
    assert_eq!(fields.source, Found::Missing);
}

#[test]
fn a_pointer_without_a_slash_is_refused_with_its_key() {
    let config = InputConfig {
        text: Some(Place::At("text".into())),
        ..InputConfig::default()
    };
    let message = config.mapping().unwrap_err().to_string();
    assert!(
        message.contains("input.text") && message.contains("`text`"),
        "{message}"
    );
}

#[test]
fn escaped_steps_and_array_indices_are_found() {
    let mapping = InputConfig {
        text: Some(Place::At("/a~1b/1".into())),
        id: Some(Place::First {
            first: vec!["/none".into(), "/id".into()],
        }),
        ..InputConfig::default()
    };
    let extractor = Extractor::new(&mapping.mapping().unwrap());
    let fields = post(&extractor, r#"{"a/b":["no","yes"],"id":7}"#);
    assert_eq!((text(&fields.text), text(&fields.id)), (json!("yes"), json!("7")));
}

/// What a delete names, or nothing where the payload is none.
fn delete(extractor: &Extractor, payload: &str) -> Option<Value> {
    match extractor.extract(payload.as_bytes()) {
        Ok(Record::Delete(delete)) => Some(json!([text(&delete.source), text(&delete.id), text(&delete.author)])),
        Ok(Record::Post(_)) | Err(ExtractError::NotAPost(_)) => None,
        Err(error) => panic!("{payload}: {error}"),
    }
}

#[test]
fn every_feed_that_takes_posts_back_is_understood() {
    for line in fixture("deletes.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let preset = Preset::ALL
            .into_iter()
            .find(|preset| case["preset"] == preset.name())
            .unwrap();
        let extractor = Extractor::new(&preset.mapping());
        assert_eq!(
            json!(delete(&extractor, &case["payload"].to_string())),
            case["delete"],
            "{line}"
        );
    }
}

#[test]
fn posts_are_no_deletes() {
    for preset in Preset::ALL {
        let extractor = Extractor::new(&preset.mapping());
        for payload in fixture(&format!("{}.jsonl", preset.name())).lines() {
            assert_eq!(delete(&extractor, payload), None, "{}", preset.name());
        }
    }
}

#[test]
fn deletes_of_any_shape_can_be_described_and_those_of_a_preset_switched_off() {
    let when = [("/kind".to_owned(), "delete".to_owned())];
    let config = InputConfig {
        deletes: DeletesConfig {
            when: Some(when.into()),
            id: Some(Place::At("/post".into())),
            ..DeletesConfig::default()
        },
        ..InputConfig::default()
    };
    let extractor = Extractor::new(&config.mapping().unwrap());
    let told = delete(&extractor, r#"{"kind":"delete","post":17,"source":"forum"}"#);
    assert_eq!(told, Some(json!(["forum", "17", null])));
    assert_eq!(delete(&extractor, r#"{"kind":"edit","post":17,"text":"t"}"#), None);
    assert_eq!(
        delete(&extractor, r#"{"deleted":true,"id":"1"}"#),
        None,
        "the preset's own no longer"
    );
    let off = InputConfig {
        deletes: DeletesConfig {
            when: Some([].into()),
            ..DeletesConfig::default()
        },
        ..InputConfig::default()
    };
    assert_eq!(off.mapping().unwrap().deletes, None);
    let mut wrong = config;
    wrong.deletes.id = Some(Place::At("post".into()));
    assert!(wrong.mapping().unwrap_err().to_string().contains("input.deletes.id"));
}
