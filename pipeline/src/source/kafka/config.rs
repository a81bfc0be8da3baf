//! The `[source.kafka]` section, and the client configuration that it becomes.

use std::collections::BTreeMap;

use rdkafka::config::ClientConfig;
use serde::{Deserialize, Serialize};

/// Where a partition starts that the table knows nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstStart {
    /// The oldest message.
    Earliest,
    /// What arrives from now on.
    Latest,
    /// The first message at or after `first_start_timestamp`.
    Timestamp,
}

/// Which group protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// The classic one, cooperative-sticky.
    Classic,
    /// KIP-848, Kafka 4 and later.
    Consumer,
}

/// The `[source.kafka]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port,host:port`.
    pub brokers: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Consumer group.
    pub group: String,
    /// Group protocol.
    pub group_protocol: GroupProtocol,
    /// Where a new partition starts.
    pub first_start: FirstStart,
    /// RFC 3339 moment for `first_start = "timestamp"`.
    pub first_start_timestamp: String,
    /// Further librdkafka options, by their own names.
    pub options: BTreeMap<String, String>,
}

/// Options that the delivery guarantee rests on; `options` may not change them.
const FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
];

impl KafkaConfig {
    /// The client configuration that producers, consumers and checks share.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "tamiz");
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }

    /// The configuration of a consumer; `tell_end` has it say where a partition ends.
    pub(super) fn consumer(&self, tell_end: bool) -> ClientConfig {
        let mut client = self.client();
        client
            .set("group.id", &self.group)
            .set("enable.partition.eof", tell_end.to_string());
        match self.group_protocol {
            GroupProtocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
            GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
        };
        for (name, value) in FIXED {
            client.set(name, value);
        }
        client
    }

    /// Options that contradict the delivery guarantee.
    pub fn forbidden_options(&self) -> Vec<&str> {
        self.options
            .keys()
            .map(String::as_str)
            .filter(|name| FIXED.iter().any(|(fixed, _)| fixed == name))
            .collect()
    }
}
