//! Posts that their sources take back: out of the table, out of its files, and no others with them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Sent};
use crate::support::table::{active, contents, count, number, sql, versions};
use crate::support::{Folder, Running};

const POSTS: usize = 12_000;
const PARTITIONS: i32 = 3;

/// A word that stands in one post only.
fn word(at: usize) -> String {
    format!("quokka{at}zebra")
}

fn post(at: usize) -> Vec<u8> {
    let text = format!("{} is what number {at} says of the weather", word(at));
    let post = json!({"id": format!("p-{at}"), "source": "test", "created_at": "2026-01-02T03:04:05Z", "author": "made_up", "text": text});
    post.to_string().into_bytes()
}

/// What ends a post: a record, a tombstone, or nothing.
fn ends(at: usize) -> Option<&'static str> {
    match at % 20 {
        3 => Some("record"),
        11 => Some("tombstone"),
        _ => None,
    }
}

fn delete(at: usize) -> Vec<u8> {
    json!({"id": format!("p-{at}"), "source": "test", "deleted": true})
        .to_string()
        .into_bytes()
}

fn ids(folder: &Folder, table: &str) -> BTreeSet<String> {
    let named = format!("t={table}");
    let rows = sql(folder, &["--no-model", "-t", &named], "SELECT id FROM t");
    let ids: BTreeSet<String> = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), rows.len(), "a post is there twice");
    ids
}

/// Neither SQL nor a file that the table names shows a word of what was taken back; all else is there.
fn check(folder: &Folder, table: &str, gone: &BTreeSet<usize>, all: usize) {
    let expected: BTreeSet<String> = (0..all)
        .filter(|at| !gone.contains(at))
        .map(|at| format!("p-{at}"))
        .collect();
    assert_eq!(ids(folder, table), expected);
    let (texts, bytes) = contents(&active(&folder.path(table)));
    let words: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split(' '))
        .filter(|text| text.starts_with("quokka"))
        .collect();
    assert_eq!(words.len(), expected.len());
    let raw = String::from_utf8_lossy(&bytes);
    for at in gone {
        assert!(!words.contains(word(*at).as_str()), "{at} is still in a file");
        assert!(!raw.contains(&word(*at)), "{at} is still in the bytes of a file");
    }
}

#[test]
fn posts_that_were_taken_back_are_gone_from_every_file_whatever_is_killed() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(PARTITIONS, &[]);
    let keys: Vec<String> = (0..POSTS).map(|at| format!("key of {at}")).collect();
    let posts: Vec<Vec<u8>> = (0..POSTS).map(post).collect();
    let records: Vec<Vec<u8>> = (0..POSTS).map(delete).collect();
    let mut messages: Vec<Sent> = Vec::new();
    for at in 0..POSTS {
        let key = Some(keys[at].as_bytes());
        let here = Some((at % PARTITIONS as usize) as i32);
        let end = |at: usize, partition| match ends(at) {
            Some("record") => Some((partition, None, Some(records[at].as_slice()))),
            Some(_) => Some((partition, Some(keys[at].as_bytes()), None)),
            None => None,
        };
        // Some deletes come before their post, in another partition; most come after, soon or late.
        if at % 40 == 3 {
            messages.extend(end(at, Some((at as i32 + 1) % PARTITIONS)));
        }
        messages.push((here, key, Some(posts[at].as_slice())));
        if at % 40 == 11 {
            messages.extend(end(at, here));
        }
        if let Some(before) = at.checked_sub(4_000).filter(|before| !matches!(before % 40, 3 | 11)) {
            messages.extend(end(before, Some(before as i32 % PARTITIONS)));
        }
    }
    for before in (POSTS - 4_000..POSTS).filter(|before| !matches!(before % 40, 3 | 11)) {
        messages.extend(match ends(before) {
            Some("record") => Some((Some(0), None, Some(records[before].as_slice()))),
            Some(_) => Some((Some(before as i32 % PARTITIONS), Some(keys[before].as_bytes()), None)),
            None => None,
        });
    }
    topic.send_to(messages);
    let flush = posts.iter().map(Vec::len).sum::<usize>() / 12;
    let config = folder.write(
        "tamiz.toml",
        topic.source_of_mortals()
            + "[input.deletes]\ntombstones = true\n[deletes]\napply_minutes = 0.02\n"
            + &format!("[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\nflush_bytes = {flush}\n")
            + &format!("[limits]\nbatch_bytes = {}\n", flush / 2),
    );
    let call = ["run", "--until-caught-up", "--no-model", "-c", &config];
    let deletes = folder.path("posts_deletes");
    // Between a commit of deletes and that of the posts beside them, and while files are written anew.
    for (commits, late) in [(1, 0), (3, 15), (5, 40)] {
        Running::start(folder.tamiz(&call)).kill_when(Duration::from_millis(late), |_| versions(&deletes) > commits);
    }
    let last = folder.run(&call).done();
    let gone: BTreeSet<usize> = (0..POSTS).filter(|at| ends(*at).is_some()).collect();
    check(&folder, "posts", &gone, POSTS);
    assert!(last.summary().dead_letters == 0, "{last}");
    assert!(count(&folder, "posts_deletes", "count(DISTINCT coalesce(delete_key, id))") >= gone.len() as i64);
    // Nothing is left to do, and nothing more is done.
    let before = versions(&folder.path("posts"));
    folder.run(&call).done();
    assert_eq!(versions(&folder.path("posts")), before);
}

