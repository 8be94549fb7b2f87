//! What live sessions must know of their users: whether one was disabled, ended, or given other services or roles
//! since the token was made.
//!
//! A token says what was true at its login. A thread asks the directory a few times a second what has changed
//! since, so that an administrator's word holds at once on every edge that shares the directory. A directory that
//! fails changes nothing: what was known stays. Made in `server`, asked by `auth`.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{UserDirectory, UserState};
use crate::clock::{Clock, UnixTime};

/// Read again each time, so that a change that was written by a clock behind ours is not missed.
const OVERLAP: Duration = Duration::from_secs(600);

type States = HashMap<Box<str>, Arc<UserState>>;

/// The latest word on users whose word has changed. Bounded by the number of users. The default one asks nobody.
#[derive(Default)]
pub struct Watch {
    states: Arc<ArcSwap<States>>,
    /// Dropping it ends the thread.
    stop: Mutex<Option<SyncSender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watch {
    /// Reads what changed within `lifetime`, the longest that a token lives, and goes on asking every `interval`.
    pub fn start(
        directory: Arc<dyn UserDirectory>,
        clock: Clock,
        lifetime: Duration,
        interval: Duration,
    ) -> std::io::Result<Self> {
        let states = Arc::new(ArcSwap::from_pointee(States::new()));
        let since = clock.now().minus(lifetime);
        let mut reader = Reader { directory, states: Arc::clone(&states), since, failing: false };
        // Before anybody is let in, so that a restart forgets nothing.
        reader.read();
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new().name("user-watch".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                reader.read();
            }
        })?;
        Ok(Self { states, stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) })
    }

    /// The latest word on a user; `None` when the token's own still holds.
    pub fn state(&self, user_id: &str) -> Option<Arc<UserState>> {
        let states = self.states.load();
        if states.is_empty() { None } else { states.get(user_id).cloned() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            thread.join().ok();
        }
    }
}

struct Reader {
    directory: Arc<dyn UserDirectory>,
    states: Arc<ArcSwap<States>>,
    since: UnixTime,
    failing: bool,
}

impl Reader {
    fn read(&mut self) {
        let changed = match self.directory.changed_since(self.since.minus(OVERLAP)) {
            Ok(changed) => changed,
            Err(error) => {
                if !self.failing {
                    log::warn!("changes of users are not seen at the moment: {}", sources(&error));
                }
                self.failing = true;
                return;
            }
        };
        if std::mem::take(&mut self.failing) {
            log::info!("changes of users are seen again");
        }
        let known = self.states.load();
        let is_news = |state: &UserState| known.get(state.id.as_str()).is_none_or(|known| **known != *state);
        if !changed.iter().any(is_news) {
            return;
        }
        let mut states = States::clone(&known);
        for state in changed {
            // Inclusive: another change within the same moment is read again, and is no news then.
            self.since = self.since.max(state.changed);
            states.insert(state.id.as_str().into(), Arc::new(state));
        }
        self.states.store(Arc::new(states));
    }
}

/// An error with what caused it, in one line.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::{DirectoryError, StoredHash, User, UserId, UserName};

    /// A directory whose changes a test hands out one reading at a time.
    struct Changes(Mutex<Vec<Result<Vec<UserState>, DirectoryError>>>);

    impl UserDirectory for Changes {
        fn find(&self, _: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
            Ok(None)
        }

        fn replace_hash(&self, _: &UserId, _: &StoredHash, _: &StoredHash) -> Result<bool, DirectoryError> {
            Ok(false)
        }

        fn changed_since(&self, _: UnixTime) -> Result<Vec<UserState>, DirectoryError> {
            let mut readings = self.0.lock().unwrap();
            if readings.is_empty() { Ok(Vec::new()) } else { readings.remove(0) }
        }
    }

    fn state(id: &str, disabled: bool) -> UserState {
        UserState {
            id: UserId::from(id.to_owned()),
            disabled,
            services: Vec::new(),
            roles: Vec::new(),
            ended_before: UnixTime::default(),
            changed: UnixTime::from_seconds(1),
        }
    }

    #[test]
    fn a_change_is_known_and_a_failing_directory_takes_nothing_back() {
        let readings =
            vec![Ok(vec![state("ada", true)]), Err(DirectoryError::new("gone")), Ok(vec![state("bob", false)])];
        let states = Arc::new(ArcSwap::from_pointee(States::new()));
        let directory = Arc::new(Changes(Mutex::new(readings)));
        let mut reader = Reader { directory, states: Arc::clone(&states), since: UnixTime::default(), failing: false };
        let disabled = |name: &str| states.load().get(name).map(|state| state.disabled);
        assert_eq!(disabled("ada"), None);
        reader.read();
        assert_eq!(disabled("ada"), Some(true));
        reader.read();
        assert!(reader.failing);
        assert_eq!(disabled("ada"), Some(true));
        reader.read();
        assert_eq!((disabled("ada"), disabled("bob")), (Some(true), Some(false)));
        assert!(!reader.failing);
    }

    #[test]
    fn what_changed_before_the_start_is_known_at_once_and_the_thread_ends_with_the_watch() {
        let directory = Arc::new(Changes(Mutex::new(vec![Ok(vec![state("ada", true)])])));
        let hour = Duration::from_secs(3600);
        let watch = Watch::start(directory, Clock::default(), hour, hour).unwrap();
        assert!(watch.state("ada").is_some_and(|state| state.disabled));
        assert!(watch.state("bob").is_none());
    }
}
