//! Wrong calls are found when the query is planned, and the message says how to call the function.

use crate::support::Session;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_calls_name_the_function_and_its_signature() {
    let session = Session::new();
    for (call, parts) in [
        (
            "sentiment()",
            vec!["sentiment was given 0 arguments", "sentiment(text)"],
        ),
        (
            "sentiment(text, text)",
            vec!["sentiment was given 2 arguments", "sentiment(text)"],
        ),
        (
            "sentiment_score(id)",
            vec!["sentiment_score reads text, not Int32", "CAST"],
        ),
        ("normalize(1.5)", vec!["normalize reads text, not Float64"]),
        (
            "classify(text)",
            vec!["classify was given 1 arguments", "classify(text, head)"],
        ),
        (
            "classify(text, lang)",
            vec!["the head of classify has to be a literal text", "classify(text, head)"],
        ),
        ("classify(text, 'mood')", vec!["no head `mood`", "sentiment, topic"]),
        (
            "scrub_pii(text, 'burn')",
            vec!["scrub_pii has no mode 'burn'", "mask, hash, drop, keep"],
        ),
        ("scrub_pii(text, 'hash')", vec!["scrub_pii cannot use mode 'hash'"]),
        (
            "scrub_pii(text, lang)",
            vec!["the mode of scrub_pii has to be a literal text"],
        ),
    ] {
        let error = session.error(&format!("SELECT {call} FROM posts")).await;
        for part in parts {
            assert!(error.contains(part), "{call}: {error}");
        }
    }
}
