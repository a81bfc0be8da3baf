//! Avro and Protobuf from a real Kafka: schemas from a registry that is away at first, numbers that it does not know, and
//! schemas from files.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Topic};
use crate::support::http::{Asked, HttpServer};
use crate::support::table::{count, number, sql};
use crate::support::{Folder, Running};

const OLD: &str = r#"{"type":"record","name":"Post","namespace":"feed","fields":[
    {"name":"id","type":"string"},{"name":"created_at","type":"long"},{"name":"text","type":"string"}]}"#;
const NEW: &str = r#"{"type":"record","name":"Post","namespace":"feed","fields":[
    {"name":"likes","type":{"type":"array","items":"int"}},
    {"name":"created_at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"author","type":["null","feed.Author"]},{"name":"text","type":["null","string"]},{"name":"id","type":"string"}]}"#;
const AUTHOR: &str =
    r#"{"type":"record","name":"Author","namespace":"feed","fields":[{"name":"name","type":"string"}]}"#;
const POST_PROTO: &str = r#"syntax = "proto3";
package feed.v1;
import "author.proto";
import "google/protobuf/timestamp.proto";
message Unused {}
message Post { string id = 1; google.protobuf.Timestamp created_at = 2; Author author = 3; string text = 4; }
"#;
const AUTHOR_PROTO: &str = "syntax = \"proto3\";\npackage feed.v1;\nmessage Author { string name = 1; }\n";
/// 2026-01-02T03:04:05Z.
const MOMENT: i64 = 1_767_323_045;
const PASSWORD: &str = "registry-password";

/// The mapping of all that is sent here.
const MAPPING: &str = "source = { value = \"feed\" }\nauthor = \"/author/name\"\n";

fn framed(schema: u32, rest: &[u8]) -> Vec<u8> {
    [&[0][..], &schema.to_be_bytes(), rest].concat()
}

fn old(id: &str) -> Vec<u8> {
    let value = |text: &str| Avro::String(text.into());
    let fields = [
        ("id", value(id)),
        ("created_at", Avro::Long(MOMENT)),
        ("text", value("an old fashioned text")),
    ];
    let record = Avro::Record(fields.map(|(name, value)| (name.into(), value)).to_vec());
    datum(&Schema::parse_str(OLD).unwrap(), record)
}

fn datum(schema: &Schema, value: Avro) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

fn new(id: &str) -> Vec<u8> {
    // Written by hand: the writer of the reference library would need the referenced schema put into this one.
    let text = |text: &str| [&[(text.len() * 2) as u8][..], text.as_bytes()].concat();
    let millis = datum(&Schema::Long, Avro::Long(MOMENT * 1000));
    [
        &[2, 4, 0][..],
        &millis,
        &[2],
        &text("ana"),
        &[2],
        &text("a brand new text"),
        &text(id),
    ]
    .concat()
}

fn protobuf(id: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat();
    // 1_767_323_045 as a varint.
    let moment = [&[1 << 3][..], &[0xa5, 0xeb, 0xdc, 0xca, 0x06]].concat();
    let author = field(1, b"ana");
    [
        field(1, id.as_bytes()),
        field(2, &moment),
        field(3, &author),
        field(4, b"a text in a message"),
    ]
    .concat()
}

/// What the registry holds.
fn answer(asked: &Asked) -> (u16, String) {
    let with = |name: &str, subject: &str| json!([{"name": name, "subject": subject, "version": 3}]);
    let found = match asked.path.as_str() {
        "/base/schemas/types" => json!(["JSON", "PROTOBUF", "AVRO"]),
        "/base/schemas/ids/1" => json!({"schema": OLD}),
        "/base/schemas/ids/258" => {
            json!({"schema": NEW, "schemaType": "AVRO", "references": with("feed.Author", "feed author")})
        }
        "/base/subjects/feed%20author/versions/3" => json!({"schema": AUTHOR, "subject": "feed author", "id": 9}),
        "/base/schemas/ids/7" => {
            json!({"schema": POST_PROTO, "schemaType": "PROTOBUF", "references": with("author.proto", "proto")})
        }
        "/base/subjects/proto/versions/3" => json!({"schema": AUTHOR_PROTO, "schemaType": "PROTOBUF"}),
        // As Redpanda answers where the number cannot be one.
        "/base/schemas/ids/77" => {
            return (400, json!({"error_code": 40002, "message": "no number"}).to_string());
        }
        _ => {
            return (
                404,
                json!({"error_code": 40403, "message": "Schema not found"}).to_string(),
            );
        }
    };
    (200, found.to_string())
}

/// A port that nobody listens on.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn prepare(folder: &Folder, topic: &Topic, input: &str) {
    let sink = "[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\n";
    folder.write("tamiz.toml", format!("{}[input]\n{input}\n{sink}", topic.source()));
}

