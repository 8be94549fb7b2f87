//! What live sessions must know of their users: whether one was disabled, ended, or given other services or roles
//! since the token was made.
//!
//! A token says what was true at its login. A thread asks the directory a few times a second for the changes after the
//! last one that it knows, so that an administrator's word holds at once on every edge that shares the directory. It
//! asks by number: no clock that is wrong hides a change, and where nothing has changed nothing is read. At the start all
//! changes there ever were are read, so that a restart forgets none, whatever a token's lifetime was before it; that is
//! some 400 bytes for each user who was ever changed. A directory that fails changes nothing: what was known stays.
//! Made in `server`, asked by `auth`.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Changes, DirectoryError, UserDirectory, UserState};

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
    /// Reads what ever changed, and goes on asking every `interval`.
    pub fn start(directory: Arc<dyn UserDirectory>, interval: Duration) -> std::io::Result<Self> {
        let states = Arc::new(ArcSwap::from_pointee(States::new()));
        let mut reader = Reader { directory, states: Arc::clone(&states), since: 0, failing: false };
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
    /// The number of the last change that is known.
    since: u64,
    failing: bool,
}

impl Reader {
    fn read(&mut self) {
        let changed = match self.changes() {
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
        if changed.is_empty() {
            return;
        }
        let mut states = States::clone(&self.states.load());
        states.extend(changed.into_iter().map(|state| (state.id.as_str().into(), Arc::new(state))));
        self.states.store(Arc::new(states));
    }

    /// All that is new, page by page. What was read before a page failed counts.
    fn changes(&mut self) -> Result<Vec<UserState>, DirectoryError> {
        let mut changed = Vec::new();
        loop {
            let Changes { users, more, last } = match self.directory.changed_since(self.since) {
                Ok(changes) => changes,
                Err(_) if !changed.is_empty() => return Ok(changed),
                Err(error) => return Err(error),
            };
            if last < self.since {
                // Its numbers begin again lower, so all are read anew. What was known of others stays.
                log::warn!("the user directory has become an older one: all that ever changed is read again");
                self.since = 0;
                continue;
            }
            self.since = users.last().map_or(self.since, |user| user.change);
            changed.extend(users);
            if !more {
                return Ok(changed);
            }
        }
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
    use crate::clock::UnixTime;
    use crate::users::{StoredHash, User, UserId, UserName};

    /// A directory whose changes a test hands out one reading at a time; and what it was asked for.
    #[derive(Default)]
    struct Readings {
        left: Mutex<Vec<Result<Changes, DirectoryError>>>,
        asked: Mutex<Vec<u64>>,
    }

    impl UserDirectory for Readings {
        fn find(&self, _: &UserName) -> Result<Option<(User, StoredHash)>, DirectoryError> {
            Ok(None)
        }

        fn replace_hash(&self, _: &UserId, _: &StoredHash, _: &StoredHash) -> Result<bool, DirectoryError> {
            Ok(false)
        }

        fn changed_since(&self, since: u64) -> Result<Changes, DirectoryError> {
            self.asked.lock().unwrap().push(since);
            let mut left = self.left.lock().unwrap();
            if left.is_empty() { Ok(Changes { last: since, ..Changes::default() }) } else { left.remove(0) }
        }
    }

    fn state(id: &str, disabled: bool, change: u64) -> UserState {
        UserState {
            id: UserId::from(id.to_owned()),
            disabled,
            services: Vec::new(),
            roles: Vec::new(),
            ended_before: UnixTime::default(),
            ended_by: 0,
            change,
        }
    }

    fn page(users: Vec<UserState>, more: bool, last: u64) -> Result<Changes, DirectoryError> {
        Ok(Changes { users, more, last })
    }

    fn reader(readings: Vec<Result<Changes, DirectoryError>>) -> (Reader, Arc<Readings>) {
        let directory = Arc::new(Readings { left: Mutex::new(readings), asked: Mutex::default() });
        let states = Arc::new(ArcSwap::from_pointee(States::new()));
        (Reader { directory: directory.clone(), states, since: 0, failing: false }, directory)
    }

    #[test]
    fn a_change_is_known_and_a_failing_directory_takes_nothing_back() {
        let (mut reader, directory) = reader(vec![
            page(vec![state("ada", true, 7)], false, 9),
            Err(DirectoryError::new("gone")),
            page(vec![state("bob", false, 10)], false, 10),
        ]);
        let states = Arc::clone(&reader.states);
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
        assert_eq!(*directory.asked.lock().unwrap(), [0, 7, 7]);
    }

    #[test]
    fn pages_are_read_to_their_end_and_an_older_copy_from_its_beginning() {
        let (mut reader, directory) = reader(vec![
            page(vec![state("ada", true, 3), state("bob", false, 5)], true, 90),
            page(vec![state("cyd", false, 80)], false, 90),
            page(vec![], false, 20),
            page(vec![state("ada", false, 2), state("dan", true, 20)], false, 20),
        ]);
        let states = Arc::clone(&reader.states);
        reader.read();
        assert_eq!(states.load().len(), 3);
        reader.read();
        let disabled = |name: &str| states.load().get(name).map(|state| state.disabled);
        assert_eq!((disabled("ada"), disabled("bob"), disabled("dan")), (Some(false), Some(false), Some(true)));
        reader.read();
        assert_eq!(*directory.asked.lock().unwrap(), [0, 5, 80, 0, 20]);
    }

    #[test]
    fn what_changed_before_the_start_is_known_at_once_and_the_thread_ends_with_the_watch() {
        let (reader, _) = reader(vec![page(vec![state("ada", true, 1)], false, 1)]);
        let watch = Watch::start(reader.directory, Duration::from_secs(3600)).unwrap();
        assert!(watch.state("ada").is_some_and(|state| state.disabled));
        assert!(watch.state("bob").is_none());
    }
}
