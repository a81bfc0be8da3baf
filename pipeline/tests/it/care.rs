//! Care of tables, by hand and in the background: `tamiz table …`, and what `run` does by configuration.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tamiz_udfs::text::pii::PseudonymKey;

use crate::support::broker::Broker;
use crate::support::posts::{PLANTED, made_up};
use crate::support::table::{check, count, number, sql, versions};
use crate::support::{Ended, Folder, Running, root};

const POSTS: usize = 2_000;
/// Somebody with a name that nobody else has, and words that nobody else writes.
const NAME: &str = "Zerafina.Quell";
const PHRASE: &str = "violet armadillo 7731";

/// A table of made-up posts in many small files.
fn table(folder: &Folder) {
    folder.write("posts.jsonl", made_up(POSTS).payloads.join(&b'\n'));
    folder.write("tamiz.toml", "[sink]\nflush_bytes = 1\n[limits]\nbatch_rows = 200\n");
    batch(folder).done();
}

fn batch(folder: &Folder) -> Ended {
    folder.run(&[
        "batch",
        "--from",
        "posts.jsonl",
        "--to",
        "posts",
        "--no-model",
        "-c",
        "tamiz.toml",
    ])
}

fn care(folder: &Folder, arguments: &[&str]) -> Ended {
    folder.run(&[&["table"], arguments].concat())
}

/// An answer in JSON.
fn told(ended: Ended) -> Value {
    let ended = ended.done();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("no JSON: {}\n{ended}", ended.stdout))
}

/// The newest log entry of a table.
fn newest(table: &Path) -> std::path::PathBuf {
    table.join(format!("_delta_log/{:020}.json", versions(table) - 1))
}

#[test]
fn packed_tables_are_read_by_others_as_before() {
    let folder = Folder::new();
    table(&folder);
    let rows = count(&folder, "posts", "count(*)").to_string();
    let known = ["posts", "--rows", &rows, "--distinct-ids", &rows, "--absent", PLANTED];
    let known = known.map(|argument| {
        if argument == "posts" {
            folder.text("posts")
        } else {
            argument.to_owned()
        }
    });
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let before = check(&known, &[]);
    let would = told(care(&folder, &["compact", "posts", "--dry-run", "--format", "json"]));
    let packed = told(care(&folder, &["compact", "posts", "--format", "json"]));
    assert_eq!(
        would["partitions"].as_array().unwrap().len(),
        packed["partitions"].as_array().unwrap().len()
    );
    let cleared = told(care(
        &folder,
        &[
            "vacuum",
            "posts",
            "--retention-hours",
            "0",
            "--force",
            "--format",
            "json",
        ],
    ));
    let after = check(&known, &[]);
    assert_eq!(before["partitions"], after["partitions"]);
    assert_eq!(before["statistics"], after["statistics"]);
    let files = |report: &Value| number(report, "files");
    assert_eq!(files(&after), after["partitions"].as_array().unwrap().len() as i64);
    assert_eq!(
        number(&cleared["vacuumed"], "files"),
        files(&before),
        "every file was packed into another"
    );
    let again = care(&folder, &["compact", "posts"]).done();
    assert!(again.stdout.starts_with("nothing to pack"), "{}", again.stdout);
    let history = care(&folder, &["history", "posts", "--limit", "1", "--format", "json"]);
    assert_eq!(told(history)["operation"], "OPTIMIZE");
    let doctor = care(&folder, &["doctor", "posts"]).done();
    assert!(
        doctor.stdout.contains("by their hashes; 0 are bad"),
        "{}",
        doctor.stdout
    );
}

