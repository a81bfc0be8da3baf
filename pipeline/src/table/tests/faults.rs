//! Stores that fail, at the worst moments.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;

/// What happens to log entries and data files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// The entry is not written.
    Fails,
    /// The entry is written, and an error is reported.
    SucceedsAndErrors,
    /// The entry is written, and reported as taken by somebody: a retried request whose first answer got lost.
    SucceedsAndIsTaken,
    /// Data files: no space.
    DiskFull,
    /// Data files are not written.
    DataFails,
    /// Log entries are not read.
    ReadFails,
}

/// The local file system with a number of faults ahead.
#[derive(Debug)]
pub(super) struct Faulty {
    files: LocalFileSystem,
    fault: Fault,
    ahead: AtomicU32,
}

impl Faulty {
    pub(super) fn store(fault: Fault) -> (Store, Arc<Faulty>) {
        let faulty = Arc::new(Faulty {
            files: LocalFileSystem::new(),
            fault,
            ahead: AtomicU32::new(0),
        });
        (Store::over(faulty.clone()), faulty)
    }

    pub(super) fn arm(&self, faults: u32) {
        self.ahead.store(faults, Ordering::SeqCst);
    }

    fn strikes(&self) -> bool {
        self.ahead
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |ahead| ahead.checked_sub(1))
            .is_ok()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.fault)
    }
}

fn is_entry(location: &Location) -> bool {
    location.as_ref().contains("_delta_log") && location.as_ref().ends_with(".json")
}

