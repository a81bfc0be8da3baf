//! Every way in which a row can be refused, through the whole line: its dead letter has every field.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tamiz_model::testing::tiny_checkpoint;
use tamiz_model::{DeviceChoice, FailedRow, Scorer, ScorerOptions};
use tamiz_schemas::columns::*;
use tamiz_schemas::dead_letters::REASONS;
use tamiz_schemas::format::PayloadFormat;

use super::decode::Origin;
use super::finish::{DeadLetterRules, Finished, finish};
use super::noise::{Action, TAGS};
use super::text;
use crate::batch::{Batch, Permit, TopicPartition};
use crate::config::{AuthorMode, Config, load};
use crate::line::Line;
use crate::registry::Schema;
use crate::source::{Collector, RowAt};
use crate::stage::apply_one;
use crate::stats::Stats;

/// No word of it may stand in a dead letter, beside the payload.
const SECRET: &str = "zebra.quagga@example.org";
const PARTITION_NUMBER: i32 = 3;
const FIRST: i64 = 700;
/// 2026-01-02T03:04:06Z, in milliseconds.
const SENT: i64 = 1_767_323_046_000;

/// Reasons of payloads that have a schema: no line has them together with the others.
const OF_SCHEMAS: [&str; 5] = [
    "not_avro",
    "not_protobuf",
    "not_framed",
    "unknown_schema",
    "unusable_schema",
];
const AVRO: &str = r#"{"type":"record","name":"Post","fields":[
    {"name":"id","type":"string"},{"name":"source","type":"string"},{"name":"deleted","type":"boolean"}]}"#;
const PROTOBUF: &str = "syntax = \"proto3\"; message Post { string id = 1; string source = 2; bool deleted = 3; }";

/// Refuses for every reason there is, but those of other formats.
fn config() -> Config {
    let mut config = load(None, std::iter::empty()).unwrap();
    config.pii.authors = AuthorMode::Drop;
    config.validate.max_payload_bytes = 2_000;
    config.validate.max_text_bytes = 300;
    config.language.keep = vec!["en".into()];
    config.noise.actions = TAGS.map(|tag| (tag.to_owned(), Action::Drop)).into();
    config.input.only = Some([("/kind".to_owned(), "post".to_owned())].into());
    config.sink.ignore = BTreeSet::new();
    config
}

fn post(other: Value) -> Option<Vec<u8>> {
    let mut post = json!({"kind": "post", "id": "p-1", "source": "test", "created_at": "2026-01-02T03:04:05Z",
        "author": SECRET, "text": format!("{SECRET} says that this is a fine and quiet morning in the old town")});
    for (name, value) in other.as_object().unwrap() {
        post[name] = value.clone();
    }
    Some(post.to_string().into_bytes())
}

fn text_of(words: &str) -> Option<Vec<u8>> {
    post(json!({ "text": words }))
}

/// Payloads with stage and reason; the last but one is a post that goes through, the last one the model cannot do.
fn cases() -> Vec<(Option<Vec<u8>>, &'static str)> {
    let broken = format!("{{\"text\":\"{SECRET}\"");
    vec![
        (None, "no_payload"),
        (text_of(&"word ".repeat(500)), "too_large"),
        (Some(b"{\"id\":\"\xff\"}".to_vec()), "not_utf8"),
        (Some(broken.into_bytes()), "not_json"),
        (post(json!({"kind": "like"})), "not_a_post"),
        (post(json!({"text": [SECRET]})), "wrong_type"),
        (post(json!({"created_at": SECRET})), "bad_timestamp"),
        (
            Some(b"{\"deleted\": true, \"source\": \"test\"}".to_vec()),
            "bad_delete",
        ),
        (post(json!({"id": null})), "missing_field"),
        (post(json!({"id": SECRET.repeat(40)})), "bad_id"),
        (post(json!({"source": SECRET})), "bad_source"),
        (text_of(&"many words of it ".repeat(20)), "text_too_large"),
        (post(json!({"created_at": "1971-01-01T00:00:00Z"})), "too_old"),
        (post(json!({"created_at": "2999-01-01T00:00:00Z"})), "in_the_future"),
        (
            text_of("Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter von heute und morgen"),
            "language",
        ),
        (text_of(" \u{200b}\n"), "empty"),
        (text_of("ok"), "too_short"),
        (text_of("https://example.org/a https://example.org/b"), "link_only"),
        (text_of(&"buy ".repeat(40)), "repetition"),
        (
            text_of("An entirely new sentence about the river and its old bridges"),
            "",
        ),
        (
            post(json!({"id": "p-2", "text": "An entirely new sentence about the river and its old bridges"})),
            "duplicate",
        ),
        (
            text_of("The last sentence is the one that the model cannot do at all"),
            "model_failed",
        ),
    ]
}

/// Key and payload.
type Message<'m> = (Option<&'m [u8]>, Option<Vec<u8>>);

