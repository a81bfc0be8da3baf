//! Rubbish in the input: every line becomes a post or a dead letter with a reason, and the others go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::table::{number, sql};
use crate::support::{Ended, Folder, data, skipped};

/// The most memory that a run may take, whatever it is fed with.
const MOST_BYTES: u64 = 1_500_000_000;
const LARGE: usize = 20_000_000;

/// A post in our wire format, with some fields otherwise.
fn post(id: &str, other: serde_json::Value) -> Vec<u8> {
    let mut post = json!({"id": id, "source": "test", "created_at": "2026-01-02T03:04:05Z", "author": "made_up", "text": "all is well"});
    for (name, value) in other.as_object().unwrap() {
        post[name] = value.clone();
    }
    post.to_string().into_bytes()
}

/// A post written by hand.
fn raw(text: &str) -> Vec<u8> {
    format!("{{\"id\":\"raw\",\"source\":\"test\",\"created_at\":\"2026-01-02T03:04:05Z\",{text}}}").into_bytes()
}

/// Payloads, and the reason for which each is refused; none for those that go through.
fn cases() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let mut cases = syntax();
    cases.push((deep("[", "]").into_bytes(), Some("missing_field")));
    cases.push((
        raw(&format!("\"text\":\"skipped over\",\"more\":{}", deep("[", "]"))),
        None,
    ));
    let nested = deep("{\"a\":", "}").replace(":}", ":1}");
    for (text, reason) in [
        (format!("\"text\":{}", deep("[", "]")), "wrong_type"),
        (format!("\"text\":\"t\",\"author\":{nested}"), "wrong_type"),
        (format!("\"text\":\"t\",\"author\":{}", "[".repeat(100_000)), "not_json"),
        ("\"text\":\"half a pair \\ud800\"".to_owned(), "not_json"),
        ("\"text\":\"raw control \u{1}\"".to_owned(), "not_json"),
    ] {
        cases.push((raw(&text), Some(reason)));
    }
    cases.extend(wrong_fields().map(|(other, reason)| (post("bad", other), Some(reason))));
    cases.extend(harmless());
    cases
}

/// Records with a field that cannot be.
fn wrong_fields() -> impl Iterator<Item = (serde_json::Value, &'static str)> {
    [
        (json!({"id": null}), "missing_field"),
        (json!({"id": ""}), "missing_field"),
        (json!({"id": "i".repeat(2_000)}), "bad_id"),
        (json!({"id": {"$oid": "x"}}), "wrong_type"),
        (json!({"source": null}), "missing_field"),
        (json!({"source": "../../etc"}), "bad_source"),
        (json!({"source": ".."}), "bad_source"),
        (json!({"source": "a b"}), "bad_source"),
        (json!({"source": "ñ"}), "bad_source"),
        (json!({"text": null}), "missing_field"),
        (json!({"text": ["a"]}), "wrong_type"),
        (json!({"text": "t".repeat(200_000)}), "text_too_large"),
        (json!({"text": " \u{200b}\u{feff}\n"}), "empty"),
        (json!({"created_at": null}), "missing_field"),
        (json!({"created_at": "yesterday"}), "bad_timestamp"),
        (json!({"created_at": "2026-02-30T00:00:00Z"}), "bad_timestamp"),
        (json!({"created_at": true}), "bad_timestamp"),
        (json!({"created_at": 1e300}), "bad_timestamp"),
        (json!({"created_at": i64::MAX}), "bad_timestamp"),
        (json!({"created_at": {}}), "bad_timestamp"),
        (json!({"created_at": -62_135_596_800_i64}), "too_old"),
        (json!({"created_at": "1850-01-01T00:00:00Z"}), "too_old"),
        (json!({"created_at": 0}), "too_old"),
        (json!({"created_at": "9999-12-31T23:59:59Z"}), "in_the_future"),
    ]
    .into_iter()
}

/// Payloads that are no record at all.
fn syntax() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let texts = [
        "{",
        "}",
        "nonsense",
        "'id'",
        "{\"id\":1,}",
        "{} {}",
        "[1,2",
        "\u{feff}{}",
        "{\"id\" \"x\"}",
        "NaN",
    ];
    let mut cases: Vec<_> = texts
        .into_iter()
        .map(|text| (text.as_bytes().to_vec(), Some("not_json")))
        .collect();
    for text in ["{}", "{\"text\":\"only\"}"] {
        cases.push((text.as_bytes().to_vec(), Some("missing_field")));
    }
    cases.push((b"{\"id\":\"\xff\xfe\"}".to_vec(), Some("not_utf8")));
    cases.push((b"\xc3\x28".to_vec(), Some("not_utf8")));
    cases.push((b"\x00\x01\x02\x03".to_vec(), Some("not_json")));
    cases.push((
        post("large", json!({"text": "word ".repeat(LARGE / 5)})),
        Some("too_large"),
    ));
    cases.push((
        raw(&format!("\"text\":\"t\",\"more\":\"{}\"", "x".repeat(LARGE))),
        Some("too_large"),
    ));
    cases
}

