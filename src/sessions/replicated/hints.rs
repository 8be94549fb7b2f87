//! Ends of sessions that servers have not heard of: which server which, and until when it matters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::UnixTime;
use crate::sessions::SessionKey;

/// Tombstones that wait for a server that is away; about 300 bytes each.
pub const MOST: usize = 10_000;

/// A server that has to be told of the end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// By its configured name.
    pub server: String,
    pub session: SessionKey,
    /// When no token names the session any more.
    pub until: UnixTime,
}

/// Whether a hint was taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// It is owed already, now until the later of both moments.
    Known,
    /// There are [`MOST`].
    Full,
}

/// The servers that have not heard of a session's end, each until when it would matter.
type Owed = HashMap<SessionKey, Vec<(String, UnixTime)>, ahash::RandomState>;

pub struct Hints {
    owed: Mutex<Owed>,
    /// The sum of them, for those who need not lock in good times.
    count: AtomicUsize,
    changes: watch::Sender<()>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { owed: Mutex::default(), count: AtomicUsize::new(0), changes: watch::channel(()).0 }
    }
}

impl Hints {
    pub fn add(&self, Hint { server, session, until }: Hint) -> Added {
        let mut owed = self.owed();
        if let Some((_, known)) =
            owed.get_mut(&session).and_then(|servers| servers.iter_mut().find(|(name, _)| *name == server))
        {
            *known = until.max(*known);
            self.changes.send_replace(());
            return Added::Known;
        }
        let count = self.count.load(Ordering::Relaxed);
        if count >= MOST {
            return Added::Full;
        }
        owed.entry(session).or_default().push((server, until));
        self.count.store(count + 1, Ordering::Release);
        self.changes.send_replace(());
        Added::New
    }

    /// How many more can be added.
    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.count.load(Ordering::Acquire))
    }

    /// The server has heard of it, or nobody asks any more.
    pub fn settle(&self, session: &SessionKey, server: &str) {
        let mut owed = self.owed();
        let Some(servers) = owed.get_mut(session) else { return };
        let before = servers.len();
        servers.retain(|(name, _)| name != server);
        let settled = before - servers.len();
        if servers.is_empty() {
            owed.remove(session);
        }
        self.count.fetch_sub(settled, Ordering::Release);
        self.changes.send_replace(());
    }

    pub fn has(&self, session: &SessionKey) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.owed().contains_key(session)
    }

    /// Until when a server is owed it; `None` when it is not.
    pub fn until(&self, session: &SessionKey, server: &str) -> Option<UnixTime> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.owed().get(session)?.iter().find(|(name, _)| name == server).map(|(_, until)| *until)
    }

    pub fn all(&self) -> Vec<Hint> {
        let owed = self.owed();
        let of = |(session, servers): (&SessionKey, &Vec<(String, UnixTime)>)| {
            let hint = |(server, until): &(String, UnixTime)| Hint {
                server: server.clone(),
                session: session.clone(),
                until: *until,
            };
            servers.iter().map(hint).collect::<Vec<_>>()
        };
        owed.iter().flat_map(of).collect()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Nothing panics under the lock.
    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::session;

    #[test]
    fn each_server_is_owed_an_end_once_until_it_has_heard() {
        let (hints, session) = (Hints::default(), session());
        let hint = |server: &str, seconds| Hint {
            server: server.into(),
            session: session.clone(),
            until: UnixTime::from_seconds(seconds),
        };
        assert_eq!(hints.add(hint("a", 10)), Added::New);
        assert_eq!(hints.add(hint("b", 10)), Added::New);
        assert_eq!(hints.add(hint("a", 20)), Added::Known);
        assert_eq!(hints.add(hint("a", 5)), Added::Known);
        assert_eq!(hints.until(&session, "a"), Some(UnixTime::from_seconds(20)));
        assert_eq!(hints.all(), [hint("a", 20), hint("b", 10)]);
        hints.settle(&session, "a");
        hints.settle(&session, "a");
        assert!(hints.has(&session) && hints.until(&session, "a").is_none());
        hints.settle(&session, "b");
        assert!(!hints.has(&session) && hints.all().is_empty());
    }

    #[test]
    fn there_are_only_so_many() {
        let hints = Hints::default();
        let add = || hints.add(Hint { server: "a".into(), session: session(), until: UnixTime::from_seconds(9) });
        assert!((0..MOST).all(|_| add() == Added::New));
        assert_eq!((add(), hints.room()), (Added::Full, 0));
        hints.settle(&hints.all()[0].session, "a");
        assert_eq!(hints.room(), 1);
        assert_eq!(add(), Added::New);
    }
}
