//! More than can be done at once: a sink or a model that stalls, and messages larger than the whole budget.

use serde_json::{Value, json};
use tamiz_model::testing::tiny_checkpoint;

use super::load::post;
use super::oracle::{Acknowledged, compare};
use super::{PARTITIONS, report};
use crate::support::broker::{Broker, Topic};
use crate::support::table::sql;
use crate::support::{Ended, Folder, Running, skipped};

/// What the configuration allows to be in flight.
const BUDGET: u64 = 64 << 20;
/// The process without posts, the client's own queue (16 MiB by configuration), what a commit encodes, and the allocator's slack.
const BESIDE: u64 = 260 << 20;
/// Longer than a member may be silent towards its group in these tests (8 s).
const STALL_MILLIS: u64 = 11_000;

fn configuration(folder: &Folder, topic: &Topic) -> String {
    let text = format!(
        "[source.kafka]\nbrokers = \"{}\"\ntopics = [\"{name}\"]\ngroup = \"{name}\"\n\
         options = {{ \"session.timeout.ms\" = \"6000\", \"max.poll.interval.ms\" = \"8000\", \"queued.max.messages.kbytes\" = \"16384\", \
         \"receive.message.max.bytes\" = \"200000000\" }}\n\
         [sink]\nposts = \"posts\"\ndead_letters = \"dead\"\nflush_bytes = 16777216\nignore = []\n\
         [limits]\nmemory_bytes = {BUDGET}\nbatch_bytes = 1048576\n",
        topic.servers(),
        name = topic.name,
    );
    folder.write("tamiz.toml", text)
}

/// Fills a topic and reads it to its end, with what the failpoints make slow; the figures, once all was asserted.
fn read(payloads: &[(String, Vec<u8>)], topic: &Topic, (model, failpoints): (bool, &str)) -> (super::Verdict, Value) {
    let folder = Folder::new();
    let places = topic.send(payloads.iter().map(|(_, payload)| Some(payload.as_slice())));
    let config = configuration(&folder, topic);
    tiny_checkpoint(&folder.path("model")).unwrap();
    let scored = if model {
        ["--model", "model"].as_slice()
    } else {
        &["--no-model"]
    };
    let call = [&["run", "--until-caught-up", "-c", &config], scored].concat();
    let mut command = folder.tamiz(&call);
    command.env("FAILPOINTS", failpoints);
    let ended: Ended = Running::start(command).wait().done();
    let assigned = ended.stderr.matches("partition assigned").count();
    assert_eq!(assigned, PARTITIONS as usize, "it fell out of its group\n{ended}");
    let sent = payloads.iter().zip(places);
    let acknowledged: Vec<_> = sent
        .map(|((id, _), place)| Acknowledged { id: id.clone(), place })
        .collect();
    let tables = ["--no-model", "-t", "posts=posts", "-t", "dead=dead"];
    let held = sql(
        &folder,
        &tables,
        "SELECT id, kafka['partition'] AS p, kafka['offset'] AS o FROM posts",
    );
    let letters = sql(&folder, &tables, "SELECT \"partition\" AS p, \"offset\" AS o FROM dead");
    let verdict = compare(&held, &letters, &acknowledged);
    let bytes: usize = payloads.iter().map(|(_, payload)| payload.len()).sum();
    let figures = json!({"budget_mb": BUDGET >> 20, "sent_mb": bytes >> 20, "peak_memory_mb": ended.peak_bytes >> 20, "seconds": ended.took.as_secs_f64()});
    (verdict, figures)
}

/// Posts of some 2 kB.
fn posts(count: u64) -> Vec<(String, Vec<u8>)> {
    let long = |number: u64| {
        let (id, body) = post(number);
        let more: String = (0..90)
            .map(|word| format!("near station {} ", number * 7 + word))
            .collect();
        (id, body.replace("near ", &more).into_bytes())
    };
    (0..count).map(long).collect()
}

#[test]
fn a_sink_that_stalls_does_not_fill_the_memory_and_the_member_stays_in_its_group() {
    let Some(broker) = Broker::find() else { return };
    if !cfg!(feature = "failpoints") {
        return skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let topic = broker.topic(PARTITIONS, &[]);
    let stalls = format!("before_commit=1*off->1*sleep({STALL_MILLIS})->2*off->1*sleep({STALL_MILLIS})->off");
    let (verdict, figures) = read(&posts(120_000), &topic, (false, &stalls));
    let what = "a burst of three times the memory budget meets a sink that twice stalls for longer than a member may be silent";
    assert!(
        figures["peak_memory_mb"].as_u64().unwrap() << 20 < BUDGET + BESIDE,
        "{figures}"
    );
    report("stalled_sink", what, &verdict, figures);
}

#[test]
fn a_model_that_stalls_does_not_fill_the_memory_and_the_member_stays_in_its_group() {
    let Some(broker) = Broker::find() else { return };
    if !cfg!(feature = "failpoints") {
        return skipped("built without the feature `failpoints` (scripts/test builds with it)");
    }
    let topic = broker.topic(PARTITIONS, &[]);
    let stalls = format!("model::forward=50*off->1*sleep({STALL_MILLIS})->200*off->1*sleep({STALL_MILLIS})->off");
    let (verdict, figures) = read(&posts(60_000), &topic, (true, &stalls));
    let what =
        "a burst of twice the memory budget meets a model that twice stalls for longer than a member may be silent";
    assert!(
        figures["peak_memory_mb"].as_u64().unwrap() << 20 < BUDGET + BESIDE,
        "{figures}"
    );
    report("stalled_model", what, &verdict, figures);
}

#[test]
fn messages_larger_than_the_budget_pass_one_at_a_time() {
    let Some(broker) = Broker::find() else { return };
    let topic = broker.topic(PARTITIONS, &[("max.message.bytes", "110000000")]);
    const LARGE: usize = 99_900_000;
    let mut payloads = posts(2_000);
    for number in 0..8 {
        payloads.insert(number * 200, (format!("large-{number}"), vec![b'['; LARGE]));
    }
    let (verdict, figures) = read(&payloads, &topic, (false, ""));
    assert_eq!(verdict.dead_letters, 8);
    let what = "eight messages of 100 MB among posts, with a budget of 64 MiB: each is a dead letter";
    // The client holds one as it arrives and one in its queue; the line holds one.
    assert!(
        figures["peak_memory_mb"].as_u64().unwrap() << 20 < BESIDE + 4 * LARGE as u64,
        "{figures}"
    );
    report("large_messages", what, &verdict, figures);
}
