//! Wrong calls, configurations and places: a code, one sentence that says what and what to do, and nothing written.

mod check;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::table::{count, versions};
use crate::support::{Ended, Folder, Running};

fn folder() -> Folder {
    let folder = Folder::new();
    let post = json!({"id": "1", "source": "t", "created_at": "2026-01-02T03:04:05Z", "text": "a fine day"});
    folder.write("posts.jsonl", post.to_string());
    folder
}

/// Writes one post to a table.
fn batch(folder: &Folder, to: &str) -> Ended {
    folder.run(&["batch", "--from", "posts.jsonl", "--to", to, "--no-model"])
}

#[test]
fn every_wrong_option_of_a_file_is_told_by_its_key() {
    let cases: [(&str, &[&str]); 20] = [
        (
            "[sink]\nflush_byte = 1\n",
            &["sink.flush_byte", "did you mean `sink.flush_bytes`"],
        ),
        ("[snik]\nposts = \"x\"\n", &["snik", "no such option"]),
        ("[input]\npresett = \"x_v2\"\n", &["presett"]),
        ("[input]\npreset = \"x_v3\"\n", &["x_v3", "x_v2"]),
        ("[limits]\nbatch_rows = \"many\"\n", &["batch_rows", "many"]),
        ("[limits]\nbatch_rows = 0\n", &["limits.batch_rows", "between 1 and"]),
        ("[limits]\nbatch_rows = -5\n", &["batch_rows", "-5"]),
        ("[sink]\nflush_seconds = 0\n", &["sink.flush_seconds"]),
        (
            "[sink]\nflush_bytes = 1_000_000_000\n",
            &["sink.flush_bytes", "limits.memory_bytes"],
        ),
        ("[sink\n", &["wrong.toml"]),
        ("sink = 5\n", &["sink"]),
        ("[log]\nlevel = \"loud\"\n", &["log.level", "loud"]),
        ("[pii]\ndefault = \"shred\"\n", &["shred", "mask"]),
        (
            "[noise.actions]\nboring = \"drop\"\n",
            &["noise.actions.boring", "too_short"],
        ),
        ("[validate]\noldest = \"long ago\"\n", &["validate.oldest", "long ago"]),
        (
            "[source.kafka.options]\n\"enable.auto.commit\" = \"true\"\n",
            &["enable.auto.commit", "take the option out"],
        ),
        (
            "[sink]\nignore = [\"not_apost\"]\n",
            &["sink.ignore", "`not_apost`", "did you mean `not_a_post`"],
        ),
        ("[language]\nkeep = [\"EN\"]\n", &["language.keep", "`EN`", "as `en`"]),
        (
            "[language]\nmin_confidence = 50\n",
            &["language.min_confidence", "between 0 and 1"],
        ),
        (
            "[noise.rules]\nmin_character = 5\n",
            &["noise.rules.min_character", "did you mean `noise.rules.min_characters`"],
        ),
    ];
    for (text, words) in cases {
        let folder = folder();
        folder.write("wrong.toml", text);
        let ended = folder.run(&[
            "batch",
            "--from",
            "posts.jsonl",
            "--to",
            "posts",
            "--no-model",
            "-c",
            "wrong.toml",
        ]);
        ended.refused(2, words);
        assert!(!folder.path("posts").exists(), "{text}");
    }
}

#[test]
fn a_wrong_environment_is_told_by_its_variable() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "TAMIZ_LIMITS_BATCH_ROWS",
            "many",
            &["TAMIZ_LIMITS_BATCH_ROWS", "many", "whole number"],
        ),
        (
            "TAMIZ_MODEL_ENABLED",
            "perhaps",
            &["TAMIZ_MODEL_ENABLED", "perhaps", "true or false"],
        ),
        ("TAMIZ_SINK_FLUSH_SECONDS", "-1", &["sink.flush_seconds"]),
        (
            "TAMIZ_SINK_FLUSH_SECOND",
            "5",
            &["TAMIZ_SINK_FLUSH_SECOND:", "did you mean TAMIZ_SINK_FLUSH_SECONDS"],
        ),
        (
            "TAMIZ_PII_KINDS_EMAIL",
            "shred",
            &["TAMIZ_PII_KINDS_EMAIL", "shred", "mask"],
        ),
        ("TAMIZ_PII_KEY", "short", &["pseudonyms", "16 or more"]),
    ];
    for (name, value, words) in cases {
        let folder = folder();
        let mut command = folder.tamiz(&["batch", "--from", "posts.jsonl", "--to", "posts", "--no-model"]);
        command.env(name, value);
        let ended = Running::start(command).wait();
        ended.refused(2, words);
        assert!(
            !ended.stderr.contains("short") || name != "TAMIZ_PII_KEY",
            "the key is told\n{ended}"
        );
        assert!(!folder.path("posts").exists(), "{name}");
    }
    let folder = folder();
    let mut command = folder.tamiz(&["batch", "--from", "posts.jsonl", "--to", "posts", "--no-model"]);
    command.env_remove("TAMIZ_PII_KEY");
    Running::start(command)
        .wait()
        .refused(2, &["TAMIZ_PII_KEY", "openssl rand"]);
}

