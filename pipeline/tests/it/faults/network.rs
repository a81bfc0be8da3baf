//! A slow network, and one that breaks.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::json;

use super::brokers::Cluster;
use super::proxy::Proxy;
use super::{Field, PARTITIONS, Protocol, Seconds, report, times};

const RATE: u64 = 200;

#[test]
fn a_network_that_is_slow_and_breaks_loses_and_doubles_nothing() {
    let (proxy, listener) = Proxy::bind();
    let advertised = proxy.port.to_string();
    let Some(cluster) = Cluster::start(1, &["--port", "auto", "--advertise", &advertised]) else {
        return;
    };
    let real = cluster.broker.servers.rsplit(':').next().unwrap().parse().unwrap();
    proxy.forward(listener, real);
    let through = format!("127.0.0.1:{}", proxy.port);
    let topic = cluster.broker.topic(PARTITIONS, &[]);
    let mut field = Field::new(&topic, (&through, &through), Protocol::Consumer, RATE);
    let mut workers = vec![field.worker(), field.worker()];
    field.flowing(&mut workers);
    let (mut recoveries, mut cut, rounds) = (Vec::new(), 0, times(1, 8));
    for _ in 0..rounds {
        proxy.weather.delay_millis.store(150, Relaxed);
        proxy.weather.bytes_per_second.store(150_000, Relaxed);
        std::thread::sleep(Duration::from_secs(3));
        cut += proxy.cut();
        std::thread::sleep(Duration::from_secs(1));
        proxy.weather.delay_millis.store(0, Relaxed);
        proxy.weather.bytes_per_second.store(0, Relaxed);
        recoveries.push(field.recovered(&mut workers));
    }
    let (verdict, _) = field.verdict(workers);
    let what = "150 ms and 150 kB/s between broker and clients, then every connection is cut";
    let figures = json!({"rounds": rounds, "connections_cut": cut, "recovery_seconds": Seconds::of(recoveries)});
    report("bad_network", what, &verdict, figures);
}
