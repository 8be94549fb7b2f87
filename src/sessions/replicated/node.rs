//! What a server of a cluster must be able to do. Unlike a [`SessionStore`](crate::sessions::SessionStore) it knows
//! of copies: it holds tombstones, and takes copies of sessions without undoing what was said to it before.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::sessions::{
    Count, CounterKey, DeviceKey, DeviceRecord, Held, Redemption, SessionKey, SessionRecord, StoreError, Swap,
    TicketKey, Tombstone,
};

/// What lies under a key, or nothing; an error is the value's own, such as garbage.
pub type StoredResult = Result<Option<Held>, StoreError>;

/// Each call is bounded by the server's own deadline. Those that write nothing over what is there (`add`) and those
/// that write on condition (`record_access`, `renew`, `swap_device`, `redeem_ticket`) are atomic at the server.
pub trait Node: Send + Sync + 'static {
    type KeyScan: KeyScan;

    /// What lies under `key`; with `slide`, its expiry moves, whatever it is.
    fn look_up(
        &self,
        key: &SessionKey,
        slide: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Held>, StoreError>> + Send;

    /// Stores a session unless anything lies under its key. Answers whether it did.
    fn add(
        &self,
        key: &SessionKey,
        record: &SessionRecord,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// As of a [`SessionStore`](crate::sessions::SessionStore). What is not a session stays as it is.
    fn record_access(
        &self,
        key: &SessionKey,
        now: UnixTime,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// As of a [`SessionStore`](crate::sessions::SessionStore). What is not a session stays as it is.
    fn renew(
        &self,
        key: &SessionKey,
        record: &SessionRecord,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Puts a tombstone in place of whatever lies under `key`.
    fn write_tombstone(
        &self,
        key: &SessionKey,
        tombstone: Tombstone,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn device(&self, key: &DeviceKey) -> impl Future<Output = Result<Option<DeviceRecord>, StoreError>> + Send;

    /// As of a [`SessionStore`](crate::sessions::SessionStore).
    fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> impl Future<Output = Result<Swap, StoreError>> + Send;

    fn issue_ticket(
        &self,
        key: &TicketKey,
        value: &[u8],
        ttl: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn redeem_ticket(
        &self,
        key: &TicketKey,
        remember: Duration,
    ) -> impl Future<Output = Result<Redemption, StoreError>> + Send;

    /// The count that it answers names no server.
    fn counter_incr(
        &self,
        key: &CounterKey,
        window: Duration,
    ) -> impl Future<Output = Result<Count, StoreError>> + Send;

    /// Zero where nothing is increment_counter.
    fn counter_get(&self, key: &CounterKey) -> impl Future<Output = Result<Count, StoreError>> + Send;

    fn counter_decr(&self, key: &CounterKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn counter_reset(&self, key: &CounterKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How long the server has given no answer; zero while it does.
    fn unavailable_for(&self) -> Duration;

    /// How much longer an answer is worth waiting for: a server that has only just fallen silent may be there again in a
    /// moment, one that has been for long may not.
    fn retry_window(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the last look-up found no answer.
    fn is_failing(&self) -> bool;

    /// Whether look-ups have failed several times in a row, so that the server is left alone for now.
    fn is_resting(&self) -> bool;

    /// Begins a look through all that the server holds. Asks nothing yet.
    fn scan_keys(&self) -> Self::KeyScan;
}

/// A look through all that a server holds, over connections of its own, so that it holds up nobody. Each call has a
/// deadline, the whole has none. After an error it is over.
pub trait KeyScan: Send {
    /// The next keys of sessions and tombstones, each with when it is forgotten; `None` at the end. What comes or goes
    /// meanwhile may be missed, and a key may come twice.
    fn keys(&mut self) -> impl Future<Output = Result<Option<Vec<(SessionKey, UnixTime)>>, StoreError>> + Send;

    /// What lies under each of `keys`, a page of them at most, in their order. Slides nothing.
    fn look_up(&mut self, keys: &[SessionKey]) -> impl Future<Output = Result<Vec<StoredResult>, StoreError>> + Send;
}
