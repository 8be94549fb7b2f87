//! What a look through a whole store brings: the sessions that live, as far as the servers could be asked.
//!
//! For operators alone. No request needs it, and looking is no activity: nothing here slides an expiry.

use std::collections::HashSet;

use super::{SessionKey, SessionRecord, StoreError};
use crate::clock::UnixTime;

/// What a store holds, up to a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Each session once, in no order.
    pub sessions: Vec<Listed>,
    /// Servers that could not be asked, or not to the end, and why: what they alone hold is not listed.
    pub unreachable: Vec<(String, StoreError)>,
    /// Values under keys of sessions that are no record of this version: another program's, or damaged. Each is
    /// counted once, and they stop nothing.
    pub unreadable: usize,
    /// Whether the limit left sessions out.
    pub truncated: bool,
}

/// A session that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: SessionKey,
    pub record: SessionRecord,
    /// When the store forgets it unless it is used before.
    pub idle_expires_at: UnixTime,
    /// The servers that it lies on, by their configured names.
    pub servers: Vec<String>,
}

/// Keys of unreadable values that are remembered, so that each is counted once; beyond that some may count twice.
const MOST_UNREADABLE: usize = 10_000;

/// A listing that is being made: holds no more than `limit` sessions, whatever the store holds.
pub(super) struct Gathering<'a> {
    user: Option<&'a str>,
    limit: usize,
    seen: HashSet<SessionKey>,
    unreadable: HashSet<SessionKey>,
    listing: Listing,
}

impl<'a> Gathering<'a> {
    /// For the sessions of one user, or of all.
    pub fn new(user: Option<&'a str>, limit: usize) -> Self {
        Self { user, limit, seen: HashSet::new(), unreadable: HashSet::new(), listing: Listing::default() }
    }

    pub fn wants(&self, record: &SessionRecord) -> bool {
        self.user.is_none_or(|user| record.user == user)
    }

    /// Whether nothing more is to be learnt of a key.
    pub fn has(&self, key: &SessionKey) -> bool {
        self.seen.contains(key) || self.unreadable.contains(key)
    }

    /// Notes that what lies under a key cannot be read.
    pub fn cannot_read(&mut self, key: &SessionKey) {
        if !self.has(key) {
            self.listing.unreadable += 1;
            if self.unreadable.len() < MOST_UNREADABLE {
                self.unreadable.insert(key.clone());
            }
        }
    }

    /// Whether another session would be one too many, and there was one.
    pub fn is_full(&self) -> bool {
        self.listing.truncated
    }

    /// Takes a session up, unless it is there already, is not wanted, or there is no place.
    pub fn add(&mut self, listed: Listed) {
        if !self.wants(&listed.record) || self.has(&listed.key) {
            return;
        }
        if self.listing.sessions.len() == self.limit {
            self.listing.truncated = true;
            return;
        }
        self.seen.insert(listed.key.clone());
        self.listing.sessions.push(listed);
    }

    /// Notes a failure; of each server the first is told.
    pub fn failed(&mut self, server: &str, error: StoreError) {
        if self.listing.unreachable.iter().all(|(named, _)| named != server) {
            self.listing.unreachable.push((server.to_owned(), error));
        }
    }

    pub fn done(self) -> Listing {
        self.listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::{record, session};

    fn listed(user: &str) -> Listed {
        Listed { key: session(), record: record(user), idle_expires_at: UnixTime::default(), servers: Vec::new() }
    }

    #[test]
    fn each_session_is_taken_up_once_and_those_of_others_are_not() {
        let mut gathering = Gathering::new(Some("ada"), 10);
        let (hers, his) = (listed("ada"), listed("bob"));
        for session in [&hers, &his, &hers] {
            gathering.add(session.clone());
        }
        assert_eq!(gathering.done(), Listing { sessions: vec![hers], ..Listing::default() });
    }

    #[test]
    fn more_is_said_only_when_there_is_more() {
        let mut gathering = Gathering::new(None, 2);
        let first = listed("ada");
        gathering.add(first.clone());
        gathering.add(listed("bob"));
        gathering.add(first);
        assert!(!gathering.is_full(), "the limit holds just as many");
        gathering.add(listed("eve"));
        assert!(gathering.is_full());
        assert_eq!(gathering.done().sessions.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_counted_once_and_never_listed() {
        let mut gathering = Gathering::new(None, 10);
        let (odd, hers) = (session(), listed("ada"));
        for _ in 0..3 {
            gathering.cannot_read(&odd);
        }
        gathering.add(hers.clone());
        assert_eq!(gathering.done(), Listing { sessions: vec![hers], unreadable: 1, ..Listing::default() });
    }

    #[test]
    fn a_server_is_named_once() {
        let mut gathering = Gathering::new(None, 2);
        gathering.failed("a:1", StoreError::TimedOut);
        gathering.failed("a:1", StoreError::Full);
        assert_eq!(gathering.done().unreachable, [("a:1".to_owned(), StoreError::TimedOut)]);
    }
}
