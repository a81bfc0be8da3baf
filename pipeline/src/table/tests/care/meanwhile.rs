//! Files that another process takes out of the table, and deletes at once, while they are about to be looked into.

use std::ops::Range;
use std::sync::Once;

use arrow::array::BooleanArray;
use arrow::compute::{filter_record_batch, not};
use arrow::error::ArrowError;

use super::erasing::Tokens;
use super::*;

/// Takes rows out. When it is about to look into its first file, another process erases rows in a table.
struct Beaten {
    rows: Tokens,
    address: String,
    theirs: Option<Range<i32>>,
    once: Once,
}

impl Beaten {
    fn new(address: &str, rows: Range<i32>, theirs: Option<Range<i32>>) -> Arc<Beaten> {
        Arc::new(Beaten {
            rows: Tokens(rows),
            address: address.to_owned(),
            theirs,
            once: Once::new(),
        })
    }

    fn columns(&self) -> Vec<&'static str> {
        self.once.call_once(|| {
            if let Some(theirs) = self.theirs.clone() {
                let address = self.address.clone();
                std::thread::spawn(move || erase_elsewhere(&address, theirs))
                    .join()
                    .unwrap();
            }
        });
        vec![columns::N_TOKENS]
    }
}

fn erase_elsewhere(address: &str, rows: Range<i32>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(erase(address, &store(), Arc::new(Tokens(rows)), false));
    assert!(done.unwrap().deleted > 0);
}

impl Select for Beaten {
    fn columns(&self) -> Vec<&'static str> {
        Beaten::columns(self)
    }

    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        self.rows.goes(rows)
    }
}

impl Edit for Beaten {
    fn columns(&self) -> Vec<&'static str> {
        Beaten::columns(self)
    }

    fn touches(&self, _: &Facts, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        self.rows.goes(rows)
    }

    fn edit(&self, _: &Facts, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        filter_record_batch(&rows, &not(&self.rows.goes(&rows)?)?)
    }

    fn deletes(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_that_another_process_took_out_are_no_damage_and_their_successors_are_looked_into() {
    for editing in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let address = address(&dir);
        commits(&address, 0, 10, 1).await;
        // Files of the first eight commits go, those of the ninth are written anew: five of our rows lie in their
        // successors, and five in files that stay.
        let ours = Beaten::new(&address, 85..95, Some(0..85));
        let rows = match editing {
            true => edit(&address, &store(), ours).await.unwrap().rows,
            false => erase(&address, &store(), ours, false).await.unwrap().rows,
        };
        assert_eq!((rows, counts(&address).await), (10, (5, 5)), "editing: {editing}");
        assert_eq!(stands(&address).await, 100);
        healthy(&address).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dry_run_counts_what_another_process_made_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 10, 1).await;
    let ours = Beaten::new(&address, 85..95, Some(0..85));
    let would = erase(&address, &store(), ours, true).await.unwrap();
    assert_eq!((would.files, would.rows, counts(&address).await), (4, 0, (15, 15)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_and_still_in_the_table_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    commits(&address, 0, 3, 1).await;
    std::fs::remove_file(active(&address).await.remove(0)).unwrap();
    let ours = || Beaten::new(&address, 0..5, None);
    let errors = [
        erase(&address, &store(), ours(), false).await.unwrap_err(),
        edit(&address, &store(), ours()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, TableError::Damaged { problem, .. } if problem == "is missing"),
            "{error:?}"
        );
    }
}
