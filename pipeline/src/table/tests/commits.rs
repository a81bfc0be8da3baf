//! Rows and offsets go in together, once.

use std::time::{Duration, Instant};

use arrow::datatypes::{Field, Schema};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_offsets_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let ids = ["p/0".to_owned(), "p/1".to_owned(), "p/2".to_owned()];
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    assert_eq!(writer.next_offsets(&ids).await.unwrap(), BTreeMap::new());
    let batches = vec![rows(0, 60, 3, &["x", "news"]), rows(60, 40, 3, &["x", "news"])];
    let first = writer
        .commit(batches, &txns([("p/0", 0, 70), ("p/1", 500, 530)]))
        .await
        .unwrap();
    assert!(
        matches!(
            first,
            Committed::New {
                version: 1,
                files: 6,
                rows: 100,
                ..
            }
        ),
        "{first:?}"
    );

    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let expected = BTreeMap::from([("p/0".to_owned(), 70), ("p/1".to_owned(), 530)]);
    assert_eq!(writer.next_offsets(&ids).await.unwrap(), expected);
    let second = writer
        .commit(vec![rows(100, 50, 1, &["x"])], &txns([("p/0", 70, 120)]))
        .await
        .unwrap();
    assert!(
        matches!(
            second,
            Committed::New {
                version: 2,
                files: 1,
                rows: 50,
                ..
            }
        ),
        "{second:?}"
    );
    assert_eq!(counts(&address).await, (150, 150));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_in_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let range = txns([("p/0", 0, 10), ("p/1", 0, 5)]);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    assert!(matches!(
        writer.commit(vec![rows(0, 15, 1, &["x"])], &range).await,
        Ok(Committed::New { .. })
    ));
    assert_eq!(
        writer.commit(vec![rows(0, 15, 1, &["x"])], &range).await.unwrap(),
        Committed::Already
    );
    let mut other = TableWriter::open(&address, &store(), spec()).await.unwrap();
    assert_eq!(
        other.commit(vec![rows(0, 15, 1, &["x"])], &range).await.unwrap(),
        Committed::Already
    );
    assert_eq!(counts(&address).await, (15, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_fell_behind_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut zombie = TableWriter::open(&address, &store(), spec()).await.unwrap();
    zombie
        .commit(vec![rows(0, 10, 1, &["x"])], &txns([("p/0", 0, 10)]))
        .await
        .unwrap();
    // Its partition goes to another writer, which reads on.
    let mut heir = TableWriter::open(&address, &store(), spec()).await.unwrap();
    heir.commit(vec![rows(10, 5, 1, &["x"])], &txns([("p/0", 10, 15)]))
        .await
        .unwrap();
    // The zombie wakes up. It sees its own old view first, so that the log has to stop it.
    let late = zombie
        .commit(vec![rows(10, 10, 1, &["x"])], &txns([("p/0", 10, 20)]))
        .await
        .unwrap();
    assert_eq!(
        late,
        Committed::Fenced {
            app_id: "p/0".to_owned(),
            version: 15
        }
    );
    // An offset from nowhere is refused as well, before anything is staged.
    let staged = files(dir.path()).len();
    let gap = zombie
        .commit(vec![rows(30, 10, 1, &["x"])], &txns([("p/0", 30, 40)]))
        .await
        .unwrap();
    assert_eq!(
        gap,
        Committed::Fenced {
            app_id: "p/0".to_owned(),
            version: 15
        }
    );
    assert_eq!(files(dir.path()).len(), staged);
    assert_eq!(counts(&address).await, (15, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_rested_looks_at_the_table_before_it_stages() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut rested = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let mut other = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let range = txns([("p/0", 0, 10)]);
    other.commit(vec![rows(0, 10, 1, &["x"])], &range).await.unwrap();
    rested.looked = Instant::now().checked_sub(Duration::from_secs(3_600)).unwrap();
    let before = files(dir.path());
    let ended = rested.commit(vec![rows(0, 10, 1, &["x"])], &range).await.unwrap();
    assert_eq!((ended, rested.version()), (Committed::Already, 1));
    assert_eq!(files(dir.path()), before, "nothing was staged in vain");
    assert_eq!(counts(&address).await, (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_rested_does_not_write_to_a_table_that_has_another_shape_by_now() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut rested = TableWriter::open(&address, &store(), spec()).await.unwrap();
    std::fs::remove_dir_all(&address).unwrap();
    let fields = posts::schema().fields().to_vec().into_iter().map(|field| {
        let other = Arc::new(Field::new("truncated", DataType::Int64, true));
        if field.name() == "truncated" { other } else { field }
    });
    let other = TableSpec {
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        ..spec()
    };
    TableWriter::open(&address, &store(), other).await.unwrap();
    rested.looked = Instant::now().checked_sub(Duration::from_secs(3_600)).unwrap();
    let range = txns([("p/0", 0, 10)]);
    let error = rested.commit(vec![rows(0, 10, 1, &["x"])], &range).await.unwrap_err();
    assert!(error.to_string().contains("its column `truncated` is long"), "{error}");
    assert_eq!(counts(&address).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_below_the_offset_go_in_without_moving_it() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(0, 10, 1, &["x"])], &txns([("p/0", 0, 20)]))
        .await
        .unwrap();
    let still = txns([("p/0", 20, 20)]);
    let outcome = writer.commit(vec![rows(10, 5, 1, &["x"])], &still).await.unwrap();
    assert!(matches!(outcome, Committed::New { rows: 5, .. }), "{outcome:?}");
    let empty = vec![rows(0, 0, 1, &["x"])];
    assert_eq!(writer.commit(empty, &still).await.unwrap(), Committed::Already);
    assert_eq!(
        writer.next_offsets(&["p/0".to_owned()]).await.unwrap(),
        BTreeMap::from([("p/0".to_owned(), 20)])
    );
    // An id that the table does not know yet is noted, without rows as well.
    let start = writer.commit(Vec::new(), &txns([("p/1", 7, 7)])).await.unwrap();
    assert!(matches!(start, Committed::New { files: 0, .. }), "{start:?}");
    let known = writer.next_offsets(&["p/1".to_owned()]).await.unwrap();
    assert_eq!(known, BTreeMap::from([("p/1".to_owned(), 7)]));
    // Where another has moved the offset meanwhile, rows are somebody else's to write.
    let moved = txns([("p/0", 15, 15)]);
    let outcome = writer.commit(vec![rows(15, 1, 1, &["x"])], &moved).await.unwrap();
    let fenced = Committed::Fenced {
        app_id: "p/0".to_owned(),
        version: 20,
    };
    assert_eq!(outcome, fenced);
    assert_eq!(counts(&address).await, (15, 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_offset_commit_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut one = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let mut two = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let range = txns([("p/0", 0, 20)]);
    let (batch, same) = (vec![rows(0, 20, 2, &["x"])], vec![rows(0, 20, 2, &["x"])]);
    let (first, second) = tokio::join!(one.commit(batch, &range), two.commit(same, &range));
    let new = |outcome: &Committed| matches!(outcome, Committed::New { .. });
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(new(&first) != new(&second), "{first:?} {second:?}");
    assert!(
        first == Committed::Already || second == Committed::Already,
        "{first:?} {second:?}"
    );
    assert_eq!(counts(&address).await, (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_move_without_rows() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    for (first, next) in [(0, 10), (10, 30)] {
        let moved = writer.commit(vec![], &txns([("p/0", first, next)])).await.unwrap();
        assert!(matches!(moved, Committed::New { files: 0, rows: 0, .. }), "{moved:?}");
    }
    let empty = vec![rows(0, 0, 1, &["x"])];
    assert!(matches!(
        writer.commit(empty, &txns([("p/0", 30, 31)])).await,
        Ok(Committed::New { files: 0, .. })
    ));
    assert_eq!(
        writer.next_offsets(&["p/0".to_owned()]).await.unwrap(),
        BTreeMap::from([("p/0".to_owned(), 31)])
    );
    assert_eq!(writer.commit(vec![], &Txns::new()).await.unwrap(), Committed::Already);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_different_partitions_all_get_in() {
    const WRITERS: i64 = 4;
    const COMMITS: i64 = 8;
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    TableWriter::open(&address, &store(), spec()).await.unwrap();
    let writers = (0..WRITERS).map(|w| {
        let address = address.clone();
        tokio::spawn(async move {
            let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
            for c in 0..COMMITS {
                let (app_id, first) = (format!("p/{w}"), c * 10);
                let batch = vec![rows(w * 1_000 + first, 10, 2, &["x"])];
                let outcome = writer
                    .commit(batch, &txns([(&app_id, first, first + 10)]))
                    .await
                    .unwrap();
                assert!(matches!(outcome, Committed::New { rows: 10, .. }), "{outcome:?}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(counts(&address).await, (WRITERS * COMMITS * 10, WRITERS * COMMITS * 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_survives_a_delete_that_commits_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(0, 10, 1, &["x"])], &txns([("p/0", 0, 10)]))
        .await
        .unwrap();
    let location = store().resolve(&address).unwrap();
    let mut table = deltalake_core::DeltaTable::new(location.log_store);
    table.load().await.unwrap();
    let id_is_3 = datafusion::prelude::col("id").eq(datafusion::prelude::lit("post-3"));
    table.delete().with_predicate(id_is_3).await.unwrap();
    let outcome = writer
        .commit(vec![rows(10, 10, 1, &["x"])], &txns([("p/0", 10, 20)]))
        .await
        .unwrap();
    assert!(matches!(outcome, Committed::New { rows: 10, .. }), "{outcome:?}");
    assert_eq!(counts(&address).await, (19, 19));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outlive_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(0, 1, 1, &["x"])], &txns([("old", 0, 77)]))
        .await
        .unwrap();
    for offset in 0..110 {
        let outcome = writer
            .commit(vec![], &txns([("p/0", offset, offset + 1)]))
            .await
            .unwrap();
        assert!(matches!(outcome, Committed::New { .. }), "{outcome:?}");
    }
    let log = dir.path().join("posts/_delta_log");
    assert!(log.join("_last_checkpoint").exists());
    // Only the checkpoint still knows the first commits.
    for version in 0..90 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let ids = ["old".to_owned(), "p/0".to_owned()];
    let expected = BTreeMap::from([("old".to_owned(), 77), ("p/0".to_owned(), 110)]);
    assert_eq!(writer.next_offsets(&ids).await.unwrap(), expected);
    assert_eq!(counts(&address).await, (1, 1));
}
