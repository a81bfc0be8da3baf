//! A Kafka topic full of posts, for as long as a benchmark needs it.

use anyhow::{Context, Result, anyhow};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::path::Path;
use tamiz::config::load;
use tamiz::jobs::produce::{ProduceOptions, produce};
use tamiz::source::Stop;

/// Partitions of the topic.
const PARTITIONS: i32 = 4;

/// A topic of our own; [`Topic::delete`] takes it away.
pub struct Topic {
    /// Its name.
    pub name: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    /// Makes a topic and sends it every line of an archive.
    ///
    /// # Errors
    /// No broker answers, or it refuses the topic or messages.
    pub async fn fill(brokers: &str, archive: &Path) -> Result<Topic> {
        let mut config = load(None, std::iter::empty())?;
        config.source.kafka.brokers = brokers.into();
        let admin: AdminClient<_> = config.source.kafka.client()?.config().create()?;
        let topic = Topic {
            name: format!("tamiz-benchmark-{}", std::process::id()),
            admin,
        };
        let new = NewTopic::new(&topic.name, PARTITIONS, TopicReplication::Fixed(1));
        let made = topic.admin.create_topics([&new], &AdminOptions::new()).await;
        for one in made.with_context(|| format!("cannot make a topic at {brokers}"))? {
            one.map_err(|(name, code)| anyhow!("the broker refuses topic `{name}`: {code}"))?;
        }
        let options = ProduceOptions {
            topic: topic.name.clone(),
            rate: None,
            files: vec![archive.to_owned()],
        };
        tokio::task::spawn_blocking(move || produce(&config, &options, &Stop::default())).await??;
        Ok(topic)
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// The broker refuses or is gone.
    pub async fn delete(self) -> Result<()> {
        self.admin.delete_topics(&[&self.name], &AdminOptions::new()).await?;
        Ok(())
    }
}