#[test]
fn a_variable_that_is_not_utf_8_matters_only_where_it_is_ours() {
    let call = |name: &str| {
        let folder = folder();
        folder.write("key", "00112233445566778899aabbccddeeff");
        folder.write("tamiz.toml", "[pii]\nkey_file = \"key\"\n");
        let batch = ["batch", "--from", "posts.jsonl", "--to", "posts", "--no-model"];
        let mut command = folder.tamiz(&batch);
        command
            .args(["-c", "tamiz.toml"])
            .env(name, OsStr::from_bytes(b"\xff\xfe"));
        Running::start(command).wait()
    };
    call("PICTURE").done();
    call("TAMIZ_PICTURE").done();
    for name in ["TAMIZ_SINK_DEAD_LETTERS", "TAMIZ_PII_KINDS_EMAIL", "TAMIZ_PII_KEY"] {
        call(name).refused(2, &[name, "not UTF-8"]);
    }
    let folder = folder();
    let mut history = folder.tamiz(&["table", "history", "nowhere"]);
    history.env("PICTURE", OsStr::from_bytes(b"\xff\xfe"));
    Running::start(history).wait().refused(1, &["nowhere"]);
}

#[test]
fn kinds_of_personal_data_are_set_by_the_environment() {
    let folder = Folder::new();
    let post =
        json!({"id": "1", "source": "t", "created_at": "2026-01-02T03:04:05Z", "text": "write to ana@example.org"});
    folder.write("posts.jsonl", post.to_string());
    let mut command = folder.tamiz(&["batch", "--from", "posts.jsonl", "--to", "posts", "--no-model"]);
    command.env("TAMIZ_PII_KINDS_EMAIL", "keep");
    Running::start(command).wait().done();
    let kept = count(
        &folder,
        &folder.text("posts"),
        "count(*) FILTER (WHERE text LIKE '%ana@example.org')",
    );
    assert_eq!(kept, 1);
}

#[test]
fn wrong_arguments_are_told() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["frobnicate"], &["frobnicate", "--help"]),
        (&["batch", "--from", "posts.jsonl"], &["--to"]),
        (&["sql", "-t", "posts", "SELECT 1"], &["NAME=PATH"]),
        (&["run", "-c", "nowhere.toml"], &["nowhere.toml"]),
        (&["sql", "--no-model", "-t", "t=nowhere", "SELECT 1"], &["nowhere"]),
        (
            &["sql", "--no-model", "-t", "t=notes.txt", "SELECT 1"],
            &["notes.txt", ".parquet"],
        ),
        (&["run", "--no-model", "--model", "x"], &["--no-model", "--model"]),
    ];
    for (arguments, words) in cases {
        let folder = folder();
        folder.write("notes.txt", "nothing");
        let ended = folder.run(arguments);
        assert_eq!(ended.status.code(), Some(2), "{ended}");
        for word in words {
            assert!(ended.stderr.contains(word), "{word}\n{ended}");
        }
        assert!(
            !ended.stderr.contains("panicked") && ended.stderr.lines().count() < 12,
            "{ended}"
        );
    }
}

#[test]
fn wrong_sql_is_told() {
    let cases: [(&str, &[&str]); 5] = [
        ("SELEC 1", &["SELEC"]),
        ("SELECT nope FROM t", &["nope"]),
        ("SELECT * FROM nowhere", &["nowhere"]),
        ("SELECT nofunction(id) FROM t", &["nofunction"]),
        ("SELECT scrub_pii(text, 'shred') FROM t", &["shred", "mask"]),
    ];
    let folder = folder();
    for (query, words) in cases {
        folder
            .run(&["sql", "--no-model", "-t", "t=posts.jsonl", query])
            .refused(1, words);
    }
}

#[test]
fn wrong_inputs_of_a_batch_are_told() {
    let folder = folder();
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.write("fake.parquet", "PAR1 this is none PAR1");
    folder.write("fake.jsonl.zst", "no zstd at all");
    for (from, words) in [
        ("nowhere", ["nowhere", "No such file"]),
        ("empty", ["empty", ".parquet"]),
        ("fake.parquet", ["fake.parquet", "arquet"]),
        ("fake.jsonl.zst", ["fake.jsonl.zst", ""]),
    ] {
        let ended = folder.run(&["batch", "--from", from, "--to", "posts", "--no-model"]);
        assert_eq!(ended.status.code(), Some(1), "{ended}");
        let own: Vec<&str> = ended
            .stderr
            .lines()
            .filter(|line| line.starts_with("tamiz: "))
            .collect();
        assert!(
            matches!(own[..], [line] if words.iter().all(|word| line.contains(word))),
            "{ended}"
        );
        assert!(!ended.stderr.contains("panicked"), "{ended}");
    }
}