/// Messages as the source delivers them.
fn batch(messages: Vec<Message<'_>>) -> Batch {
    let at = TopicPartition {
        topic: "feed".into(),
        partition: PARTITION_NUMBER,
    };
    let mut collector = Collector::new();
    for (offset, (key, payload)) in (FIRST..).zip(messages) {
        let row = RowAt {
            offset,
            expected: offset,
            epoch: 0,
            timestamp_micros: Some(SENT * 1000),
            key,
        };
        collector.push(&at, row, payload.as_deref());
    }
    collector.take(Permit::unbounded(1))
}

/// The cases through the whole line; the model fails on the last row that reaches it.
fn through(keep_payload: bool) -> (Finished, Arc<Stats>) {
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path()).unwrap();
    let options = ScorerOptions {
        device: DeviceChoice::Cpu,
        threads: Some(1),
        ..ScorerOptions::default()
    };
    let scorer = Scorer::open(folder.path(), options).unwrap();
    let stats = Arc::new(Stats::default());
    let line = Line::new(&config(), Some(scorer.clone()), Origin::Kafka, Arc::clone(&stats)).unwrap();
    let messages = cases().into_iter().map(|(payload, _)| (None, payload));
    let batch = line.chain.apply(batch(messages.collect())).unwrap();
    let batch = apply_one(line.duplicates.as_ref(), batch, &stats).unwrap();
    let mut scored = scorer
        .score_blocking(text(&batch.rows, "test", TEXT).unwrap())
        .map(|scores| {
            let failed = FailedRow {
                row: batch.rows.num_rows() - 1,
                reason: "libtorch failed while scoring a batch: out of memory".into(),
            };
            tamiz_model::Scored {
                scores,
                failed: vec![failed],
            }
        });
    let (batch, refused) = line.scoring.put(batch, scored.as_mut().ok().cloned()).unwrap();
    assert_eq!(refused, 1);
    let rules = DeadLetterRules {
        keep_payload,
        ..DeadLetterRules::default()
    };
    (finish(batch, &rules, &stats).unwrap(), stats)
}

fn strings<'b>(letters: &'b RecordBatch, column: &str) -> Vec<&'b str> {
    let column = letters.column_by_name(column).unwrap().as_string::<i32>();
    assert_eq!(column.null_count(), 0);
    column.iter().flatten().collect()
}

#[test]
fn every_reason_makes_a_dead_letter_with_every_field() {
    for keep_payload in [false, true] {
        let (finished, stats) = through(keep_payload);
        let letters = &finished.dead_letters;
        let cases: Vec<_> = (FIRST..)
            .zip(cases())
            .filter(|(_, (_, reason))| !reason.is_empty())
            .collect();
        let (stages, reasons) = (strings(letters, STAGE), strings(letters, REASON));
        let found: Vec<(&str, &str)> = stages.into_iter().zip(reasons).collect();
        let known = REASONS
            .iter()
            .flat_map(|(stage, reasons)| reasons.iter().map(move |reason| (*stage, *reason)))
            .filter(|(_, reason)| !OF_SCHEMAS.contains(reason));
        assert_eq!(
            found,
            known.collect::<Vec<_>>(),
            "each reason once, in the order of the stages"
        );
        for (row, (offset, (payload, _))) in cases.iter().enumerate() {
            check(letters, row, (*offset, payload.as_deref()), keep_payload);
        }
        let counted: u64 = stats.snapshot().reasons.values().sum();
        assert_eq!(counted as usize, cases.len());
    }
}

fn check(letters: &RecordBatch, row: usize, (offset, payload): (i64, Option<&[u8]>), keep_payload: bool) {
    let column = |name: &str| Arc::clone(letters.column_by_name(name).unwrap());
    let number = |name: &str| column(name).as_primitive::<Int64Type>().value(row);
    let time = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().value(row);
    assert_eq!(strings(letters, TOPIC_NAME)[row], "feed");
    assert_eq!(
        column(PARTITION).as_primitive::<Int32Type>().value(row),
        PARTITION_NUMBER
    );
    assert_eq!((number(OFFSET), time(TIMESTAMP)), (offset, SENT * 1000));
    assert_eq!(number(PAYLOAD_BYTES) as usize, payload.unwrap_or_default().len());
    let hash = format!("{:x}", Sha256::digest(payload.unwrap_or_default()));
    assert_eq!(strings(letters, PAYLOAD_HASH)[row], hash);
    let now = chrono::Utc::now().timestamp_micros();
    assert!((now - 60_000_000..=now).contains(&time(REJECTED_AT)));
    let day = column(DATE).as_primitive::<Date32Type>().value(row);
    assert_eq!(i64::from(day), time(REJECTED_AT).div_euclid(86_400_000_000));
    let detail = strings(letters, DETAIL)[row];
    assert!(!detail.is_empty() && !detail.contains(SECRET), "{detail}");
    let kept = column(PAYLOAD);
    let kept = kept.as_binary::<i32>();
    let kept = kept.is_valid(row).then(|| kept.value(row));
    assert_eq!(kept, payload.filter(|_| keep_payload));
}