fn registered(format: &str, address: SocketAddr) -> String {
    format!("format = \"{format}\"\n{MAPPING}[input.registry]\nurl = \"http://{address}/base/\"\n")
}

fn run(folder: &Folder) -> Running {
    Running::start(folder.tamiz(&["run", "--until-caught-up", "--no-model", "-c", "tamiz.toml"]))
}

fn rows(folder: &Folder, table: &str, query: &str) -> Vec<Value> {
    sql(
        folder,
        &["--no-model", "-t", &format!("t={}", folder.text(table))],
        query,
    )
}

fn send(topic: &Topic, payloads: &[Option<Vec<u8>>]) {
    topic.send(payloads.iter().map(|payload| payload.as_deref()));
}

/// Offsets and reasons of the dead letters.
fn dead(folder: &Folder) -> Vec<(i64, String)> {
    let rows = rows(folder, "dead", "SELECT \"offset\" AS o, reason FROM t ORDER BY 1");
    let word = |row: &Value| row["reason"].as_str().unwrap().to_owned();
    rows.iter().map(|row| (number(row, "o"), word(row))).collect()
}

/// What became of the posts of the first test.
fn check_posts(folder: &Folder) {
    let posts = rows(
        folder,
        "posts",
        "SELECT id, source, text, author IS NOT NULL AS known, CAST(created_at AS VARCHAR) AS at FROM t ORDER BY id",
    );
    let word = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let shown = posts
        .iter()
        .map(|row| (word(row, "id"), word(row, "text"), row["known"] == true));
    let wanted = [
        ("a", "an old fashioned text", false),
        ("b", "a brand new text", true),
        ("c", "an old fashioned text", false),
    ];
    let wanted = wanted.map(|(id, text, known)| (id.to_owned(), text.to_owned(), known));
    assert_eq!(shown.collect::<Vec<_>>(), wanted);
    assert!(
        posts
            .iter()
            .all(|row| word(row, "at").starts_with("2026-01-02") && row["source"] == "feed")
    );
}

#[test]
fn the_line_waits_for_a_registry_that_is_away_and_an_unknown_schema_is_a_dead_letter() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic, address) = (Folder::new(), broker.topic(1, &[]), free());
    let cut = old("cut");
    let payloads = [
        Some(framed(1, &old("a"))),
        Some(framed(258, &new("b"))),
        Some(framed(99, &old("unknown"))),
        Some(old("bare")),
        Some(framed(1, &cut[..cut.len() - 3])),
        Some(framed(7, b"\x02\x02")),
        None,
        Some(framed(1, &old("c"))),
        Some(framed(99, b"")),
        Some(framed(77, b"")),
        Some(framed(u32::MAX, b"")),
    ];
    send(&topic, &payloads);
    prepare(&folder, &topic, &registered("avro", address));
    let mut waiting = run(&folder);
    let away = "the schema registry does not answer";
    waiting.signal_when(0, Duration::from_secs(2), |run| run.stderr().contains(away));
    assert!(
        !folder.path("posts/_delta_log/00000000000000000001.json").exists(),
        "{}",
        waiting.stderr()
    );
    let registry = HttpServer::start(&address.to_string(), answer);
    let ended = waiting.wait().done();
    assert_eq!(ended.stderr.matches(away).count(), 1, "{ended}");
    assert_eq!(ended.stderr.matches("answers again").count(), 1, "{ended}");
    check_posts(&folder);
    let reasons = [
        (2, "unknown_schema"),
        (3, "not_framed"),
        (4, "not_avro"),
        (5, "unusable_schema"),
        (6, "no_payload"),
        (8, "unknown_schema"),
        (9, "unknown_schema"),
        (10, "unknown_schema"),
    ];
    assert_eq!(dead(&folder), reasons.map(|(at, reason)| (at, reason.to_owned())));
    let asked = registry.asked();
    let times = |path: &str| asked.iter().filter(|asked| asked.path == path).count();
    for (number, expected) in [(1, 1), (258, 1), (99, 1), (7, 1), (77, 1), (u32::MAX, 0)] {
        let path = format!("/base/schemas/ids/{number}");
        assert_eq!(times(&path), expected, "{path}: {asked:?}");
    }
    let checked = folder.run(&["check", "--no-model", "-c", "tamiz.toml"]).done();
    assert!(checked.stdout.contains("ok     input.registry: "), "{}", checked.stdout);
}

