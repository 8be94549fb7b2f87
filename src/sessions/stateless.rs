//! `store: none`: no session is stored, and the token alone grants access (stateless tokens).
//!
//! This gives up logout on other hosts, the idle timeout, and any end of a session before the token expires. Tickets and
//! failure counters are kept in another store, usually this process's memory, so a hand-off works within one edge.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey,
};
use crate::clock::UnixTime;

/// Forwards tickets and counters to another store, and stores no sessions.
pub struct StatelessStore<S>(S);

impl<S> StatelessStore<S> {
    pub fn new(others: S) -> Self {
        Self(others)
    }
}

#[async_trait]
impl<S: SessionStore> SessionStore for StatelessStore<S> {
    async fn insert(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    /// The guard does not look sessions up in this mode; any other caller finds that none is stored.
    async fn find(&self, _: &SessionKey, _: Option<Duration>) -> Result<Found, StoreError> {
        Ok(Found::Missing)
    }

    async fn record_access(&self, _: &SessionKey, _: UnixTime, _: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn end(&self, _: &SessionKey, _: UnixTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn renew(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.0.device(key).await
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        self.0.swap_device(key, seen, next, ttl).await
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        self.0.issue_ticket(key, value, ttl).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        self.0.redeem_ticket(key, remember).await
    }

    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        self.0.counter_incr(key, window).await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        self.0.counter_get(key).await
    }

    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        self.0.counter_decr(key, counted).await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.0.counter_reset(key).await
    }

    async fn list(&self, _: Option<&str>, _: usize) -> Listing {
        Listing::default()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}
