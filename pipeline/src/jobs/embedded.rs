//! The broker of the demo: librdkafka's mock cluster, spoken to over the real protocol on a real socket.

use rdkafka::ClientConfig;
use rdkafka::bindings::rd_kafka_mock_group_initial_rebalance_delay_ms;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};

use super::JobError;

/// A broker inside this process; it goes with this value.
pub(super) struct Broker {
    // The client in which librdkafka keeps the cluster; it produces nothing.
    owner: BaseProducer,
}

impl Broker {
    /// A broker with one topic. It keeps 5 MB per partition and drops the oldest.
    pub(super) fn start(topic: &str, partitions: i32) -> Result<Self, JobError> {
        let failed = |error: KafkaError| JobError::Failed(format!("the embedded broker does not start: {error}"));
        let owner: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()
            .map_err(failed)?;
        let broker = Broker { owner };
        let mock = broker.client().mock_cluster().ok_or_else(Self::absent)?;
        mock.create_topic(topic, partitions, 1).map_err(failed)?;
        drop(mock);
        // SAFETY: the handle is of a live client, and that client has a mock cluster, as was just seen.
        unsafe {
            let cluster = rdkafka::bindings::rd_kafka_handle_mock_cluster(broker.client().native_ptr());
            // A group of one waits for nobody.
            rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
        Ok(broker)
    }

    /// Its bootstrap servers.
    pub(super) fn servers(&self) -> Result<String, JobError> {
        let cluster = self.client().mock_cluster().ok_or_else(Self::absent)?;
        Ok(cluster.bootstrap_servers())
    }

    fn client(&self) -> &Client<DefaultProducerContext> {
        self.owner.client()
    }

    fn absent() -> JobError {
        JobError::Failed("the embedded broker is not there; report this as a defect".into())
    }
}
