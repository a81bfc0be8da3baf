//! What readers find, and what nobody must find.

use datafusion::physical_plan::displayable;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// Values that mean something in paths, URLs, JSON or SQL.
const HOSTILE: [&str; 14] = [
    "a/b",
    "%",
    "%2F",
    "50% off",
    " two  spaces ",
    "ñandú 🦤",
    "..",
    "x=y&z",
    "quote'\"s",
    "back\\slash",
    "question?mark#hash",
    "new\nline\ttab",
    "__HIVE_DEFAULT_PARTITION__x",
    "NULL",
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_partition_values_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let long = "long ".repeat(100);
    let sources: Vec<&str> = HOSTILE.into_iter().chain([long.as_str()]).collect();
    let count = sources.len() as i64 * 4;
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(0, count, 1, &sources)], &txns([("p/0", 0, count)]))
        .await
        .unwrap();
    let ctx = SessionContext::new();
    register(&ctx, "posts", &address, &store()).await.unwrap();
    let found = ctx
        .sql("SELECT CAST(source AS VARCHAR) s, count(*) FROM posts GROUP BY 1")
        .await
        .unwrap();
    let found = found.collect().await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), sources.len());
    for source in sources {
        let sql = format!(
            "SELECT count(*), min(id) FROM posts WHERE source = '{}'",
            source.replace('\'', "''")
        );
        let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        assert_eq!(
            batches[0].column(0).as_primitive::<Int64Type>().value(0),
            4,
            "{source:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_a_partition_value() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let fields = vec![
        arrow::datatypes::Field::new("source", DataType::Utf8, true),
        arrow::datatypes::Field::new("id", DataType::Int64, false),
    ];
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let (partition_columns, stats_columns) = (vec!["source".to_owned()], vec!["id".to_owned()]);
    let spec = TableSpec {
        name: "small",
        schema: schema.clone(),
        partition_columns,
        stats_columns,
        growing: Vec::new(),
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![None, Some("x"), None])),
        Arc::new(Int64Array::from(vec![1, 2, 3])),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let mut writer = TableWriter::open(&address, &store(), spec).await.unwrap();
    let outcome = writer.commit(vec![batch], &Txns::new()).await.unwrap();
    assert!(
        matches!(outcome, Committed::New { files: 2, rows: 3, .. }),
        "{outcome:?}"
    );
    let sum = query(&address, "SELECT sum(id) FROM posts WHERE source IS NULL").await;
    assert_eq!(sum[0].column(0).as_primitive::<Int64Type>().value(0), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_people_wrote_is_outside_of_data_pages() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    for n in 0..52 {
        writer
            .commit(vec![rows(n, 1, 1, &["x"])], &txns([("p/0", n, n + 1)]))
            .await
            .unwrap();
    }
    let files = files(dir.path());
    assert!(
        files.keys().any(|name| name.ends_with(".checkpoint.parquet")),
        "no checkpoint to look at"
    );
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    let mut data_files = 0;
    for (name, bytes) in files {
        if name.contains("_delta_log") {
            assert!(!holds(&bytes), "{name}");
            continue;
        }
        data_files += 1;
        let length = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
        let end_of_pages = {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes.clone())).unwrap();
            let columns = reader.metadata().row_groups().iter().flat_map(|group| group.columns());
            for column in columns.clone() {
                let safe = posts::STATS_COLUMNS.contains(&column.column_path().string().as_str());
                assert_eq!(
                    column.statistics().is_some(),
                    safe,
                    "{} of {name}",
                    column.column_path()
                );
                assert!(column.bloom_filter_offset().is_none() && (safe || column.column_index_offset().is_none()));
            }
            columns
                .map(|column| column.byte_range())
                .map(|(start, length)| start + length)
                .max()
                .unwrap()
        };
        assert!((end_of_pages as usize) < bytes.len() - 8 - length + 1);
        assert!(!holds(&bytes[end_of_pages as usize..]), "footer or indexes of {name}");
    }
    assert_eq!(data_files, 52);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_bounds_safe_columns_only() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![rows(5, 3, 1, &["x"])], &txns([("p/0", 5, 8)]))
        .await
        .unwrap();
    let log = files(dir.path())["posts/_delta_log/00000000000000000001.json"].clone();
    let lines = log
        .split(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
    let adds: Vec<_> = lines.filter_map(|action| action.get("add").cloned()).collect();
    assert_eq!(adds.len(), 1);
    assert_eq!(
        adds[0]["partitionValues"],
        serde_json::json!({"date": "2026-01-01", "source": "x"})
    );
    assert!(
        adds[0]["path"]
            .as_str()
            .unwrap()
            .starts_with("date=2026-01-01/source=x/part-00000-")
    );
    let stats: serde_json::Value = serde_json::from_str(adds[0]["stats"].as_str().unwrap()).unwrap();
    let low = f64::from(5.0_f32 / 1e6);
    assert_eq!(stats["numRecords"], 3);
    assert_eq!(
        stats["minValues"],
        serde_json::json!({"created_at": "2026-01-01T00:00:00.000005Z", "ingested_at": "2026-01-01T00:00:00.000005Z",
            "lang": "es", "n_tokens": 5, "sentiment": {"score": low}, "kafka": {"offset": 5}})
    );
    assert_eq!(
        stats["nullCount"].as_object().unwrap().len(),
        posts::STATS_COLUMNS.len()
    );
}