#[test]
fn protobuf_with_imports_from_a_registry_reaches_the_table() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
    let registry = HttpServer::start("127.0.0.1:0", answer);
    // The second message of the schema, the first, one that does not exist, and rubbish in the right frame.
    let message = |path: &[u8], bytes: &[u8]| Some(framed(7, &[path, bytes].concat()));
    let posts: Vec<_> = (0..300)
        .map(|at| message(&[2, 2], &protobuf(&format!("p{at}"))))
        .collect();
    let others = [
        message(&[0], b""),
        message(&[2, 8], b""),
        message(&[2, 2], &[0x0a, 200]),
        Some(framed(7, &[])),
    ];
    send(&topic, &[&posts[..], &others].concat());
    prepare(&folder, &topic, &registered("protobuf", registry.address));
    let ended = run(&folder).wait().done();
    assert_eq!(ended.summary().posts, 300, "{ended}");
    let there = count(
        &folder,
        &folder.text("posts"),
        "count(DISTINCT id) FILTER (WHERE text = 'a text in a message' AND author IS NOT NULL)",
    );
    assert_eq!(there, 300);
    let reasons = [
        (300, "missing_field"),
        (301, "unknown_schema"),
        (302, "not_protobuf"),
        (303, "not_framed"),
    ];
    assert_eq!(dead(&folder), reasons.map(|(at, reason)| (at, reason.to_owned())));
}

#[test]
fn a_run_that_is_stopped_while_the_registry_is_away_loses_nothing() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic, address) = (Folder::new(), broker.topic(1, &[]), free());
    let payloads: Vec<_> = (0..50).map(|at| Some(framed(1, &old(&format!("o{at}"))))).collect();
    send(&topic, &payloads);
    prepare(&folder, &topic, &registered("avro", address));
    let mut waiting = run(&folder);
    waiting.signal_when(libc::SIGTERM, Duration::ZERO, |run| {
        run.stderr().contains("does not answer")
    });
    let ended = waiting.wait();
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(
        ended.stderr.contains("did not answer before the run was stopped"),
        "{ended}"
    );
    assert!(ended.took < Duration::from_secs(60), "{ended}");
    let _registry = HttpServer::start(&address.to_string(), answer);
    let ended = run(&folder).wait().done();
    assert_eq!((ended.summary().read, ended.summary().posts), (50, 50), "{ended}");
}