/// Strange, but posts.
fn harmless() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let others = [
        json!({"author": null}),
        json!({"author": 42}),
        json!({"id": 42}),
        json!({"created_at": 1_767_323_045}),
        json!({"created_at": "1767323045.25"}),
        json!({"more": {"deep": vec![vec![vec![0; 3]; 3]; 3]}}),
        json!({"text": "null \u{0} bell \u{7} escape \u{1b}[31m red"}),
        json!({"text": "a".repeat(99_000)}),
        json!({"text": "\u{202e}right to left\u{202c} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} Z\u{351}\u{36b}\u{343}"}),
        json!({"text": "'; DROP TABLE posts; --"}),
        json!({"text": "$(touch /tmp/never) `id` ${HOME} %s%n {0} {{7*7}}"}),
        json!({"text": "../../../etc/passwd\\..\\x00"}),
        json!({"text": "undefined NULL nil true -1e309 0x0 NaN"}),
        json!({"text": "@".repeat(5_000)}),
        json!({"text": "&amp;".repeat(5_000)}),
        json!({"text": "1".repeat(20_000)}),
    ];
    let mut cases: Vec<_> = others.into_iter().map(|other| (post("fine", other), None)).collect();
    cases.push((raw("\"text\":\"first\",\"text\":\"the last of two counts\""), None));
    cases.push((raw("\"text\":\"unknown numbers\",\"n\":1e400"), None));
    cases
}

#[test]
fn every_bad_line_of_a_file_is_a_dead_letter_and_the_rest_goes_on() {
    let folder = Folder::new();
    let cases = cases();
    let lines: Vec<&[u8]> = cases.iter().map(|(line, _)| line.as_slice()).collect();
    folder.write("bad.jsonl", lines.join(&b'\n'));
    let run = folder
        .run(&["batch", "--from", "bad.jsonl", "--to", "posts", "--no-model"])
        .done();
    accounted(&folder, &run, &cases, ("posts", "posts_dead_letters"));
    ignored_are_counted(&folder, &cases);
}

#[test]
fn every_bad_message_is_a_dead_letter_and_the_rest_goes_on() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let mut cases = cases();
    cases.push((Vec::new(), Some("not_json")));
    let topic = broker.topic(1, &[("max.message.bytes", "30000000")]);
    let tombstone = std::iter::once(None);
    topic.send(
        cases
            .iter()
            .map(|(payload, _)| Some(payload.as_slice()))
            .chain(tombstone),
    );
    let config = folder.write(
        "tamiz.toml",
        topic.source() + "[sink]\nposts = \"p\"\ndead_letters = \"d\"\n",
    );
    let run = folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
        .done();
    cases.push((Vec::new(), Some("no_payload")));
    accounted(&folder, &run, &cases, ("p", "d"));
}

