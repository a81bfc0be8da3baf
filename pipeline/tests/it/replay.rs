//! Dead letters through the line again: each becomes one post at most, whatever is killed and whoever else replays.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::support::broker::{Broker, Topic};
use crate::support::table::{count, number, sql, versions};
use crate::support::{Folder, Running};

const POSTS: usize = 6_000;
const PARTITIONS: i32 = 2;
const LONG: &str = "this is a text that is longer than the first configuration allows";

/// Two of ten are too long at first, one of ten is broken for ever.
fn payload(at: usize) -> Vec<u8> {
    let text = if at % 10 < 2 { LONG } else { "a short text" };
    let post = json!({"id": at.to_string(), "source": "test", "created_at": "2026-01-02T03:04:05Z", "author": "made_up", "text": format!("{text} {at}")});
    let mut payload = post.to_string().into_bytes();
    if at % 10 == 9 {
        payload.truncate(20);
    }
    payload
}

/// The configuration in which long texts are refused, and the one in which they are not.
fn configs(folder: &Folder, topic: &Topic, more: &str) -> [String; 2] {
    let sink = format!("[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\n{more}");
    let strict = "[validate]\nmax_text_bytes = 40\n";
    let config = |name: &str, validate: &str| folder.write(name, topic.source_of_mortals() + validate + &sink);
    [config("strict.toml", strict), config("lax.toml", "")]
}

fn outcomes(folder: &Folder) -> BTreeMap<String, i64> {
    let query = "SELECT coalesce(outcome, 'open') AS o, count(*) AS n FROM t GROUP BY 1";
    let rows = sql(folder, &["--no-model", "-t", "t=dead"], query);
    rows.iter()
        .map(|row| (row["o"].as_str().unwrap().to_owned(), number(row, "n")))
        .collect()
}

fn expected<const N: usize>(pairs: [(&str, usize); N]) -> BTreeMap<String, i64> {
    pairs
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count as i64))
        .collect()
}

/// Every message is one post or one letter that did not pass, and posts lie where their messages lay.
fn each_once(folder: &Folder, topic: &Topic, posts: usize) {
    let tables = ["--no-model", "-t", "posts=posts", "-t", "dead=dead"];
    let query = "SELECT count(*) AS n, count(DISTINCT id) AS ids, count(DISTINCT kafka['partition'] * 1000000 + kafka['offset']) AS places, \
                 count(*) FILTER (WHERE kafka['topic'] IS NULL OR kafka['timestamp'] IS NULL) AS lost FROM posts";
    let found = &sql(folder, &tables, query)[0];
    assert_eq!(found, &json!({"n": posts, "ids": posts, "places": posts, "lost": 0}));
    let both = "SELECT count(*) AS n FROM posts p JOIN dead d ON p.kafka['offset'] = d.\"offset\" AND p.kafka['partition'] = d.\"partition\" \
                WHERE d.outcome IS DISTINCT FROM 'passed'";
    assert_eq!(number(&sql(folder, &tables, both)[0], "n"), 0);
    let names = sql(folder, &tables, "SELECT DISTINCT kafka['topic'] AS t FROM posts");
    assert_eq!(names, [json!({"t": topic.name})]);
}

