//! What a replay tells in the end.

/// What became of letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Posts now.
    pub passed: u64,
    /// Of these, those whose post was in the table already.
    pub already: u64,
    /// Dead letters still.
    pub failed_again: u64,
    /// Taken back by their sources.
    pub deleted: u64,
    /// Without a payload anywhere.
    pub payload_gone: u64,
    /// Left alone: the run that refused them is not past them yet.
    pub unsettled: u64,
    /// Left alone: so old that a delete of theirs may be forgotten.
    pub forgotten: u64,
    /// Left alone: their payload is in the files of a batch job, and was not kept.
    pub in_files: u64,
    /// Left alone: their key is gone, by which a tombstone would know their post.
    pub keyless: u64,
}

impl Replayed {
    /// For a person.
    pub fn summary(&self, dry_run: bool) -> String {
        let done = self.passed + self.failed_again + self.deleted + self.payload_gone;
        let would = if dry_run { "would replay" } else { "replayed" };
        let mut text = format!(
            "{would} {done} dead letters: {} passed, {} failed again\n",
            self.passed, self.failed_again
        );
        for (count, what) in [
            (self.already, "of those that passed were in the table already"),
            (self.deleted, "were taken back by their sources meanwhile"),
            (
                self.payload_gone,
                "have no payload any more: Kafka no longer holds the message",
            ),
            (
                self.unsettled,
                "left alone: the pipeline is not past them yet, or another pipeline refused them",
            ),
            (
                self.forgotten,
                "left alone: older than deletes.remember_hours, their deletes may be forgotten",
            ),
            (
                self.in_files,
                "left alone: rows of a batch job whose payloads were not kept (sink.keep_payload)",
            ),
            (
                self.keyless,
                "left alone: tombstones know posts by the key of their message, and Kafka no longer holds the message",
            ),
        ] {
            if count > 0 {
                text += &format!("  {count} {what}\n");
            }
        }
        text
    }
}
