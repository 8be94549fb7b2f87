//! Counters: which server keeps a counter, and what happens while that server is unavailable.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::node::Node;
use super::{Cluster, any_ok};
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::{Count, CounterKey, StoreError};

/// Servers that may keep a counter: the first for its key and, while that one is unavailable, the next.
const MAX_SERVERS: usize = 2;

impl<N: Node> Cluster<N> {
    /// Counts on the counter's own server or, while that one is unavailable, on the next: otherwise one server that is down
    /// would keep its share of all users from signing in. The count starts at zero there, so twice the limit may be tried
    /// in all while servers come and go, which is not in the hands of an attacker.
    pub async fn increment_counter(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), MAX_SERVERS);
        let mut outcome = Err(StoreError::TimedOut);
        for handle in candidates {
            let added =
                handle.monitor.observe(Operation::CounterIncr, handle.node.counter_incr(key, window), always).await;
            let is_unavailable = added.as_ref().is_err_and(StoreError::is_unavailable);
            outcome = added.map(|count| Count { server: Some(handle.name.as_str().into()), ..count });
            if !is_unavailable {
                break;
            }
        }
        outcome
    }

    /// Reads the counter on the first server that answers: the one that [`increment_counter`](Self::increment_counter) would
    /// add to.
    pub async fn read_counter(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), MAX_SERVERS);
        let mut outcome = Err(StoreError::TimedOut);
        for handle in candidates {
            let read = handle.node.counter_get(key);
            let read = handle.monitor.observe(Operation::CounterGet, read, |count| count.count > 0).await;
            let is_unavailable = read.as_ref().is_err_and(StoreError::is_unavailable);
            outcome = read.map(|count| Count { server: Some(handle.name.as_str().into()), ..count });
            if !is_unavailable {
                break;
            }
        }
        outcome
    }

    /// Takes one back on the server that has counted it, and on no other: another server may have a count of its own, of
    /// genuine failures. If the server is unavailable, the count stays one too high until its window ends.
    pub async fn decrement_counter(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        let layout = self.layout.load_full();
        let handle = match &counted.server {
            Some(name) => layout.all_nodes(Instant::now()).into_iter().find(|handle| *handle.name == **name),
            None => Some(Arc::clone(layout.first(key.as_str()))),
        };
        let Some(handle) = handle else { return Ok(()) };
        handle.monitor.observe(Operation::CounterDecr, handle.node.counter_decr(key), always).await
    }

    /// Resets the counter on every server that may keep it.
    pub async fn reset_counter(&self, key: &CounterKey) -> Result<(), StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), MAX_SERVERS);
        let reset = join_all(candidates.iter().map(async |handle| {
            let reset = handle.node.counter_reset(key);
            handle.monitor.observe(Operation::CounterReset, reset, always).await.map(|()| true)
        }));
        any_ok(reset.await).map(drop)
    }
}
