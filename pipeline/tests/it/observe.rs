//! What a running pipeline shows: metrics that agree with what was sent, health, spans; and how it refuses an address.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::observed::{Collector, Page, address, ask, get, whole};
use crate::support::posts::{PLANTED, made_up};
use crate::support::table::count;
use crate::support::{Ended, Folder, Running};

const POSTS: usize = 3_000;

/// A stream that commits every second and serves its metrics at a free port.
fn config(folder: &Folder, name: &str, source: &str) -> String {
    let sink = format!(
        "[sink]\nposts = \"{}\"\ndead_letters = \"{}\"\nflush_seconds = 1\n",
        folder.text("posts"),
        folder.text("dead")
    );
    let rest = "[limits]\nbatch_rows = 500\n[metrics]\nlisten = \"127.0.0.1:0\"\n";
    folder.write(name, source.to_owned() + &sink + rest)
}

/// Asks again until the answer is right; fails after a minute.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "not within a minute: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn metrics_agree_with_what_was_sent_and_health_with_what_is_done() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(2, &[]));
    let feed = made_up(POSTS);
    topic.send(feed.payloads.iter().map(|payload| Some(payload.as_slice())));
    let config = config(&folder, "tamiz.toml", &topic.source());
    let mut run = Running::start(folder.tamiz(&["run", "-c", &config]));
    let at = address(&mut run);

    let (status, reason) = get(at, "/readyz");
    assert_eq!((status, get(at, "/healthz").0), (503, 200), "{reason}");
    let mut behind: f64 = 0.0;
    let page = eventually("every row in a table", || {
        assert_eq!(get(at, "/healthz").0, 200);
        let page = Page::of(at);
        behind = behind.max(page.sum("tamiz_lag_messages", &topic.name));
        (page.sum("tamiz_committed_rows_total", "") == POSTS as f64).then_some(page)
    });
    assert_eq!(behind, POSTS as f64, "before the first commit the table lacked all");
    adds_up(&page);
    let posts = count(&folder, &folder.text("posts"), "count(*)") as f64;
    let dead = count(&folder, &folder.text("dead"), "count(*)") as f64;
    assert_eq!(page.sum("tamiz_committed_rows_total", "posts"), posts);
    assert_eq!(page.sum("tamiz_committed_rows_total", "dead_letters"), dead);
    assert_eq!(page.sum("tamiz_event_to_commit_seconds_count", ""), posts);
    assert!(!page.0.contains(PLANTED) && !page.0.contains("made_up"), "{}", page.0);

    eventually("a table that is level with the topic", || {
        let page = Page::of(at);
        let partitions = page.series("tamiz_lag_messages").count();
        let level = ["tamiz_lag_messages", "tamiz_lag_seconds", "tamiz_uncommitted_seconds"];
        (partitions == 2 && level.iter().all(|metric| page.sum(metric, "") == 0.0)).then_some(())
    });
    let (status, remark) = get(at, "/readyz");
    assert_eq!((status, remark.as_str()), (200, "ready: 2 partitions\n"));
    assert_eq!(get(at, "/nothing").0, 404);
    let (status, _) = ask(
        at,
        "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(status, 405);
    run.signal_when(libc::SIGTERM, Duration::ZERO, |_| true);
    assert_eq!(run.wait().done().summary().read, POSTS as u64);
}

/// Stages lose no row, and all count the same ones.
fn adds_up(page: &Page) {
    let sum = |metric: &str, label: &str| page.sum(metric, label);
    assert_eq!(sum("tamiz_source_rows_total", ""), POSTS as f64);
    assert_eq!(sum("tamiz_batch_rows_sum", ""), POSTS as f64);
    assert_eq!(sum("tamiz_commit_rows_sum", ""), POSTS as f64);
    let stages: Vec<_> = page.series("tamiz_stage_rows_in_total").collect();
    assert!(stages.len() >= 9, "{stages:?}");
    for (stage, rows_in) in stages {
        let name = stage.trim_matches(['{', '}']);
        let rows_out = sum("tamiz_stage_rows_out_total", name);
        assert_eq!(rows_in - rows_out, sum("tamiz_rejects_total", name), "{stage}");
        assert!(sum("tamiz_stage_seconds_total", name) > 0.0, "{stage}");
    }
    let scored = sum("tamiz_stage_rows_in_total", "\"score\"");
    assert_eq!(sum("tamiz_model_rows_total", ""), scored);
    assert!(sum("tamiz_model_tokens_total", "") > scored && sum("tamiz_model_batches_total", "") >= 1.0);
    assert!(sum("tamiz_model_seconds_total", "") > 0.0);
    assert_eq!(sum("tamiz_queue_capacity_batches", ""), 12.0);
}