#[test]
fn a_table_at_a_place_that_is_taken_is_told() {
    let folder = folder();
    folder.write("file", "I was here first");
    batch(&folder, "file").refused(1, &["`file`", "is a file"]);
    batch(&folder, "file/below").refused(1, &["file/below"]);
    assert_eq!(
        std::fs::read_to_string(folder.path("file")).unwrap(),
        "I was here first"
    );
    folder.write("taken/holiday.jpg", "a picture");
    batch(&folder, "taken").refused(1, &["taken", "no Delta table", "name an empty or a new folder"]);
    assert_eq!(std::fs::read_dir(folder.path("taken")).unwrap().count(), 1);
    batch(&folder, "ftp://host/table").refused(1, &["ftp", "s3://"]);
    folder
        .run(&["sql", "--no-model", "-t", "t=taken", "SELECT 1"])
        .refused(1, &["taken", "no Delta table"]);
}

#[test]
fn a_place_that_may_not_be_written_is_told() {
    let folder = folder();
    // Not even root makes folders there.
    batch(&folder, "/proc/1/tamiz-test").refused(1, &["/proc/1/tamiz-test"]);
    if unsafe { libc::geteuid() } != 0 {
        std::fs::create_dir(folder.path("locked")).unwrap();
        std::fs::set_permissions(
            folder.path("locked"),
            std::os::unix::fs::PermissionsExt::from_mode(0o555),
        )
        .unwrap();
        batch(&folder, "locked/posts").refused(1, &["locked/posts", "no permission"]);
    }
}

#[test]
fn a_table_of_another_shape_is_told_and_stays() {
    let folder = folder();
    batch(&folder, "posts").done();
    let before = versions(&folder.path("posts"));
    // The dead letters' table where the posts' is wanted.
    batch(&folder, "posts_dead_letters").refused(1, &["posts_dead_letters", "column"]);
    assert_eq!(versions(&folder.path("posts")), before);
    assert_eq!(versions(&folder.path("posts_dead_letters")), 1);
}

#[test]
fn a_missing_topic_is_told_and_no_table_is_made() {
    let Some(broker) = Broker::find() else { return };
    let folder = folder();
    let kafka = format!(
        "[source.kafka]\nbrokers = \"{}\"\ntopics = [\"it-nowhere\"]\n",
        broker.servers
    );
    folder.write("tamiz.toml", kafka);
    folder
        .run(&["run", "--no-model", "-c", "tamiz.toml"])
        .refused(1, &["`it-nowhere` does not exist", "create it"]);
    assert!(!folder.path("data").exists(), "tables were made");
    let produce = ["produce", "--topic", "it-nowhere", "posts.jsonl", "-c", "tamiz.toml"];
    folder
        .run(&produce)
        .refused(1, &["`it-nowhere` does not exist", "create it"]);
    let more = format!(
        "[source.kafka]\nbrokers = \"{}\"\ntopics = [\"it-nowhere\", \"it-neither\"]\n\
         [sink.dead_letter_topic]\ntopic = \"it-no-letters\"\n",
        broker.servers
    );
    folder.write("tamiz.toml", more);
    let checked = folder.run(&["check", "--no-model", "-c", "tamiz.toml"]);
    assert_eq!(checked.status.code(), Some(1), "{checked}");
    let told = check::lines(&checked.stdout, "wrong", "kafka: ").join("");
    for (topic, key) in [
        ("it-nowhere", "source.kafka.topics"),
        ("it-neither", "source.kafka.topics"),
        ("it-no-letters", "sink.dead_letter_topic.topic"),
    ] {
        let words = told.split("; ").find(|words| words.contains(topic));
        let words = words.unwrap_or_else(|| panic!("{topic}\n{}", checked.stdout));
        assert!(words.contains("does not exist") && words.contains(key), "{told}");
    }
}

#[test]
fn a_broker_that_does_not_answer_is_told_within_a_minute() {
    let folder = folder();
    folder.write("tamiz.toml", "[source.kafka]\nbrokers = \"127.0.0.1:1\"\n");
    for arguments in [
        &["run", "--no-model", "-c", "tamiz.toml"][..],
        &["produce", "--topic", "t", "posts.jsonl", "-c", "tamiz.toml"],
    ] {
        let ended = folder.run(arguments);
        assert!(ended.took < Duration::from_secs(60), "{ended}");
        ended.refused(1, &["no broker answers at 127.0.0.1:1", "source.kafka.brokers"]);
    }
    assert!(!folder.path("data").exists(), "tables were made");
}
