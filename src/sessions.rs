//! Session records, tickets and failure counters behind one trait, [`SessionStore`].
//!
//! A store knows keys, bytes and expiries; `auth` decides whether a session grants access, and `sentry` what a ticket means.
//! `memory` is the embedded default, `memcached` the shared store, and `instrumented` counts and times either of them.
//! `replicated` makes one store of several servers, with copies of each session. `listing` is what an operator sees of the
//! active sessions.

pub mod device;
pub mod instrumented;
pub mod key;
pub mod listing;
pub mod memcached;
pub mod memory;
pub mod record;
pub mod replicated;
mod stall;
pub mod stateless;
#[cfg(test)]
mod tests;
pub mod tombstone;

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::UnixTime;
pub use device::{DeviceRecord, Swap};
pub use key::{CounterKey, DeviceKey, SessionId, SessionKey, TicketId, TicketKey};
pub use listing::{Listed, Listing};
pub use record::{Fingerprint, SessionRecord};
pub use stall::{StallRetry, find_with_retry};
pub use tombstone::{StoredValue, Tombstone};

/// A store of sessions, tickets, browsers' records and counters.
///
/// An `Err` never means that something does not exist: that is a result, not a failure. Each call is bounded by the store's
/// own deadline.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Stores a session under a new key. It expires after `ttl`, unless its expiry is slid.
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError>;

    /// Looks up a session; with `slide`, its expiry moves to that long from now in the same round trip.
    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError>;

    /// Writes `now` as the session's last access and moves its expiry to `ttl` from now, unless the session has ended or
    /// changed meanwhile, or its last access is as late already. Returns whether it was written, which says nothing about
    /// whether the session is active. Never creates a session.
    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError>;

    /// Replaces the record of an active session, because the same user has entered the password again. Returns whether it
    /// was written. Never creates a session.
    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError>;

    /// Ends a session, whether or not it exists. No touch, rewrite or copy brings it back before `until`; after that no
    /// valid token names it any more. If a server could not be reached, a hint may be kept for it, see
    /// [`has_hint`](Self::has_hint).
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError>;

    /// Whether the end of this session is kept here as a hint, to be written to the store when it answers again (hinted
    /// handoff). Until then the session is found ended here.
    fn has_hint(&self, _key: &SessionKey) -> bool {
        false
    }

    /// Whether an ended session may come back: a server that has been unavailable for a short time only does not have the
    /// tombstone. An edge that reaches only that server would still accept the session.
    fn may_resurface(&self, _key: &SessionKey) -> bool {
        false
    }

    /// Whether the servers that hold this session are down: they have failed several times in a row, so a failure is more
    /// than one late response.
    fn is_down(&self, _key: &SessionKey) -> bool {
        true
    }

    /// Returns the record of a browser; the latest one when servers have different ones.
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError>;

    /// Compare-and-swap: replaces `seen` by `next`, which expires after `ttl`, unless another record is stored. Of any number
    /// of concurrent calls with the same `seen`, exactly one returns [`Swap::Done`].
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError>;

    /// Returns how much longer a failed look-up of this session is worth retrying; zero once the store has been unavailable
    /// for long.
    fn retry_window(&self, _key: &SessionKey) -> Duration {
        Duration::ZERO
    }

    /// Stores a ticket, which can be redeemed once within `ttl`.
    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError>;

    /// Redeems a ticket. Of any number of concurrent calls exactly one returns [`Redemption::Won`]. A used ticket is
    /// remembered as used for `remember`.
    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError>;

    /// Adds one to a counter and returns the new count. A counter begins at zero, and expires `window` after its first
    /// increment.
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError>;

    /// Reads a counter; zero when there is none.
    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError>;

    /// Subtracts one from a counter, if it still exists, on the server that counted it.
    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError>;

    /// Removes a counter.
    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError>;

    /// Lists up to `limit` active sessions, of one user (by the `user` of the record) or of all. It is for operators: it may
    /// take long, does not disturb other calls, and slides no expiry.
    async fn list(&self, user: Option<&str>, limit: usize) -> Listing;

    /// Checks that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Returns how long the store has not answered any operation, by the clock that outage policies use; zero when it answered
    /// the last one.
    fn unavailable_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// The value of a counter, its remaining lifetime, and the server that keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub count: u64,
    /// The time until the counter expires; some stores count whole seconds.
    pub left: Duration,
    /// `None` for a store with a single server.
    pub server: Option<Box<str>>,
}

/// The result of looking up a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Active(SessionRecord),
    /// The session was ended, and its tombstone is still stored.
    Ended,
    /// There is no such session: it expired, was ended long ago, or never existed.
    Missing,
}

/// The result of redeeming a ticket.
#[derive(Clone, PartialEq, Eq)]
pub enum Redemption {
    /// This call redeemed the ticket; this is its stored value.
    Won(Vec<u8>),
    /// Another call has redeemed the ticket before.
    Replayed,
    /// There is no such ticket, or it has expired.
    Unknown,
}

/// Why a store operation failed. None of these says anything about whether a session exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// There is no connection, or it broke; `cause` is for the log.
    Unavailable { cause: String },
    /// The store did not answer within the deadline.
    TimedOut,
    /// The response or the value is invalid: it is that of another program, or of another version.
    Protocol { cause: String },
    /// The server answers, but cannot be used: it wants a password, or is too old.
    Unfit { cause: String },
    /// The store has no room.
    Full,
    /// The server is listing its keys for another client at the moment.
    Busy,
}

impl StoreError {
    /// Whether the store did not answer at all, so that another server may be tried.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut)
    }
}

/// How often an operation with a new random key is tried before the store counts as unavailable: another key belongs to
/// another server, which may be up. With one of two servers dead, one login in 4,096 meets the dead one each time; from the
/// third attempt on the dead one costs no waiting.
pub const FRESH_KEY_ATTEMPTS: usize = 12;

impl std::fmt::Debug for Redemption {
    /// The stored value grants a login, so it is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Won(_) => "Won(…)",
            Self::Replayed => "Replayed",
            Self::Unknown => "Unknown",
        })
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable { cause } => write!(f, "the session store is away: {cause}"),
            Self::TimedOut => f.write_str("the session store did not answer in time"),
            Self::Protocol { cause } => write!(f, "the session store sent an invalid response: {cause}"),
            Self::Unfit { cause } => write!(f, "the session store cannot be used: {cause}"),
            Self::Full => f.write_str("the session store is full"),
            Self::Busy => {
                f.write_str("the session store is listing its keys for another client; try again in a moment")
            }
        }
    }
}

impl std::error::Error for StoreError {}
