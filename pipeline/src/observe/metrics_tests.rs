//! The metrics as served, and that dashboard, alerts and runbook speak of metrics that there are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::*;
use crate::batch::TopicPartition;
use crate::config::load;
use crate::stats::{CommitCount, StageCount, Stats};

const DASHBOARD: &str = include_str!("../../ops/dashboard.json");
const ALERTS: &str = include_str!("../../ops/alerts.yml");
const RUNBOOK: &str = include_str!("../../ops/runbook.md");

fn view() -> Arc<View> {
    Arc::new(View::new("x", Arc::new(Stats::default())))
}

/// A line's name of a metric, without labels and value.
fn name(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap()
}

/// The metric that a series belongs to.
fn metric(series: &str) -> Option<&'static Metric> {
    let parts = |histogram: &Metric| {
        let rest = series.strip_prefix(histogram.name);
        histogram.kind == Kind::Histogram && matches!(rest, Some("_bucket" | "_sum" | "_count"))
    };
    ALL.iter().find(|metric| metric.name == series || parts(metric))
}

/// Every word of an expression that names a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = |word: &&str| word.starts_with("tamiz_") || word.starts_with("process_");
    words.filter(ours).collect()
}

#[test]
fn names_follow_the_conventions_and_are_there_once() {
    let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len());
    for Metric { name, kind, help } in ALL {
        let shaped = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(
            shaped && (name.starts_with("tamiz_") || name.starts_with("process_")),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.len() > 10 && !help.ends_with('.'), "{name}: {help}");
    }
}

/// A view of a line that has worked.
fn counted() -> Arc<View> {
    let view = view();
    let stats = &view.stats;
    let half_a_second = Duration::from_millis(500);
    let work = StageCount {
        deletes: 1,
        ..StageCount::new(11, 3, half_a_second)
    };
    stats.stage("decode", work);
    stats.reject("decode", "not_json", true);
    stats.reject("decode", "not_a_post", false);
    stats.commit(
        CommitCount {
            posts: 7,
            late: 4,
            dead_letters: 2,
            files: 3,
            bytes: 5_000,
        },
        Duration::from_millis(300),
    );
    stats.deletes(5, 2);
    let at = TopicPartition {
        topic: "po\"sts".into(),
        partition: 4,
    };
    stats.watch().lag.assigned(&at, 1, (5, 25));
    view
}

#[test]
fn the_page_holds_what_was_counted() {
    let page = text(&counted());
    for line in [
        "tamiz_stage_rows_in_total{stage=\"decode\"} 11",
        "tamiz_stage_rows_out_total{stage=\"decode\"} 7",
        "tamiz_stage_seconds_total{stage=\"decode\"} 0.5",
        "tamiz_rejects_total{stage=\"decode\",reason=\"not_json\"} 1",
        "tamiz_rejects_not_stored_total 1",
        "tamiz_committed_rows_total{table=\"posts\"} 7",
        "tamiz_committed_rows_total{table=\"dead_letters\"} 2",
        "tamiz_late_posts_total 4",
        "tamiz_deletes_total 5",
        "tamiz_taken_back_posts_total 2",
        "tamiz_commit_seconds_bucket{le=\"0.25\"} 0",
        "tamiz_commit_seconds_bucket{le=\"0.5\"} 1",
        "tamiz_commit_seconds_bucket{le=\"+Inf\"} 1",
        "tamiz_commit_seconds_count 1",
        "tamiz_commit_bytes_sum 5000.0",
        "tamiz_commit_failed_attempts_total{cause=\"conflict\"} 0",
        "tamiz_lag_messages{topic=\"po\\\"sts\",partition=\"4\"} 20",
        "tamiz_assigned_partitions 1",
        "tamiz_ready 0",
        "# TYPE tamiz_stage_rows_in_total counter",
        "# TYPE tamiz_commit_seconds histogram",
        "# TYPE tamiz_lag_seconds gauge",
    ] {
        assert!(page.lines().any(|one| one == line), "no `{line}` in\n{page}");
    }
    let series = page.lines().filter(|line| !line.starts_with('#'));
    for line in series {
        assert!(metric(name(line)).is_some(), "`{line}` is not in the list");
    }
}

#[test]
fn an_idle_process_has_a_page_too() {
    let page = text(&view());
    assert!(page.contains("tamiz_build_info{version=\""), "{page}");
    assert!(page.contains("tamiz_source_rows_total 0\n"), "{page}");
    assert!(page.ends_with('\n'), "{page}");
}

#[test]
fn the_dashboard_shows_every_metric_and_none_besides() {
    let dashboard: Json = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            for word in named(target["expr"].as_str().unwrap()) {
                let known = metric(word).unwrap_or_else(|| panic!("{title}: there is no `{word}`"));
                shown.insert(known.name);
            }
        }
        // A rule for a line that is not there does nothing, and Grafana does not say so.
        let targets = panel["targets"].as_array().unwrap();
        let lines: Vec<&Json> = targets.iter().map(|target| &target["legendFormat"]).collect();
        for rule in panel["fieldConfig"]["overrides"].as_array().unwrap() {
            let line = &rule["matcher"]["options"];
            assert!(lines.contains(&line), "{title}: there is no line {line}");
        }
    }
    let missing: Vec<_> = ALL.iter().filter(|metric| !shown.contains(metric.name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_alert_is_about_a_metric_that_there_is_and_has_its_page() {
    for word in named(ALERTS) {
        assert!(metric(word).is_some(), "alerts.yml: there is no `{word}`");
    }
    let alert = |line: &'static str| line.trim().strip_prefix("- alert: ");
    let alerts: BTreeSet<_> = ALERTS.lines().filter_map(alert).collect();
    let pages: BTreeSet<_> = RUNBOOK
        .lines()
        .filter_map(|line| line.strip_prefix("## Tamiz"))
        .collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    let named: BTreeSet<_> = alerts.iter().filter_map(|alert| alert.strip_prefix("Tamiz")).collect();
    assert_eq!(named, pages);
    for alert in alerts {
        let link = format!("runbook.md#{}", alert.to_lowercase());
        assert!(ALERTS.contains(&link), "{alert} does not say where its page is");
    }
    for word in self::named(RUNBOOK) {
        assert!(metric(word).is_some(), "runbook.md: there is no `{word}`");
    }
}

#[test]
fn the_runbook_speaks_of_every_reason_for_not_being_ready() {
    const HEALTH: &str = include_str!("health.rs");
    for reason in [
        "starting",
        "no partitions assigned yet",
        "rows have waited for a commit",
        "the line has waited for the schema registry",
        "a batch is older than it should be",
        "the group's coordinator has not answered",
    ] {
        assert!(HEALTH.contains(reason), "no such reason: {reason}");
        assert!(RUNBOOK.contains(&format!("- `{reason}`")), "runbook.md: {reason}");
    }
}

#[test]
fn the_alert_about_the_budget_knows_how_large_a_batch_is() {
    let room = load(None, std::iter::empty()).unwrap().limits.batch_bytes;
    let told = format!("(tamiz_in_flight_limit_bytes - tamiz_in_flight_bytes < bool {room})");
    assert!(ALERTS.contains(&told), "alerts.yml does not say `{told}`");
}
