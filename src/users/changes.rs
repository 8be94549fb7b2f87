//! What live sessions must know of their users: whether one was disabled, ended, or given other services or roles
//! since the token was made.
//!
//! A token says what was true at its login. A thread asks the directory a few times a second for the changes after the
//! last one that it knows, so that an administrator's word holds at once on every edge that shares the directory. It
//! asks by number: no clock that is wrong hides a change, and where nothing has changed nothing is read. At the start all
//! changes there ever were are read, so that a restart forgets none, whatever a token's lifetime was before it; that is
//! some 400 bytes for each user who was ever changed. A directory that fails changes nothing: what was known stays.
//! `reader` says what happens when another directory is put in its place. Made in `server`, asked by `auth`.

mod reader;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{UserDirectory, UserState};
use crate::clock::Clock;
use crate::metrics::DirectoryMetrics;
use reader::Reader;

type States = HashMap<Box<str>, Arc<UserState>>;

/// A directory that takes longer to say what has changed does not answer, though it may in the end: its file may be on a
/// server that hangs. SQLite gives up on a lock after 2 s.
const STALL: Duration = Duration::from_secs(5);

/// How long the end waits for the thread, which may be at a file server that does not answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The latest word on users whose word has changed. Bounded by the number of users. The default one asks nobody.
#[derive(Default)]
pub struct Watch {
    states: Arc<ArcSwap<States>>,
    /// Why the directory does not answer.
    fault: Arc<ArcSwapOption<String>>,
    /// Since when the thread is at the directory, while it is.
    asking: Arc<ArcSwapOption<Instant>>,
    /// A message has the directory read now; dropping it ends the thread.
    wake: Mutex<Option<SyncSender<()>>>,
    /// Has an end when the thread has.
    ended: Mutex<Option<Receiver<()>>>,
}

impl Watch {
    /// Reads what ever changed, and goes on asking every `interval`.
    pub fn start(
        directory: Arc<dyn UserDirectory>,
        interval: Duration,
        clock: Clock,
        metrics: DirectoryMetrics,
    ) -> std::io::Result<Self> {
        let watch = Self::default();
        let (states, fault, asking) = (Arc::clone(&watch.states), Arc::clone(&watch.fault), Arc::clone(&watch.asking));
        let mut reader = Reader::new(directory, states, fault, clock, metrics);
        // Before anybody is let in, so that a restart forgets nothing.
        reader.read();
        let (wake, woken) = sync_channel(1);
        let (end, ended) = sync_channel(0);
        std::thread::Builder::new().name("user-watch".into()).spawn(move || {
            while woken.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) {
                asking.store(Some(Arc::new(Instant::now())));
                reader.read();
                asking.store(None);
            }
            drop(end);
        })?;
        *watch.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
        *watch.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        Ok(watch)
    }

    /// The latest word on a user; `None` when the token's own still holds.
    pub fn state(&self, user_id: &str) -> Option<Arc<UserState>> {
        let states = self.states.load();
        if states.is_empty() { None } else { states.get(user_id).cloned() }
    }

    /// Has the directory read without waiting for the interval to pass.
    pub fn read_now(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            // Full is as good: it will be read.
            wake.try_send(()).ok();
        }
    }

    /// Why the directory does not answer; `None` while it does.
    pub fn fault(&self) -> Option<Arc<String>> {
        let asking = self.asking.load_full();
        self.fault.load_full().or_else(|| Some(Arc::new(stall(*asking?, Instant::now())?)))
    }
}

/// What is said of a directory that was asked then.
fn stall(asked: Instant, now: Instant) -> Option<String> {
    let waited = now.saturating_duration_since(asked);
    (waited >= STALL).then(|| format!("the user directory has not answered for {} s", waited.as_secs()))
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() {
            ended.recv_timeout(PATIENCE).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_hangs_is_told_from_one_that_is_slow() {
        let asked = Instant::now();
        assert_eq!(stall(asked, asked + STALL / 2), None);
        let said = stall(asked, asked + STALL * 2);
        assert_eq!(said.as_deref(), Some("the user directory has not answered for 10 s"));
        assert!(Watch::default().fault().is_none());
    }
}
