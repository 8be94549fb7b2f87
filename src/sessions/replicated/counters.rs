//! Counting: where a counter lies, and what happens to it while that server gives no answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::node::Node;
use super::{Cluster, one_of};
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::{Count, CounterKey, StoreError};

/// Servers that a counter may be kept on: the first for its key and, while that is away, the next.
const PLACES: usize = 2;

impl<M: Node> Cluster<M> {
    /// Counts where the counter lies or, while that server gives no answer, on the next: else one server that is down
    /// would keep its share of all users from signing in. There a count begins anew, so while servers come and go twice
    /// the limit may be tried in all, which a guesser cannot bring about.
    pub async fn increment_counter(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        for handle in candidates {
            let added =
                handle.monitor.observe(Operation::AddFailure, handle.node.counter_incr(key, window), always).await;
            let is_silent = added.as_ref().is_err_and(StoreError::is_unavailable);
            outcome = added.map(|count| Count { server: Some(handle.name.as_str().into()), ..count });
            if !is_silent {
                break;
            }
        }
        outcome
    }

    /// Of the first server that answers, as [`increment_counter`](Self::increment_counter) adds to it.
    pub async fn count_of(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        for handle in candidates {
            let read = handle.node.counter_get(key);
            let read = handle.monitor.observe(Operation::ReadFailures, read, |count| count.count > 0).await;
            let is_silent = read.as_ref().is_err_and(StoreError::is_unavailable);
            outcome = read.map(|count| Count { server: Some(handle.name.as_str().into()), ..count });
            if !is_silent {
                break;
            }
        }
        outcome
    }

    /// From the server that has increment_counter, and from no other: that one may have a count of its own, of failures that are
    /// some. If it is away, one too many stays until its window ends.
    pub async fn take_back(&self, key: &CounterKey, increment_counter: &Count) -> Result<(), StoreError> {
        let layout = self.layout.load_full();
        let handle = match &increment_counter.server {
            Some(name) => layout.all_nodes(Instant::now()).into_iter().find(|handle| *handle.name == **name),
            None => Some(Arc::clone(layout.first(key.as_str()))),
        };
        let Some(handle) = handle else { return Ok(()) };
        handle.monitor.observe(Operation::TakeBackFailure, handle.node.counter_decr(key), always).await
    }

    /// Wherever it may have been increment_counter.
    pub async fn forget_counts(&self, key: &CounterKey) -> Result<(), StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let forgotten = join_all(candidates.iter().map(async |handle| {
            let forgotten = handle.node.counter_reset(key);
            handle.monitor.observe(Operation::ForgetFailures, forgotten, always).await.map(|()| true)
        }));
        one_of(forgotten.await).map(drop)
    }
}
