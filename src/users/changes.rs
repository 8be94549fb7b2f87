//! The states of users that were disabled, whose sessions were ended, or whose services or roles changed since tokens were
//! made.
//!
//! A token says what was true at its login. A thread reads from the directory, a few times a second, the changes after the
//! last one that it has read, so that a change by an administrator takes effect within that interval on every edge that
//! shares the directory. Changes are read by number: a wrong clock hides none, and where nothing has changed nothing is
//! read. At start all changes that were ever made are read, so that a restart forgets none, however long the tokens before
//! it were valid; that is some 400 bytes for each user that was ever changed. A directory that fails changes nothing: the
//! states that were read stay. `reader` describes what happens when another directory replaces this one. Made in `server`,
//! read by `auth`.

mod reader;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{UserDirectory, UserState};
use crate::clock::Clock;
use crate::metrics::DirectoryMetrics;
use reader::{Reader, States};

/// A directory that takes longer than this to return its changes counts as one that does not answer, though it may answer
/// in the end: its file may be on a server that hangs. SQLite gives up on a lock after 2 s.
const STALL: Duration = Duration::from_secs(5);

/// The wait for the thread when this is dropped: the thread may be blocked on a file server that does not answer.
const JOIN_TIMEOUT: Duration = Duration::from_millis(500);

/// The latest states of users that were ever changed. Bounded by the number of users. The default one reads nothing.
#[derive(Default)]
pub struct DirectoryChanges {
    states: Arc<ArcSwap<States>>,
    /// Why the directory does not answer.
    fault: Arc<ArcSwapOption<String>>,
    /// Since when the thread has been reading, while it is.
    reading_since: Arc<ArcSwapOption<Instant>>,
    /// A message makes the thread read at once; dropping it ends the thread.
    wake: Mutex<Option<SyncSender<()>>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Option<Receiver<()>>>,
}

impl DirectoryChanges {
    /// Reads all changes, and then the new ones every `interval`.
    pub fn start(
        directory: Arc<dyn UserDirectory>,
        interval: Duration,
        clock: Clock,
        metrics: DirectoryMetrics,
    ) -> std::io::Result<Self> {
        let changes = Self::default();
        let (states, fault) = (Arc::clone(&changes.states), Arc::clone(&changes.fault));
        let reading_since = Arc::clone(&changes.reading_since);
        let mut reader = Reader::new(directory, states, fault, clock, metrics);
        // Before the first request is authenticated, so that a restart forgets no change.
        reader.read();
        let (wake, woken) = sync_channel(1);
        let (end, ended) = sync_channel(0);
        std::thread::Builder::new().name("user-changes".into()).spawn(move || {
            while woken.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) {
                reading_since.store(Some(Arc::new(Instant::now())));
                reader.read();
                reading_since.store(None);
            }
            drop(end);
        })?;
        *changes.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
        *changes.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        Ok(changes)
    }

    /// Returns the latest state of a user, or `None` if what the token says still holds.
    pub fn state(&self, user_id: &str) -> Option<Arc<UserState>> {
        let states = self.states.load();
        if states.is_empty() { None } else { states.get(user_id).cloned() }
    }

    /// Makes the thread read the directory without waiting for the interval to pass.
    pub fn read_now(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            // A full channel is as good: the thread is about to read.
            wake.try_send(()).ok();
        }
    }

    /// Returns why the directory does not answer, or `None` while it does.
    pub fn fault(&self) -> Option<Arc<String>> {
        let reading_since = self.reading_since.load_full();
        self.fault.load_full().or_else(|| Some(Arc::new(stall(*reading_since?, Instant::now())?)))
    }
}

/// Returns the fault of a directory that has been read since then, if that is too long.
fn stall(since: Instant, now: Instant) -> Option<String> {
    let waited = now.saturating_duration_since(since);
    (waited >= STALL).then(|| format!("the user directory has not answered for {} s", waited.as_secs()))
}

impl Drop for DirectoryChanges {
    fn drop(&mut self) {
        drop(self.wake.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() {
            ended.recv_timeout(JOIN_TIMEOUT).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_hangs_is_distinguished_from_one_that_is_slow() {
        let since = Instant::now();
        assert_eq!(stall(since, since + STALL / 2), None);
        let fault = stall(since, since + STALL * 2);
        assert_eq!(fault.as_deref(), Some("the user directory has not answered for 10 s"));
        assert!(DirectoryChanges::default().fault().is_none());
    }
}
