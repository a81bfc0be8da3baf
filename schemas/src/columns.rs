//! Every column name, once. A rename here is a new schema version.

/// Identifier that the source gave the post; unique within a source.
pub const ID: &str = "id";
/// Where the post came from (`x`, `bluesky`, `news` …); partition column.
pub const SOURCE: &str = "source";
/// UTC day of the event time; partition column.
pub const DATE: &str = "date";
/// Event time, UTC, microseconds.
pub const CREATED_AT: &str = "created_at";
/// When the pipeline read the post, UTC, microseconds.
pub const INGESTED_AT: &str = "ingested_at";
/// Keyed pseudonym of the author; never the name.
pub const AUTHOR: &str = "author";
/// ISO 639-1 code, `und` where there is nothing to tell by.
pub const LANG: &str = "lang";
/// Confidence in `lang`, 0 to 1.
pub const LANG_CONFIDENCE: &str = "lang_confidence";
/// Normalised and scrubbed text.
pub const TEXT: &str = "text";
/// XXH3-128 of `text`, hexadecimal.
pub const TEXT_HASH: &str = "text_hash";
/// `id` of the first post with the same text inside the window; null where the post is new.
pub const DUPLICATE_OF: &str = "duplicate_of";
/// Noise tags, empty where the post is clean.
pub const NOISE: &str = "noise";
/// Kinds of personal data found, with counts.
pub const PII: &str = "pii";
/// Sentiment: label, score (positive − negative) and the three probabilities.
pub const SENTIMENT: &str = "sentiment";
/// Topic: label and its probability.
pub const TOPIC: &str = "topic";
/// Tokens that the model read, special tokens included.
pub const N_TOKENS: &str = "n_tokens";
/// The text was longer than the model's window.
pub const TRUNCATED: &str = "truncated";
/// Identity of the model that scored the row, `name@sha`.
pub const MODEL: &str = "model";
/// Where the post lay in Kafka: topic, partition, offset, timestamp.
pub const KAFKA: &str = "kafka";
/// Arrived later than `late.seconds` after it was written; null where that is not known or not wanted.
pub const LATE: &str = "late";
/// Keyed hash of what deletes name the post by, where that is not its `id`.
pub const DELETE_KEY: &str = "delete_key";

/// Deletes: when the delete was written down.
pub const RECORDED_AT: &str = "recorded_at";

/// Dead letters: the Kafka topic, or the file of a batch job.
pub const TOPIC_NAME: &str = "topic";
/// Partition of the topic; 0 for a file.
pub const PARTITION: &str = "partition";
/// Offset in the partition; row number in a file.
pub const OFFSET: &str = "offset";
/// Kafka's own timestamp of the message.
pub const TIMESTAMP: &str = "timestamp";
/// The stage that refused the row.
pub const STAGE: &str = "stage";
/// Why, as a word to group by.
pub const REASON: &str = "reason";
/// Why, for a person; holds no text of the post.
pub const DETAIL: &str = "detail";
/// SHA-256 of the payload, hexadecimal.
pub const PAYLOAD_HASH: &str = "payload_hash";
/// Size of the payload, bytes.
pub const PAYLOAD_BYTES: &str = "payload_bytes";
/// The payload itself; only where the configuration keeps it, since it holds personal data.
pub const PAYLOAD: &str = "payload";
/// When the row was refused.
pub const REJECTED_AT: &str = "rejected_at";
/// When the dead letter was last replayed; null where it never was.
pub const REPLAYED_AT: &str = "replayed_at";
/// What became of it then; null where it never was.
pub const OUTCOME: &str = "outcome";
