//! Every kind of damage is found, said in words, and mended without losing what can be had again.

use super::*;

const MEND: DoctorOptions = DoctorOptions {
    repair: true,
    roll_back: false,
    quick: false,
};

async fn look(address: &str) -> Report {
    doctor(address, &store(), &DoctorOptions::default()).await.unwrap()
}

/// A table of five commits.
async fn table() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 5, 1).await;
    (dir, address)
}

/// Reads on from where the table stands, as a run would, until all fifty rows are there once.
async fn read_on(address: &str) {
    let from = stands(address).await / 10;
    commits(address, from, 5, 1).await;
    assert_eq!(counts(address).await, (50, 50));
    assert_eq!(stands(address).await, 50);
    healthy(address).await;
}

/// The one finding that does harm.
fn wrong(report: &Report) -> &Finding {
    let mut found = report.findings.iter().filter(|finding| finding.harms);
    let finding = found.next().unwrap_or_else(|| panic!("nothing found: {report:#?}"));
    assert!(found.next().is_none(), "{report:#?}");
    finding
}

fn wrong_of<'r>(report: &'r Report, what: &str) -> &'r Finding {
    let found = report
        .findings
        .iter()
        .find(|finding| finding.harms && finding.what == what);
    found.unwrap_or_else(|| panic!("nothing about {what}: {report:#?}"))
}

