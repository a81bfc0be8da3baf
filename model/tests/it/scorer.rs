//! Columns in, scores out: the same numbers whatever the batching, and callers that cannot hurt each other.

use std::time::Duration;

use arrow::array::{Array, AsArray, StringArray};
use tamiz_model::{Scorer, ScorerOptions};

use super::support::{gap, options, scorer, texts};

/// Scores of a text depend on it alone up to the order of floating-point sums.
const TOLERANCE: f32 = 1e-5;

#[test]
fn scores_depend_neither_on_neighbours_nor_on_batch_size() {
    let texts = texts(200);
    let together = scorer(options()).score_blocking(&texts).unwrap();
    for batch_tokens in [1, 64, 1000] {
        let scorer = scorer(ScorerOptions {
            batch_tokens,
            ..options()
        });
        let scores = scorer.score_blocking(&texts).unwrap();
        for (a, b) in together.heads.iter().zip(&scores.heads) {
            for row in 0..texts.len() {
                assert!(
                    gap(a.row(row).unwrap(), b.row(row).unwrap()) < TOLERANCE,
                    "row {row}, {batch_tokens} tokens"
                );
            }
        }
    }
}

#[test]
fn results_come_in_the_order_of_the_texts() {
    let (texts, scorer) = (texts(100), scorer(options()));
    let all = scorer.score_blocking(&texts).unwrap();
    let mut distinct = 0;
    for row in 0..texts.len() {
        let one = scorer.score_blocking(&texts.slice(row, 1)).unwrap();
        assert!(
            gap(all.heads[1].row(row).unwrap(), one.heads[1].row(0).unwrap()) < TOLERANCE,
            "row {row}"
        );
        assert_eq!(all.n_tokens.value(row), one.n_tokens.value(0));
        let next = all.heads[1].row((row + 1) % texts.len()).unwrap();
        distinct += usize::from(gap(all.heads[1].row(row).unwrap(), next) > 10.0 * TOLERANCE);
    }
    assert!(
        distinct > 90,
        "the texts' scores must differ for the order to show, {distinct} do"
    );
}

