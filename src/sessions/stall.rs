//! Waiting out a store that has only just fallen silent: stalls of some hundred milliseconds happen (a virtual machine is
//! moved, a network port comes up again), and whoever is signed in is to hear nothing of them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Found, SessionKey, SessionStore, StoreError};

/// Between two attempts. What the store itself turns away meanwhile costs it nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// Decides whether a session that could not be looked up is looked up again.
pub struct StallRetry<'a> {
    store: &'a dyn SessionStore,
    key: &'a SessionKey,
    /// Also of a store that answers others in between.
    until: Instant,
}

impl<'a> StallRetry<'a> {
    /// To be made after the first failure.
    pub fn new(store: &'a dyn SessionStore, key: &'a SessionKey) -> Self {
        Self { store, key, until: Instant::now() + store.retry_window(key) }
    }

    /// Waits for a moment and answers true, or answers false: there is nothing to wait for.
    pub async fn pause(&self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now()).min(self.store.retry_window(self.key));
        if left < PAUSE {
            return false;
        }
        sleep(PAUSE).await;
        true
    }
}

/// As [`SessionStore::find`], and waits out a stall.
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