#[test]
fn a_registry_that_does_not_let_us_in_or_is_none_ends_the_run_with_a_sentence() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
    send(&topic, &[Some(framed(1, &old("a")))]);
    let locked = HttpServer::start("127.0.0.1:0", |asked| match asked.header("authorization") {
        "Basic dGFtaXo6cmVnaXN0cnktcGFzc3dvcmQ=" => answer(asked),
        _ => (401, "{\"error_code\":401}".into()),
    });
    prepare(
        &folder,
        &topic,
        &(registered("avro", locked.address) + "username = \"tamiz\"\n"),
    );
    let with = |password: &str| {
        let mut command = folder.tamiz(&["run", "--until-caught-up", "--no-model", "-c", "tamiz.toml"]);
        command
            .env("TAMIZ_REGISTRY_PASSWORD", password)
            .env("TAMIZ_LOG_LEVEL", "debug");
        Running::start(command).wait()
    };
    let ended = with("guessed");
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    assert!(
        ended.stderr.contains("refuses the login (401") && ended.stderr.contains("input.registry.username"),
        "{ended}"
    );
    assert!(!ended.stderr.contains("guessed"), "{ended}");
    let ended = with(PASSWORD).done();
    assert_eq!(ended.summary().posts, 1, "{ended}");
    assert!(!ended.stderr.contains(PASSWORD), "{ended}");
    let other = HttpServer::start("127.0.0.1:0", |_| (404, "<html>no such page</html>".into()));
    send(&topic, &[Some(framed(1, &old("b")))]);
    prepare(&folder, &topic, &registered("avro", other.address));
    run(&folder)
        .wait()
        .refused(1, &["is no schema registry", "input.registry.url"]);
    let checked = folder.run(&["check", "--no-model", "-c", "tamiz.toml"]);
    assert!(checked.stdout.contains("wrong  input.registry: "), "{}", checked.stdout);
}

#[test]
fn payloads_without_a_registry_are_read_by_a_schema_from_a_file() {
    let Some(broker) = Broker::find() else { return };
    let proto = POST_PROTO.replace("import \"author.proto\";", "message Author { string name = 1; }");
    let cases = [
        ("avro", OLD, "schema_file = \"schema\"\n", old("a")),
        (
            "protobuf",
            &proto,
            "schema_file = \"schema\"\nmessage = \"feed.v1.Post\"\n",
            protobuf("a"),
        ),
    ];
    for (format, schema, place, payload) in cases {
        let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
        folder.write("schema", schema);
        send(
            &topic,
            &[Some(payload.clone()), Some(payload[..4].to_vec()), Some(payload)],
        );
        prepare(&folder, &topic, &format!("format = \"{format}\"\n{place}{MAPPING}"));
        let ended = run(&folder).wait().done();
        assert_eq!(ended.summary().posts, 2, "{ended}");
        assert_eq!(dead(&folder), [(1, format!("not_{format}"))]);
    }
}

#[test]
fn wrong_formats_and_schemas_are_told_by_their_key() {
    let cases: [(&str, &[&str]); 9] = [
        ("format = \"xml\"\n", &["xml", "avro"]),
        (
            "format = \"avro\"\n",
            &["input.format", "input.registry.url", "input.schema_file"],
        ),
        ("schema_file = \"x\"\n", &["input.format", "JSON needs no schema"]),
        (
            "format = \"avro\"\nschema_file = \"nowhere.avsc\"\n",
            &["input.schema_file", "cannot read `nowhere.avsc`"],
        ),
        (
            "format = \"avro\"\nschema_file = \"tamiz.toml\"\n",
            &["input.schema_file", "no Avro schema"],
        ),
        (
            "format = \"protobuf\"\nschema_file = \"tamiz.toml\"\n",
            &["input.message", "feed.v1.Post"],
        ),
        (
            "format = \"avro\"\n[input.registry]\nurl = \"http://host.example\"\nusername = \"u\"\n",
            &["input.registry.url", "use https"],
        ),
        (
            "format = \"avro\"\n[input.registry]\nurl = \"https://host.example\"\nusername = \"u\"\n",
            &["TAMIZ_REGISTRY_PASSWORD"],
        ),
        (
            "format = \"avro\"\n[input.registry]\nurl = \"https://u:hidden@host.example\"\n",
            &["input.registry.url", "take it out"],
        ),
    ];
    for (text, words) in cases {
        let folder = Folder::new();
        folder.write("tamiz.toml", format!("[input]\n{text}"));
        let ended = folder.run(&["run", "--no-model", "-c", "tamiz.toml"]);
        ended.refused(2, words);
        assert!(!ended.stderr.contains("hidden"), "{ended}");
    }
}
