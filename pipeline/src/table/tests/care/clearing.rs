//! What goes, what stays, and what is told of it.

use std::time::{Duration, SystemTime};

use super::*;

fn at_once() -> VacuumOptions {
    VacuumOptions {
        retention: Duration::ZERO,
        force: true,
        dry_run: false,
    }
}

/// Makes a file look older.
fn age(path: &Path, hours: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3_600))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_when_no_version_of_the_retention_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 5, 1).await;
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    let packed_from: Vec<_> = files(Path::new(&address))
        .into_keys()
        .filter(|name| name.contains("date="))
        .collect();
    assert_eq!(packed_from.len(), 12);
    // Old files, but taken out just now: an older version needs them.
    packed_from
        .iter()
        .for_each(|name| age(&Path::new(&address).join(name), 1_000));
    let done = vacuum(&address, &store(), &VacuumOptions::default()).await.unwrap();
    assert_eq!((done.files, on_disk(&address)), (0, 12), "{done:?}");
    // The same where the retention is longer than checkpoints remember.
    let long = VacuumOptions {
        retention: Duration::from_secs(30 * 86_400),
        ..VacuumOptions::default()
    };
    assert_eq!(vacuum(&address, &store(), &long).await.unwrap().files, 0);
    let would = VacuumOptions {
        dry_run: true,
        ..at_once()
    };
    assert_eq!(vacuum(&address, &store(), &would).await.unwrap().files, 10);
    assert_eq!(on_disk(&address), 12);
    let done = vacuum(&address, &store(), &at_once()).await.unwrap();
    assert_eq!((done.files, on_disk(&address)), (10, 2));
    assert_eq!(counts(&address).await, (50, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_writer_has_staged_stays_until_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 2, 1).await;
    let folder = Path::new(&address).join("date=2026-01-01/source=x");
    let staged = folder.join("part-00000-staged-c000.zstd.parquet");
    let (leftover, young) = (
        folder.join("part-1.zstd.parquet#17"),
        folder.join("part-1.zstd.parquet#18"),
    );
    let in_log = Path::new(&address).join("_delta_log/00000000000000000003.json#5");
    let readme = Path::new(&address).join("README.md");
    for path in [&staged, &leftover, &young, &in_log, &readme] {
        std::fs::write(path, "x").unwrap();
    }
    [&leftover, &in_log, &readme]
        .into_iter()
        .for_each(|path| age(path, 200));
    let done = vacuum(&address, &store(), &VacuumOptions::default()).await.unwrap();
    assert_eq!(
        (done.files, done.kept, done.leftovers, done.leftover_bytes),
        (0, 1, 2, 2),
        "{done:?}"
    );
    assert!(staged.exists() && young.exists() && !leftover.exists() && !in_log.exists());
    age(&staged, 200);
    let done = vacuum(&address, &store(), &VacuumOptions::default()).await.unwrap();
    assert_eq!(done.files, 1);
    assert!(!staged.exists() && readme.exists(), "what is no data file is not ours");
    assert_eq!(counts(&address).await, (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_a_folder_below_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let below = format!("{address}/dead_letters");
    commits(&address, 0, 2, 1).await;
    commits(&below, 0, 51, 1).await;
    assert!(Path::new(&below).join("_delta_log/_last_checkpoint").exists());
    let leftover = Path::new(&below).join("date=2026-01-01/source=x/part-1.zstd.parquet#17");
    let own = Path::new(&address).join("date=2026-01-01/source=x/part-1.zstd.parquet#18");
    for path in [&leftover, &own] {
        std::fs::write(path, "x").unwrap();
        age(path, 200);
    }
    let before = files(Path::new(&below));
    let done = vacuum(&address, &store(), &at_once()).await.unwrap();
    assert_eq!((done.files, done.kept, done.leftovers), (0, 0, 1), "{done:?}");
    assert!(!own.exists());
    let all = Arc::new(super::erasing::Tokens(0..1_000));
    let done = erase(&address, &store(), all, false).await.unwrap();
    assert_eq!((done.rows, counts(&address).await), (20, (0, 0)));
    assert!(files(Path::new(&below)) == before, "files of the table below are gone");
    assert_eq!(counts(&below).await, (510, 510));
    // Its own vacuum clears it away.
    assert_eq!(vacuum(&below, &store(), &at_once()).await.unwrap().leftovers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_shorter_than_staging_has_to_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 1, 1).await;
    let options = VacuumOptions {
        force: false,
        ..at_once()
    };
    let error = vacuum(&address, &store(), &options).await.unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clearing_away_beside_a_writer_keeps_every_file_that_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 1, 1).await;
    let writer = tokio::spawn({
        let address = address.clone();
        async move { commits(&address, 1, 40, 1).await }
    });
    let hour = VacuumOptions {
        retention: Duration::from_secs(3_600),
        ..VacuumOptions::default()
    };
    while !writer.is_finished() {
        assert_eq!(vacuum(&address, &store(), &hour).await.unwrap().files, 0);
    }
    writer.await.unwrap();
    healthy(&address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_leave_the_table_by_age_and_the_disk_by_vacuum() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 3, 3).await;
    let second = "2026-01-02".parse::<chrono::NaiveDate>().unwrap();
    let age = (chrono::Utc::now().date_naive() - second).num_days() as u32;
    let would = expire(&address, &store(), age, true).await.unwrap();
    assert_eq!(
        (would.days.len(), would.rows, counts(&address).await),
        (1, 10, (30, 30))
    );
    let done = expire(&address, &store(), age, false).await.unwrap();
    assert_eq!(done, would);
    assert_eq!(counts(&address).await, (20, 20));
    assert_eq!(
        expire(&address, &store(), age, false).await.unwrap(),
        Expired::default()
    );
    let left = query(&address, "SELECT min(date) FROM posts").await;
    assert_eq!(
        left[0]
            .column(0)
            .as_primitive::<arrow::datatypes::Date32Type>()
            .value(0),
        DAY + 1
    );
    // Offsets stay: what expired is not read again.
    assert_eq!(stands(&address).await, 30);
    vacuum(&address, &store(), &at_once()).await.unwrap();
    assert!(
        !Path::new(&address).join("date=2026-01-01").exists(),
        "empty folders go too"
    );
    healthy(&address).await;
    let told = &history(&address, &store(), 1).await.unwrap()[0];
    assert_eq!((told.operation.as_str(), told.rows_removed), ("DELETE", Some(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_rows_files_and_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 3, 2).await;
    let told = history(&address, &store(), 2).await.unwrap();
    assert_eq!(told.iter().map(|entry| entry.version).collect::<Vec<_>>(), [3, 2]);
    let newest = &told[0];
    assert_eq!(
        (newest.operation.as_str(), newest.rows_added, newest.files_added),
        ("WRITE", Some(10), 2)
    );
    let moved = Moved {
        id: PARTITION.to_owned(),
        first: Some(20),
        next: 30,
    };
    assert_eq!(newest.offsets, [moved]);
    assert!(newest.bytes_added > 1_000 && newest.bytes_removed == 0);
    std::fs::write(entry(&address, 2), "{\"add\":").unwrap();
    let told = history(&address, &store(), 10).await.unwrap();
    assert_eq!(told.len(), 4);
    assert!(told[1].operation.starts_with("broken: it is torn"), "{:?}", told[1]);
}
