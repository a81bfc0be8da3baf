//! Protobuf: messages made with prost-reflect, and the wire format by hand.

use std::collections::HashMap;

use prost_reflect::prost::Message;
use prost_reflect::prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value};
use protox::file::FileResolver;

use super::super::{ProtobufReader, ProtobufSchema, message_of_file};
use super::*;

const POST: &str = r#"
syntax = "proto3";
package feed.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Kind { POST = 0; REPLY = 1; }

message Author { string name = 1; Author boss = 2; }

message Post {
  string id = 1;
  string source = 2;
  google.protobuf.Timestamp created_at = 3;
  Author writer = 4;
  oneof body { string text = 5; Media media = 6; string long_text = 19; }
  repeated string tags = 7;
  map<string, string> titles = 8;
  Kind kind = 9;
  repeated sint32 numbers = 10;
  google.protobuf.StringValue note = 11;
  bytes raw = 12;
  bool repost = 13;
  repeated Author readers = 14;
  map<int32, Author> ranks = 15;
  optional int64 stars = 16;
  repeated fixed64 stamps = 17;
  float weight = 18;

  message Media { string url = 1; string caption = 2; }
}
"#;

fn pool() -> DescriptorPool {
    let mut compiler = protox::Compiler::with_file_resolver({
        struct One;
        impl FileResolver for One {
            fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
                match name {
                    "post.proto" => protox::file::File::from_source(name, POST),
                    _ => protox::file::GoogleFileResolver::new().open_file(name),
                }
            }
        }
        One
    });
    compiler.include_imports(true).open_file("post.proto").unwrap();
    compiler.descriptor_pool()
}

