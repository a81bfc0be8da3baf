//! What is committed when partitions come and go, and after a flush that was cut short between its two tables.

use std::fmt::Write;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use datafusion::prelude::SessionContext;
use serde_json::json;
use tamiz_schemas::posts;

use super::*;
use crate::batch::{Permit, Reject};
use crate::deletes::DeletesTable;
use crate::jobs::{dead_letters_spec, posts_spec};
use crate::source::{Collector, RowAt};
use crate::stage::ROW;
use crate::stages::finish::{DeadLetterRules, finish};
use crate::table::{Store, StoreOptions, TableWriter, register};

const PREFIX: &str = "test/cluster";

/// Tables below a folder.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn address(&self, table: &str) -> String {
        self.0.path().join(table).to_str().unwrap().to_owned()
    }

    async fn tables(&self) -> Tables {
        let (posts, dead_letters) = (self.address("posts"), self.address("dead_letters"));
        Tables {
            posts: TableWriter::open(&posts, &store(), posts_spec(&[])).await.unwrap(),
            dead_letters: TableWriter::open(&dead_letters, &store(), dead_letters_spec())
                .await
                .unwrap(),
            letter_topic: None,
            deletes: DeletesTable::new(self.address("deletes"), store()),
        }
    }

    async fn sink(&self) -> Sink {
        let rules = FlushRules {
            bytes: usize::MAX,
            age: Duration::from_secs(3_600),
        };
        let committed = CommittedOffsets::default();
        Sink::new(PREFIX.to_owned(), self.tables().await, rules, Arc::default(), committed)
    }

    /// The ids of posts.
    async fn posts(&self) -> Vec<String> {
        self.query("posts", "SELECT id FROM t ORDER BY id").await
    }

    /// The offsets of dead letters.
    async fn letters(&self) -> Vec<String> {
        self.query("dead_letters", "SELECT \"offset\" FROM t ORDER BY 1").await
    }

    async fn query(&self, table: &str, sql: &str) -> Vec<String> {
        let ctx = SessionContext::new();
        register(&ctx, "t", &self.address(table), &store()).await.unwrap();
        let mut found = Vec::new();
        for rows in ctx.sql(sql).await.unwrap().collect().await.unwrap() {
            let column = cast(rows.column(0), &DataType::Utf8).unwrap();
            found.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
        found
    }
}

fn store() -> Store {
    Store::new(&StoreOptions::new()).unwrap()
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "feed".into(),
        partition,
    }
}

/// What a batch holds of one partition.
struct Part {
    partition: i32,
    epoch: u64,
    offsets: std::ops::Range<i64>,
    refused: Vec<i64>,
}

fn part(partition: i32, epoch: u64, offsets: std::ops::Range<i64>) -> Part {
    Part {
        partition,
        epoch,
        offsets,
        refused: Vec::new(),
    }
}

impl Part {
    fn refusing(self, refused: &[i64]) -> Part {
        Part {
            refused: refused.to_vec(),
            ..self
        }
    }
}

/// A batch as the line ends with it.
fn finished(parts: Vec<Part>) -> Finished {
    let mut collector = Collector::new();
    let (mut lines, mut rejects) = (String::new(), Vec::new());
    let mut row = 0;
    for part in parts {
        for offset in part.offsets {
            let whereabouts = RowAt {
                offset,
                expected: offset,
                epoch: part.epoch,
                timestamp_micros: Some(0),
                key: None,
            };
            collector.push(&at(part.partition), whereabouts, Some(&b"{}"[..]));
            if part.refused.contains(&offset) {
                rejects.push(Reject {
                    row,
                    stage: "validate",
                    reason: "bad_id",
                    detail: "a test wanted it".to_owned(),
                });
            } else {
                let id = format!("{}/{offset}", part.partition);
                let post = json!({"row": row, "id": id, "source": "x", "date": "2026-01-02", "text": "t", "text_hash": "0",
                    "created_at": "2026-01-02T03:04:05Z", "ingested_at": "2026-01-02T03:04:05Z"});
                writeln!(lines, "{post}").unwrap();
            }
            row += 1;
        }
    }
    let mut batch = collector.take(Permit::unbounded(1));
    let mut reader = ReaderBuilder::new(rows_schema()).build(lines.as_bytes()).unwrap();
    batch.rows = reader.next().unwrap().unwrap();
    batch.rejects = rejects;
    finish(batch, &DeadLetterRules::default(), &Stats::default()).unwrap()
}

