//! A store that never answers.

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::UnixTime;
use crate::sessions::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey,
};

pub struct Unavailable;

#[async_trait]
impl SessionStore for Unavailable {
    async fn insert(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn find(&self, _: &SessionKey, _: Option<Duration>) -> Result<Found, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn record_access(&self, _: &SessionKey, _: UnixTime, _: Duration) -> Result<bool, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn end(&self, _: &SessionKey, _: UnixTime) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn renew(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<bool, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn device(&self, _: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn swap_device(
        &self,
        _: &DeviceKey,
        _: Option<&DeviceRecord>,
        _: &DeviceRecord,
        _: Duration,
    ) -> Result<Swap, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn issue_ticket(&self, _: &TicketKey, _: &[u8], _: Duration) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn redeem_ticket(&self, _: &TicketKey, _: Duration) -> Result<Redemption, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn counter_incr(&self, _: &CounterKey, _: Duration) -> Result<Count, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn counter_get(&self, _: &CounterKey) -> Result<Count, StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn counter_decr(&self, _: &CounterKey, _: &Count) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn counter_reset(&self, _: &CounterKey) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
    async fn list(&self, _: Option<&str>, _: usize) -> Listing {
        Listing::default()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Err(StoreError::TimedOut)
    }
}
