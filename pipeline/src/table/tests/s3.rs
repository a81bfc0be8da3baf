//! The same on an S3-compatible store, where `AWS_ENDPOINT_URL` names one (`eval "$(scripts/s3 env)"`); its bucket is
//! `TAMIZ_S3_BUCKET` or `tamiz`.

mod care;

use super::*;

fn bucket() -> Option<String> {
    if std::env::var_os("AWS_ENDPOINT_URL").is_none() {
        eprintln!("skipped: AWS_ENDPOINT_URL names no S3-compatible store");
        return None;
    }
    Some(std::env::var("TAMIZ_S3_BUCKET").unwrap_or_else(|_| "tamiz".to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_a_bucket_is_created_written_and_read() {
    let Some(bucket) = bucket() else { return };
    let address = format!("s3://{bucket}/{}/posts", uuid::Uuid::new_v4());
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(0, 40, 2, &["x", "a/b %"])], &txns([("p/0", 0, 40)]))
        .await
        .unwrap();
    writer
        .commit(vec![rows(40, 10, 2, &["x"])], &txns([("p/0", 40, 50)]))
        .await
        .unwrap();
    assert_eq!(counts(&address).await, (50, 50));
    let mut other = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let again = other
        .commit(vec![rows(40, 10, 2, &["x"])], &txns([("p/0", 40, 50)]))
        .await
        .unwrap();
    assert_eq!(again, Committed::Already);
    assert_eq!(
        writer.next_offsets(&["p/0".to_owned()]).await.unwrap(),
        BTreeMap::from([("p/0".to_owned(), 50)])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_in_a_bucket_one_commits_each_offset() {
    let Some(bucket) = bucket() else { return };
    let address = format!("s3://{bucket}/{}/posts", uuid::Uuid::new_v4());
    let mut one = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let mut two = TableWriter::open(&address, &store(), spec()).await.unwrap();
    for round in 0..5 {
        let (first, next) = (round * 10, round * 10 + 10);
        let shared = txns([("p/0", first, next)]);
        let same = || vec![rows(first, 10, 2, &["x"])];
        let (a, b) = tokio::join!(one.commit(same(), &shared), two.commit(same(), &shared));
        let new = |outcome: &Committed| matches!(outcome, Committed::New { .. });
        let (a, b) = (a.unwrap(), b.unwrap());
        assert!(new(&a) != new(&b), "{a:?} {b:?}");
    }
    let (own, others) = (txns([("p/1", 0, 10)]), txns([("p/2", 0, 10)]));
    let (batch, other) = (vec![rows(100, 10, 2, &["x"])], vec![rows(200, 10, 2, &["x"])]);
    let (a, b) = tokio::join!(one.commit(batch, &own), two.commit(other, &others));
    assert!(matches!(a.unwrap(), Committed::New { .. }) && matches!(b.unwrap(), Committed::New { .. }));
    assert_eq!(counts(&address).await, (70, 70));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_told_as_such() {
    if bucket().is_none() {
        return;
    }
    let opened = TableWriter::open("s3://no-such-bucket-here/posts", &store(), spec()).await;
    let error = opened.err().unwrap();
    assert!(matches!(error, TableError::NoBucket { .. }), "{error:?}");
}