/// Posts, each with its row in the batch as read.
fn rows_schema() -> SchemaRef {
    let row = Arc::new(Field::new(ROW, DataType::UInt32, false));
    let fields: Vec<_> = posts::schema().fields().iter().cloned().chain([row]).collect();
    Arc::new(Schema::new(fields))
}

fn ids(partition: i32, offsets: std::ops::Range<i64>, without: &[i64]) -> Vec<String> {
    let left = offsets.filter(|offset| !without.contains(offset));
    left.map(|offset| format!("{partition}/{offset}")).collect()
}

fn words(offsets: &[i64]) -> Vec<String> {
    offsets.iter().map(|offset| offset.to_string()).collect()
}

/// Takes a batch and commits it.
async fn take(sink: &mut Sink, parts: Vec<Part>) {
    sink.add(finished(parts)).await.unwrap();
    sink.flush().await.unwrap();
    sink.settle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_came_back_takes_no_offsets_along_without_their_rows() {
    let place = Place::new();
    let mut sink = place.sink().await;
    sink.add(finished(vec![part(1, 1, 0..5)])).await.unwrap();
    // Partition 1 went away and came back with partition 0, in one batch: what waits of it is flushed first.
    take(&mut sink, vec![part(0, 2, 0..6), part(1, 3, 0..8)]).await;
    assert_eq!(place.posts().await, [ids(0, 0..6, &[]), ids(1, 0..8, &[])].concat());
    let apps = [0, 1].map(|partition| app_id(PREFIX, &at(partition)));
    let stands = place.tables().await.posts.next_offsets(&apps).await.unwrap();
    assert_eq!(stands.into_values().collect::<Vec<_>>(), [6, 8]);
}

/// A flush of offsets 100 to 110 whose letter of 105 went in, and whose posts did not.
async fn cut_short() -> Place {
    let place = Place::new();
    let mut tables = place.tables().await;
    let range = |first, next| Txns::from([(app_id(PREFIX, &at(0)), TxnRange { first, next })]);
    tables.posts.commit(Vec::new(), &range(0, 100)).await.unwrap();
    let letters = finished(vec![part(0, 1, 100..110).refusing(&[105])]).dead_letters;
    let range = range(100, 110);
    tables.dead_letters.commit(vec![letters], &range).await.unwrap();
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_is_read_again_is_a_post_or_a_letter_whatever_it_was_before() {
    let cases: [(&[i64], &[i64]); 4] = [
        (&[105], &[105]),
        (&[105, 107], &[105, 107]),
        (&[107], &[105, 107]),
        (&[], &[105]),
    ];
    for (refused, letters) in cases {
        for was_told in [false, true] {
            let case = format!("{refused:?}, told beforehand: {was_told}");
            let place = cut_short().await;
            let mut sink = place.sink().await;
            if was_told {
                sink.know(at(0), 1, Some(100), Some(110));
            }
            take(&mut sink, vec![part(0, 1, 100..110).refusing(refused)]).await;
            assert_eq!(place.letters().await, words(letters), "{case}");
            assert_eq!(place.posts().await, ids(0, 100..110, refused), "{case}");
            take(&mut sink, vec![part(0, 1, 110..115).refusing(&[112])]).await;
            assert_eq!(place.letters().await, words(&[letters, &[112]].concat()), "{case}");
            assert_eq!(place.posts().await.len(), ids(0, 100..115, refused).len() - 1, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_letter_goes_in_although_the_offsets_of_letters_are_past_it() {
    let place = cut_short().await;
    let mut sink = place.sink().await;
    take(&mut sink, vec![part(0, 1, 100..104).refusing(&[102])]).await;
    assert_eq!(place.letters().await, words(&[102, 105]));
    // Another process goes on, and finds the new one too.
    let mut sink = place.sink().await;
    take(&mut sink, vec![part(0, 1, 104..110).refusing(&[105])]).await;
    assert_eq!(place.letters().await, words(&[102, 105]));
    assert_eq!(place.posts().await, ids(0, 100..110, &[102, 105]));
}
