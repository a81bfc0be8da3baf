//! Health by hand-made moments.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn later(health: &Health, seconds: u32) -> Instant {
    health.born + SECOND * seconds
}

#[test]
fn nobody_is_dead_before_the_first_sign_of_life() {
    let health = Health::default();
    assert!(health.live_at(later(&health, 9_999), false).is_ok());
}

#[test]
fn each_part_that_falls_silent_is_named() {
    for (part, within, word) in [
        (Health::runtime_turned as fn(&Health), 29, "runtime"),
        (Health::source_turned, 119, "source"),
        (Health::batch_in, 299, "batches"),
    ] {
        let health = Health::default();
        part(&health);
        assert!(health.live_at(later(&health, within), false).is_ok(), "{word}");
        let told = health.live_at(later(&health, within + 3), false).unwrap_err();
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn a_line_that_waits_for_commits_or_has_nothing_to_do_is_alive() {
    let health = Health::default();
    health.batch_in();
    assert!(health.live_at(later(&health, 999), true).is_ok());
    assert!(health.live_at(later(&health, 999), false).is_err());
    health.batch_out();
    assert!(health.live_at(later(&health, 999), false).is_ok());
    health.source_turned();
    health.source_ended();
    assert!(health.live_at(later(&health, 999), false).is_ok());
}

#[test]
fn ready_is_assigned_and_committing() {
    let health = Health::default();
    assert_eq!(health.ready(1), Err("starting".into()));
    health.begin(Kind::Kafka, SECOND * 10);
    assert!(health.ready(0).unwrap_err().contains("no partitions"));
    assert_eq!(health.ready(2), Ok("ready: 2 partitions".into()));
    health.rows_wait(Some(health.born));
    assert!(health.ready_at(later(&health, 39), 2).is_ok());
    let told = health.ready_at(later(&health, 45), 2).unwrap_err();
    assert!(told.contains("45 s"), "{told}");
    health.rows_wait(None);
    assert!(health.ready_at(later(&health, 45), 2).is_ok());
}

#[test]
fn a_spare_member_is_ready_once_its_group_has_settled() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    health.group(group(true, true));
    assert!(health.ready_at(later(&health, 5), 0).is_err());
    health.group(group(true, true));
    assert!(health.ready_at(later(&health, 15), 0).unwrap().contains("spare"));
    health.group(group(true, false));
    assert!(health.ready_at(later(&health, 15), 0).is_err());
}

fn group(coordinated: bool, settled: bool) -> Group {
    Group { coordinated, settled }
}

#[test]
fn a_coordinator_that_is_away_is_told_however_many_partitions_there_are() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    for partitions in [0, 3] {
        health.group(group(false, false));
        let told = health.ready_at(later(&health, 90), partitions).unwrap_err();
        assert!(told.contains("coordinator"), "{told}");
    }
    assert!(health.ready_at(later(&health, 55), 3).is_ok());
    health.group(group(true, false));
    assert!(health.ready_at(later(&health, 90), 3).is_ok());
}

#[test]
fn a_line_that_waits_for_the_registry_is_alive_and_not_ready() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    health.batch_in();
    let (first, second) = (health.asks_registry(), health.asks_registry());
    drop(first);
    assert!(health.ready_at(later(&health, 25), 1).is_ok());
    let told = health.ready_at(later(&health, 999), 1).unwrap_err();
    assert!(told.contains("registry"), "{told}");
    assert!(health.live_at(later(&health, 999), false).is_ok());
    drop(second);
    assert!(health.ready_at(later(&health, 100), 1).is_ok());
    assert!(health.live_at(later(&health, 999), false).is_err());
}

#[test]
fn a_line_that_lets_no_batch_out_is_not_ready() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    health.batch_in();
    health.batch_in();
    assert!(health.ready_at(later(&health, 110), 1).is_ok());
    let told = health.ready_at(later(&health, 130), 1).unwrap_err();
    assert!(told.contains("older than it should be"), "{told}");
    // Others move behind the one that is stuck.
    health.line.set(health.born, later(&health, 800));
    assert!(health.ready_at(later(&health, 850), 1).is_ok());
    health.line.set(health.born, later(&health, 950));
    assert!(health.ready_at(later(&health, 951), 1).is_err());
    health.batch_out();
    assert!(
        health.ready_at(later(&health, 110), 1).is_ok(),
        "the next one has time too"
    );
    health.batch_out();
    assert!(
        health.ready_at(later(&health, 9_999), 1).is_ok(),
        "nothing is there to come out"
    );
}

#[test]
fn a_line_that_has_ended_shows_nothing() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    health.source_turned();
    health.batch_in();
    health.rows_wait(Some(health.born));
    health.end();
    assert_eq!(health.ready_at(later(&health, 1), 1), Err("starting".into()));
    assert!(health.live_at(later(&health, 9_999), false).is_ok());
}

#[test]
fn files_need_no_partitions_and_a_new_start_forgets_the_old() {
    let health = Health::default();
    health.begin(Kind::Kafka, SECOND);
    health.batch_in();
    health.rows_wait(Some(health.born));
    health.begin(Kind::Files, SECOND);
    assert!(health.ready_at(later(&health, 999), 0).is_ok());
    assert!(health.live_at(later(&health, 999), false).is_ok());
}
