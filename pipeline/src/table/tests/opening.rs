//! Opening: what is refused, and in which words.

use arrow::datatypes::{Field, Schema};

use super::*;

async fn open(address: &str, spec: TableSpec) -> Result<TableWriter, TableError> {
    TableWriter::open(address, &store(), spec).await
}

fn sentence(result: Result<TableWriter, TableError>) -> String {
    result.err().expect("an error").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_has_the_properties_that_offsets_and_privacy_need() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    assert_eq!(inspect(&address, &store(), &spec()).await.unwrap(), Inspection::Absent);
    assert!(files(dir.path()).is_empty(), "inspecting touches nothing");
    open(&address, spec()).await.unwrap();
    assert_eq!(
        inspect(&address, &store(), &spec()).await.unwrap(),
        Inspection::Present { version: 0, files: 0 }
    );
    let log = String::from_utf8(files(dir.path())["posts/_delta_log/00000000000000000000.json"].clone()).unwrap();
    for expected in [
        r#""delta.dataSkippingStatsColumns":"created_at,ingested_at,lang,n_tokens,sentiment.score,kafka.offset""#,
        r#""partitionColumns":["date","source"]"#,
        r#""delta.appendOnly":"false""#,
    ] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
    assert!(!log.contains("setTransactionRetentionDuration"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_shape_is_refused_by_column() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    open(&address, spec()).await.unwrap();
    let fields = posts::schema().fields().to_vec();
    let change = |name: &str, data_type: DataType| {
        let changed = fields.iter().map(|field| {
            if field.name() == name {
                Arc::new(Field::new(name, data_type.clone(), true))
            } else {
                field.clone()
            }
        });
        TableSpec {
            schema: Arc::new(Schema::new(changed.collect::<Vec<_>>())),
            ..spec()
        }
    };
    let longer = fields
        .iter()
        .cloned()
        .chain([Arc::new(Field::new("emotion", DataType::Utf8, true))]);
    let longer = TableSpec {
        schema: Arc::new(Schema::new(longer.collect::<Vec<_>>())),
        ..spec()
    };
    for (spec, expected) in [
        (
            change("truncated", DataType::Int64),
            "its column `truncated` is boolean, but long is to be written",
        ),
        (
            change("text", DataType::Utf8),
            "its column `text` refuses NULL, which may have to be written",
        ),
        (longer, "it has no column `emotion`"),
        (
            TableSpec {
                partition_columns: vec!["date".to_owned()],
                ..spec()
            },
            "by (date, source), not by (date)",
        ),
    ] {
        let sentence = sentence(open(&address, spec).await);
        assert!(sentence.contains(expected), "{expected:?} in {sentence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_another_head_gives_the_table_another_column() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let with_emotion = || TableSpec {
        schema: posts::schema_with(["emotion"]),
        growing: vec!["emotion".to_owned()],
        ..spec()
    };
    let mut before = open(&address, spec()).await.unwrap();
    before
        .commit(vec![rows(0, 10, 2, &["x"])], &txns([("p/0", 0, 10)]))
        .await
        .unwrap();
    let mut after = open(&address, with_emotion()).await.unwrap();
    let plain = rows(10, 5, 2, &["x"]);
    let label: ArrayRef = Arc::new(StringArray::from(vec!["joy"; 5]));
    let confidence: ArrayRef = Arc::new(Float32Array::from(vec![0.5; 5]));
    let emotion = StructArray::new(posts::label_fields(), vec![label, confidence], None);
    let columns = plain.columns().iter().cloned().chain([Arc::new(emotion) as ArrayRef]);
    let scored = RecordBatch::try_new(posts::schema_with(["emotion"]), columns.collect()).unwrap();
    after.commit(vec![scored], &txns([("p/0", 10, 15)])).await.unwrap();
    // A writer of the older kind goes on beside it, and so does one that is opened now.
    before
        .commit(vec![rows(15, 3, 2, &["x"])], &txns([("p/1", 0, 3)]))
        .await
        .unwrap();
    let mut older = open(&address, spec()).await.unwrap();
    older
        .commit(vec![rows(18, 2, 2, &["x"])], &txns([("p/0", 15, 17)]))
        .await
        .unwrap();
    assert_eq!(counts(&address).await, (20, 20));
    let found = query(
        &address,
        "SELECT count(emotion['label']) FROM posts WHERE emotion['label'] = 'joy'",
    )
    .await;
    assert_eq!(found[0].column(0).as_primitive::<Int64Type>().value(0), 5);
    // Two at once add the same column once.
    let both = || TableSpec {
        schema: posts::schema_with(["emotion", "irony"]),
        growing: vec!["emotion".to_owned(), "irony".to_owned()],
        ..spec()
    };
    let (one, two) = tokio::join!(open(&address, both()), open(&address, both()));
    assert!(one.is_ok() && two.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_first_day_are_given_the_columns_that_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let current = crate::jobs::posts_spec(&[]);
    let fields = current.schema.fields().iter();
    let first = fields.filter(|field| !posts::GROWN_COLUMNS.contains(&field.name().as_str()));
    let of_the_first_day = TableSpec {
        schema: Arc::new(Schema::new(first.cloned().collect::<Vec<_>>())),
        growing: Vec::new(),
        ..current.clone()
    };
    let old: Vec<usize> = (0..of_the_first_day.schema.fields().len()).collect();
    let mut before = open(&address, of_the_first_day).await.unwrap();
    let rows_before = rows(0, 10, 1, &["x"]).project(&old).unwrap();
    before.commit(vec![rows_before], &txns([("p/0", 0, 10)])).await.unwrap();
    let mut after = open(&address, current).await.unwrap();
    after
        .commit(vec![rows(10, 5, 1, &["x"])], &txns([("p/0", 10, 15)]))
        .await
        .unwrap();
    assert_eq!(counts(&address).await, (15, 15));
    let unknown = query(
        &address,
        "SELECT count(*) FROM posts WHERE late IS NULL AND delete_key IS NULL",
    )
    .await;
    assert_eq!(unknown[0].column(0).as_primitive::<Int64Type>().value(0), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_specification_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (spec, expected) in [
        (
            TableSpec {
                partition_columns: vec!["day".to_owned()],
                ..spec()
            },
            "there is no partition column `day`",
        ),
        (
            TableSpec {
                stats_columns: vec!["topic".to_owned()],
                ..spec()
            },
            "there is no plain column `topic`",
        ),
        (
            TableSpec {
                stats_columns: vec!["lang.x".to_owned()],
                ..spec()
            },
            "`lang` in `lang.x` is no struct",
        ),
    ] {
        let sentence = sentence(open(&address(&dir), spec).await);
        assert!(sentence.contains(expected), "{expected:?} in {sentence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_lead_nowhere_are_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "a file").unwrap();
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("holiday.jpg"), "a picture").unwrap();
    let below = file.join("posts");
    for (address, expected) in [
        ("", "is empty"),
        ("gs://bucket/posts", "`gs` is not supported"),
        ("s3://", "s3://bucket/folder"),
        ("s3://bucket", "names a bucket but no folder"),
        ("/tmp/50%20/posts", "holds `%` with two hexadecimal digits"),
        (taken.to_str().unwrap(), "holds files but no Delta table"),
        (below.to_str().unwrap(), "is a file, and a table is a folder"),
    ] {
        let sentence = sentence(open(address, spec()).await);
        assert!(
            sentence.contains(expected) && !sentence.contains('\n'),
            "{expected:?} in {sentence:?}"
        );
    }
}

#[test]
fn unknown_options_and_open_http_are_refused() {
    let options = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let error = Store::new(&options(&[("aws_endpiont", "x")])).unwrap_err().to_string();
    assert!(
        error.starts_with("storage option `aws_endpiont`: is not known"),
        "{error}"
    );
    assert!(
        Store::new(&options(&[("fsync", "no")]))
            .unwrap_err()
            .to_string()
            .contains("is true or false")
    );
    let plain = options(&[("aws_endpoint", "http://127.0.0.1:9"), ("aws_allow_http", "false")]);
    let error = Store::new(&plain)
        .unwrap()
        .resolve("s3://bucket/posts")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("plain HTTP"), "{error}");
    assert!(
        !format!(
            "{:?}",
            Store::new(&options(&[("aws_secret_access_key", "hush")])).unwrap()
        )
        .contains("hush")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_create_the_table_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let address = address(&dir);
    let openings = (0..8).map(|_| open(&address, spec()));
    for opened in futures::future::join_all(openings).await {
        opened.unwrap();
    }
    assert_eq!(
        inspect(&address, &store(), &spec()).await.unwrap(),
        Inspection::Present { version: 0, files: 0 }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_with_odd_names_hold_tables() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["with space", "50%", "ñandú", "a#b", "q?x", "x=y", "a+b"] {
        let address = dir.path().join(name).join("posts").to_str().unwrap().to_owned();
        let mut writer = open(&address, spec()).await.unwrap();
        writer
            .commit(vec![rows(0, 4, 2, &["x"])], &txns([("p/0", 0, 4)]))
            .await
            .unwrap();
        assert_eq!(counts(&address).await, (4, 4), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(&address(&dir), spec()).await.unwrap();
    let good = rows(0, 3, 1, &["x"]);
    let short = good.project(&[0, 1]).unwrap();
    let error = writer.commit(vec![short], &Txns::new()).await.unwrap_err().to_string();
    let columns = good.num_columns();
    assert!(
        error.contains(&format!("they have 2 columns, the table {columns}")),
        "{error}"
    );
    let swapped: Vec<usize> = (0..columns).rev().collect();
    let error = writer
        .commit(vec![good.project(&swapped).unwrap()], &Txns::new())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("stands where `id`"), "{error}");
    let error = writer
        .commit(vec![rows(0, 3, 1, &[""])], &Txns::new())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds an empty string"), "{error}");
    assert_eq!(writer.version(), 0);
}