#[test]
fn the_server_stays_while_a_fenced_line_starts_again() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
    // Two groups, so that both read the same partition into the same table: one of them is always late.
    let rival = topic.source().replace("group = \"", "group = \"rival-");
    // They commit at other moments, so what they commit is not the same.
    let configs = [("one.toml", topic.source()), ("two.toml", rival)];
    let mut runs = configs.map(|(name, source)| {
        let config = config(&folder, name, &source);
        let mut run = folder.tamiz(&["run", "--no-model", "-c", &config]);
        if name == "two.toml" {
            run.env("TAMIZ_SINK_FLUSH_SECONDS", "0.3");
        }
        let mut run = Running::start(run);
        let at = address(&mut run);
        eventually("ready", || (get(at, "/readyz").0 == 200).then_some(()));
        run
    });
    let at = runs.each_mut().map(address);
    let feed = made_up(10_000);
    let (mut portions, mut seen, mut sent) = (feed.payloads.chunks(100).cycle(), [0.0; 2], 0);
    eventually("a fenced commit", || {
        let portion = portions.next().unwrap();
        sent += topic.send(portion.iter().map(|payload| Some(payload.as_slice()))).len();
        let pages = at.map(Page::of);
        for (page, seen) in pages.iter().zip(&mut seen) {
            let read = page.sum("tamiz_source_rows_total", "");
            assert!(read >= *seen, "counters do not start again with the line");
            *seen = read;
        }
        pages
            .iter()
            .any(|page| page.sum("tamiz_commits_fenced_total", "") > 0.0)
            .then_some(())
    });
    // The one that is late learns that its rows are in the table.
    eventually("both level with the topic", || {
        let behind = |page: &Page| page.sum("tamiz_lag_messages", "") + page.sum("tamiz_uncommitted_seconds", "");
        let level = at
            .map(Page::of)
            .iter()
            .all(|page| page.sum("tamiz_assigned_partitions", "") == 1.0 && behind(page) == 0.0);
        level.then_some(())
    });
    for run in &mut runs {
        run.signal_when(libc::SIGTERM, Duration::ZERO, |_| true);
    }
    for run in runs {
        run.wait().done();
    }
    let rows = ["posts", "dead"].map(|table| count(&folder, &folder.text(table), "count(*)"));
    assert_eq!(rows.iter().sum::<i64>(), sent as i64);
}

#[test]
fn an_address_that_cannot_be_served_is_one_clear_error() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let broker = "[source.kafka]\nbrokers = \"127.0.0.1:1\"\n";
    for (listen, code, words) in [
        (taken.as_str(), 1, [taken.as_str(), "in use"]),
        // Of the documentation's network: nobody's.
        ("192.0.2.1:9464", 1, ["192.0.2.1:9464", "metrics.listen"]),
        ("localhost:9464", 2, ["`localhost:9464`", "127.0.0.1:9464"]),
    ] {
        folder.write("tamiz.toml", format!("{broker}[metrics]\nlisten = \"{listen}\"\n"));
        let ended = folder.run(&["run", "--no-model", "-c", "tamiz.toml"]);
        ended.refused(code, &words);
        ended.refused(code, &["metrics.listen"]);
        assert!(ended.took < Duration::from_secs(10), "asked the broker first\n{ended}");
        let checked = folder.run(&["check", "--no-model", "-c", "tamiz.toml"]);
        let line = checked
            .stdout
            .lines()
            .find(|line| line.contains("metrics.listen"))
            .unwrap();
        let mark = if listen == taken { "ok " } else { "wrong " };
        assert!(line.starts_with(mark) && line.contains(listen), "{line}\n{checked}");
    }
    folder.write("tamiz.toml", "[traces]\notlp_endpoint = \"collector:4317\"\n");
    folder
        .run(&["run", "--no-model", "-c", "tamiz.toml"])
        .refused(2, &["traces.otlp_endpoint", "http://127.0.0.1:4318"]);
}