#[test]
fn letters_that_pass_become_posts_once_though_replays_are_killed_and_run_at_once() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(PARTITIONS, &[]);
    let payloads: Vec<Vec<u8>> = (0..POSTS).map(payload).collect();
    topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
    let [strict, lax] = configs(&folder, &topic, "");
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &strict])
        .done();
    assert_eq!(outcomes(&folder), expected([("open", POSTS * 3 / 10)]));

    let replay = ["replay", "--no-model", "-c", &lax];
    let (posts, dead) = (folder.path("posts"), folder.path("dead"));
    let before = (versions(&posts), versions(&dead));
    let dry = folder.run(&[&replay[..], &["--dry-run"]].concat()).done();
    assert!(
        dry.stderr.contains(&format!(
            "would replay {} dead letters: {} passed",
            POSTS * 3 / 10,
            POSTS / 5
        )),
        "{dry}"
    );
    assert_eq!((versions(&posts), versions(&dead)), before, "a dry run commits nothing");

    // Posts are in, outcomes are not.
    let one = Running::start(folder.tamiz(&replay));
    one.kill_when(Duration::ZERO, |_| versions(&posts) > before.0);
    each_posts(&folder, POSTS * 9 / 10);
    // Two at once, beside a run.
    topic.send([Some(payload(10 * POSTS).as_slice())]);
    let all: Vec<Running> = vec![
        Running::start(folder.tamiz(&replay)),
        Running::start(folder.tamiz(&replay)),
        Running::start(folder.tamiz(&["run", "--until-caught-up", "--no-model", "-c", &strict])),
    ];
    all.into_iter().for_each(|one| drop(one.wait().done()));
    // That letter may have come too late for the replays.
    let last = folder.run(&replay).done();
    each_once(&folder, &topic, POSTS * 9 / 10 + 1);
    assert_eq!(
        outcomes(&folder),
        expected([("passed", POSTS / 5 + 1), ("failed_again", POSTS / 10)])
    );
    assert!(last.stderr.contains(&format!("{} failed again", POSTS / 10)), "{last}");
    // The reason of today stands in the letter, and the payload of one that passed nowhere.
    let left = "count(*) FILTER (WHERE outcome = 'failed_again' AND reason = 'not_json' AND replayed_at > rejected_at)";
    assert_eq!(count(&folder, "dead", left), POSTS as i64 / 10);
}

fn each_posts(folder: &Folder, posts: usize) {
    assert_eq!(count(folder, "posts", "count(*)"), posts as i64);
    assert_eq!(count(folder, "posts", "count(DISTINCT id)"), posts as i64);
}

#[test]
fn letters_are_chosen_by_reason_stage_and_time() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(1, &[]);
    let payloads: Vec<Vec<u8>> = (0..100).map(payload).collect();
    topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
    let [strict, lax] = configs(&folder, &topic, "");
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &strict])
        .done();
    let told = |more: &[&str], words: &str| {
        let call = [&["replay", "--no-model", "-c", &lax, "--dry-run"], more].concat();
        let ended = folder.run(&call).done();
        assert!(ended.stderr.contains(words), "{words}\n{ended}");
    };
    told(
        &["--reason", "not_json"],
        "would replay 10 dead letters: 0 passed, 10 failed again",
    );
    told(
        &["--reason", "not_json", "--reason", "text_too_large"],
        "would replay 30 dead letters: 20 passed",
    );
    told(&["--stage", "validate"], "would replay 20 dead letters: 20 passed");
    told(&["--until", "2026-01-01T00:00:00Z"], "would replay 0 dead letters");
    told(&["--since", "2026-01-01T00:00:00Z"], "would replay 30 dead letters");
    let wrong = folder.run(&["replay", "--no-model", "-c", &lax, "--reason", "not_jsno"]);
    wrong.refused(2, &["not_jsno", "not_json"]);
}

