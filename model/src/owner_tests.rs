//! Rows that fail, among rows that do not.

use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::device::DeviceChoice;
use crate::testing::tiny_checkpoint;

/// No vocabulary goes so far: looking it up fails, on the processor as an error and not as a crash.
const BAD: u32 = 1_000_000;

fn owner(threads: usize) -> (tempfile::TempDir, Owner) {
    let dir = tempfile::tempdir().unwrap();
    tiny_checkpoint(dir.path()).unwrap();
    let options = ScorerOptions {
        device: DeviceChoice::Cpu,
        batch_tokens: 120,
        threads: Some(threads),
        ..ScorerOptions::default()
    };
    let owner = Owner::new(Checkpoint::open(dir.path()).unwrap(), &options, Arc::default()).unwrap();
    (dir, owner)
}

type Answer = oneshot::Receiver<Result<Scored, ScoreError>>;

fn job(rows: &[Vec<u32>]) -> (Job, Answer) {
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (reply, answer) = oneshot::channel();
    (Job::new((Encoded::of_ids(rows), Vec::new()), permit, reply), answer)
}

/// Rows of one to eleven tokens, those in `bad` with a token that no model has.
fn rows(count: usize, bad: &[usize]) -> Vec<Vec<u32>> {
    let row = |at: usize| {
        let mut row: Vec<u32> = (0..1 + (at * 7) % 11)
            .map(|place| 2 + ((at + place) % 40) as u32)
            .collect();
        if bad.contains(&at) {
            row.extend([5, BAD]);
        }
        row
    };
    (0..count).map(row).collect()
}

fn check(scored: &Scored, expected: &Scored, bad: &[usize]) {
    let failed: Vec<usize> = scored.failed.iter().map(|failed| failed.row).collect();
    assert_eq!(failed, bad);
    for (head, sound) in scored.scores.heads.iter().zip(&expected.scores.heads) {
        for row in 0..head.len() {
            match bad.contains(&row) {
                true => assert_eq!(head.row(row), None),
                false => {
                    let gap = head.row(row).unwrap().iter().zip(sound.row(row).unwrap());
                    assert!(
                        gap.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) < 1e-5,
                        "row {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_that_the_model_cannot_do_have_no_scores_and_all_others_have_theirs() {
    for threads in [1, 2] {
        let (_dir, owner) = owner(threads);
        let (sound, mut expected) = job(&rows(80, &[]));
        owner.compute(vec![sound]);
        let expected = expected.try_recv().unwrap().unwrap();
        assert!(expected.failed.is_empty());
        let bad = [0, 13, 14, 79];
        let ((one, mut first), (other, mut second)) = (job(&rows(80, &bad)), job(&rows(80, &[])));
        owner.compute(vec![one, other]);
        let first = first.try_recv().unwrap().unwrap();
        check(&first, &expected, &bad);
        let reason = &first.failed[0].reason;
        assert!(reason.contains("out of range") && !reason.contains('\n'), "{reason}");
        check(&second.try_recv().unwrap().unwrap(), &expected, &[]);
        assert_eq!(owner.counters.failed_rows.load(Ordering::Relaxed), 4);
        assert!(owner.counters.split_batches.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn a_model_that_cannot_do_its_simplest_row_is_broken() {
    let (_dir, owner) = owner(1);
    let (job, mut answer) = job(&[vec![BAD], vec![BAD, 3]]);
    owner.compute(vec![job]);
    let error = answer.try_recv().unwrap().unwrap_err();
    assert!(matches!(error, ScoreError::Broken(_)), "{error}");
    assert!(error.to_string().contains("look at the device"), "{error}");
}

#[test]
fn batches_shrink_when_memory_runs_out_and_grow_again() {
    let (_dir, owner) = owner(1);
    let (job, _answer) = job(&vec![vec![2; 10]; 12]);
    let open = [owner.open(job)];
    let places: Vec<Place> = (0..12).map(|row| (0, row)).collect();
    let memory = ModelError::Config("CUDA out of memory".to_owned());
    owner.shrink(&open, &places, &memory);
    assert_eq!(owner.limit.get().tokens, 60);
    owner.shrink(&open, &places[..1], &memory);
    assert_eq!(owner.limit.get().tokens, 60, "a single row says nothing about batches");
    owner.shrink(&open, &places, &ModelError::Config("index out of range".to_owned()));
    assert_eq!(owner.limit.get().tokens, 60, "nor does another fault");
    for _ in 0..4 * CALM_BATCHES {
        owner.breathe(1);
    }
    assert_eq!(owner.limit.get().tokens, 120);
}
