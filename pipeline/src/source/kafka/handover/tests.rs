//! What can be told of a handover without a broker.

use std::cell::Cell;

use super::start::fits;
use super::*;
use crate::config::load;

const LONG: Duration = Duration::from_secs(3_600);

fn handover(first_start: FirstStart, out: mpsc::Sender<Item>) -> Handover {
    let mut config = load(None, std::iter::empty()).unwrap().source.kafka;
    config.first_start = first_start;
    config.first_start_timestamp = "2026-01-02T03:04:05Z".into();
    let guard = config.client().unwrap().guard();
    let resume: Resume = Box::new(|_: &[TopicPartition]| Ok(BTreeMap::new()));
    Handover::new(&config, guard, resume, out, Arc::default()).unwrap()
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: "feed".into(),
        partition,
    }
}

#[test]
fn a_drain_ends_in_time_though_the_line_has_no_room() {
    let (out, mut items) = mpsc::channel(1);
    let handover = handover(FirstStart::Earliest, out.clone());
    out.try_send(Item::Flush(oneshot::channel().0)).unwrap();
    handover.drain_within(Duration::from_millis(20));
    drop(items.try_recv().unwrap());
    // Now there is room, but nothing is committed.
    handover.drain_within(Duration::from_millis(20));
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| handover.drain_within(LONG));
        // Those who asked before have given up.
        while let Some(Item::Flush(done)) = items.blocking_recv() {
            if done.send(()).is_ok() {
                break;
            }
        }
        drained.join().unwrap();
    });
    drop(items);
    handover.drain_within(LONG);
}

#[test]
fn a_start_that_only_this_process_knows_is_noted_to_be_written_down() {
    for (first_start, noted) in [
        (FirstStart::Latest, vec![at(0), at(1)]),
        (FirstStart::Timestamp, vec![at(0), at(1)]),
        (FirstStart::Earliest, vec![]),
    ] {
        let (out, _items) = mpsc::channel(1);
        let handover = handover(first_start, out);
        for (partition, stored) in [(0, None), (1, None), (2, Some(300))] {
            handover.take_over(&at(partition), stored, 300);
        }
        let starts = || {
            let assigned = handover.lock();
            assigned.starts.iter().map(|(at, _)| at.clone()).collect::<Vec<_>>()
        };
        assert_eq!(starts(), noted);
        handover.give_up(vec![at(0)]);
        assert_eq!(starts(), noted.get(1..).unwrap_or_default());
    }
}

#[test]
fn a_question_about_a_partition_without_a_leader_is_asked_again_for_a_while() {
    let (out, _items) = mpsc::channel(1);
    let handover = handover(FirstStart::Earliest, out);
    let asked = Cell::new(0);
    let answered_at_third = || {
        asked.set(asked.get() + 1);
        match asked.get() {
            3 => Ok(7),
            _ => Err(SourceError::Offsets("no leader".into())),
        }
    };
    let until = Instant::now() + LONG;
    assert_eq!(handover.patiently(until, answered_at_third).unwrap(), 7);
    assert!(handover.patiently(Instant::now(), answered_at_third).is_err());
    assert_eq!(asked.get(), 4, "time is up: asked once");
}

#[test]
fn an_offset_that_the_topic_does_not_hold_is_told() {
    for held in [10, 20] {
        assert!(fits(&at(0), held, (10, 20)).is_ok());
    }
    for (next, words) in [(7, "3 messages were deleted unread"), (21, "made anew")] {
        let told = fits(&at(0), next, (10, 20)).unwrap_err().to_string();
        assert!(told.contains(words) && told.contains("`feed` [0]"), "{told}");
    }
}

#[test]
fn a_line_that_starts_again_has_epochs_of_its_own() {
    let (out, _items) = mpsc::channel(1);
    let epoch = |handover: Handover| handover.take_over(&at(0), Some(1), 1);
    let before = epoch(handover(FirstStart::Earliest, out.clone()));
    std::thread::sleep(Duration::from_millis(5));
    assert!(epoch(handover(FirstStart::Earliest, out)) > before);
}

#[test]
fn lag_is_forgotten_with_the_assignment_that_it_is_about() {
    let (out, _items) = mpsc::channel(1);
    let handover = handover(FirstStart::Earliest, out);
    let old = handover.take_over(&at(0), Some(1), 1);
    handover.lag().assigned(&at(0), old + 1, (1, 5));
    handover.give_up(vec![at(0)]);
    assert_eq!(handover.lag().partitions(), 1, "that of another line");
}
