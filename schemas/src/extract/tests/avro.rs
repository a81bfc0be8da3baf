//! Avro: bytes made by the Apache project's own writer.

use std::sync::Arc;
use std::time::Instant;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::json;

use super::super::AvroReader;
use super::*;

fn record(fields: &[(&str, Value)]) -> Value {
    Value::Record(
        fields
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone()))
            .collect(),
    )
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

fn schema(fields: serde_json::Value) -> String {
    json!({"type": "record", "name": "Post", "namespace": "feed", "fields": fields}).to_string()
}

fn datum(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

/// The text of a record whose field `v` has this type and value.
fn of_type(kind: serde_json::Value, value: Value, pointer: &str) -> Option<String> {
    let schema = schema(json!([{"name": "v", "type": kind}, {"name": "end", "type": "long"}]));
    let bytes = datum(&schema, record(&[("v", value), ("end", Value::Long(1))]));
    let reader = AvroReader::new(text_at(pointer), &schema, &[]).unwrap();
    text(&post(reader.extract(&bytes)))
}

#[test]
fn writers_of_different_age_are_read_by_one_mapping() {
    let old = schema(json!([
        {"name": "id", "type": "string"},
        {"name": "text", "type": "string"},
        {"name": "created_at", "type": "long"},
        {"name": "source", "type": "string"},
    ]));
    let new = schema(json!([
        {"name": "likes", "type": {"type": "array", "items": "int"}},
        {"name": "created_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "author", "type": ["null", "string"], "default": null},
        {"name": "text", "type": ["null", "string"]},
        {"name": "source", "type": {"type": "enum", "name": "Source", "symbols": ["FORUM", "NEWS"]}},
        {"name": "id", "type": "long"},
    ]));
    let reader = AvroReader::new(tamiz(), &old, &[]).unwrap();
    let values = [
        ("id", string("7")),
        ("text", string("old")),
        ("created_at", Value::Long(1_767_323_045)),
        ("source", string("forum")),
    ];
    let bytes = datum(&old, record(&values));
    let fields = post(reader.extract(&bytes));
    assert_eq!(text(&fields).unwrap(), "old");
    assert_eq!(scalar(&fields.created_at), Some(&Scalar::Whole(1_767_323_045)));
    assert_eq!(fields.author, Found::Missing);
    let reader = AvroReader::new(tamiz(), &new, &[]).unwrap();
    for (author, wanted) in [
        (Value::Union(1, Box::new(string("ana"))), Some("ana")),
        (Value::Union(0, Box::new(Value::Null)), None),
    ] {
        let bytes = datum(
            &new,
            record(&[
                ("likes", Value::Array(vec![Value::Int(1), Value::Int(-2)])),
                ("created_at", Value::TimestampMillis(1_767_323_045_678)),
                ("author", author),
                ("text", Value::Union(1, Box::new(string("new")))),
                ("source", Value::Enum(1, "NEWS".into())),
                ("id", Value::Long(7)),
            ]),
        );
        let fields = post(reader.extract(&bytes));
        assert_eq!(text(&fields).unwrap(), "new");
        assert_eq!(scalar(&fields.created_at), Some(&Scalar::Moment(1_767_323_045_678_000)));
        assert_eq!(
            scalar(&fields.author).and_then(|scalar| scalar.text()).as_deref(),
            wanted
        );
        assert_eq!(scalar(&fields.source), Some(&Scalar::Text("NEWS".into())));
        assert_eq!(scalar(&fields.id), Some(&Scalar::Whole(7)));
    }
}

#[test]
fn every_type_becomes_what_it_says() {
    let logical = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    let fixed = |logical: &str| json!({"type": "fixed", "name": "F", "size": 16, "logicalType": logical});
    let sixteen: Vec<u8> = (0..16).collect();
    let cases = [
        (json!("boolean"), Value::Boolean(true), Some("true")),
        (json!("int"), Value::Int(-5), Some("-5")),
        (json!("long"), Value::Long(i64::MIN), Some("-9223372036854775808")),
        (json!("float"), Value::Float(0.5), Some("0.5")),
        (json!("double"), Value::Double(f64::NAN), Some("(compound)")),
        (json!("string"), string("né"), Some("né")),
        (json!("bytes"), Value::Bytes("né".into()), Some("né")),
        (json!("bytes"), Value::Bytes(vec![0xff, 0xfe]), Some("(compound)")),
        (json!("null"), Value::Null, None),
        (json!(["int", "null"]), Value::Union(1, Box::new(Value::Null)), None),
        (logical("int", "date"), Value::Date(1), Some("1970-01-02T00:00:00Z")),
        (
            logical("long", "timestamp-millis"),
            Value::TimestampMillis(-1),
            Some("1969-12-31T23:59:59.999Z"),
        ),
        (
            logical("long", "timestamp-micros"),
            Value::TimestampMicros(1),
            Some("1970-01-01T00:00:00.000001Z"),
        ),
        (
            logical("long", "timestamp-nanos"),
            Value::TimestampNanos(1_000_001),
            Some("1970-01-01T00:00:00.001Z"),
        ),
        (logical("long", "unheard-of"), Value::Long(5), Some("5")),
        (
            fixed("none"),
            Value::Fixed(16, sixteen.clone()),
            Some("000102030405060708090a0b0c0d0e0f"),
        ),
        (
            fixed("uuid"),
            Value::Fixed(16, sixteen),
            Some("00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ),
        (
            json!({"type": "array", "items": "int"}),
            Value::Array(vec![Value::Int(1)]),
            Some("(compound)"),
        ),
    ];
    for (kind, value, wanted) in cases {
        assert_eq!(of_type(kind.clone(), value, "/v").as_deref(), wanted, "{kind}");
    }
}

#[test]
fn items_entries_and_fields_within_are_found() {
    let list = json!({"type": "array", "items": "string"});
    let items = Value::Array(["a", "b", "c"].map(string).to_vec());
    assert_eq!(of_type(list.clone(), items.clone(), "/v/1").as_deref(), Some("b"));
    assert_eq!(of_type(list, items, "/v/3"), None);
    let map = json!({"type": "map", "values": ["null", "string"]});
    let entry = |text: &str| Value::Union(1, Box::new(string(text)));
    let entries = Value::Map([("en".into(), entry("hello")), ("es".into(), entry("hola"))].into());
    assert_eq!(of_type(map.clone(), entries.clone(), "/v/es").as_deref(), Some("hola"));
    assert_eq!(of_type(map, entries, "/v/de"), None);
    let inner = json!({"type": "record", "name": "In", "fields": [{"name": "t", "type": "string"}]});
    assert_eq!(
        of_type(inner, record(&[("t", string("deep"))]), "/v/t").as_deref(),
        Some("deep")
    );
}

#[test]
fn types_from_other_schemas_and_types_that_contain_themselves_are_read() {
    let author =
        r#"{"type":"record","name":"Author","namespace":"feed.people","fields":[{"name":"name","type":"string"}]}"#;
    let whole = schema(json!([
        {"name": "author", "type": "feed.people.Author"},
        {"name": "text", "type": "string"},
        {"name": "reply", "type": ["null", "Post"]},
    ]));
    let at_name = |pointer: &str| {
        let author = Some(Place::At(pointer.into()));
        Arc::new(Extractor::new(&Mapping {
            author,
            ..Preset::Tamiz.mapping()
        }))
    };
    let reader = AvroReader::new(at_name("/author/name"), &whole, &[author.into()]).unwrap();
    // Written by hand: a name, a text, and a reply that has them too and no further one.
    let bytes = [&[6][..], b"ana", &[4], b"hi", &[2, 4], b"bo", &[2], b"x", &[0]].concat();
    let fields = post(reader.extract(&bytes));
    assert_eq!(scalar(&fields.author), Some(&Scalar::Text("ana".into())));
    assert_eq!(text(&fields).as_deref(), Some("hi"));
    let reader = AvroReader::new(at_name("/reply/author/name"), &whole, &[author.into()]).unwrap();
    assert_eq!(
        scalar(&post(reader.extract(&bytes)).author),
        Some(&Scalar::Text("bo".into()))
    );
    let missing = AvroReader::new(tamiz(), &whole, &[]).unwrap_err();
    assert!(missing.contains("feed.people.Author"), "{missing}");
}

#[test]
fn deletes_are_told_from_posts_whatever_says_so() {
    let kinds = json!({"type": "enum", "name": "Kind", "symbols": ["POST", "DELETE"]});
    let gone = json!({"type": "record", "name": "Gone", "fields": [{"name": "by", "type": "string"}]});
    let schema = schema(json!([
        {"name": "id", "type": "long"},
        {"name": "source", "type": "string"},
        {"name": "deleted", "type": "boolean"},
        {"name": "kind", "type": kinds},
        {"name": "gone", "type": ["null", gone]},
        {"name": "author", "type": ["null", "string"]},
    ]));
    let cases = [
        ("/deleted", "true", Value::Boolean(true), 0, false),
        ("/kind", "DELETE", Value::Boolean(false), 1, false),
        ("/gone", "*", Value::Boolean(false), 0, true),
        ("/gone/by", "mod", Value::Boolean(false), 0, true),
    ];
    for (pointer, value, deleted, kind, gone) in cases {
        let reader = AvroReader::new(deletes(pointer, value), &schema, &[]).unwrap();
        let bytes = |deleted: Value, kind: u32, gone: bool| {
            let by = Value::Union(1, Box::new(record(&[("by", string("mod"))])));
            let none = Value::Union(0, Box::new(Value::Null));
            let symbol = ["POST", "DELETE"][kind as usize];
            let fields = [
                ("id", Value::Long(7)),
                ("source", string("forum")),
                ("deleted", deleted),
                ("kind", Value::Enum(kind, symbol.into())),
                ("gone", if gone { by } else { none }),
                ("author", Value::Union(1, Box::new(string("ana")))),
            ];
            datum(&schema, record(&fields))
        };
        let told = ["forum", "7", "ana"].map(|text| Some(text.to_owned()));
        let delete = bytes(deleted, kind, gone);
        assert_eq!(taken_back(reader.extract(&delete)), Some(told), "{pointer}");
        let still = bytes(Value::Boolean(false), 0, false);
        assert_eq!(taken_back(reader.extract(&still)), None, "{pointer}");
    }
}

#[test]
fn what_is_no_schema_is_told() {
    for wrong in [
        "",
        "{",
        "\"nonsense\"",
        r#"{"type":"record","name":"P"}"#,
        r#"{"type":"fixed","name":"F","size":-1}"#,
    ] {
        let words = AvroReader::new(tamiz(), wrong, &[]).unwrap_err();
        assert!(
            words.contains("no Avro schema") && words.len() < 300,
            "{wrong}: {words}"
        );
    }
}

#[test]
fn hostile_bytes_are_refused_quickly_and_never_panic() {
    let schema = schema(json!([
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
        {"name": "deep", "type": {"type": "record", "name": "Deep", "fields": [{"name": "next", "type": ["null", "Deep"]}]}},
        {"name": "map", "type": {"type": "map", "values": "bytes"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A"]}},
        {"name": "text", "type": "string"},
    ]));
    let reader = AvroReader::new(tamiz(), &schema, &[]).unwrap();
    let fine = [&[0, 0, 0, 0, 24][..], b"secret words"].concat();
    assert_eq!(text(&post(reader.extract(&fine))).unwrap(), "secret words");
    let endless = [0xff_u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let cases: [(Vec<u8>, &str); 9] = [
        (vec![], "too early"),
        // 2^62 items without bytes.
        ([&[0xfe; 8][..], &[0x7f]].concat(), "more values than bytes"),
        // A block of 2^63 items.
        (endless.to_vec(), "too early"),
        // Within itself for ever.
        ([&[0][..], &[2; 1_000]].concat(), "nested too deeply"),
        // A key of 2^40 bytes, one of a negative length.
        (vec![0, 0, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], "too early"),
        (vec![0, 0, 2, 1], "negative length"),
        (vec![0, 0, 0, 2], "without such a symbol"),
        ([&fine[..], b"!"].concat(), "more bytes"),
        (vec![0, 0, 0, 0, 4, 0xff, 0xff], "not UTF-8"),
    ];
    for (bytes, words) in cases {
        let started = Instant::now();
        let error = reader.extract(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{bytes:?}: {error}");
        assert!(started.elapsed().as_millis() < 500, "{words}");
    }
    torture(&fine, |bytes| reader.extract(bytes).map(|_| ()));
}
