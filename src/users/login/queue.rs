//! The queue before the login threads: who may wait in it, and which thread takes what.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Login, Password, UserName};

pub struct Queue {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
    most_waiting: usize,
    /// How long a login is left to its worker alone.
    patience: Duration,
    /// How long a login may wait before a helper takes it.
    long_wait: Duration,
}

struct State {
    waiting: VecDeque<Arc<Job>>,
    /// Places that were given out and not taken yet.
    reserved: usize,
    /// By worker, and then by helper.
    under_way: Vec<Option<UnderWay>>,
    closed: bool,
}

/// What a worker is at.
struct UnderWay {
    job: Arc<Job>,
    begun: Instant,
    /// Somebody else has begun it as well.
    relieved: bool,
}

/// A place in the queue that no other login gets, until it is taken or given up.
pub struct Place(Arc<Queue>);

/// One login.
pub struct Job {
    pub name: UserName,
    pub password: Password,
    /// When it came.
    since: Instant,
    /// Closed when the asker has gone or the deadline has passed; taken by whoever is the first to answer.
    answer: Mutex<Option<oneshot::Sender<Login>>>,
}

impl Queue {
    pub fn new(workers: usize, most_waiting: usize, patience: Duration, long_wait: Duration) -> Self {
        let under_way = (0..2 * workers).map(|_| None).collect();
        let state = Mutex::new(State { waiting: VecDeque::new(), reserved: 0, under_way, closed: false });
        Self { workers, state, changed: Condvar::new(), most_waiting, patience, long_wait }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many logins wait for a worker.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// A place to wait in, if there is one.
    pub fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        if state.taken() >= self.most_waiting {
            // Whoever asks and goes away must not keep a place that somebody else could have.
            state.waiting.retain(|waiting| !waiting.is_over());
        }
        if state.taken() >= self.most_waiting {
            return None;
        }
        state.reserved += 1;
        Some(Place(Arc::clone(self)))
    }

    /// What a worker does next, once it has done what it was at; waits for it. None once the pool is dropped.
    pub fn next(&self, worker: usize) -> Option<Arc<Job>> {
        self.take(worker, Duration::ZERO)
    }

    /// What a helper does next, as a worker does, but of logins that have waited for long alone.
    pub fn help(&self, helper: usize) -> Option<Arc<Job>> {
        self.take(self.workers + helper, self.long_wait)
    }

    fn take(&self, thread: usize, waited: Duration) -> Option<Arc<Job>> {
        let mut state = self.state();
        state.under_way[thread] = None;
        while !state.closed {
            let left = state.first().map(|job| waited.saturating_sub(job.since.elapsed()));
            let first = if left.is_some_and(|left| left.is_zero()) { state.waiting.pop_front() } else { None };
            if let Some(job) = first {
                state.under_way[thread] =
                    Some(UnderWay { job: Arc::clone(&job), begun: Instant::now(), relieved: false });
                // Its relief looks at the clock from now on.
                self.changed.notify_all();
                return Some(job);
            }
            state = self.wait(state, left);
        }
        None
    }

    /// What the relief of a worker and its helper does next: what one of them has been at for too long, and then, while it
    /// still is, what waits. None once the pool is dropped.
    pub fn relieve(&self, worker: usize) -> Option<Arc<Job>> {
        let mut state = self.state();
        while !state.closed {
            let (mut rest, mut is_stuck) = (None::<Duration>, false);
            for thread in [worker, self.workers + worker] {
                match &mut state.under_way[thread] {
                    Some(stuck) if stuck.relieved => is_stuck = true,
                    Some(busy) => {
                        let left = self.patience.saturating_sub(busy.begun.elapsed());
                        if left.is_zero() {
                            busy.relieved = true;
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

    /// For a change, and no longer than `most`.
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

impl Place {
    pub fn take(self, job: Job) {
        self.0.state().waiting.push_back(Arc::new(job));
        // All of them: a single one might be a relief, who leaves it to the worker.
        self.0.changed.notify_all();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().reserved -= 1;
    }
}

impl State {
    fn taken(&self) -> usize {
        self.waiting.len() + self.reserved
    }

    /// The first one that somebody still waits for.
    fn first(&mut self) -> Option<&Arc<Job>> {
        while self.waiting.front().is_some_and(|job| job.is_over()) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }
}

impl Job {
    pub fn new(name: UserName, password: Password, since: Instant, answer: oneshot::Sender<Login>) -> Self {
        Self { name, password, since, answer: Mutex::new(Some(answer)) }
    }

    fn sender(&self) -> MutexGuard<'_, Option<oneshot::Sender<Login>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for the answer any more.
    fn is_over(&self) -> bool {
        self.sender().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Whether this was the first answer. An asker who has gone meanwhile is no fault.
    pub fn answer(&self, login: Login) -> bool {
        let sender = self.sender().take();
        sender.is_some_and(|sender| {
            let _ = sender.send(login);
            true
        })
    }

    /// Tells the asker that no answer will come.
    pub fn abandon(&self) {
        self.sender().take();
    }
}