#[test]
fn rows_that_the_model_can_do_keep_their_scores_beside_one_that_it_cannot() {
    let (finished, stats) = through(false);
    let sentiment = finished.posts.column_by_name(SENTIMENT).unwrap();
    assert_eq!((finished.posts.num_rows(), sentiment.null_count()), (1, 0));
    assert_eq!(stats.snapshot().reasons.get(&("score", "model_failed")), Some(&1));
}

/// Payloads with a schema from a file, or from a registry that knows nothing but an unusable one.
fn with_schema(format: PayloadFormat, folder: &Path, registry: &str) -> Config {
    let mut config = config();
    config.input.format = format;
    config.input.registry.url = registry.into();
    let text = match format {
        PayloadFormat::Protobuf => PROTOBUF,
        _ => AVRO,
    };
    let path = folder.join("schema");
    std::fs::write(&path, text).unwrap();
    if registry.is_empty() {
        config.input.schema_file = path.display().to_string();
    }
    config.input.message = "Post".into();
    config
}

fn refused(config: &Config, payloads: &[Vec<u8>]) -> Finished {
    let stats = Arc::new(Stats::default());
    let line = Line::new(config, None, Origin::Kafka, Arc::clone(&stats)).unwrap();
    if let Some(registry) = &line.registry {
        let unusable = Schema::Unusable("it is no Avro schema".into());
        registry.shelf().put([(7, unusable)]);
    }
    let messages = payloads.iter().map(|payload| (None, Some(payload.clone())));
    let batch = line.chain.apply(batch(messages.collect())).unwrap();
    let batch = apply_one(line.duplicates.as_ref(), batch, &stats).unwrap();
    let (batch, _) = line.scoring.put(batch, None).unwrap();
    let rules = DeadLetterRules {
        keep_payload: true,
        ..DeadLetterRules::default()
    };
    finish(batch, &rules, &stats).unwrap()
}

#[test]
fn payloads_that_their_schema_does_not_fit_make_dead_letters_with_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |before: &[u8]| [before, SECRET.as_bytes()].concat();
    let nowhere = "http://127.0.0.1:1";
    let cases = [
        // Texts that are longer than what is there.
        (PayloadFormat::Avro, "", vec![secret(&[100])]),
        (PayloadFormat::Protobuf, "", vec![secret(&[0x0a, 100])]),
        (
            PayloadFormat::Avro,
            nowhere,
            vec![secret(&[]), secret(&[0, 0, 0, 0, 8]), secret(&[0, 0, 0, 0, 7])],
        ),
    ];
    let mut found = Vec::new();
    for (format, registry, payloads) in cases {
        let finished = refused(&with_schema(format, folder.path(), registry), &payloads);
        let letters = &finished.dead_letters;
        assert_eq!(letters.num_rows(), payloads.len());
        for (row, (offset, payload)) in (FIRST..).zip(&payloads).enumerate() {
            check(letters, row, (offset, Some(payload.as_slice())), true);
        }
        found.extend(strings(letters, REASON).into_iter().map(str::to_owned));
    }
    assert_eq!(found, OF_SCHEMAS);
}

#[test]
fn deletes_and_tombstones_are_known_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "a key for tests only, 32 bytes..").unwrap();
    let json = br#"{"id":"p-1","source":"test","deleted":true}"#.to_vec();
    for (format, payload) in [
        (PayloadFormat::Json, json),
        (PayloadFormat::Avro, b"\x06p-1\x08test\x01".to_vec()),
        (PayloadFormat::Protobuf, b"\x0a\x03p-1\x12\x04test\x18\x01".to_vec()),
    ] {
        let mut config = with_schema(format, folder.path(), "");
        config.pii.key_file = key_file.display().to_string();
        config.input.deletes.tombstones = true;
        let refused = Line::new(&config, None, Origin::Kafka, Arc::default()).err().unwrap();
        assert!(
            refused.to_string().contains("input.deletes.tombstones"),
            "without authors: {refused}"
        );
        config.pii.authors = AuthorMode::Hash;
        let line = Line::new(&config, None, Origin::Kafka, Arc::default()).unwrap();
        let messages = vec![(None, Some(payload)), (Some(&b"p-2"[..]), None)];
        let batch = line.chain.apply(batch(messages)).unwrap();
        assert!(batch.rejects.is_empty() && batch.rows.num_rows() == 0, "{format:?}");
        let told: Vec<_> = batch
            .deletes
            .iter()
            .map(|one| {
                (
                    one.row,
                    one.source.as_deref(),
                    one.named.id.as_deref(),
                    one.named.key.is_some(),
                )
            })
            .collect();
        let wanted = [(0_u32, Some("test"), Some("p-1"), false), (1, None, None, true)];
        assert_eq!(told, wanted, "{format:?}");
    }
}