/// Reads `posts.jsonl` into tables.
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

#[test]
fn spans_of_batches_and_commits_reach_a_collector_and_hold_no_text() {
    let (folder, collector) = (Folder::new(), Collector::start());
    let feed = made_up(POSTS);
    folder.write("posts.jsonl", feed.payloads.join(&b'\n'));
    folder.write(
        "tamiz.toml",
        format!(
            "[limits]\nbatch_rows = 1000\n[traces]\notlp_endpoint = \"{}\"\n",
            collector.url
        ),
    );
    let done = batch(&folder).done();
    assert!(!done.stderr.contains("batch{"), "spans are no log lines\n{done}");
    let (bytes, spans) = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();

    let batches = named("batch");
    let rows: i64 = batches.iter().filter_map(|span| whole(span, "rows")).sum();
    assert_eq!((batches.len(), rows), (3, POSTS as i64));
    for stage in [
        "decode",
        "validate",
        "normalize",
        "language",
        "noise",
        "scrub",
        "duplicates",
        "score",
        "finish",
    ] {
        let of = named(stage);
        assert_eq!(of.len(), batches.len(), "{stage}");
        for span in of {
            let parent = batches
                .iter()
                .find(|batch| batch.span_id == span.parent_span_id)
                .unwrap();
            assert_eq!(span.trace_id, parent.trace_id);
            assert!(span.start_time_unix_nano >= parent.start_time_unix_nano);
            assert!(span.end_time_unix_nano <= parent.end_time_unix_nano);
        }
    }
    let commits = named("commit");
    let links = commits.iter().flat_map(|commit| &commit.links);
    let mut linked: Vec<_> = links.map(|link| link.span_id.clone()).collect();
    let mut ids: Vec<_> = batches.iter().map(|batch| batch.span_id.clone()).collect();
    linked.sort();
    ids.sort();
    assert_eq!(linked, ids, "each batch is in one commit");
    let posts: i64 = commits.iter().filter_map(|span| whole(span, "posts")).sum();
    assert_eq!(posts as u64, done.summary().posts);
    assert_eq!(named("posts").len(), commits.len());

    let sent = String::from_utf8_lossy(&bytes);
    for never in [PLANTED, "made_up", "absolutely", "example.org"] {
        assert!(!sent.contains(never), "`{never}` was sent");
    }
}

#[test]
fn a_collector_that_is_away_costs_a_warning_that_machines_can_read_and_nothing_else() {
    let folder = Folder::new();
    folder.write("posts.jsonl", made_up(500).payloads.join(&b'\n'));
    let traces = "[traces]\notlp_endpoint = \"http://127.0.0.1:1\"\n[log]\nformat = \"json\"\n";
    folder.write("tamiz.toml", traces);
    let done = batch(&folder).done();
    assert_eq!(done.summary().read, 500);
    let lines = done.stderr.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |line: &&Value| line["fields"]["message"] == "spans were not exported";
    let warning = lines.iter().find(told).unwrap_or_else(|| panic!("{done}"));
    assert!(
        warning["level"] == "WARN" && warning["fields"]["spans"].is_u64(),
        "{warning}"
    );
}

#[test]
fn a_spare_worker_is_ready_without_partitions() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
    let config = config(&folder, "tamiz.toml", &topic.source());
    let call = ["run", "--no-model", "-c", &config];
    let mut runs = [(); 2].map(|()| Running::start(folder.tamiz(&call)));
    let at = runs.each_mut().map(address);
    let mut remarks = at.map(|one| {
        eventually("ready", || {
            let (status, remark) = get(one, "/readyz");
            (status == 200).then_some(remark)
        })
    });
    // The first to come has the partition at first; wait for a word of both at one moment.
    eventually("one reader and one spare", || {
        remarks = at.map(|one| get(one, "/readyz").1);
        remarks.sort();
        (remarks[0].contains("1 partitions") && remarks[1].contains("spare")).then_some(())
    });
    for run in &mut runs {
        run.signal_when(libc::SIGTERM, Duration::ZERO, |_| true);
    }
    for run in runs {
        run.wait().done();
    }
}
