//! What is in flight now: the byte budget and the queues of the line that runs.
//!
//! A line that starts again puts its own in place of those before. Queues are held weakly: looking at one does not keep
//! it open.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::source::Budget;

type Look = Box<dyn Fn() -> Option<Queue> + Send>;

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Batches in it.
    pub depth: usize,
    /// Batches it takes before those who send wait.
    pub capacity: usize,
}

/// Handles to what is in flight.
#[derive(Default)]
pub struct Gauges(Mutex<Handles>);

#[derive(Default)]
struct Handles {
    budget: Option<Budget>,
    queues: BTreeMap<&'static str, Look>,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Gauges {
    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what an earlier line had.
    pub fn clear(&self) {
        *self.lock() = Handles::default();
    }

    /// The budget of the line that runs.
    pub fn budget(&self, budget: &Budget) {
        self.lock().budget = Some(budget.clone());
    }

    /// A queue of the line that runs.
    pub fn queue<T: Send + 'static>(&self, name: &'static str, sender: &mpsc::Sender<T>) {
        let weak = sender.downgrade();
        let look = move || {
            let sender = weak.upgrade()?;
            Some(Queue {
                depth: sender.max_capacity() - sender.capacity(),
                capacity: sender.max_capacity(),
            })
        };
        self.lock().queues.insert(name, Box::new(look));
    }

    /// Bytes in flight, and how many may be.
    pub fn bytes(&self) -> Option<(usize, usize)> {
        let handles = self.lock();
        handles.budget.as_ref().map(|budget| (budget.used(), budget.limit()))
    }

    /// The queues that are open, by name.
    pub fn queues(&self) -> BTreeMap<&'static str, Queue> {
        let handles = self.lock();
        let open = handles.queues.iter().filter_map(|(name, look)| Some((*name, look()?)));
        open.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_shows_its_depth_and_is_gone_with_its_senders() {
        let gauges = Gauges::default();
        let (sender, mut receiver) = mpsc::channel(4);
        gauges.queue("source", &sender);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        let queue = |gauges: &Gauges| gauges.queues().get("source").copied();
        assert_eq!(queue(&gauges), Some(Queue { depth: 2, capacity: 4 }));
        drop(sender);
        assert_eq!(queue(&gauges), None);
        assert_eq!((receiver.blocking_recv(), receiver.blocking_recv()), (Some(1), Some(2)));
        assert_eq!(receiver.blocking_recv(), None, "looking kept it open");
    }

    #[test]
    fn bytes_in_flight_follow_the_budget() {
        let gauges = Gauges::default();
        assert_eq!(gauges.bytes(), None);
        let budget = Budget::new(64 << 10);
        gauges.budget(&budget);
        let share = budget.try_take(10 << 10).unwrap();
        assert_eq!(gauges.bytes(), Some((10 << 10, 64 << 10)));
        drop(share);
        assert_eq!(gauges.bytes(), Some((0, 64 << 10)));
    }
}