fn message(name: &str, fields: &[(&str, Value)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(pool().get_message_by_name(name).unwrap());
    for (name, value) in fields {
        message.set_field_by_name(name, value.clone());
    }
    message
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

fn author(name: &str) -> Value {
    Value::Message(message("feed.v1.Author", &[("name", string(name))]))
}

fn reader(extractor: Arc<Extractor>) -> ProtobufReader {
    message_of_file(extractor, POST.as_bytes(), "feed.v1.Post").unwrap()
}

/// What stands at a pointer of a post with these fields.
fn at(pointer: &str, fields: &[(&str, Value)]) -> Option<String> {
    let bytes = message("feed.v1.Post", fields).encode_to_vec();
    text(&post(reader(text_at(pointer)).extract(&bytes)))
}

#[test]
fn a_post_is_read_by_the_names_of_the_schema_or_of_its_json_form() {
    let moment = [
        ("seconds", Value::I64(1_767_323_045)),
        ("nanos", Value::I32(678_000_000)),
    ];
    let moment = Value::Message(message("google.protobuf.Timestamp", &moment));
    let fields = [
        ("id", string("7")),
        ("source", string("forum")),
        ("created_at", moment),
        ("text", string("hello")),
    ];
    let bytes = message("feed.v1.Post", &fields).encode_to_vec();
    for pointer in ["/created_at", "/createdAt"] {
        let created_at = Place::At(pointer.into());
        let author = Some(Place::At("/writer/name".into()));
        let mapping = Mapping {
            created_at,
            author,
            ..Preset::Tamiz.mapping()
        };
        let reader = reader(Arc::new(Extractor::new(&mapping)));
        let fields = post(reader.extract(&bytes));
        assert_eq!(scalar(&fields.id), Some(&Scalar::Text("7".into())));
        assert_eq!(scalar(&fields.created_at), Some(&Scalar::Moment(1_767_323_045_678_000)));
        assert_eq!(fields.author, Found::Missing);
        assert_eq!(text(&fields).unwrap(), "hello");
    }
}

#[test]
fn nested_repeated_mapped_and_wrapped_values_are_found() {
    let tags = ("tags", Value::List(vec![string("a"), string("b")]));
    let titles = HashMap::from([
        (MapKey::String("en".into()), string("Title")),
        (MapKey::String("es".into()), string("Título")),
    ]);
    let ranks = HashMap::from([(MapKey::I32(-3), author("third"))]);
    let numbers = ("numbers", Value::List(vec![Value::I32(-5), Value::I32(70_000)]));
    let stamps = ("stamps", Value::List(vec![Value::U64(1), Value::U64(u64::MAX)]));
    let boss = message("feed.v1.Author", &[("name", string("ana")), ("boss", author("bo"))]);
    let note = Value::Message(message("google.protobuf.StringValue", &[("value", string("wrapped"))]));
    let cases = [
        ("/tags/1", tags.clone(), Some("b")),
        ("/tags/2", tags.clone(), None),
        ("/tags", tags, Some("(compound)")),
        ("/titles/es", ("titles", Value::Map(titles)), Some("Título")),
        ("/ranks/-3/name", ("ranks", Value::Map(ranks)), Some("third")),
        ("/numbers/0", numbers.clone(), Some("-5")),
        ("/numbers/1", numbers, Some("70000")),
        ("/stamps/1", stamps, Some("18446744073709551615")),
        (
            "/writer/boss/name",
            ("writer", Value::Message(boss.clone())),
            Some("bo"),
        ),
        ("/writer", ("writer", Value::Message(boss)), Some("(compound)")),
        (
            "/readers/1/name",
            ("readers", Value::List(vec![author("x"), author("y")])),
            Some("y"),
        ),
        ("/note", ("note", note), Some("wrapped")),
        (
            "/raw",
            ("raw", Value::Bytes(Bytes::from_static("né".as_bytes()))),
            Some("né"),
        ),
        (
            "/raw",
            ("raw", Value::Bytes(Bytes::from_static(&[0xff]))),
            Some("(compound)"),
        ),
        ("/stars", ("stars", Value::I64(-1)), Some("-1")),
        ("/weight", ("weight", Value::F32(0.5)), Some("0.5")),
        ("/kind", ("kind", Value::EnumNumber(1)), Some("REPLY")),
        ("/kind", ("kind", Value::EnumNumber(9)), Some("9")),
    ];
    for (pointer, field, wanted) in cases {
        assert_eq!(at(pointer, &[field]).as_deref(), wanted, "{pointer}");
    }
}

#[test]
fn what_senders_leave_out_is_missing_but_for_booleans_and_enums() {
    for (pointer, wanted) in [
        ("/kind", Some("POST")),
        ("/repost", Some("false")),
        ("/stars", None),
        ("/weight", None),
        ("/raw", None),
        ("/note", None),
        ("/writer/name", None),
        ("/nowhere", None),
    ] {
        assert_eq!(at(pointer, &[]).as_deref(), wanted, "{pointer}");
    }
    let empty = Value::Message(message("google.protobuf.StringValue", &[]));
    assert_eq!(at("/note", &[("note", empty)]).as_deref(), Some(""));
}

#[test]
fn of_a_oneof_the_last_member_counts_and_parts_of_a_message_are_one() {
    let reader = reader(Arc::new(Extractor::new(&Mapping {
        text: Place::First {
            first: vec!["/text".into(), "/media/caption".into()],
        },
        author: Some(Place::At("/writer/name".into())),
        ..Preset::Tamiz.mapping()
    })));
    let text_5 = [&[5 << 3 | 2, 3][..], b"one"].concat();
    let media_6 = [&[6 << 3 | 2, 5, 2 << 3 | 2, 3][..], b"cap"].concat();
    let read = |bytes: &[u8]| text(&post(reader.extract(bytes)));
    assert_eq!(read(&text_5).as_deref(), Some("one"));
    assert_eq!(read(&[&text_5[..], &media_6].concat()).as_deref(), Some("cap"));
    assert_eq!(read(&[&media_6[..], &text_5].concat()).as_deref(), Some("one"));
    // Two names of one member do not push each other out.
    let both = Place::Join {
        join: vec!["/long_text".into(), "/longText".into(), "/text".into()],
        with: " ".into(),
    };
    let mapping = Mapping {
        text: both,
        ..Preset::Tamiz.mapping()
    };
    let long = [&text_5[..], &[0x9a, 0x01, 4], b"long"].concat();
    let both = self::reader(Arc::new(Extractor::new(&mapping)));
    assert_eq!(text(&post(both.extract(&long))).as_deref(), Some("long long"));
    // The writer in two parts: the name is in the first.
    let parts = [
        &[4 << 3 | 2, 4, 1 << 3 | 2, 2][..],
        b"me",
        &[4 << 3 | 2, 4, 2 << 3 | 2, 2, 1 << 3 | 2, 0],
    ]
    .concat();
    assert_eq!(
        scalar(&post(reader.extract(&parts)).author),
        Some(&Scalar::Text("me".into()))
    );
}

#[test]
fn deletes_are_told_from_posts_whatever_says_so() {
    let post = [("id", string("7")), ("source", string("forum"))];
    let media = Value::Message(message("feed.v1.Post.Media", &[("url", string("gone:"))]));
    for (pointer, value, field) in [
        ("/repost", "true", ("repost", Value::Bool(true))),
        ("/kind", "REPLY", ("kind", Value::EnumNumber(1))),
        ("/media", "*", ("media", media.clone())),
        ("/media/url", "gone:", ("media", media)),
        ("/stars", "*", ("stars", Value::I64(0))),
        (
            "/note",
            "*",
            ("note", Value::Message(message("google.protobuf.StringValue", &[]))),
        ),
    ] {
        let reader = reader(deletes(pointer, value));
        let delete = message("feed.v1.Post", &[&post[..], &[field]].concat()).encode_to_vec();
        let told = [Some("forum".to_owned()), Some("7".to_owned()), None];
        assert_eq!(taken_back(reader.extract(&delete)), Some(told), "{pointer}");
        let still = message("feed.v1.Post", &post).encode_to_vec();
        assert_eq!(taken_back(reader.extract(&still)), None, "{pointer}");
    }
}

#[test]
fn fields_of_newer_writers_are_passed_over() {
    let reader = reader(text_at("/text"));
    let text_5 = [&[5 << 3 | 2, 3][..], b"one"].concat();
    let unknown: [&[u8]; 5] = [
        &[0xa0, 0x06, 0x96, 0x01],                   // field 100, a number
        &[0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],       // eight bytes
        &[0xa2, 0x06, 2, 0xff, 0xff],                // bytes
        &[0xa3, 0x06, 0x0b, 0x08, 1, 0x0c, 0xa4, 6], // a group with another one in it
        &[5 << 3, 1],                                // our field, written as a number
    ];
    for unknown in unknown {
        for bytes in [[unknown, &text_5].concat(), [&text_5, unknown].concat()] {
            assert_eq!(
                text(&post(reader.extract(&bytes))).as_deref(),
                Some("one"),
                "{unknown:?}"
            );
        }
    }
}

#[test]
fn a_registered_schema_with_imports_has_a_reader_for_each_message() {
    let main = "syntax = \"proto3\";\nimport \"common/author.proto\";\nmessage First {}\nmessage Second {\n  map<string, string> m = 1;\n  message In { common.Author author = 1; }\n}\n";
    let author = "syntax = \"proto3\";\npackage common;\nmessage Author { string name = 1; }\n";
    let imports = [("common/author.proto".to_owned(), author.to_owned())];
    let extractor = text_at("/author/name");
    let schema = ProtobufSchema::new(&extractor, main, &imports).unwrap();
    let bytes = [&[1 << 3 | 2, 4, 1 << 3 | 2, 2][..], b"me"].concat();
    // The message for the map's entries is not declared, so the one within is the first.
    let fields = post(schema.message(&[1, 0]).unwrap().extract(&bytes));
    assert_eq!(text(&fields).as_deref(), Some("me"));
    assert!(schema.message(&[0]).is_some() && schema.message(&[2]).is_none() && schema.message(&[]).is_none());
    let missing = ProtobufSchema::new(&extractor, main, &[]).unwrap_err();
    assert!(missing.contains("author.proto"), "{missing}");
}

#[test]
fn what_is_no_schema_is_told() {
    let extractor = tamiz();
    for wrong in [
        "message",
        "message M { string text = 0; }",
        &"message M {".repeat(10_000),
        "import \"x.proto\";",
    ] {
        let words = ProtobufSchema::new(&extractor, wrong, &[]).unwrap_err();
        assert!(words.starts_with("it is") && words.len() < 300, "{words}");
    }
    let words = message_of_file(Arc::clone(&extractor), POST.as_bytes(), "feed.v1.Pots").unwrap_err();
    assert!(
        words.contains("no message `feed.v1.Pots`") && words.contains("`feed.v1.Post`"),
        "{words}"
    );
    assert!(
        message_of_file(Arc::clone(&extractor), &[0xff, 0, 1], "M")
            .unwrap_err()
            .contains("no descriptor set")
    );
    let set = pool().encode_to_vec();
    message_of_file(extractor, &set, "feed.v1.Post").unwrap();
}

#[test]
fn hostile_bytes_are_refused_and_never_panic() {
    let reader = reader(text_at("/titles/secret words"));
    let entries = HashMap::from([(MapKey::String("secret words".into()), string("secret words"))]);
    let fine = message(
        "feed.v1.Post",
        &[("titles", Value::Map(entries)), ("id", string("secret words"))],
    )
    .encode_to_vec();
    assert_eq!(text(&post(reader.extract(&fine))).as_deref(), Some("secret words"));
    let cases: [(&[u8], &str); 8] = [
        (&[0x0a], "too early"),
        (
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "too early",
        ),
        (&[0xff; 20], "too long"),
        (&[0x00, 0x01], "cannot be"),
        (&[0x0e], "does not exist"),
        (&[0x0c], "not begun"),
        (&[0x0b; 100], "nested too deeply"),
        (&[0x0a, 1, 0xff], "not UTF-8"),
    ];
    for (bytes, words) in cases {
        let error = reader.extract(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{bytes:?}: {error}");
    }
    torture(&fine, |bytes| reader.extract(bytes).map(|_| ()));
}
