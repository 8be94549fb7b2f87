//! Servers that authenticate connections instead of requests (NTLM, Negotiate), and the keys by which connections to
//! them belong to one client each.
//!
//! A server is known for it from the first response that says so until the process ends: an upstream connection may
//! outlive the configuration that it was made under.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The servers that have sent such a challenge, by the key of their connections, without the address where a server has a
/// name. One process has one of these, with as many entries as there were servers in its configurations.
#[derive(Default)]
pub struct PrivateServers {
    /// Whether there are any: all that a request costs where there are none.
    any: Arc<AtomicBool>,
    by_key: Mutex<HashMap<u64, Arc<AtomicBool>, ahash::RandomState>>,
}

/// Whether one server is one of them.
pub struct Privacy {
    any: Arc<AtomicBool>,
    server: Arc<AtomicBool>,
}

impl PrivateServers {
    pub fn of(&self, key: u64) -> Privacy {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        Privacy { any: Arc::clone(&self.any), server: Arc::clone(by_key.entry(key).or_default()) }
    }
}

impl Privacy {
    pub fn is_private(&self) -> bool {
        self.any.load(Ordering::Acquire) && self.server.load(Ordering::Acquire)
    }

    /// Returns whether the server was not known for it before.
    pub fn set(&self) -> bool {
        let known = self.server.swap(true, Ordering::AcqRel);
        self.any.store(true, Ordering::Release);
        !known
    }
}

/// The owner of an upstream connection, which is used again for requests of the same owner alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// One that is like no other. It is drawn at random, so that a client connection that comes later never has the
    /// owner of one that has ended, whose upstream connections may still be idle.
    pub fn unique() -> Self {
        Self(ahash::RandomState::new().hash_one(uuid::Uuid::new_v4()))
    }

    /// One session on the connection of this owner: who signs in there after a logout is another.
    pub fn with_session(self, session: &str) -> Self {
        Self(ahash::RandomState::with_seeds(self.0, 1, 2, 3).hash_one(session))
    }

    /// Requests with the same key go to one server.
    pub const fn key(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_pool_learns_of_a_server_every_pool_knows_that_has_it_and_no_other() {
        let servers = PrivateServers::default();
        let (first, same, other) = (servers.of(1), servers.of(1), servers.of(2));
        assert!(!first.is_private());
        assert!(first.set(), "it is news");
        assert!(!same.set(), "and then no more");
        assert!(same.is_private() && servers.of(1).is_private(), "after a reload too");
        assert!(!other.is_private());
    }

    #[test]
    fn owners_differ_by_connection_and_by_session() {
        let (ana, ben) = (Owner::unique(), Owner::unique());
        assert_ne!(ana, ben);
        assert_eq!(ana.with_session("s"), ana.with_session("s"));
        assert_ne!(ana.with_session("s"), ana.with_session("t"));
        assert_ne!(ana.with_session("s"), ben.with_session("s"));
        assert_ne!(ana.with_session("s"), ana);
    }
}
