//! Hints: tombstones that still have to be written to a server that was unavailable when the session ended, and how long
//! each of them matters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::UnixTime;
use crate::sessions::SessionKey;

/// Hints that are kept at most; a hint takes about 300 bytes.
pub const MAX_HINTS: usize = 10_000;

/// A tombstone that has to be delivered to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The configured name of the server.
    pub server: String,
    pub session: SessionKey,
    /// From this moment on no valid token names the session, so the tombstone is not needed any more.
    pub until: UnixTime,
}

/// What [`Hints::add`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// The hint was there already; it now lasts until the later of both moments.
    Known,
    /// The hint was not added: there are [`MAX_HINTS`].
    Full,
}

/// For each session the servers that still need its tombstone, each with the moment until which it matters.
type Pending = HashMap<SessionKey, Vec<(String, UnixTime)>, ahash::RandomState>;

pub struct Hints {
    pending: Mutex<Pending>,
    /// The number of all hints: while it is 0, a read needs no lock.
    count: AtomicUsize,
    changes: watch::Sender<()>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { pending: Mutex::default(), count: AtomicUsize::new(0), changes: watch::channel(()).0 }
    }
}

impl Hints {
    pub fn add(&self, Hint { server, session, until }: Hint) -> Added {
        let mut pending = self.pending();
        if let Some((_, known)) =
            pending.get_mut(&session).and_then(|servers| servers.iter_mut().find(|(name, _)| *name == server))
        {
            *known = until.max(*known);
            self.changes.send_replace(());
            return Added::Known;
        }
        let count = self.count.load(Ordering::Relaxed);
        if count >= MAX_HINTS {
            return Added::Full;
        }
        pending.entry(session).or_default().push((server, until));
        self.count.store(count + 1, Ordering::Release);
        self.changes.send_replace(());
        Added::New
    }

    /// Returns how many more hints can be added.
    pub fn room(&self) -> usize {
        MAX_HINTS.saturating_sub(self.count.load(Ordering::Acquire))
    }

    /// Removes a hint: it was delivered, or its tombstone is not needed any more.
    pub fn settle(&self, session: &SessionKey, server: &str) {
        let mut pending = self.pending();
        let Some(servers) = pending.get_mut(session) else { return };
        let before = servers.len();
        servers.retain(|(name, _)| name != server);
        let settled = before - servers.len();
        if servers.is_empty() {
            pending.remove(session);
        }
        self.count.fetch_sub(settled, Ordering::Release);
        self.changes.send_replace(());
    }

    pub fn has(&self, session: &SessionKey) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.pending().contains_key(session)
    }

    /// Returns the moment until which the hint for this server matters; `None` when there is no hint.
    pub fn until(&self, session: &SessionKey, server: &str) -> Option<UnixTime> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.pending().get(session)?.iter().find(|(name, _)| name == server).map(|(_, until)| *until)
    }

    pub fn all(&self) -> Vec<Hint> {
        let pending = self.pending();
        let of = |(session, servers): (&SessionKey, &Vec<(String, UnixTime)>)| {
            let hint = |(server, until): &(String, UnixTime)| Hint {
                server: server.clone(),
                session: session.clone(),
                until: *until,
            };
            servers.iter().map(hint).collect::<Vec<_>>()
        };
        pending.iter().flat_map(of).collect()
    }

    /// Notifies of every change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// No code panics while it holds the lock, so a poisoned lock is still consistent.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::session;

    #[test]
    fn each_server_has_one_hint_of_a_session_until_it_is_delivered() {
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
    fn the_number_of_hints_is_bounded() {
        let hints = Hints::default();
        let add = || hints.add(Hint { server: "a".into(), session: session(), until: UnixTime::from_seconds(9) });
        assert!((0..MAX_HINTS).all(|_| add() == Added::New));
        assert_eq!((add(), hints.room()), (Added::Full, 0));
        hints.settle(&hints.all()[0].session, "a");
        assert_eq!(hints.room(), 1);
        assert_eq!(add(), Added::New);
    }
}