#[test]
fn payloads_come_from_the_table_where_they_were_kept_and_are_missed_where_they_are_gone() {
    let Some(broker) = Broker::find() else { return };
    for (keep, passed, gone) in [("keep_payload = true\n", 20, 0), ("", 10, 15)] {
        let folder = Folder::new();
        let topic = broker.topic(1, &[]);
        let payloads: Vec<Vec<u8>> = (0..100).map(payload).collect();
        topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
        let [strict, lax] = configs(&folder, &topic, keep);
        folder
            .run(&["run", "--until-caught-up", "--no-model", "-c", &strict])
            .done();
        // Retention has taken the first half.
        topic.forget(0, 50);
        let call = ["replay", "--no-model", "-c", &lax];
        folder.run(&call).done();
        let mut all = vec![("passed", passed), ("failed_again", 30 - passed - gone)];
        all.extend((gone > 0).then_some(("payload_gone", gone)));
        let all: BTreeMap<String, i64> = all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(outcomes(&folder), all, "{keep}");
        each_once(&folder, &topic, 70 + passed as usize);
        let kept = "count(*) FILTER (WHERE payload IS NOT NULL AND outcome = 'passed')";
        assert_eq!(count(&folder, "dead", kept), 0, "what passed keeps no payload");
        // What is settled is not taken again.
        let again = folder.run(&call).done();
        assert!(
            again
                .stderr
                .contains(&format!("replayed {} dead letters: 0 passed", 30 - passed - gone)),
            "{again}"
        );
    }
}

/// Refuses long texts, and keeps payloads.
const STRICT: &str = "[validate]\nmax_text_bytes = 40\n[sink]\nkeep_payload = true\n";

/// A batch of 200 rows, as that configuration has it.
fn batch(folder: &Folder, config: &str) {
    let lines: Vec<Vec<u8>> = (0..200).map(payload).collect();
    folder.write("in/a.jsonl", lines.join(&b'\n'));
    let config = folder.write("batch.toml", config);
    folder
        .run(&["batch", "--from", "in", "--to", "posts", "--no-model", "-c", &config])
        .done();
}

/// Replays the letters of such a batch without the rule that refused them.
fn replay_batch(folder: &Folder, expected: &str) {
    let tables = "[sink]\nposts = \"posts\"\ndead_letters = \"posts_dead_letters\"\n";
    let lax = folder.write("lax.toml", tables);
    let ended = folder.run(&["replay", "--no-model", "-c", &lax]).done();
    assert!(ended.stderr.contains(expected), "{ended}");
}

#[test]
fn letters_of_a_batch_are_replayed_from_the_table() {
    let folder = Folder::new();
    batch(&folder, STRICT);
    for passed in [40, 0] {
        replay_batch(&folder, &format!("{passed} passed, 20 failed again"));
        each_posts(&folder, 180);
    }
    let places = "count(DISTINCT kafka['offset']) FILTER (WHERE kafka['topic'] = 'a.jsonl')";
    assert_eq!(count(&folder, "posts", places), 40, "they tell where they came from");
}

#[test]
fn a_row_that_a_later_batch_let_in_is_not_put_in_again() {
    let folder = Folder::new();
    batch(&folder, STRICT);
    // As if it had been killed after the dead letters and before the posts.
    std::fs::remove_dir_all(folder.path("posts")).unwrap();
    batch(&folder, "");
    each_posts(&folder, 180);
    assert_eq!(count(&folder, "posts_dead_letters", "count(*)"), 60);
    replay_batch(&folder, "40 of those that passed were in the table already");
    each_posts(&folder, 180);
}

#[test]
fn a_row_that_two_pipelines_refused_is_replayed_once() {
    let folder = Folder::new();
    batch(&folder, STRICT);
    batch(&folder, &format!("[pipeline]\nname = \"other\"\n{STRICT}"));
    assert_eq!(count(&folder, "posts_dead_letters", "count(*)"), 120);
    replay_batch(&folder, "40 passed, 20 failed again");
    // What both let in is there twice; what one replay let in is not.
    assert_eq!(count(&folder, "posts", "count(*)"), 2 * 140 + 40);
    replay_batch(&folder, "0 passed, 20 failed again");
}

