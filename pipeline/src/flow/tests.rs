//! How a line begins and ends, with sources made by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::batch::{Permit, TopicPartition};
use crate::config::{AuthorMode, Config, load};
use crate::jobs::{flush_rules, open_tables, posts_spec, store};
use crate::sink::app_id;
use crate::source::Collector;
use crate::source::kafka::Committed;
use crate::stages::decode::Origin;
use crate::table::TableWriter;

fn config(folder: &Path) -> Config {
    let mut config = load(None, std::iter::empty()).unwrap();
    config.pii.authors = AuthorMode::Drop;
    config.sink.posts = folder.join("posts").display().to_string();
    config.sink.dead_letters = folder.join("dead").display().to_string();
    config
}

fn at() -> TopicPartition {
    TopicPartition {
        topic: "feed".into(),
        partition: 0,
    }
}

/// A batch that says where the partition is read from, and holds nothing of it.
fn start(offset: i64) -> Item {
    let mut collector = Collector::new();
    collector.start(&at(), offset, 1);
    Item::Batch(Box::new(collector.take(Permit::unbounded(1))))
}

async fn through(
    config: &Config,
    source: impl FnOnce(mpsc::Sender<Item>, &Stop) -> Result<(), SourceError> + Send + 'static,
) -> Result<(), FlowError> {
    let stats = Arc::new(Stats::default());
    let line = Line::new(config, None, Origin::Kafka, Arc::clone(&stats)).unwrap();
    let tables = open_tables(config, &store(config).unwrap(), &[]).await.unwrap();
    let sink = Sink::new("test".into(), tables, flush_rules(config), stats, Committed::default());
    let (out, items) = mpsc::channel(SOURCE_QUEUE);
    run(move |stop: &Stop| source(out, stop), items, line, sink, Stop::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_partition_begins_is_written_down_without_any_row_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let source = |out: mpsc::Sender<Item>, _: &Stop| {
        out.blocking_send(start(100)).unwrap();
        Ok(())
    };
    through(&config, source).await.unwrap();
    let store = store(&config).unwrap();
    let table = TableWriter::open(&config.sink.posts, &store, posts_spec(&[]))
        .await
        .unwrap();
    let id = app_id("test", &at());
    let known = table.next_offsets(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(known, BTreeMap::from([(id, 100)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_fails_waits_for_its_source_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&ended);
    let source = move |out: mpsc::Sender<Item>, stop: &Stop| {
        // Batches that do not chain, which the sink refuses, and more than the line has room for.
        out.blocking_send(start(100)).unwrap();
        while out.blocking_send(start(200)).is_ok() {}
        while !stop.is_set() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(200));
        shown.store(true, Ordering::SeqCst);
        Ok(())
    };
    let failed = through(&config(folder.path()), source).await;
    assert!(
        matches!(failed, Err(FlowError::Sink(SinkError::Gap { .. }))),
        "{failed:?}"
    );
    assert!(ended.load(Ordering::SeqCst), "the source went on");
}
