//! Counting: where a counter lies, and what happens to it while that server gives no answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::node::Member;
use super::{Cluster, one_of};
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::{Count, CounterKey, StoreError};

/// Servers that a counter may be kept on: the first for its key and, while that is away, the next.
const PLACES: usize = 2;

impl<M: Member> Cluster<M> {
    /// Counts where the counter lies or, while that server gives no answer, on the next: else one server that is down
    /// would keep its share of all users from signing in. There a count begins anew, so while servers come and go twice
    /// the limit may be tried in all, which a guesser cannot bring about.
    pub async fn counted(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        for seat in candidates {
            let added = seat.watcher.watch(Operation::AddFailure, seat.member.add_failure(key, window), always).await;
            let is_silent = added.as_ref().is_err_and(StoreError::is_silence);
            outcome = added.map(|count| Count { server: Some(seat.name.as_str().into()), ..count });
            if !is_silent {
                break;
            }
        }
        outcome
    }

    /// Of the first server that answers, as [`counted`](Self::counted) adds to it.
    pub async fn count_of(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        for seat in candidates {
            let read = seat.member.failures(key);
            let read = seat.watcher.watch(Operation::ReadFailures, read, |count| count.count > 0).await;
            let is_silent = read.as_ref().is_err_and(StoreError::is_silence);
            outcome = read.map(|count| Count { server: Some(seat.name.as_str().into()), ..count });
            if !is_silent {
                break;
            }
        }
        outcome
    }

    /// From the server that has counted, and from no other: that one may have a count of its own, of failures that are
    /// some. If it is away, one too many stays until its window ends.
    pub async fn take_back(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        let layout = self.layout.load_full();
        let seat = match &counted.server {
            Some(name) => layout.everybody(Instant::now()).into_iter().find(|seat| *seat.name == **name),
            None => Some(Arc::clone(layout.first(key.as_str()))),
        };
        let Some(seat) = seat else { return Ok(()) };
        seat.watcher.watch(Operation::TakeBackFailure, seat.member.take_back_failure(key), always).await
    }

    /// Wherever it may have been counted.
    pub async fn forget_counts(&self, key: &CounterKey) -> Result<(), StoreError> {
        let candidates = self.layout.load().candidates(key.as_str(), PLACES);
        let forgotten = join_all(candidates.iter().map(async |seat| {
            let forgotten = seat.member.forget_failures(key);
            seat.watcher.watch(Operation::ForgetFailures, forgotten, always).await.map(|()| true)
        }));
        one_of(forgotten.await).map(drop)
    }
}
