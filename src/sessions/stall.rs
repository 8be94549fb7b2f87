//! Retries of a look-up while the store stalls: stalls of some hundred milliseconds happen (a virtual machine is migrated, a
//! network port comes up again), and users who are signed in should not notice them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Found, SessionKey, SessionStore, StoreError};

/// The pause between two attempts. Attempts that the circuit breaker refuses meanwhile cost the server nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Decides whether a look-up that failed is tried again.
pub struct StallRetry<'a> {
    store: &'a dyn SessionStore,
    key: &'a SessionKey,
    /// The retries end at this moment, even if the store answers other requests in between.
    until: Instant,
}

impl<'a> StallRetry<'a> {
    /// Must be created after the first failure.
    pub fn new(store: &'a dyn SessionStore, key: &'a SessionKey) -> Self {
        Self { store, key, until: Instant::now() + store.retry_window(key) }
    }

    /// Waits for a moment and returns true; returns false at once when the look-up should not be retried.
    pub async fn pause(&self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now()).min(self.store.retry_window(self.key));
        if left < PAUSE {
            return false;
        }
        sleep(PAUSE).await;
        true
    }
}

/// Like [`SessionStore::find`], but retries while the store stalls.
pub async fn find_with_retry(
    store: &dyn SessionStore,
    key: &SessionKey,
    slide: Option<Duration>,
) -> Result<Found, StoreError> {
    let mut found = store.find(key, slide).await;
    if !is_unavailable(&found) {
        return found;
    }
    let stall = StallRetry::new(store, key);
    while is_unavailable(&found) && stall.pause().await {
        found = store.find(key, slide).await;
    }
    found
}

fn is_unavailable(found: &Result<Found, StoreError>) -> bool {
    found.as_ref().is_err_and(StoreError::is_unavailable)
}
