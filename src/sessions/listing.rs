//! A listing of the active sessions of a store, as far as its servers are available.
//!
//! It is for operators; no request needs it. Listing is no activity: no expiry is slid.

use std::collections::HashSet;

use super::{SessionKey, SessionRecord, StoreError};
use crate::clock::UnixTime;

/// The active sessions of a store, up to a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Each session is listed once, in no particular order.
    pub sessions: Vec<Listed>,
    /// Servers that could not be scanned, or not to the end, and why. Sessions that only they hold are not listed.
    pub unreachable: Vec<(String, StoreError)>,
    /// How many values under keys of sessions are no record of this version: another program wrote them, or they are damaged.
    /// Each is counted once; they do not stop the listing.
    pub unreadable: usize,
    /// Whether sessions were left out because of the limit.
    pub truncated: bool,
}

/// An active session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: SessionKey,
    pub record: SessionRecord,
    /// When the session expires unless it is used before.
    pub idle_expires_at: UnixTime,
    /// The configured names of the servers that hold the session.
    pub servers: Vec<String>,
}

/// How many keys of unreadable values are remembered, so that each is counted once; beyond that some may count twice.
const MAX_UNREADABLE: usize = 10_000;

/// Builds a listing of at most `limit` sessions, however many the store holds.
pub(super) struct ListingBuilder<'a> {
    user: Option<&'a str>,
    limit: usize,
    seen: HashSet<SessionKey>,
    unreadable: HashSet<SessionKey>,
    listing: Listing,
}

impl<'a> ListingBuilder<'a> {
    /// Builds a listing of the sessions of one user, or of all users.
    pub fn new(user: Option<&'a str>, limit: usize) -> Self {
        Self { user, limit, seen: HashSet::new(), unreadable: HashSet::new(), listing: Listing::default() }
    }

    pub fn matches(&self, record: &SessionRecord) -> bool {
        self.user.is_none_or(|user| record.user == user)
    }

    /// Whether the key was added already, as a session or as unreadable.
    pub fn contains(&self, key: &SessionKey) -> bool {
        self.seen.contains(key) || self.unreadable.contains(key)
    }

    /// Counts a key whose value cannot be read.
    pub fn add_unreadable(&mut self, key: &SessionKey) {
        if !self.contains(key) {
            self.listing.unreadable += 1;
            if self.unreadable.len() < MAX_UNREADABLE {
                self.unreadable.insert(key.clone());
            }
        }
    }

    /// Whether a session was left out because of the limit.
    pub fn is_full(&self) -> bool {
        self.listing.truncated
    }

    /// Adds a session, unless it was added already, is another user's, or the limit is reached.
    pub fn add(&mut self, listed: Listed) {
        if !self.matches(&listed.record) || self.contains(&listed.key) {
            return;
        }
        if self.listing.sessions.len() == self.limit {
            self.listing.truncated = true;
            return;
        }
        self.seen.insert(listed.key.clone());
        self.listing.sessions.push(listed);
    }

    /// Adds the failure of a server; only the first failure of each server is kept.
    pub fn add_failure(&mut self, server: &str, error: StoreError) {
        if self.listing.unreachable.iter().all(|(named, _)| named != server) {
            self.listing.unreachable.push((server.to_owned(), error));
        }
    }

    pub fn finish(self) -> Listing {
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
    fn each_session_is_added_once_and_those_of_others_are_not() {
        let mut builder = ListingBuilder::new(Some("ada"), 10);
        let (hers, his) = (listed("ada"), listed("bob"));
        for session in [&hers, &his, &hers] {
            builder.add(session.clone());
        }
        assert_eq!(builder.finish(), Listing { sessions: vec![hers], ..Listing::default() });
    }

    #[test]
    fn a_listing_is_truncated_only_when_there_is_more() {
        let mut builder = ListingBuilder::new(None, 2);
        let first = listed("ada");
        builder.add(first.clone());
        builder.add(listed("bob"));
        builder.add(first);
        assert!(!builder.is_full(), "the limit holds just as many");
        builder.add(listed("eve"));
        assert!(builder.is_full());
        assert_eq!(builder.finish().sessions.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_counted_once_and_never_listed() {
        let mut builder = ListingBuilder::new(None, 10);
        let (odd, hers) = (session(), listed("ada"));
        for _ in 0..3 {
            builder.add_unreadable(&odd);
        }
        builder.add(hers.clone());
        assert_eq!(builder.finish(), Listing { sessions: vec![hers], unreadable: 1, ..Listing::default() });
    }

    #[test]
    fn a_server_is_named_once() {
        let mut builder = ListingBuilder::new(None, 2);
        builder.add_failure("a:1", StoreError::TimedOut);
        builder.add_failure("a:1", StoreError::Full);
        assert_eq!(builder.finish().unreachable, [("a:1".to_owned(), StoreError::TimedOut)]);
    }
}
