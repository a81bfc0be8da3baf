//! Rows that are erased are in no file any more.

use std::time::{Duration, SystemTime};

use arrow::array::BooleanArray;
use arrow::error::ArrowError;

use super::*;

/// Takes out the rows with these tokens, and notes what it was asked to remember.
pub(in crate::table::tests) struct Tokens(pub(in crate::table::tests) std::ops::Range<i32>);

impl Select for Tokens {
    fn columns(&self) -> Vec<&'static str> {
        vec![columns::N_TOKENS]
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let tokens = rows.column_by_name(columns::N_TOKENS).unwrap();
        let tokens = tokens.as_primitive::<arrow::datatypes::Int32Type>();
        Ok(tokens
            .iter()
            .map(|tokens| Some(tokens.is_some_and(|tokens| self.0.contains(&tokens))))
            .collect())
    }
}

/// Every id in every Parquet file below the folder, named by the log or not.
fn ids(address: &str) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for (name, bytes) in files(Path::new(address)) {
        if !name.ends_with(".parquet") || name.starts_with("_delta_log") {
            continue;
        }
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
            .unwrap()
            .build()
            .unwrap()
        {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_string::<i32>().clone();
            found.extend(ids.iter().flatten().map(str::to_owned));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_rows_are_in_no_file_and_the_rest_is_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 10, 2).await;
    compact(&address, &store(), &CompactOptions::default()).await.unwrap();
    commits(&address, 10, 12, 2).await;
    let select = || Arc::new(Tokens(95..105));
    let would = erase(&address, &store(), select(), true).await.unwrap();
    assert_eq!((would.rows, would.files, counts(&address).await), (0, 4, (120, 120)));
    let done = erase(&address, &store(), select(), false).await.unwrap();
    // Rows lie in the two packed files and in two of the new ones; twenty files were packed before.
    assert_eq!((done.rows, done.files, done.unsettled), (10, 4, 0), "{done:?}");
    assert!(done.deleted > 4, "{done:?}");
    assert_eq!(counts(&address).await, (110, 110));
    let found = ids(&address);
    assert!((95..105).all(|id| !found.contains(&format!("post-{id}"))), "{found:?}");
    assert!((0..95).chain(105..120).all(|id| found.contains(&format!("post-{id}"))));
    assert_eq!(stands(&address).await, 120, "what is erased is not read again");
    in_order(&address).await;
    healthy(&address).await;
    let again = erase(&address, &store(), select(), false).await.unwrap();
    assert_eq!(again, Erased::default());
    // Files of which all rows go are dropped.
    let done = erase(&address, &store(), Arc::new(Tokens(0..1_000)), false)
        .await
        .unwrap();
    assert_eq!((done.rows, counts(&address).await), (110, (0, 0)));
    assert_eq!(ids(&address).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_version_names_are_searched_when_they_have_settled() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 2, 1).await;
    let path = active(&address).await.remove(0);
    let orphans = ["young", "old", "broken"].map(|name| path.with_file_name(format!("{name}.parquet")));
    std::fs::copy(&path, &orphans[0]).unwrap();
    std::fs::copy(&path, &orphans[1]).unwrap();
    std::fs::write(&orphans[2], "half a file").unwrap();
    let day_ago = SystemTime::now() - Duration::from_secs(25 * 3_600);
    for orphan in &orphans[1..] {
        std::fs::File::options()
            .write(true)
            .open(orphan)
            .unwrap()
            .set_modified(day_ago)
            .unwrap();
    }
    let done = erase(&address, &store(), Arc::new(Tokens(0..1_000)), false)
        .await
        .unwrap();
    assert_eq!((done.rows, done.unsettled), (20, 1), "{done:?}");
    assert!(orphans[0].exists(), "it may be a writer's, who is about to commit it");
    assert!(!orphans[1].exists() && !orphans[2].exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_doctor_set_aside_is_searched_too() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 2, 1).await;
    let path = active(&address).await.remove(0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let repair = DoctorOptions {
        repair: true,
        ..DoctorOptions::default()
    };
    doctor(&address, &store(), &repair).await.unwrap();
    let aside = || {
        files(Path::new(&address))
            .into_keys()
            .filter(|name| name.starts_with("_tamiz_aside"))
            .count()
    };
    assert_eq!(aside(), 1);
    erase(&address, &store(), Arc::new(Tokens(0..1)), false).await.unwrap();
    assert_eq!(aside(), 0, "what cannot be read may hold anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn erasing_beside_a_writer_and_a_packing_takes_every_such_row() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 12, 1).await;
    let others = tokio::spawn({
        let address = address.clone();
        async move {
            let (store, options) = (store(), CompactOptions::default());
            tokio::join!(commits(&address, 12, 40, 1), async {
                for _ in 0..4 {
                    // A file that is erased under its hands is no error either.
                    compact(&address, &store, &options).await.unwrap();
                }
            });
        }
    });
    let done = erase(&address, &store(), Arc::new(Tokens(30..60)), false)
        .await
        .unwrap();
    others.await.unwrap();
    assert_eq!((done.rows, counts(&address).await), (30, (370, 370)), "{done:?}");
    let again = erase(&address, &store(), Arc::new(Tokens(30..60)), false)
        .await
        .unwrap();
    assert_eq!(again.rows, 0);
    assert_eq!(stands(&address).await, 400);
    in_order(&address).await;
    healthy(&address).await;
}
