//! Where reading begins, and when all is read.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::broker::{Broker, Topic};
use crate::support::posts::made_up;
use crate::support::table::versions;
use crate::support::{Folder, Running};

const PATIENCE: Duration = Duration::from_secs(60);

/// A stream that commits at its end only, unless something asks it to.
fn config(folder: &Folder, source: &str) -> String {
    let (posts, dead) = (folder.text("posts"), folder.text("dead"));
    let sink = format!("[sink]\nposts = \"{posts}\"\ndead_letters = \"{dead}\"\nflush_seconds = 3600\n");
    folder.write("tamiz.toml", source.to_owned() + &sink)
}

fn send(topic: &Topic, payloads: &[Vec<u8>]) {
    topic.send(payloads.iter().map(|payload| Some(payload.as_slice())));
}

#[test]
fn a_start_that_was_chosen_holds_for_what_arrives_while_nobody_reads() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topic) = (Folder::new(), broker.topic(1, &[]));
    let feed = made_up(50);
    let (before, after) = feed.payloads.split_at(20);
    send(&topic, before);
    let config = config(&folder, &(topic.source() + "first_start = \"latest\"\n"));
    let posts = folder.path("posts");
    let mut run = Running::start(folder.tamiz(&["run", "--no-model", "-c", &config]));
    run.signal_when(libc::SIGTERM, Duration::ZERO, |_| versions(&posts) > 1);
    assert_eq!(run.wait().done().summary().read, 0, "the start is a commit of its own");
    send(&topic, after);
    let next = folder.run(&["run", "--until-caught-up", "--no-model", "-c", &config]);
    assert_eq!(next.done().summary().read, after.len() as u64);
}

#[test]
fn a_run_over_several_topics_ends_at_the_markers_of_transactions() {
    let Some(broker) = Broker::find() else { return };
    let (folder, topics) = (Folder::new(), [(); 2].map(|()| broker.topic(2, &[])));
    let feed = made_up(40);
    for (topic, payloads) in topics.iter().zip(feed.payloads.chunks(20)) {
        send_in_a_transaction(topic, payloads);
    }
    let [one, two] = topics.each_ref().map(|topic| topic.name.as_str());
    let both = format!("topics = [\"{one}\", \"{two}\"]");
    let source = topics[0].source().replace(&format!("topics = [\"{one}\"]"), &both);
    let config = config(&folder, &source);
    let ended = folder.run(&["run", "--until-caught-up", "--no-model", "-c", &config]);
    assert_eq!(ended.done().summary().read, feed.payloads.len() as u64);
}

/// A marker is then the last that each partition holds.
fn send_in_a_transaction(topic: &Topic, payloads: &[Vec<u8>]) {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", topic.servers())
        .set("transactional.id", &topic.name);
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for (number, payload) in payloads.iter().enumerate() {
        let record = BaseRecord::<[u8], [u8]>::to(&topic.name)
            .partition(number as i32 % 2)
            .payload(payload.as_slice());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.commit_transaction(PATIENCE).unwrap();
}