/// Each refused with its reason, the others posts; figures that add up, memory in bounds.
fn accounted(folder: &Folder, run: &Ended, cases: &[(Vec<u8>, Option<&str>)], (posts, dead): (&str, &str)) {
    let (posts, dead) = (format!("posts={posts}"), format!("dead={dead}"));
    let tables = ["--no-model", "-t", &posts, "-t", &dead];
    let query = "SELECT \"offset\" AS o, reason, detail, payload_bytes AS bytes, payload FROM dead ORDER BY 1";
    let letters = sql(folder, &tables, query);
    let found: BTreeMap<usize, &str> = letters
        .iter()
        .map(|row| (number(row, "o") as usize, row["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(found.len(), letters.len(), "a line is there twice");
    for (at, (payload, reason)) in cases.iter().enumerate() {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(120)]).into_owned();
        assert_eq!(found.get(&at), reason.as_ref(), "line {at}: {shown}");
    }
    for row in &letters {
        assert_eq!(number(row, "bytes") as usize, cases[number(row, "o") as usize].0.len());
        assert!(
            row["payload"].is_null() && !row["detail"].as_str().unwrap().is_empty(),
            "{row}"
        );
    }
    let fine = cases.iter().filter(|(_, reason)| reason.is_none()).count();
    let rows = sql(folder, &tables, "SELECT id, text FROM posts");
    assert_eq!(rows.len(), fine);
    assert!(rows.iter().any(|row| row["text"] == "the last of two counts"));
    let summary = run.summary();
    assert_eq!(
        (summary.posts as usize, summary.dead_letters as usize),
        (fine, letters.len()),
        "{run}"
    );
    assert!(run.peak_bytes < MOST_BYTES, "{} MB\n{run}", run.peak_bytes / 1_000_000);
    assert!(!run.stderr.contains("panicked"), "{run}");
}

/// Reasons that the configuration only counts are counted and nothing else.
fn ignored_are_counted(folder: &Folder, cases: &[(Vec<u8>, Option<&str>)]) {
    let config = folder.write("ignore.toml", "[sink]\nignore = [\"not_json\", \"too_old\"]\n");
    let run = folder
        .run(&[
            "batch",
            "--from",
            "bad.jsonl",
            "--to",
            "other",
            "--no-model",
            "-c",
            &config,
        ])
        .done();
    let dropped = cases
        .iter()
        .filter(|(_, reason)| matches!(reason, Some("not_json" | "too_old")))
        .count();
    let summary = run.summary();
    assert_eq!(summary.ignored as usize, dropped, "{run}");
    assert_eq!(
        summary.posts + summary.dead_letters + summary.ignored,
        cases.len() as u64,
        "{run}"
    );
    assert_eq!(summary.read, cases.len() as u64, "{run}");
}

#[test]
fn naughty_strings_in_every_field_and_as_payload_add_up() {
    let Some(malformed) = data().map(|data| data.join("feeds/malformed")) else {
        return skipped("TAMIZ_DATA names no folder with malformed feeds; the test's own cases ran");
    };
    let folder = Folder::new();
    let list = std::fs::read(malformed.join("blns.json")).unwrap();
    let strings: Vec<String> = serde_json::from_slice(&list).unwrap();
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    for string in &strings {
        payloads.extend(
            ["id", "source", "created_at", "author", "text"].map(|name| post("naughty", json!({ name: string }))),
        );
        payloads.push(string.clone().into_bytes());
    }
    let text = std::fs::read(malformed.join("blns.txt")).unwrap();
    payloads.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
    payloads.retain(|payload| !payload.contains(&b'\n') && !payload.iter().all(u8::is_ascii_whitespace));
    folder.write("naughty.jsonl", payloads.join(&b'\n'));
    let run = folder
        .run(&["batch", "--from", "naughty.jsonl", "--to", "posts"])
        .done();
    adds_up(&folder, &run, payloads.len(), ("posts", "posts_dead_letters"));
    let kept = sql(
        &folder,
        &["--no-model", "-t", "t=posts"],
        "SELECT count(*) AS n FROM t WHERE id = 'naughty'",
    );
    assert!(number(&kept[0], "n") as usize > strings.len(), "{run}");
    malformed_files(&folder, &malformed);
}

/// Whole files as messages: JSON of every wrong kind, and feeds that are no JSON at all.
fn malformed_files(folder: &Folder, malformed: &Path) {
    let Some(broker) = Broker::find() else { return };
    let mut files = Vec::new();
    for below in ["json_parsing", "feed_encoding", "feed_illformed"] {
        contents(&malformed.join(below), &mut files);
    }
    let topic = broker.topic(2, &[]);
    topic.send(files.iter().map(|file| Some(file.as_slice())));
    let config = folder.write(
        "tamiz.toml",
        topic.source() + "[sink]\nposts = \"p\"\ndead_letters = \"d\"\n",
    );
    let run = folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
        .done();
    let summary = run.summary();
    assert_eq!(
        (summary.posts, summary.dead_letters as usize),
        (0, files.len()),
        "{run}"
    );
    adds_up(folder, &run, files.len(), ("p", "d"));
}

fn contents(folder: &Path, files: &mut Vec<Vec<u8>>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    files.extend(
        paths
            .iter()
            .filter(|path| path.is_file())
            .map(|path| std::fs::read(path).unwrap()),
    );
}

fn adds_up(folder: &Folder, run: &Ended, count: usize, (posts, dead): (&str, &str)) {
    let (posts, dead) = (format!("posts={posts}"), format!("dead={dead}"));
    let query = "SELECT (SELECT count(*) FROM posts) AS posts, (SELECT count(*) FROM dead) AS dead";
    let rows = &sql(folder, &["--no-model", "-t", &posts, "-t", &dead], query)[0];
    let summary = run.summary();
    assert_eq!((number(rows, "posts") + number(rows, "dead")) as usize, count, "{run}");
    assert_eq!(
        (summary.posts as i64, summary.dead_letters as i64),
        (number(rows, "posts"), number(rows, "dead")),
        "{run}"
    );
    assert!(run.peak_bytes < MOST_BYTES, "{} MB\n{run}", run.peak_bytes / 1_000_000);
    assert!(!run.stderr.contains("panicked"), "{run}");
}