#[test]
fn a_torn_log_and_a_flipped_byte_are_mended_and_the_rest_is_read_again() {
    let folder = Folder::new();
    table(&folder);
    let posts = folder.path("posts");
    let (rows, all) = (count(&folder, "posts", "count(*)"), versions(&posts));
    let entry = newest(&posts);
    let text = std::fs::read_to_string(&entry).unwrap();
    std::fs::write(&entry, &text[..text.len() - 40]).unwrap();
    let found = care(&folder, &["doctor", "posts"]);
    found.refused(1, &["1 problem found"]);
    assert!(
        found.stdout.contains("is torn") && found.stdout.contains("reading goes on: tamiz/file/"),
        "{}",
        found.stdout
    );
    care(&folder, &["doctor", "posts", "--repair"]).done();
    assert_eq!(versions(&posts), all - 1);
    batch(&folder).done();
    assert_eq!(count(&folder, "posts", "count(*)"), rows);
    assert_eq!(count(&folder, "posts", "count(DISTINCT id)"), rows);

    let add = std::fs::read_to_string(newest(&posts)).unwrap();
    let add: Value = add
        .lines()
        .find(|line| line.starts_with("{\"add\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    let file = posts.join(add["add"]["path"].as_str().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[50] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let found = care(&folder, &["doctor", "posts", "--format", "json"]);
    assert_eq!(found.status.code(), Some(1), "{found}");
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    let lost = number(&report["findings"][0]["lost"], "rows");
    assert!(
        lost > 0 && report["findings"][0]["lost"]["date"].is_string(),
        "{report:#}"
    );
    care(&folder, &["doctor", "posts", "--repair"]).done();
    assert_eq!(count(&folder, "posts", "count(*)"), rows - lost);
    let left = (rows - lost).to_string();
    check(&[&folder.text("posts"), "--rows", &left, "--distinct-ids", &left], &[]);
}

/// Posts of three people, among them two of hers that are dead letters: one without a time, one cut off. One that never
/// came she has taken back.
fn posts_of_three() -> Vec<u8> {
    let post = |number: usize| {
        let author = ["bob", NAME, "carol"][number % 3];
        // Where the identifier holds the author, the table's holds the pseudonym.
        let id = format!("{author}/{number}");
        let text = match number % 12 {
            1 | 7 => format!("I saw a {PHRASE} near the river, number {number}"),
            // Carol comes after her and writes the same.
            4 | 5 => format!(
                "Two people wrote this very same sentence about lamps, pair {}",
                number / 12
            ),
            _ => format!("Nothing much happened in the valley on morning {number}"),
        };
        let date = format!("2026-01-0{}T10:00:{:02}Z", 2 + number / 3 % 3, number % 60);
        json!({"id": id, "source": "forum", "created_at": date, "author": author, "text": text}).to_string()
    };
    let mut lines: Vec<String> = (0..240).map(post).collect();
    let letter = format!(
        r#"{{"id":"1","source":"forum","author":"@{}","text":"{PHRASE}"}}"#,
        NAME.to_lowercase()
    );
    let cut = format!(r#"{{"id":"2","author":"{NAME}","text":"{PHRASE} and th"#);
    let others = r#"{"id":"3","source":"forum","author":"carol","text":"no time"}"#.to_owned();
    let delete = json!({"id": format!("{NAME}/9999"), "source": "forum", "author": NAME, "deleted": true}).to_string();
    lines.extend([letter, cut, others, delete]);
    lines.join("\n").into_bytes()
}

/// What check_table.py says of strings that must not be there.
fn scan(folder: &Folder, absent: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(root().join("scripts/python"));
    command.arg(root().join("pipeline/tests/py/check_table.py"));
    command.args([
        &folder.text("posts"),
        "--dead-letters",
        &folder.text("posts_dead_letters"),
    ]);
    for string in absent {
        command.args(["--absent", string]);
    }
    let answer = Running::start(command).wait();
    (
        answer.status.code(),
        serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer}")),
    )
}

#[test]
fn a_forgotten_author_is_in_no_byte_of_any_file() {
    let folder = Folder::new();
    folder.write("posts.jsonl", posts_of_three());
    folder.write(
        "tamiz.toml",
        "[sink]\nflush_bytes = 1\nkeep_payload = true\n[limits]\nbatch_rows = 40\n",
    );
    batch(&folder).done();
    // Old files of the same rows lie about, too.
    care(&folder, &["compact", "posts"]).done();
    let key = PseudonymKey::new(b"00112233445566778899aabbccddeeff").unwrap();
    let pseudonym = key.pseudonym(NAME);
    let absent = [NAME, &NAME.to_lowercase(), &pseudonym, PHRASE];
    let (code, before) = scan(&folder, &absent);
    let found = before["problems"].as_array().unwrap();
    assert!(
        code == Some(1) && found.len() >= 5,
        "they are there before, or the scan sees nothing: {before:#}"
    );
    assert_eq!(count(&folder, "posts", "count(*)"), 240);
    assert_eq!(
        count(
            &folder,
            "posts",
            &format!("count(*) FILTER (WHERE author = 'u_{pseudonym}')")
        ),
        80
    );
    let marked = count(
        &folder,
        "posts",
        &format!("count(*) FILTER (WHERE duplicate_of LIKE '%{pseudonym}%')"),
    );
    assert!(marked > 0);
    let taken_back = || {
        count(
            &folder,
            "posts_deletes",
            &format!("count(*) FILTER (WHERE id LIKE '%{pseudonym}%')"),
        )
    };
    assert_eq!(taken_back(), 1);

    let asked = format!("@{}", NAME.to_uppercase());
    let done = care(&folder, &["forget", "posts", "--author", &asked, "-c", "tamiz.toml"]).done();
    assert!(
        done.stdout.contains("posts: 80 rows erased") && done.stdout.contains("2 rows erased"),
        "{}",
        done.stdout
    );
    assert!(done.stdout.contains("posts_deletes: 1 rows erased"), "{}", done.stdout);
    assert_eq!(taken_back(), 0);
    assert!(
        !done.stdout.to_lowercase().contains("quell") && done.stderr.is_empty(),
        "{done}"
    );
    let (code, after) = scan(&folder, &absent);
    assert_eq!(code, Some(0), "{:#}", after["problems"]);
    assert_eq!(number(&after, "rows"), 160);
    assert_eq!(number(&after, "dead_letters"), 1);
    let tables = ["--no-model", "-t", "t=posts"];
    let left = sql(
        &folder,
        &tables,
        "SELECT count(*) AS n, count(DISTINCT author) AS authors FROM t",
    );
    assert_eq!((number(&left[0], "n"), number(&left[0], "authors")), (160, 2));
    assert_eq!(
        batch(&folder).done().summary().read,
        0,
        "what is forgotten is not read again"
    );
    for table in ["posts", "posts_dead_letters", "posts_deletes"] {
        care(&folder, &["doctor", table]).done();
    }
}

#[test]
fn wrong_calls_are_answered_in_a_sentence() {
    let folder = Folder::new();
    folder.write("posts.jsonl", made_up(20).payloads.join(&b'\n'));
    folder.write("folder/notes.txt", "x");
    folder.write("tamiz.toml", "");
    batch(&folder).done();
    for verb in ["compact", "vacuum", "history", "doctor", "forget"] {
        let author: &[&str] = if verb == "forget" { &["--author", "ana"] } else { &[] };
        for (place, words) in [
            ("nowhere", "there is no Delta table at `nowhere`"),
            ("folder", "there is no Delta table at `folder`"),
            ("posts.jsonl", "is a file, and a table is a folder"),
            ("ftp://host/table", "`ftp` is not supported"),
        ] {
            care(&folder, &[&[verb, place], author].concat()).refused(1, &[words]);
        }
    }
    care(&folder, &["vacuum", "posts", "--retention-hours", "0"]).refused(1, &["--force"]);
    care(&folder, &["doctor", "posts", "--roll-back"]).refused(2, &["--repair"]);
    care(&folder, &["compact", "posts", "--target-mib", "0"]).refused(2, &["--target-mib"]);
    care(&folder, &["forget", "posts", "--author", " @"]).refused(2, &["--author is empty"]);
    let mut keyless = folder.tamiz(&["table", "forget", "posts", "--author", "ana"]);
    keyless.env_remove("TAMIZ_PII_KEY");
    Running::start(keyless)
        .wait()
        .refused(2, &["TAMIZ_PII_KEY", "pseudonym"]);
    let mut keyless = folder.tamiz(&["table", "forget", "posts", "--author", "u_00112233aabb"]);
    keyless.env_remove("TAMIZ_PII_KEY");
    let done = Running::start(keyless).wait().done();
    assert!(done.stdout.contains("posts: 0 rows erased"), "{}", done.stdout);
    folder.write("bad.toml", "[table]\ncompact_hours = -1\nretention_hours = 0\n");
    let wrong = folder.run(&["run", "-c", "bad.toml"]);
    wrong.refused(2, &["table.compact_hours", "table.retention_hours"]);
}

#[test]
fn a_run_packs_its_own_tables_beside_the_writer() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let feed = made_up(20_000);
    let topic = broker.topic(3, &[]);
    topic.send(feed.payloads.iter().map(|payload| Some(payload.as_slice())));
    let sink = format!(
        "[sink]\nposts = \"{}\"\ndead_letters = \"{}\"\nflush_bytes = {}\n[limits]\nbatch_bytes = {}\n",
        folder.text("posts"),
        folder.text("dead"),
        feed.bytes() / 60,
        feed.bytes() / 120
    );
    // Every second.
    let care = "[table]\ncompact_hours = 0.0003\n";
    let config = folder.write("tamiz.toml", topic.source() + &sink + care);
    let posts = folder.path("posts");
    let packings = |_: &Running| {
        let entries = (0..versions(&posts)).map(|version| posts.join(format!("_delta_log/{version:020}.json")));
        entries
            .filter(|entry| std::fs::read_to_string(entry).is_ok_and(|text| text.contains("\"OPTIMIZE\"")))
            .count()
            > 0
    };
    let mut run = Running::start(folder.tamiz(&["run", "--no-model", "-c", &config]));
    run.signal_when(libc::SIGTERM, Duration::ZERO, packings);
    run.wait().done();
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
        .done();
    let (table, letters) = (folder.text("posts"), folder.text("dead"));
    let rows = count(&folder, &table, "count(*)");
    assert_eq!(rows + count(&folder, &letters, "count(*)"), feed.payloads.len() as i64);
    let shown = rows.to_string();
    check(
        &[
            &table,
            "--dead-letters",
            &letters,
            "--rows",
            &shown,
            "--distinct-ids",
            &shown,
            "--absent",
            PLANTED,
        ],
        &[],
    );
    care_is_clean(&folder, &table);
}

fn care_is_clean(folder: &Folder, table: &str) {
    let doctor = care(folder, &["doctor", table]).done();
    assert!(doctor.stdout.contains("0 are bad"), "{}", doctor.stdout);
}