fn broken() -> Error {
    Error::Generic {
        store: "Faulty",
        source: "connection reset by peer".into(),
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Location, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_data = location.as_ref().ends_with(".zstd.parquet");
        if self.fault == Fault::DiskFull && is_data && self.strikes() {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::Generic {
                store: "Faulty",
                source: full.into(),
            });
        }
        if self.fault == Fault::DataFails && is_data && self.strikes() {
            return Err(broken());
        }
        let elsewhere = matches!(self.fault, Fault::DiskFull | Fault::DataFails | Fault::ReadFails);
        if elsewhere || !is_entry(location) || !self.strikes() {
            return self.files.put_opts(location, payload, options).await;
        }
        if self.fault == Fault::Fails {
            return Err(broken());
        }
        self.files.put_opts(location, payload, options).await?;
        match self.fault {
            Fault::SucceedsAndErrors => Err(broken()),
            _ => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "412".into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Location,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Location, options: GetOptions) -> Result<GetResult> {
        if self.fault == Fault::ReadFails && is_entry(location) && self.strikes() {
            return Err(broken());
        }
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Location>>) -> BoxStream<'static, Result<Location>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// Commits twice with the fault between; the table must hold each row once, and the offsets must chain.
async fn check(fault: Fault, faults: u32) {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let (store, faulty) = Faulty::store(fault);
    let mut writer = TableWriter::open(&address, &store, spec()).await.unwrap();
    writer
        .commit(vec![rows(0, 10, 2, &["x"])], &txns([("p/0", 0, 10)]))
        .await
        .unwrap();
    faulty.arm(faults);
    let outcome = writer
        .commit(vec![rows(10, 10, 2, &["x"])], &txns([("p/0", 10, 20)]))
        .await
        .unwrap();
    assert!(
        matches!(
            outcome,
            Committed::New {
                version: 2,
                rows: 10,
                ..
            }
        ),
        "{fault:?}: {outcome:?}"
    );
    assert_eq!(
        faulty.ahead.load(Ordering::SeqCst),
        0,
        "{fault:?}: the fault did not strike"
    );
    let outcome = writer
        .commit(vec![rows(20, 10, 2, &["x"])], &txns([("p/0", 20, 30)]))
        .await
        .unwrap();
    assert!(
        matches!(
            outcome,
            Committed::New {
                version: 3,
                rows: 10,
                ..
            }
        ),
        "{fault:?}: {outcome:?}"
    );
    assert_eq!(counts(&address).await, (30, 30), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_log_write_is_tried_again() {
    check(Fault::Fails, 1).await;
    check(Fault::Fails, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_write_that_succeeded_and_errored_counts_once() {
    check(Fault::SucceedsAndErrors, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_write_whose_answer_got_lost_counts_once() {
    check(Fault::SucceedsAndIsTaken, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_could_not_be_written_is_tried_again() {
    check(Fault::DataFails, 1).await;
    check(Fault::DataFails, 3).await;
}

/// A writer, and what it counts.
async fn counting(address: &str, store: &Store) -> (TableWriter, Arc<Retries>) {
    let mut writer = TableWriter::open(address, store, spec()).await.unwrap();
    let retries = Arc::new(Retries::default());
    writer.count_retries(Arc::clone(&retries));
    (writer, retries)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_could_not_be_read_is_read_again_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let ids = ["p/0".to_owned()];
    let (store, faulty) = Faulty::store(Fault::ReadFails);
    let (mut writer, _) = counting(&address, &store).await;
    writer
        .commit(vec![rows(0, 10, 1, &["x"])], &txns([("p/0", 0, 10)]))
        .await
        .unwrap();
    let (writer, retries) = counting(&address, &store).await;
    faulty.arm(1);
    assert_eq!(writer.next_offsets(&ids).await.unwrap()["p/0"], 10);
    assert_eq!((retries.read().faults, faulty.ahead.load(Ordering::SeqCst)), (1, 0));
    // A writer that does not know yet where the table stands reads it before it stages.
    let (mut writer, retries) = counting(&address, &store).await;
    faulty.arm(1);
    let outcome = writer
        .commit(vec![rows(10, 10, 1, &["x"])], &txns([("p/0", 10, 20)]))
        .await
        .unwrap();
    assert!(matches!(outcome, Committed::New { rows: 10, .. }), "{outcome:?}");
    assert_eq!((retries.read().faults, faulty.ahead.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(counts(&address).await, (20, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_offsets_an_unknown_outcome_still_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    for fault in [Fault::SucceedsAndErrors, Fault::SucceedsAndIsTaken] {
        let (store, faulty) = Faulty::store(fault);
        let mut writer = TableWriter::open(&address, &store, spec()).await.unwrap();
        let (before, _) = counts(&address).await;
        faulty.arm(1);
        writer
            .commit(vec![rows(before, 10, 2, &["x"])], &Txns::new())
            .await
            .unwrap();
        assert_eq!(counts(&address).await, (before + 10, before + 10), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_nothing_behind_and_the_batch_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let (store, faulty) = Faulty::store(Fault::DiskFull);
    let mut writer = TableWriter::open(&address, &store, spec()).await.unwrap();
    let before = files(dir.path());
    faulty.arm(1);
    let range = txns([("p/0", 0, 90)]);
    let error = writer.commit(vec![rows(0, 90, 30, &["x"])], &range).await.unwrap_err();
    assert!(matches!(error, TableError::NoSpace { .. }), "{error:?}");
    assert!(
        error.to_string().starts_with("no space left to write a data file of `"),
        "{error}"
    );
    assert_eq!(files(dir.path()), before);
    assert!(matches!(
        writer.commit(vec![rows(0, 90, 30, &["x"])], &range).await,
        Ok(Committed::New { rows: 90, .. })
    ));
    assert_eq!(counts(&address).await, (90, 90));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_commit_is_in_or_not_and_the_next_one_knows() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    let mut next = 0;
    for millis in [0, 1, 2, 3, 5, 8, 13, 21] {
        let range = txns([("p/0", next, next + 10)]);
        let commit = writer.commit(vec![rows(next, 10, 2, &["x"])], &range);
        drop(tokio::time::timeout(std::time::Duration::from_millis(millis), commit).await);
        let again = writer.commit(vec![rows(next, 10, 2, &["x"])], &range).await.unwrap();
        assert!(!matches!(again, Committed::Fenced { .. }), "{again:?}");
        next += 10;
        assert_eq!(counts(&address).await, (next, next));
    }
}
