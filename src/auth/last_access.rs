//! Keeps LAST_ACCESSED_TIME of session records exact to an interval, in a task of its own, so that no request waits for
//! it.
//!
//! The expiry in the store is extended by every request; the record says when the user was last active, for people who
//! read it. It is rewritten only if the session was not changed or ended meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::UnixTime;
use crate::sessions::{SessionKey, SessionRecord, SessionStore};

/// Number of concurrent rewrites. A rewrite above this limit is skipped and left to the next request of the session.
const CONCURRENT_WRITES: usize = 64;

pub struct Recorder {
    store: Arc<dyn SessionStore>,
    interval: Duration,
    places: Arc<Semaphore>,
}

impl Recorder {
    pub fn new(store: Arc<dyn SessionStore>, interval: Duration) -> Self {
        Self { store, interval, places: Arc::new(Semaphore::new(CONCURRENT_WRITES)) }
    }

    /// Records an access if the last recorded one is long enough ago. `ttl` is the new time to live in the store.
    pub fn note(&self, key: &SessionKey, record: &SessionRecord, now: UnixTime, ttl: Duration) {
        if now.since(record.last_accessed) < self.interval {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (store, key) = (Arc::clone(&self.store), key.clone());
        tokio::spawn(async move {
            // A failure only makes the record less exact, and the store's metrics count it.
            store.record_access(&key, now, ttl).await.ok();
            drop(place);
        });
    }
}
