//! One server of a cluster. Unlike a [`SessionStore`](crate::sessions::SessionStore), a node supports replication: it stores
//! tombstones, and accepts copies of sessions without undoing what was written to it before.

use std::time::Duration;

use crate::clock::UnixTime;
use crate::sessions::{
    Count, CounterKey, DeviceKey, DeviceRecord, Redemption, SessionKey, SessionRecord, StoreError, StoredValue, Swap,
    TicketKey, Tombstone,
};

/// A server as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The address as it is written. It also determines the server's points on the ring.
    pub name: String,
    pub weight: u32,
}

/// The keys of one page of a [`KeyScan`], each with the moment at which the server forgets it.
pub type ScanPage = Vec<(SessionKey, UnixTime)>;

/// The value under a key, if there is one. An error concerns this value alone, for instance because it is damaged.
pub type StoredResult = Result<Option<StoredValue>, StoreError>;

/// Each call has the deadline of its server. The calls that never overwrite (`add`) and those that write on a condition
/// (`record_access`, `renew`, `swap_device`, `redeem_ticket`) are atomic at the server.
pub trait Node: Send + Sync + 'static {
    type Scan: KeyScan;

    /// Returns the value under `key`; with `slide`, the expiry moves to that long from now, whether it is a session or a
    /// tombstone.
    fn look_up(
        &self,
        key: &SessionKey,
        slide: Option<Duration>,
    ) -> impl Future<Output = Result<Option<StoredValue>, StoreError>> + Send;

    /// Stores a session unless something is stored under its key. Returns whether it was stored.
    fn add(
        &self,
        key: &SessionKey,
        record: &SessionRecord,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// As in [`SessionStore`](crate::sessions::SessionStore). A value that is no session stays as it is.
    fn record_access(
        &self,
        key: &SessionKey,
        now: UnixTime,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// As in [`SessionStore`](crate::sessions::SessionStore). A value that is no session stays as it is.
    fn renew(
        &self,
        key: &SessionKey,
        record: &SessionRecord,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Writes a tombstone over any value under `key`.
    fn write_tombstone(
        &self,
        key: &SessionKey,
        tombstone: Tombstone,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn device(&self, key: &DeviceKey) -> impl Future<Output = Result<Option<DeviceRecord>, StoreError>> + Send;

    /// As in [`SessionStore`](crate::sessions::SessionStore).
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

    /// The count that is returned names no server.
    fn counter_incr(
        &self,
        key: &CounterKey,
        window: Duration,
    ) -> impl Future<Output = Result<Count, StoreError>> + Send;

    /// Returns zero when there is no such counter.
    fn counter_get(&self, key: &CounterKey) -> impl Future<Output = Result<Count, StoreError>> + Send;

    fn counter_decr(&self, key: &CounterKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn counter_reset(&self, key: &CounterKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns how long the server has not answered; zero while it answers.
    fn unavailable_for(&self) -> Duration;

    /// Returns how much longer a failed operation is worth retrying: a server that has only just stopped answering may be
    /// back in a moment, one that has been unavailable for long probably is not.
    fn retry_window(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether the last look-up failed.
    fn is_failing(&self) -> bool;

    /// Whether the circuit breaker is open: look-ups have failed several times in a row.
    fn is_open(&self) -> bool;

    /// Starts a scan over all keys of the server. No request is sent yet.
    fn scan_keys(&self) -> Self::Scan;
}

/// A scan over all keys of a server, on connections of its own, so that it delays no request. Each call has a deadline, the
/// scan as a whole has none. It ends with the first error.
pub trait KeyScan: Send {
    /// Returns the next page of keys of sessions and tombstones; `None` at the end. Keys that are added or removed during
    /// the scan may be missed, and a key may come twice.
    fn keys(&mut self) -> impl Future<Output = Result<Option<ScanPage>, StoreError>> + Send;

    /// Returns the value under each of `keys`, a page of them at most, in their order. No expiry is slid.
    fn look_up(&mut self, keys: &[SessionKey]) -> impl Future<Output = Result<Vec<StoredResult>, StoreError>> + Send;
}
