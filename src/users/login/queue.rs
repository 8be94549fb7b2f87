//! The queue of the login workers: which logins may wait in it, and which thread takes which.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::authentication::Authentication;
use crate::users::{Password, UserName};

pub struct Queue {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
    most_waiting: usize,
    /// After how long the backup worker begins a login that its worker has not finished.
    backup_after: Duration,
    /// After how long a wait a helper may take a login.
    helper_after: Duration,
}

struct State {
    waiting: VecDeque<Arc<Job>>,
    /// Reservations that are not used yet.
    reserved: usize,
    /// What each worker is doing, and after them each helper.
    under_way: Vec<Option<UnderWay>>,
    closed: bool,
}

/// The login that a worker or a helper is doing.
struct UnderWay {
    job: Arc<Job>,
    begun: Instant,
    /// The backup worker has begun it as well.
    has_backup: bool,
}

/// A place in the queue that no other login gets, until it is used or dropped.
pub struct Reservation(Arc<Queue>);

/// One login.
pub struct Job {
    pub name: UserName,
    pub password: Password,
    /// When the login arrived.
    since: Instant,
    /// Closed when the client has gone or the deadline has passed; taken by the first thread that has a result.
    result: Mutex<Option<oneshot::Sender<Authentication>>>,
}

impl Queue {
    pub fn new(workers: usize, most_waiting: usize, backup_after: Duration, helper_after: Duration) -> Self {
        let under_way = (0..2 * workers).map(|_| None).collect();
        let state = Mutex::new(State { waiting: VecDeque::new(), reserved: 0, under_way, closed: false });
        Self { workers, state, changed: Condvar::new(), most_waiting, backup_after, helper_after }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many logins wait for a worker.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Reserves a place in the queue, if there is one.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let mut state = self.state();
        if state.taken() >= self.most_waiting {
            // A client that has gone must not keep a place that another login could have.
            state.waiting.retain(|waiting| !waiting.is_over());
        }
        if state.taken() >= self.most_waiting {
            return None;
        }
        state.reserved += 1;
        Some(Reservation(Arc::clone(self)))
    }

    /// Returns the next login of a worker, which has finished the one before. Waits for it; `None` once the pool is dropped.
    pub fn next_of_worker(&self, worker: usize) -> Option<Arc<Job>> {
        self.take(worker, Duration::ZERO)
    }

    /// Returns the next login of a helper: as for a worker, but only logins that have waited for `helper_after`.
    pub fn next_of_helper(&self, helper: usize) -> Option<Arc<Job>> {
        self.take(self.workers + helper, self.helper_after)
    }

    fn take(&self, thread: usize, waited: Duration) -> Option<Arc<Job>> {
        let mut state = self.state();
        state.under_way[thread] = None;
        while !state.closed {
            let left = state.first().map(|job| waited.saturating_sub(job.since.elapsed()));
            let first = if left.is_some_and(|left| left.is_zero()) { state.waiting.pop_front() } else { None };
            if let Some(job) = first {
                state.under_way[thread] =
                    Some(UnderWay { job: Arc::clone(&job), begun: Instant::now(), has_backup: false });
                // The backup worker has to time this login from now on.
                self.changed.notify_all();
                return Some(job);
            }
            state = self.wait(state, left);
        }
        None
    }

    /// Returns the next login of a backup worker: one that its worker or helper has not finished within `backup_after`,
    /// and then, while that one is still stuck, the logins that wait. `None` once the pool is dropped.
    pub fn next_of_backup(&self, worker: usize) -> Option<Arc<Job>> {
        let mut state = self.state();
        while !state.closed {
            let (mut rest, mut is_stuck) = (None::<Duration>, false);
            for thread in [worker, self.workers + worker] {
                match &mut state.under_way[thread] {
                    Some(stuck) if stuck.has_backup => is_stuck = true,
                    Some(busy) => {
                        let left = self.backup_after.saturating_sub(busy.begun.elapsed());
                        if left.is_zero() {
                            busy.has_backup = true;
                            return Some(Arc::clone(&busy.job));
                        }
                        rest = Some(rest.map_or(left, |rest| rest.min(left)));
                    }
                    None => {}
                }
            }
            if is_stuck && state.first().is_some() {
                return state.waiting.pop_front();
            }
            state = self.wait(state, rest);
        }
        None
    }

    /// Waits for a change, and no longer than `most`.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Option<Duration>) -> MutexGuard<'a, State> {
        match most {
            Some(most) => self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

impl Reservation {
    pub fn push(self, job: Job) {
        self.0.state().waiting.push_back(Arc::new(job));
        // All threads are woken: a single one might be a backup worker, which leaves the login to the worker.
        self.0.changed.notify_all();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.state().reserved -= 1;
    }
}

impl State {
    fn taken(&self) -> usize {
        self.waiting.len() + self.reserved
    }

    /// Returns the first login whose client still waits, and removes those before it.
    fn first(&mut self) -> Option<&Arc<Job>> {
        while self.waiting.front().is_some_and(|job| job.is_over()) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }
}

impl Job {
    pub fn new(name: UserName, password: Password, since: Instant, result: oneshot::Sender<Authentication>) -> Self {
        Self { name, password, since, result: Mutex::new(Some(result)) }
    }

    fn sender(&self) -> MutexGuard<'_, Option<oneshot::Sender<Authentication>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the client no longer waits for the result.
    fn is_over(&self) -> bool {
        self.sender().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Sends the result, and returns whether it was the first one. It is no error that the client has gone meanwhile.
    pub fn finish(&self, result: Authentication) -> bool {
        let sender = self.sender().take();
        sender.is_some_and(|sender| {
            let _ = sender.send(result);
            true
        })
    }

    /// Closes the channel without a result.
    pub fn abandon(&self) {
        self.sender().take();
    }
}