/// Files that the plan of a query reads.
async fn files_read(ctx: &SessionContext, sql: &str) -> usize {
    let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref())
        .indent(true)
        .to_string()
        .matches(".zstd.parquet")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_on_partitions_and_statistics_skip_files() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    // Days and sources in step: four files in this commit, one in the next.
    writer
        .commit(vec![rows(0, 40, 4, &["x", "y"])], &Txns::new())
        .await
        .unwrap();
    writer
        .commit(vec![rows(1_000_000, 10, 1, &["z"])], &Txns::new())
        .await
        .unwrap();
    let ctx = SessionContext::new();
    register(&ctx, "posts", &address, &store()).await.unwrap();
    for (filter, files, expected) in [
        ("true", 5, 50),
        ("date = '2026-01-02'", 1, 10),
        ("date >= '2026-01-02'", 3, 30),
        ("source = 'y'", 2, 20),
        ("source = 'x' AND date = '2026-01-03'", 1, 10),
        ("n_tokens >= 1000000", 1, 10),
        ("lang = 'de'", 0, 0),
        ("created_at >= '2026-01-04T00:00:00Z'", 1, 10),
    ] {
        let sql = format!("SELECT id, text FROM posts WHERE {filter}");
        assert_eq!(files_read(&ctx, &sql).await, files, "{filter}");
        let rows: usize = ctx
            .sql(&sql)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_shows_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let ctx = SessionContext::new();
    let error = register(&ctx, "posts", &address, &store()).await.unwrap_err();
    assert!(matches!(error, TableError::Missing { .. }), "{error:?}");
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    register(&ctx, "posts", &address, &store()).await.unwrap();
    writer.commit(vec![rows(0, 10, 1, &["x"])], &Txns::new()).await.unwrap();
    let count = async || {
        let batches = ctx
            .sql("SELECT count(*) FROM posts")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    };
    assert_eq!(count().await, 0);
    register(&ctx, "posts", &address, &store()).await.unwrap();
    assert_eq!(count().await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let written = rows(0, 100, 1, &["x"]);
    let mut writer = TableWriter::open(&address, &store(), spec()).await.unwrap();
    writer
        .commit(vec![written.slice(0, 60), written.slice(60, 40)], &Txns::new())
        .await
        .unwrap();
    let columns: Vec<_> = written
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let sql = format!("SELECT {} FROM posts ORDER BY n_tokens", columns.join(", "));
    let read = query(&address, &sql).await;
    let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    for (index, name) in columns.iter().enumerate() {
        let wanted = written.column(index);
        let found = arrow::compute::cast(read.column(index), wanted.data_type()).unwrap();
        assert_eq!(&found, wanted, "{name}");
    }
}
