//! Keeps LAST_ACCESSED_TIME of session records exact to an interval, behind the back of the request.
//!
//! The store's own expiry slides with every request; the record says when somebody was there, for people who look
//! at it. It is rewritten on condition that nobody changed or ended the session meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::UnixTime;
use crate::sessions::{SessionKey, SessionRecord, SessionStore};

/// Rewrites under way at once. One that finds no place is left to the session's next request.
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

    /// Notes an access if the last one that was noted is long enough ago. `ttl` is the store's new expiry.
    pub fn note(&self, key: &SessionKey, record: &SessionRecord, now: UnixTime, ttl: Duration) {
        if now.since(record.last_accessed) < self.interval {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (store, key) = (Arc::clone(&self.store), key.clone());
        tokio::spawn(async move {
            // A failure costs exactness alone, and the store's metrics count it.
            store.record_access(&key, now, ttl).await.ok();
            drop(place);
        });
    }
}