#[test]
fn a_replayed_post_goes_with_its_tombstone_and_one_whose_key_is_gone_is_left_alone() {
    let Some(broker) = Broker::find() else { return };
    let folder = Folder::new();
    let topic = broker.topic(1, &[]);
    let payloads: Vec<Vec<u8>> = (0..100).map(payload).collect();
    let keys: Vec<String> = (0..100).map(|at| format!("key of {at}")).collect();
    let keyed = keys.iter().map(|key| Some(key.as_bytes()));
    let posts = keyed.clone().zip(&payloads);
    topic.send_to(posts.map(|(key, payload)| (Some(0), key, Some(payload.as_slice()))));
    let more = "keep_payload = true\n[input.deletes]\ntombstones = true\n";
    let [strict, lax] = configs(&folder, &topic, more);
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &strict])
        .done();
    // Retention has taken the first half, and with it the keys.
    topic.forget(0, 50);
    let ended = folder.run(&["replay", "--no-model", "-c", &lax]).done();
    assert!(
        ended.stderr.contains("15 left alone: tombstones know posts by the key"),
        "{ended}"
    );
    let all = expected([("open", 15), ("passed", 10), ("failed_again", 5)]);
    assert_eq!(outcomes(&folder), all);
    each_posts(&folder, 80);
    topic.send_to(keyed.map(|key| (Some(0), key, None)));
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &lax])
        .done();
    each_posts(&folder, 0);
}

#[test]
fn dead_letters_are_heard_of_on_a_topic() {
    let Some(broker) = Broker::find() else { return };
    for keep in [false, true] {
        let folder = Folder::new();
        let (topic, letters) = (broker.topic(1, &[]), broker.topic(1, &[("max.message.bytes", "2000")]));
        // Brokers measure what is compressed, so this must not be compressible.
        let large: Vec<u8> = (0..5_000).map(|_| rand::random()).collect();
        let payloads = [b"{".to_vec(), payload(3), large.clone()];
        topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
        let config = folder.write(
            "tamiz.toml",
            topic.source()
                + &format!("[sink]\nposts = \"posts\"\ndead_letters = \"dead\"\nkeep_payload = {keep}\n")
                + &format!("[sink.dead_letter_topic]\ntopic = \"{}\"\n", letters.name),
        );
        folder
            .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
            .done();
        let heard = letters.received();
        let keys: Vec<&str> = heard.iter().map(|(_, key, _)| key.as_str()).collect();
        assert_eq!(keys, [format!("{}/0/0", topic.name), format!("{}/0/2", topic.name)]);
        let rows = sql(
            &folder,
            &["--no-model", "-t", "t=dead"],
            "SELECT * FROM t ORDER BY \"offset\"",
        );
        for ((headers, _, payload), row) in heard.iter().zip(&rows) {
            for name in ["stage", "reason", "detail", "topic", "payload_hash"] {
                assert_eq!(headers[name], row[name].as_str().unwrap(), "{name}");
            }
            for name in ["partition", "offset", "payload_bytes"] {
                assert_eq!(headers[name], row[name].to_string(), "{name}");
            }
            assert!(headers.contains_key("timestamp") && headers.contains_key("rejected_at"));
            assert_eq!(payload.is_some(), keep && headers["offset"] == "0");
        }
        assert_eq!(heard[0].2.as_deref(), keep.then_some(&b"{"[..]));
        // Too large for its topic: heard of all the same.
        let left_out = heard[1].0.get("payload_left_out").map(String::as_str);
        assert_eq!(left_out, keep.then_some("too_large"));
        assert_eq!(rows.len(), 2);
    }
    let folder = Folder::new();
    let topic = broker.topic(1, &[]);
    let config = folder.write(
        "tamiz.toml",
        topic.source() + "[sink.dead_letter_topic]\ntopic = \"no-such-topic\"\n",
    );
    folder
        .run(&["run", "--until-caught-up", "--no-model", "-c", &config])
        .refused(1, &["no-such-topic", "does not exist"]);
    let same = format!("[sink.dead_letter_topic]\ntopic = \"{}\"\n", topic.name);
    let config = folder.write("tamiz.toml", topic.source() + &same);
    folder
        .run(&["run", "--no-model", "-c", &config])
        .refused(2, &["dead_letter_topic"]);
}
