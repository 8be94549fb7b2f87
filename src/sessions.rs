//! Session records, tickets and failure counters behind one small trait, [`SessionStore`].
//!
//! A store knows keys, bytes and expiries; whether a session may pass is decided in `auth`, and what a ticket
//! means in `sentry`. `memory` is the embedded default, `memcached` the shared one, and `observed` counts and
//! times either of them. `cluster` makes one store of many servers, `copies` of each session among them. `listing`
//! is what an operator sees of all that is held.

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
pub use tombstone::{Held, Tombstone};

/// Where sessions, tickets and failure counters live.
///
/// An `Err` never means "not there": absence is an answer, a failure is not. Each call is bounded by the
/// store's own deadline.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Stores a session under a key that was never used before, to be forgotten after `ttl` without a slide.
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError>;

    /// Finds a session; with `slide`, its expiry moves to that long from now in the same round trip.
    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError>;

    /// Writes `now` as the session's last access and slides its expiry by `ttl`, unless the session has ended
    /// or changed meanwhile, or already tells of an access as late. Answers whether it was written, which says
    /// nothing about whether the session lives; never creates a session.
    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError>;

    /// Writes `record` in the place of a session that lives, for the same person has typed the password again. Answers
    /// whether it was written; never creates a session.
    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError>;

    /// Ends a session, whether or not there is one. No touch, rewrite or copy brings it back before `until`, by
    /// when no token names it any more. A store that could not be told may still be owed it, see
    /// [`owes`](Self::has_hint).
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError>;

    /// Whether an end of this session is kept here to be told to the store when it answers again. Until then it is
    /// found ended here.
    fn has_hint(&self, _key: &SessionKey) -> bool {
        false
    }

    /// Whether a server that may come back with this session, because it has been silent for a short time only, has not
    /// heard of its end. An edge that reaches that server alone would go on with the session.
    fn may_resurface(&self, _key: &SessionKey) -> bool {
        false
    }

    /// Whether what would hold this session has failed several times in a row, so that a failure just met is more than
    /// one late answer.
    fn is_down(&self, _key: &SessionKey) -> bool {
        true
    }

    /// What is kept of a browser. Where several servers say different things, the later counts.
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError>;

    /// Puts `next` in the place of `seen`, to be forgotten after `ttl`, unless something else is there. Of any number of
    /// simultaneous calls that have seen the same, exactly one is told [`Swap::Done`].
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError>;

    /// After a failure: how much longer an answer about this session is worth waiting for. Zero once the store has been
    /// silent for long.
    fn retry_window(&self, _key: &SessionKey) -> Duration {
        Duration::ZERO
    }

    /// Stores a ticket for one redemption within `ttl`.
    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError>;

    /// Takes a ticket. Of any number of simultaneous calls exactly one is told [`Redemption::Won`].
    /// A used ticket is remembered as used for `remember`.
    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError>;

    /// Adds one to a counter and answers the new count. A counter begins at zero and is forgotten `window`
    /// after its first addition.
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError>;

    /// Reads a counter without adding to it; zero where nothing is counted.
    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError>;

    /// Takes one back from a counter, if it still counts, where it was counted.
    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError>;

    /// Forgets a counter.
    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError>;

    /// Looks through all that is held for sessions that live, of one user (by the record's name for them) or of all,
    /// and answers up to `limit`. For operators: it may take its time, disturbs no other call, and slides nothing.
    async fn list(&self, user: Option<&str>, limit: usize) -> Listing;

    /// Whether the store answers at all.
    async fn ping(&self) -> Result<(), StoreError>;

    /// For how long the store has not answered whatever it was asked, by the clock that policies reckon with; zero when it
    /// has answered the last time.
    fn unavailable_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// A count, how long it stays, and which server of a store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub count: u64,
    /// Until the counter is forgotten; in whole seconds where the store counts those.
    pub left: Duration,
    /// `None` where there is one place alone.
    pub server: Option<Box<str>>,
}

/// What a store knows of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Active(SessionRecord),
    /// It was ended, and that is remembered.
    Ended,
    /// There is none: it idled out, was ended and forgotten, or never was.
    Missing,
}

/// What became of a ticket.
#[derive(Clone, PartialEq, Eq)]
pub enum Redemption {
    /// This call took it; here is what was stored.
    Won(Vec<u8>),
    /// Another call took it before.
    Replayed,
    /// There is no such ticket, or no longer.
    Unknown,
}

/// Why a store gave no answer. None of these says anything about whether a session exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No connection, or it broke; `cause` is for the log.
    Unavailable { cause: String },
    /// No answer within the deadline.
    TimedOut,
    /// An answer that is not one: another program, or another version's data.
    Protocol { cause: String },
    /// It answers, and does not do what is needed: it wants a password, or is too old.
    Unfit { cause: String },
    /// The store refused to hold more.
    Full,
    /// It is there, and does the same for somebody else at the moment.
    Busy,
}

impl StoreError {
    /// Whether there was no answer at all, so that another server might be asked instead.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut)
    }
}

/// How often what needs a fresh random key is tried before the store counts as away: another key belongs to
/// another server, and may find that one alive. With one of two servers dead, one login in 4,096 meets it each
/// time; from the third trial on the dead one costs no wait.
pub const FRESH_KEYS: usize = 12;

impl std::fmt::Debug for Redemption {
    /// What was stored is as good as a login, so it is not shown.
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
            Self::Protocol { cause } => write!(f, "the session store answered with garbage: {cause}"),
            Self::Unfit { cause } => write!(f, "the session store cannot be used: {cause}"),
            Self::Full => f.write_str("the session store is full"),
            Self::Busy => f.write_str("the session store lists its keys for somebody else; try again in a moment"),
        }
    }
}

impl std::error::Error for StoreError {}