#[test]
fn null_gives_null_and_empty_text_is_scored() {
    let scores = scorer(options())
        .score_blocking(&StringArray::from(vec![Some("a day"), None, Some(""), None]))
        .unwrap();
    assert_eq!(scores.heads.len(), 2);
    for head in &scores.heads {
        assert_eq!(head.len(), 4);
        for row in [0, 2] {
            assert!((head.row(row).unwrap().iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(head.best(row).unwrap().1 > 0.0);
        }
        assert_eq!((head.row(1), head.best(3)), (None, None));
    }
    assert_eq!(
        scores.n_tokens.iter().map(|count| count.is_some()).collect::<Vec<_>>(),
        [true, false, true, false]
    );
    assert_eq!(scores.n_tokens.value(2), 1);
    assert!(scores.truncated.is_null(1) && !scores.truncated.value(2));
}

#[test]
fn columns_without_rows_or_without_texts_are_fine() {
    let scorer = scorer(options());
    assert_eq!(
        scorer.score_blocking(&StringArray::new_null(0)).unwrap().heads[0].len(),
        0
    );
    let nulls = scorer.score_blocking(&StringArray::new_null(3)).unwrap();
    assert_eq!((nulls.heads[0].len(), nulls.n_tokens.null_count()), (3, 3));
}

#[test]
fn long_texts_are_cut_and_marked() {
    let scorer = scorer(options());
    let long = "great ".repeat(2_000_000);
    let scores = scorer
        .score_blocking(&StringArray::from(vec![long.as_str(), "great day"]))
        .unwrap();
    assert_eq!(scores.n_tokens.value(0) as usize, scorer.identity().max_tokens);
    assert!(scores.truncated.value(0) && !scores.truncated.value(1));
}

#[test]
fn tokens_and_counts_are_those_that_the_model_reads() {
    let (scorer, texts) = (
        scorer(options()),
        StringArray::from(vec![Some("the day"), None, Some("")]),
    );
    let scores = scorer.score_blocking(&texts).unwrap();
    let counts = scorer.token_counts(&texts).unwrap();
    assert_eq!(counts, scores.n_tokens);
    let tokens = scorer.tokens(&texts).unwrap();
    assert!(tokens.is_null(1));
    assert_eq!(
        tokens.value(0).as_string::<i32>(),
        &StringArray::from(vec!["[CLS]", "the", "day"])
    );
    let lengths: Vec<i32> = (0..3).map(|row| tokens.value_length(row)).collect();
    assert_eq!(lengths, [3, 0, 1]);
}

#[test]
fn mentions_and_links_are_read_alike() {
    let texts = StringArray::from(vec!["@ada see https://a.example/x", "@bob_2 see http://b.example"]);
    let scores = scorer(options()).score_blocking(&texts).unwrap();
    assert!(gap(scores.heads[0].row(0).unwrap(), scores.heads[0].row(1).unwrap()) < TOLERANCE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_requests_share_batches_and_get_their_own_rows() {
    let scorer = scorer(options());
    let expected = scorer.score_blocking(&texts(64)).unwrap();
    let before = scorer.stats();
    let busy = tokio::spawn({
        let scorer = scorer.clone();
        async move { scorer.score(&texts(5000)).await.map(|scores| scores.heads[0].len()) }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    let calls: Vec<_> = (0..64)
        .map(|row| {
            let scorer = scorer.clone();
            tokio::spawn(async move { scorer.score(&texts(64).slice(row, 1)).await })
        })
        .collect();
    for (row, call) in calls.into_iter().enumerate() {
        let scores = call.await.unwrap().unwrap();
        assert!(
            gap(expected.heads[0].row(row).unwrap(), scores.heads[0].row(0).unwrap()) < TOLERANCE,
            "row {row}"
        );
    }
    assert_eq!(busy.await.unwrap().unwrap(), 5000);
    let stats = scorer.stats();
    assert_eq!(stats.rows - before.rows, 5064);
    let alone = 5000 * 14 / options().batch_tokens as u64 + 64;
    assert!(
        stats.batches - before.batches < alone,
        "{} batches",
        stats.batches - before.batches
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_beyond_the_queue_wait_and_are_served() {
    let scorer = scorer(ScorerOptions {
        queue_rows: 4,
        ..options()
    });
    let calls: Vec<_> = (0..40)
        .map(|call| {
            let scorer = scorer.clone();
            let rows = if call == 7 { 100 } else { 3 };
            tokio::spawn(async move { scorer.score(&texts(rows)).await.map(|scores| scores.heads[0].len()) })
        })
        .collect();
    let mut rows = 0;
    for call in calls {
        rows += tokio::time::timeout(Duration::from_secs(60), call)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    assert_eq!(rows, 39 * 3 + 100);
    // Only one call of three rows fits in the queue at a time, so that none can have shared a batch.
    assert!(scorer.stats().batches >= 40, "{:?}", scorer.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_harm_nobody_and_give_their_room_back() {
    let scorer = scorer(ScorerOptions {
        queue_rows: 600,
        ..options()
    });
    for wait in [0, 1, 20, 300] {
        for _ in 0..10 {
            let texts = texts(500);
            let given_up = tokio::time::timeout(Duration::from_micros(wait), scorer.score(&texts)).await;
            drop(given_up);
        }
    }
    let texts = texts(600);
    let scores = tokio::time::timeout(Duration::from_secs(60), scorer.score(&texts))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(scores.heads[0].len(), 600);
    assert!(
        scorer.stats().rows < 40 * 500 + 600,
        "work of callers that had hung up was done: {:?}",
        scorer.stats()
    );
}

#[tokio::test]
async fn blocking_calls_work_on_a_runtime_thread_too() {
    let scorer = scorer(ScorerOptions {
        queue_rows: 10,
        ..options()
    });
    for _ in 0..300 {
        assert_eq!(scorer.score_blocking(&texts(2)).unwrap().heads[0].len(), 2);
    }
}

#[test]
fn statistics_add_up() {
    let (scorer, texts) = (scorer(options()), texts(300));
    assert_eq!(scorer.stats().rows, 0);
    let scores = scorer.score_blocking(&texts).unwrap();
    let stats = scorer.stats();
    let tokens: i32 = scores.n_tokens.values().iter().sum();
    assert_eq!((stats.rows, stats.tokens), (300, tokens as u64));
    assert!(stats.padded_tokens >= stats.tokens && stats.batches > 0);
    assert!(stats.model_seconds > 0.0 && stats.tokenize_seconds > 0.0);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let dir = super::support::checkpoint();
    for (options, says) in [
        (
            ScorerOptions {
                batch_tokens: 0,
                ..options()
            },
            "batch_tokens",
        ),
        (
            ScorerOptions {
                queue_rows: 0,
                ..options()
            },
            "queue_rows",
        ),
        (
            ScorerOptions {
                threads: Some(0),
                ..options()
            },
            "threads",
        ),
        (
            ScorerOptions {
                device: "cuda:999".parse().unwrap(),
                ..options()
            },
            "cuda:999",
        ),
    ] {
        let message = Scorer::open(dir.path(), options).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}
