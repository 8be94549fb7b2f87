//! A task whose store operations are executed one at a time, each when the test allows it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey,
};
use crate::clock::UnixTime;

/// A task that is executed step by step.
pub struct InTurns<T> {
    allowed: Arc<Semaphore>,
    /// The task reports before and after each operation. The channel is closed when the task has ended.
    reports: mpsc::Receiver<()>,
    task: JoinHandle<T>,
}

pub fn in_turns<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: Arc<dyn SessionStore>,
    task: impl FnOnce(Turns) -> F,
) -> InTurns<T> {
    let allowed = Arc::new(Semaphore::new(0));
    let (reporting, reports) = mpsc::channel(1);
    let task = tokio::spawn(task(Turns { store, allowed: Arc::clone(&allowed), reporting }));
    InTurns { allowed, reports, task }
}

impl<T> InTurns<T> {
    /// Executes the next operation. Returns whether there was one.
    pub async fn step(&mut self) -> bool {
        if self.reports.recv().await.is_none() {
            return false;
        }
        self.allowed.add_permits(1);
        self.reports.recv().await.is_some()
    }

    pub async fn finish(mut self) -> T {
        while self.step().await {}
        self.task.await.unwrap()
    }
}

/// The store of such a task; it supports browsers' records and ends of sessions.
pub struct Turns {
    store: Arc<dyn SessionStore>,
    allowed: Arc<Semaphore>,
    reporting: mpsc::Sender<()>,
}

impl Turns {
    async fn execute<A>(&self, operation: impl Future<Output = A>) -> A {
        self.reporting.send(()).await.unwrap();
        self.allowed.acquire().await.unwrap().forget();
        let result = operation.await;
        self.reporting.send(()).await.unwrap();
        result
    }
}

#[async_trait]
impl SessionStore for Turns {
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.execute(self.store.device(key)).await
    }
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        self.execute(self.store.swap_device(key, seen, next, ttl)).await
    }
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        self.execute(self.store.end(key, until)).await
    }
    fn may_resurface(&self, key: &SessionKey) -> bool {
        self.store.may_resurface(key)
    }

    async fn insert(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
    async fn find(&self, _: &SessionKey, _: Option<Duration>) -> Result<Found, StoreError> {
        Err(StoreError::Busy)
    }
    async fn record_access(&self, _: &SessionKey, _: UnixTime, _: Duration) -> Result<bool, StoreError> {
        Err(StoreError::Busy)
    }
    async fn renew(&self, _: &SessionKey, _: &SessionRecord, _: Duration) -> Result<bool, StoreError> {
        Err(StoreError::Busy)
    }
    async fn issue_ticket(&self, _: &TicketKey, _: &[u8], _: Duration) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
    async fn redeem_ticket(&self, _: &TicketKey, _: Duration) -> Result<Redemption, StoreError> {
        Err(StoreError::Busy)
    }
    async fn counter_incr(&self, _: &CounterKey, _: Duration) -> Result<Count, StoreError> {
        Err(StoreError::Busy)
    }
    async fn counter_get(&self, _: &CounterKey) -> Result<Count, StoreError> {
        Err(StoreError::Busy)
    }
    async fn counter_decr(&self, _: &CounterKey, _: &Count) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
    async fn counter_reset(&self, _: &CounterKey) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
    async fn list(&self, _: Option<&str>, _: usize) -> Listing {
        Listing::default()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
}
