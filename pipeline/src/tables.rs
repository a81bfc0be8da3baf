//! What a sink writes to, and how offsets are named there.

use crate::batch::TopicPartition;
use crate::deletes::DeletesTable;
use crate::letter_topic::LetterTopic;
use crate::table::TableWriter;

/// Both tables, and who hears of dead letters besides.
pub struct Tables {
    /// `posts`.
    pub posts: TableWriter,
    /// `dead_letters`.
    pub dead_letters: TableWriter,
    /// Hears of them before they are committed.
    pub letter_topic: Option<LetterTopic>,
    /// `deletes`.
    pub deletes: DeletesTable,
}

/// Name under which a table keeps a partition's offset: `{pipeline}/{cluster}/{topic}/{partition}`.
pub fn app_id(prefix: &str, at: &TopicPartition) -> String {
    format!("{prefix}/{}/{}", at.topic, at.partition)
}