/// Files that were set aside, by their path below that.
fn aside(address: &str) -> Vec<String> {
    let names = files(Path::new(address)).into_keys();
    let below = names.filter_map(|name| {
        let (_, rest) = name.strip_prefix("_tamiz_aside/")?.split_once('/')?;
        Some(rest.to_owned())
    });
    below.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_table_is_found_whole() {
    let (_dir, address) = table().await;
    let report = healthy(&address).await;
    assert!(report.findings.is_empty(), "{report:#?}");
    assert_eq!((report.version, report.entries, report.checkpoint), (Some(5), 6, None));
    assert_eq!((report.files, report.hashed, report.unhashed), (10, 10, 0));
    let before = files(Path::new(&address));
    doctor(&address, &store(), &MEND).await.unwrap();
    assert_eq!(files(Path::new(&address)), before, "nothing to mend, nothing touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_last_entry_is_taken_back_and_read_again() {
    let whole_lines = |text: &str| text.lines().take(2).collect::<Vec<_>>().join("\n");
    for words in ["is empty", "is torn", "is cut off"] {
        let (_dir, address) = table().await;
        let text = std::fs::read_to_string(entry(&address, 5)).unwrap();
        let damaged = match words {
            "is empty" => String::new(),
            "is torn" => text[..text.len() - 30].to_owned(),
            _ => whole_lines(&text),
        };
        std::fs::write(entry(&address, 5), &damaged).unwrap();
        let report = look(&address).await;
        let finding = wrong(&report);
        assert_eq!(finding.what, "version 5");
        assert!(finding.problem.contains(words), "{finding:?}");
        let cure = finding.cure.as_ref().unwrap();
        assert!(cure.starts_with("--repair takes back version 5"), "{cure}");
        let report = doctor(&address, &store(), &MEND).await.unwrap();
        assert_eq!((report.harm(), report.version), (0, Some(4)), "{report:#?}");
        let again = &wrong(&report).read_again;
        assert_eq!((again[0].id.as_str(), again[0].from), (PARTITION, Some(40)));
        assert_eq!(aside(&address), ["_delta_log/00000000000000000005.json"]);
        read_on(&address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_versions_are_taken_back_only_when_asked() {
    let (_dir, address) = table().await;
    let text = std::fs::read_to_string(entry(&address, 3)).unwrap();
    std::fs::write(entry(&address, 3), &text[..text.len() / 2]).unwrap();
    for options in [DoctorOptions::default(), MEND] {
        let report = doctor(&address, &store(), &options).await.unwrap();
        let finding = wrong(&report);
        assert!(finding.problem.contains("is torn"), "{finding:?}");
        let cure = finding.cure.as_ref().unwrap();
        assert!(
            cure.starts_with("--repair --roll-back takes back 3 versions, 3 to 5, of which 2 are whole"),
            "{cure}"
        );
        assert!(aside(&address).is_empty());
    }
    let back = DoctorOptions {
        roll_back: true,
        ..MEND
    };
    let report = doctor(&address, &store(), &back).await.unwrap();
    assert_eq!((report.harm(), report.version), (0, Some(2)), "{report:#?}");
    let again = ReadAgain {
        id: PARTITION.to_owned(),
        from: Some(20),
        to: Some(50),
    };
    assert_eq!(wrong(&report).read_again, [again]);
    assert_eq!(aside(&address).len(), 3);
    read_on(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_missing_or_empty_in_the_middle_shows_by_the_offsets() {
    for is_missing in [true, false] {
        let (_dir, address) = table().await;
        match is_missing {
            true => std::fs::remove_file(entry(&address, 3)).unwrap(),
            false => std::fs::write(entry(&address, 3), "").unwrap(),
        }
        let report = look(&address).await;
        let finding = wrong(&report);
        assert_eq!(finding.what, "version 3");
        let words = if is_missing {
            "its log entry is missing"
        } else {
            "offsets 20 to 29 of `p/0` are in no version"
        };
        assert!(finding.problem.contains(words), "{finding:?}");
        let back = DoctorOptions {
            roll_back: true,
            ..MEND
        };
        assert_eq!(doctor(&address, &store(), &back).await.unwrap().harm(), 0);
        assert_eq!(stands(&address).await, 20);
        read_on(&address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_entry_whose_rows_were_read_again_is_only_noted() {
    let (_dir, address) = table().await;
    // A power cut emptied the last entry; the run began again from the table.
    std::fs::write(entry(&address, 5), "").unwrap();
    assert_eq!(stands(&address).await, 40);
    commits(&address, 4, 5, 1).await;
    let report = healthy(&address).await;
    assert_eq!(report.findings.len(), 1, "{report:#?}");
    assert!(report.findings[0].problem.contains("was read again"), "{report:#?}");
    assert_eq!(counts(&address).await, (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_files_are_gone_is_never_gone_back_to() {
    let (_dir, address) = table().await;
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    let at_once = VacuumOptions {
        retention: std::time::Duration::ZERO,
        force: true,
        dry_run: false,
    };
    vacuum(&address, &store(), &at_once).await.unwrap();
    let text = std::fs::read_to_string(entry(&address, 6)).unwrap();
    std::fs::write(entry(&address, 6), &text[..40]).unwrap();
    let before = files(Path::new(&address));
    let back = DoctorOptions {
        roll_back: true,
        ..MEND
    };
    let report = doctor(&address, &store(), &back).await.unwrap();
    assert_eq!(report.harm(), 1);
    let cure = wrong(&report).cure.as_ref().unwrap();
    assert!(cure.contains("10 files of version 5 are deleted already"), "{cure}");
    assert!(cure.contains("only the broken versions name"), "{cure}");
    assert_eq!(files(Path::new(&address)), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_entry_cannot_be_taken_back() {
    let (_dir, address) = table().await;
    std::fs::write(entry(&address, 0), "{").unwrap();
    let report = doctor(&address, &store(), &MEND).await.unwrap();
    assert!(
        wrong(&report)
            .cure
            .as_ref()
            .unwrap()
            .contains("no version to go back to"),
        "{report:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_data_files_are_found_by_their_hash_and_what_they_held_is_told() {
    for words in ["it is missing", "its bytes are not those that were written", "bytes, "] {
        let (_dir, address) = table().await;
        let mut paths = active(&address).await;
        paths.sort();
        let path = paths.remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        let (middle, end) = (bytes.len() / 2, bytes.len());
        match words {
            "it is missing" => std::fs::remove_file(&path).unwrap(),
            "bytes, " => std::fs::write(&path, &bytes[..end - 100]).unwrap(),
            _ => {
                bytes[middle] ^= 0x10;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let report = look(&address).await;
        let finding = wrong(&report);
        assert!(finding.problem.contains(words), "{finding:?}");
        let lost = finding.lost.as_ref().unwrap();
        assert_eq!(
            (lost.date.as_deref(), lost.source.as_deref(), lost.rows),
            (Some("2026-01-01"), Some("x"), Some(5))
        );
        let [span] = &lost.offsets[..] else { panic!("{lost:?}") };
        assert_eq!((span.topic.as_str(), span.partition, span.rows), ("topic", 0, 5));
        assert_eq!((span.first % 10, span.last - span.first), (0, 8));
        assert_eq!(lost.offset_bounds, Some((span.first, span.last)));
        let report = doctor(&address, &store(), &MEND).await.unwrap();
        assert_eq!(report.harm(), 0, "{report:#?}");
        assert_eq!(
            wrong(&report).lost.as_ref(),
            Some(lost),
            "what is lost is told of the mended as well"
        );
        assert_eq!(counts(&address).await, (45, 45), "the rest can be read");
        assert_eq!(aside(&address).len(), usize::from(words != "it is missing"));
        assert!(healthy(&address).await.findings.is_empty());
        assert_eq!(history(&address, &store(), 1).await.unwrap()[0].operation, "FSCK");
        // The writer goes on.
        commits(&address, 5, 6, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_hash_are_decoded() {
    let (_dir, address) = table().await;
    // As an earlier version wrote them.
    for version in 1..=5 {
        let text = std::fs::read_to_string(entry(&address, version)).unwrap();
        let lines = text.lines().map(|line| {
            let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(add) = action.get_mut("add") {
                add["tags"] = serde_json::Value::Null;
            }
            action.to_string()
        });
        std::fs::write(entry(&address, version), lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let report = healthy(&address).await;
    assert_eq!((report.hashed, report.unhashed), (0, 10));
    let path = active(&address).await.remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 20..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let report = look(&address).await;
    let finding = wrong(&report);
    assert!(finding.problem.contains("it cannot be read"), "{finding:?}");
    let lost = finding.lost.as_ref().unwrap();
    assert!(lost.offsets.is_empty() && lost.offset_bounds.is_some(), "{lost:?}");
    // Quick looks do not read.
    let quick = DoctorOptions {
        quick: true,
        ..DoctorOptions::default()
    };
    assert_eq!(doctor(&address, &store(), &quick).await.unwrap().harm(), 0);
}

/// A table with a checkpoint at version 49, and six entries after it.
async fn with_checkpoint() -> (tempfile::TempDir, String, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 55, 1).await;
    let log = Path::new(&address).join("_delta_log");
    assert!(log.join("00000000000000000049.checkpoint.parquet").exists());
    (dir, address, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_misleads_is_set_aside() {
    for (hint, words) in [
        ("{\"version\":", "it is no hint of Delta"),
        (
            "{\"version\":4900,\"size\":7}",
            "it names checkpoint 4900, which is not there",
        ),
    ] {
        let (_dir, address, log) = with_checkpoint().await;
        std::fs::write(log.join("_last_checkpoint"), hint).unwrap();
        let report = look(&address).await;
        let finding = wrong(&report);
        assert_eq!(finding.what, "_last_checkpoint");
        assert!(finding.problem.contains(words), "{finding:?}");
        let report = doctor(&address, &store(), &MEND).await.unwrap();
        assert_eq!(
            (report.harm(), report.checkpoint, report.entries),
            (0, Some(49), 6),
            "{report:#?}"
        );
        assert_eq!(aside(&address), ["_delta_log/_last_checkpoint"]);
        assert_eq!(counts(&address).await, (550, 550));
        commits(&address, 55, 56, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_checkpoint_is_set_aside_where_entries_reach_back() {
    let (_dir, address, log) = with_checkpoint().await;
    let path = log.join("00000000000000000049.checkpoint.parquet");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let report = look(&address).await;
    let what: Vec<&str> = report
        .findings
        .iter()
        .filter(|f| f.harms)
        .map(|f| f.what.as_str())
        .collect();
    assert_eq!(what, ["_last_checkpoint", "checkpoint 49"]);
    let report = doctor(&address, &store(), &MEND).await.unwrap();
    assert_eq!(
        (report.harm(), report.checkpoint, report.entries),
        (0, None, 56),
        "{report:#?}"
    );
    assert_eq!(counts(&address).await, (550, 550));
    assert_eq!(stands(&address).await, 550);
    healthy(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_checkpoint_without_the_entries_before_it_is_left_where_it_is() {
    let (_dir, address, log) = with_checkpoint().await;
    std::fs::write(log.join("00000000000000000049.checkpoint.parquet"), "PAR1").unwrap();
    for version in 0..20 {
        std::fs::remove_file(entry(&address, version)).unwrap();
    }
    let report = doctor(&address, &store(), &MEND).await.unwrap();
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.what == "checkpoint 49")
        .unwrap();
    assert!(
        finding.cure.as_ref().unwrap().contains("entry 0 before it is gone"),
        "{finding:?}"
    );
    assert!(report.harm() > 0);
    assert!(
        !aside(&address).iter().any(|name| name.contains("checkpoint.parquet")),
        "{:?}",
        aside(&address)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_log_and_in_the_data_is_mended_in_one_go() {
    let (_dir, address, log) = with_checkpoint().await;
    std::fs::write(log.join("_last_checkpoint"), "").unwrap();
    std::fs::write(entry(&address, 55), "").unwrap();
    let first = active(&address).await.remove(0);
    std::fs::remove_file(first).unwrap();
    let report = look(&address).await;
    assert_eq!(
        report.harm(),
        2,
        "the data is looked at when the log can be read: {report:#?}"
    );
    // Whether the file was lost, or removed by the version that broke, cannot be told.
    let report = doctor(&address, &store(), &MEND).await.unwrap();
    let cure = wrong_of(&report, "version 55").cure.clone().unwrap();
    assert!(cure.contains("1 files of version 54 are missing"), "{cure}");
    let back = DoctorOptions {
        roll_back: true,
        ..MEND
    };
    let report = doctor(&address, &store(), &back).await.unwrap();
    assert_eq!((report.harm(), report.version), (0, Some(55)), "{report:#?}");
    assert_eq!(report.findings.iter().filter(|finding| finding.harms).count(), 2);
    assert_eq!((counts(&address).await, stands(&address).await), ((535, 535), 540));
}
