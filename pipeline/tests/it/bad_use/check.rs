//! `tamiz check`: every problem in one go, and whatever does not rest on one is tried all the same.

use super::folder;
use crate::support::Running;

/// The lines of a report that begin with a mark and a word.
pub(super) fn lines<'r>(report: &'r str, mark: &str, what: &str) -> Vec<&'r str> {
    let start = format!("{mark:<6} {what}");
    report.lines().filter(|line| line.starts_with(&start)).collect()
}

#[test]
fn a_check_tells_wrong_keys_types_variables_and_values_at_once_and_tries_the_rest() {
    let folder = folder();
    let text = "[sink]\nflush_byte = 1\n[limits]\nbatch_bytes = \"many\"\n[pii]\nauthors = \"dorp\"\n\
        [source.kafka.tls]\nenabled = \"yes\"\n[deletes]\nremember_hours = 0\n";
    folder.write("wrong.toml", text);
    let mut command = folder.tamiz(&["check", "--no-model", "-c", "wrong.toml"]);
    command.env("TAMIZ_LIMITS_BATCH_ROWS", "many");
    command.env("TAMIZ_SINK_FLUSH_SECOND", "5");
    let ended = Running::start(command).wait();
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    let report = &ended.stdout;
    for what in [
        "wrong.toml: sink.flush_byte: no such option; did you mean `sink.flush_bytes`",
        "wrong.toml: limits.batch_bytes: ",
        "wrong.toml: pii.authors: ",
        "wrong.toml: source.kafka.tls.enabled: ",
        "TAMIZ_LIMITS_BATCH_ROWS: ",
        "TAMIZ_SINK_FLUSH_SECOND: ",
        "deletes.remember_hours: ",
    ] {
        assert_eq!(lines(report, "wrong", what).len(), 1, "{what}\n{report}");
    }
    assert_eq!(lines(report, "wrong", "").len(), 7, "{report}");
    assert!(ended.stderr.contains("7 problems found"), "{ended}");
    for what in ["kafka: ", "stages: "] {
        assert_eq!(lines(report, "skip", what).len(), 1, "{what}\n{report}");
    }
    for what in ["model: ", "sink.posts: ", "sink.dead_letters: ", "deletes.table: "] {
        assert_eq!(lines(report, "ok", what).len(), 1, "{what}\n{report}");
    }
}

#[test]
fn a_check_tries_the_stages_and_tells_a_bad_device_once() {
    let folder = folder();
    // The section of the broker is wrong, so that nobody waits for one.
    let text = "[model]\ndevice = \"abacus\"\n[log]\nlevel = \"loud\"\n[source.kafka.tls]\nenabled = \"yes\"\n";
    folder.write("wrong.toml", text);
    let ended = folder.run(&["check", "-c", "wrong.toml"]);
    assert_eq!(ended.status.code(), Some(1), "{ended}");
    let report = &ended.stdout;
    assert_eq!(lines(report, "wrong", "model.device: ").len(), 1, "{report}");
    assert_eq!(
        report.lines().filter(|line| line.contains("abacus")).count(),
        1,
        "{report}"
    );
    assert_eq!(lines(report, "skip", "model: ").len(), 1, "{report}");
    assert_eq!(lines(report, "ok", "stages: ").len(), 1, "{report}");
    assert_eq!(lines(report, "wrong", "").len(), 3, "{report}");
}
