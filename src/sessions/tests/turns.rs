//! A task that asks its store one question at a time, when it is let.

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

/// A task, and how far it is.
pub struct InTurns<T> {
    let_on: Arc<Semaphore>,
    /// What the task says: that it is about to ask, and that it has its answer. Closed when it has ended.
    says: mpsc::Receiver<()>,
    task: JoinHandle<T>,
}

pub fn in_turns<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: Arc<dyn SessionStore>,
    task: impl FnOnce(Turns) -> F,
) -> InTurns<T> {
    let let_on = Arc::new(Semaphore::new(0));
    let (saying, says) = mpsc::channel(1);
    let task = tokio::spawn(task(Turns { store, let_on: Arc::clone(&let_on), saying }));
    InTurns { let_on, says, task }
}

impl<T> InTurns<T> {
    /// Its next question, whole. Answers whether it had one.
    pub async fn step(&mut self) -> bool {
        if self.says.recv().await.is_none() {
            return false;
        }
        self.let_on.add_permits(1);
        self.says.recv().await.is_some()
    }

    pub async fn finish(mut self) -> T {
        while self.step().await {}
        self.task.await.unwrap()
    }
}

/// The store of such a task, as far as browsers' records and ends of sessions go.
pub struct Turns {
    store: Arc<dyn SessionStore>,
    let_on: Arc<Semaphore>,
    saying: mpsc::Sender<()>,
}

impl Turns {
    async fn ask<A>(&self, question: impl Future<Output = A>) -> A {
        self.saying.send(()).await.unwrap();
        self.let_on.acquire().await.unwrap().forget();
        let answer = question.await;
        self.saying.send(()).await.unwrap();
        answer
    }
}

#[async_trait]
impl SessionStore for Turns {
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.ask(self.store.device(key)).await
    }
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        self.ask(self.store.swap_device(key, seen, next, ttl)).await
    }
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        self.ask(self.store.end(key, until)).await
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