#[test]
fn a_post_that_is_written_anew_after_its_delete_stays() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(1, &[]);
    let (first, second, end) = (post(1), post(2), delete(1));
    let anew = String::from_utf8(post(1))
        .unwrap()
        .replace("weather", "climate")
        .into_bytes();
    let config = folder.write(
        "tamiz.toml",
        topic.source() + "[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\n",
    );
    let call = ["run", "--until-caught-up", "--no-model", "-c", &config];
    // All in one flush, and then once more each in its own.
    for sent in [
        vec![&first, &second, &end, &anew],
        vec![&end],
        vec![&first],
        vec![&end],
        vec![&anew],
    ] {
        topic.send(sent.into_iter().map(|payload| Some(payload.as_slice())));
        folder.run(&call).done();
    }
    let rows = sql(
        &folder,
        &["--no-model", "-t", "t=posts"],
        "SELECT id, text FROM t ORDER BY id",
    );
    let texts: Vec<&Value> = rows.iter().map(|row| &row["text"]).collect();
    assert!(
        texts.len() == 2 && texts[0].as_str().unwrap().contains("climate"),
        "{texts:?}"
    );
}

#[test]
fn the_authors_of_others_cannot_take_a_post_back() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(1, &[]);
    let event = |did: &str, operation: &str| {
        let record = json!({"$type": "app.bsky.feed.post", "createdAt": "2026-01-02T03:04:05.000Z", "text": format!("{} by {did}", word(7))});
        json!({"did": did, "time_us": 1_767_323_046_000_000_i64, "kind": "commit", "commit": {"operation": operation,
            "collection": "app.bsky.feed.post", "rkey": "3l3qo2vuowo2b", "record": record}})
        .to_string()
        .into_bytes()
    };
    let (ada, mallory) = ("did:plc:adaadaadaadaadaadaadaada", "did:plc:malmalmalmalmalmalmalmal");
    let sent = [event(ada, "create"), event(mallory, "create"), event(mallory, "delete")];
    topic.send(sent.iter().map(|payload| Some(payload.as_slice())));
    for authors in ["hash", "drop"] {
        let config = folder.write(
            "tamiz.toml",
            topic.source()
                + "[input]\npreset = \"bluesky\"\n"
                + &format!("[pii]\nauthors = \"{authors}\"\n[pipeline]\nname = \"{authors}\"\n")
                + &format!("[sink]\nposts = \"{authors}\"\ndead_letters = \"dead_{authors}\"\nflush_bytes = 1\n"),
        );
        folder
            .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
            .done();
        let rows = sql(
            &folder,
            &["--no-model", "-t", &format!("t={authors}")],
            "SELECT text FROM t",
        );
        assert_eq!(rows.len(), 1, "{authors}: {rows:?}");
        assert!(
            rows[0]["text"].as_str().unwrap().contains("adaada"),
            "{authors}: {rows:?}"
        );
        assert_eq!(count(&folder, &format!("{authors}_deletes"), "count(*)"), 1);
    }
}

#[test]
fn a_batch_takes_back_what_its_files_take_back() {
    let folder = Folder::new();
    let mut lines: Vec<Vec<u8>> = (0..1_000).map(post).collect();
    lines.extend((0..1_000).filter(|at| at % 10 == 0).map(delete));
    folder.write("in/a.jsonl", lines.join(&b'\n'));
    let run = folder
        .run(&["batch", "--from", "in", "--to", "posts", "--no-model"])
        .done();
    let gone: BTreeSet<usize> = (0..1_000).filter(|at| at % 10 == 0).collect();
    check(&folder, "posts", &gone, 1_000);
    assert!(
        run.stderr.contains("deletes: 100") && run.stderr.contains("taken back before they were committed: 100"),
        "{run}"
    );
    // Out of files that were committed long ago, too.
    folder.write(
        "in/b.jsonl",
        [delete(1), delete(2), br#"{"deleted":true,"source":"test"}"#.to_vec()].join(&b'\n'),
    );
    folder
        .run(&["batch", "--from", "in", "--to", "posts", "--no-model"])
        .done();
    let gone = gone.into_iter().chain([1, 2]).collect();
    check(&folder, "posts", &gone, 1_000);
    let letters = sql(
        &folder,
        &["--no-model", "-t", "t=posts_dead_letters"],
        "SELECT stage, reason, \"offset\" AS o FROM t",
    );
    assert_eq!(
        (letters.len(), &letters[0]["reason"], number(&letters[0], "o")),
        (1, &json!("bad_delete"), 2)
    );
}
