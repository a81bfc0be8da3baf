//! Packing changes how rows lie, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::faults::{Fault, Faulty};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn packing_keeps_every_value_every_offset_and_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 20, 3).await;
    let (before, stood) = (everything(&address).await, stands(&address).await);
    let would = CompactOptions {
        dry_run: true,
        ..CompactOptions::default()
    };
    let would = compact(&address, &store(), &would).await.unwrap();
    let done = compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    // Three days and two sources in step: six partitions.
    assert_eq!(done.partitions.len(), 6, "{done:#?}");
    for (would, done) in would.partitions.iter().zip(&done.partitions) {
        assert_eq!(
            (&would.partition, would.files_before),
            (&done.partition, done.files_before)
        );
        assert_eq!((done.files_before, done.files_after), (20, 1), "{done:?}");
        assert!(done.bytes_after < done.bytes_before);
    }
    assert_eq!(active(&address).await.len(), 6);
    assert_eq!(everything(&address).await, before);
    assert_eq!(stands(&address).await, stood);
    in_order(&address).await;
    let report = healthy(&address).await;
    assert_eq!((report.hashed, report.unhashed), (6, 0));
    // Nothing to do a second time; the writer goes on.
    let again = compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    assert_eq!(again, Compacted::default());
    commits(&address, 20, 25, 3).await;
    assert_eq!(counts(&address).await, (250, 250));
    let later = compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    assert_eq!(later.partitions[0].files_before, 6, "the packed one and five new ones");
    in_order(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_no_data_changed() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 3, 1).await;
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    let log = std::fs::read_to_string(entry(&address, 4)).unwrap();
    let actions: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(actions[0]["commitInfo"]["operation"], "OPTIMIZE");
    for action in &actions[1..] {
        let (_, action) = action.as_object().unwrap().iter().next().unwrap();
        assert_eq!(action["dataChange"], false, "{action}");
    }
    assert_eq!(actions.len(), 1 + 6 + 2, "both sources in one commit");
    let told = &history(&address, &store(), 1).await.unwrap()[0];
    assert_eq!((told.rows_added, told.rows_removed), (Some(0), Some(0)));
    assert_eq!((told.files_added, told.files_removed), (2, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_not_closed_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 4, 1).await;
    let options = CompactOptions {
        min_age: Duration::from_secs(100 * 365 * 86_400),
        ..CompactOptions::default()
    };
    let done = compact(&address, &store(), &options).await.unwrap();
    assert_eq!((done.partitions.len(), done.open_files), (0, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_the_target_becomes_several_files_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 40, 1).await;
    let before = everything(&address).await;
    let options = small(30_000);
    let done = compact(&address, &store(), &options).await.unwrap();
    let after: usize = done.partitions.iter().map(|partition| partition.files_after).sum();
    assert!((4..40).contains(&after), "{done:#?}");
    assert_eq!(everything(&address).await, before);
    in_order(&address).await;
    assert_eq!(
        compact(&address, &store(), &options).await.unwrap(),
        Compacted::default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_and_marks_outlive_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 30, 1).await;
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    commits(&address, 30, 55, 1).await;
    assert!(Path::new(&address).join("_delta_log/_last_checkpoint").exists());
    for version in 0..45 {
        std::fs::remove_file(entry(&address, version)).unwrap();
    }
    let report = healthy(&address).await;
    assert_eq!((report.unhashed, report.files), (0, 2 + 50), "{report:#?}");
    let packed = compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    assert_eq!(packed.partitions.len(), 2);
    assert_eq!(
        compact(&address, &store(), &CompactOptions::default()).await.unwrap(),
        Compacted::default()
    );
    assert_eq!(counts(&address).await, (550, 550));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn packing_beside_a_writer_that_never_rests_loses_and_doubles_nothing() {
    const COMMITS: i64 = 80;
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 5, 2).await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (address, done) = (address.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            commits(&address, 5, COMMITS, 2).await;
            done.store(true, Ordering::SeqCst);
        })
    };
    let mut packed = 0;
    while !done.load(Ordering::SeqCst) {
        let outcome = compact(&address, &store(), &small(100_000)).await.unwrap();
        packed += outcome
            .partitions
            .iter()
            .map(|partition| partition.files_before)
            .sum::<usize>();
    }
    writer.await.unwrap();
    assert!(packed > 20, "only {packed} files were packed beside the writer");
    assert_eq!(counts(&address).await, (COMMITS * 10, COMMITS * 10));
    assert_eq!(stands(&address).await, COMMITS * 10);
    in_order(&address).await;
    healthy(&address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_that_pack_at_once_keep_every_row_once_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut rounds_with_losers = 0;
    for round in 0..4 {
        commits(&address, round * 10, round * 10 + 10, 1).await;
        let (store, options) = (store(), small(128 << 20));
        let (one, two) = tokio::join!(compact(&address, &store, &options), compact(&address, &store, &options));
        rounds_with_losers += usize::from(one.unwrap().overtaken + two.unwrap().overtaken > 0);
        assert_eq!(
            counts(&address).await,
            ((round + 1) * 100, (round + 1) * 100),
            "round {round}"
        );
    }
    assert!(rounds_with_losers > 0, "they never met");
    // What is on disk is named by some version: the losers removed what they had staged.
    let mut named: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    for (name, bytes) in files(Path::new(&address)) {
        if name.ends_with(".json") {
            let text = String::from_utf8(bytes).unwrap();
            let actions = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            named.extend(actions.filter_map(|action| action["add"]["path"].as_str().map(str::to_owned)));
        }
    }
    assert_eq!(on_disk(&address), named.len());
    in_order(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packing_that_was_killed_changes_nothing_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 12, 1).await;
    let before = everything(&address).await;
    // The log cannot be written, so this one is killed between staging and commit.
    let (broken, faulty) = Faulty::store(Fault::Fails);
    faulty.arm(u32::MAX);
    let options = CompactOptions::default();
    let killed = tokio::time::timeout(Duration::from_secs(1), compact(&address, &broken, &options)).await;
    assert!(killed.is_err(), "{killed:?}");
    assert!(on_disk(&address) > active(&address).await.len(), "something was staged");
    assert_eq!(everything(&address).await, before);
    healthy(&address).await;
    for millis in [0, 2, 5, 10, 20] {
        let options = small(128 << 20);
        drop(tokio::time::timeout(Duration::from_millis(millis), compact(&address, &store(), &options)).await);
        assert_eq!(counts(&address).await, (120, 120), "killed after {millis} ms");
    }
    compact(&address, &store(), &options).await.unwrap();
    assert_eq!(active(&address).await.len(), 2);
    assert_eq!(everything(&address).await, before);
    let all = VacuumOptions {
        retention: Duration::ZERO,
        force: true,
        ..VacuumOptions::default()
    };
    vacuum(&address, &store(), &all).await.unwrap();
    assert_eq!(on_disk(&address), 2);
    assert_eq!(everything(&address).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_got_lost_counts_once() {
    for fault in [Fault::Fails, Fault::SucceedsAndErrors, Fault::SucceedsAndIsTaken] {
        let dir = tempfile::tempdir().unwrap();
        let address = address(&dir);
        commits(&address, 0, 6, 1).await;
        let (store, faulty) = Faulty::store(fault);
        faulty.arm(1);
        let done = compact(&address, &store, &CompactOptions::default()).await.unwrap();
        assert_eq!(done.partitions.len(), 2, "{fault:?}: {done:?}");
        assert_eq!((done.overtaken, active(&address).await.len()), (0, 2), "{fault:?}");
        assert_eq!(counts(&address).await, (60, 60), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_never_written_anew_as_if_it_were_whole() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 3, 1).await;
    let path = active(&address).await.remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = compact(&address, &store(), &CompactOptions::default())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not what was written: `tamiz table doctor"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn older_files_that_lack_a_column_are_packed_with_newer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 2, 1).await;
    let spec = TableSpec {
        schema: posts::schema_with(["emotion"]),
        growing: vec!["emotion".to_owned()],
        ..spec()
    };
    let mut writer = TableWriter::open(&address, &store(), spec).await.unwrap();
    let plain = rows(20, 10, 1, &["x", "y"]);
    let emotion = new_null_array(&DataType::Struct(posts::label_fields()), 10);
    let columns = plain.columns().iter().cloned().chain([emotion]).collect();
    let wider = RecordBatch::try_new(posts::schema_with(["emotion"]), columns).unwrap();
    writer.commit(vec![wider], &txns([(PARTITION, 20, 30)])).await.unwrap();
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    assert_eq!((counts(&address).await, active(&address).await.len()), ((30, 30), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_others_and_places_without_one_are_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("notes.txt"), "x").unwrap();
    for (place, words) in [
        (dir.path().join("nowhere"), "there is no Delta table at"),
        (folder, "there is no Delta table at"),
        (file, "is a file, and a table is a folder"),
    ] {
        let place = place.to_str().unwrap();
        let store = store();
        let errors = [
            compact(place, &store, &CompactOptions::default()).await.unwrap_err(),
            vacuum(place, &store, &VacuumOptions::default()).await.unwrap_err(),
            expire(place, &store, 1, false).await.unwrap_err(),
            history(place, &store, 1).await.unwrap_err(),
            doctor(place, &store, &DoctorOptions::default()).await.unwrap_err(),
            columns(place, &store).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains(words), "{place}: {error}");
        }
    }
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let log_store = store().resolve(foreign.to_str().unwrap()).unwrap().log_store;
    let created = deltalake_core::DeltaTable::new(log_store).create();
    let columns = spec().delta_schema().unwrap();
    created.with_columns(columns.fields().cloned()).await.unwrap();
    let error = compact(foreign.to_str().unwrap(), &store(), &CompactOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("tamiz did not make this table"), "{error}");
}
