//! The `[source.kafka]` section, and the client configuration that it becomes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use serde::{Deserialize, Serialize};

use super::access::{Access, option_problem};
use super::security::{SaslConfig, TlsConfig};
use crate::config::ConfigError;

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
    /// `[source.kafka.tls]`
    pub tls: TlsConfig,
    /// `[source.kafka.sasl]`
    pub sasl: SaslConfig,
}

/// Options that the delivery guarantee rests on; `options` may not change them.
const FIXED: [(&str, &str); 4] = [
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
];

/// How often the client tells how far it has read; lag is as fresh as that. With a thousand partitions a report takes it
/// some milliseconds.
const STATISTICS: &str = "statistics.interval.ms";
const STATISTICS_MILLIS: &str = "2000";
/// How often it must at least tell where the end of a partition is waited for: `--until-caught-up` is to end then.
const ENDS_TOLD: RangeInclusive<u64> = 1..=10_000;

impl KafkaConfig {
    /// The options that have nothing to do with security. [`KafkaConfig::client`] adds the others.
    pub(super) fn plain_client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers).set("client.id", "tamiz");
        // All that is of use, whatever our own log shows: hang-ups are told as information only.
        client.set_log_level(match self.options.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        });
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }

    /// What a consumer needs; `tell_end` has it say where a partition ends.
    pub(super) fn consumer(&self, tell_end: bool) -> Result<Access, ConfigError> {
        let mut access = self.client()?;
        let client = access.config_mut();
        // The client's own pause is a second, once enough is fetched ahead: longer than all that takes to be read.
        if client.get("fetch.queue.backoff.ms").is_none() {
            client.set("fetch.queue.backoff.ms", "10");
        }
        client
            .set("group.id", &self.group)
            .set("enable.partition.eof", tell_end.to_string());
        match self.group_protocol {
            GroupProtocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
            GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
        };
        let tells_ends = |millis: &String| millis.parse::<u64>().is_ok_and(|millis| ENDS_TOLD.contains(&millis));
        if self
            .options
            .get(STATISTICS)
            .is_none_or(|set| tell_end && !tells_ends(set))
        {
            client.set(STATISTICS, STATISTICS_MILLIS);
        }
        for (name, value) in FIXED {
            client.set(name, value);
        }
        Ok(access)
    }

    /// After how long a silent member loses its partitions to the others.
    pub(super) fn session(&self) -> Duration {
        let millis = self
            .options
            .get("session.timeout.ms")
            .and_then(|text| text.parse().ok());
        Duration::from_millis(millis.unwrap_or(45_000))
    }

    /// Options that librdkafka does not know, or not with this value: name and what is wrong.
    pub fn unusable_options(&self) -> impl Iterator<Item = (&str, String)> {
        let told = |(name, value): (&'_ String, &String)| option_problem(name, value);
        self.options
            .iter()
            .filter_map(move |option| Some((option.0.as_str(), told(option)?)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn statistics_come_as_the_user_wants_but_often_enough_to_tell_an_end_that_is_waited_for() {
        for (set, of_stream, until_caught_up) in [
            (None, "2000", "2000"),
            (Some("500"), "500", "500"),
            (Some("0"), "0", "2000"),
            (Some("3600000"), "3600000", "2000"),
        ] {
            let mut config = load(None, std::iter::empty()).unwrap().source.kafka;
            let set = set.map(|millis: &str| (STATISTICS.to_owned(), millis.to_owned()));
            config.options.extend(set);
            for (tell_end, wanted) in [(false, of_stream), (true, until_caught_up)] {
                let access = config.consumer(tell_end).unwrap();
                assert_eq!(access.config().get(STATISTICS), Some(wanted));
            }
        }
    }
}
