//! What runs in the background so that all replicas agree: read repair (copies for servers that lost theirs, tombstones for
//! servers that do not have them) and hinted handoff (tombstones for servers that were unavailable when a session ended).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::hints::{Added, Hint, Hints};
use super::layout::NodeHandle;
use super::node::Node;
use crate::clock::Clock;
use crate::metrics::StoreMetrics;
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::{SessionKey, SessionRecord, Tombstone};

/// Read repairs in flight at once. A repair beyond that is skipped: the session's next request starts it again.
const MAX_CONCURRENT_REPAIRS: usize = 64;

/// The pauses between two attempts to deliver a hint; each is twice as long as the one before.
#[derive(Clone, Copy, Debug)]
pub struct RetryBackoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for RetryBackoff {
    /// The first attempt comes soon, because most outages are short.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(2) }
    }
}

pub struct Repairer {
    clock: Clock,
    backoff: RetryBackoff,
    metrics: StoreMetrics,
    permits: Arc<Semaphore>,
    hints: Arc<Hints>,
}

impl Repairer {
    pub fn new(clock: Clock, backoff: RetryBackoff, metrics: StoreMetrics) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_REPAIRS));
        Self { clock, backoff, metrics, permits, hints: Arc::default() }
    }

    /// Copies a session to a server that should have it. The session is only added, so whatever the server has stored
    /// meanwhile stays there, a tombstone above all.
    pub fn copy<N: Node>(&self, handle: Arc<NodeHandle<N>>, key: &SessionKey, record: &SessionRecord, ttl: Duration) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
        let (key, record) = (key.clone(), record.clone());
        tokio::spawn(async move {
            let copied = handle.node.add(&key, &record, ttl);
            // A failure leaves the session with one copy less; its next request starts another repair.
            handle.monitor.observe(Operation::Copy, copied, |copied| *copied).await.ok();
            drop(permit);
        });
    }

    /// Writes a tombstone to a server that is available.
    pub fn write_tombstone<N: Node>(&self, handle: Arc<NodeHandle<N>>, key: &SessionKey, tombstone: Tombstone) {
        let ttl = tombstone.ttl(self.clock.now());
        if ttl.is_zero() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
        let key = key.clone();
        tokio::spawn(async move {
            let written = handle.node.write_tombstone(&key, tombstone, ttl);
            handle.monitor.observe(Operation::End, written, always).await.ok();
            drop(permit);
        });
    }

    /// Whether a hint for this session is still to be delivered to some server.
    pub fn has_hint(&self, key: &SessionKey) -> bool {
        self.hints.has(key)
    }

    /// The tombstones that are still to be delivered.
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// Keeps a hint for a server that is unavailable, and delivers the tombstone as soon as the server is back.
    pub fn hint<N: Node>(&self, handle: Arc<NodeHandle<N>>, key: &SessionKey, tombstone: Tombstone) {
        let hint = Hint { server: handle.name.clone(), session: key.clone(), until: tombstone.until };
        match self.hints.add(hint) {
            Added::New => {}
            Added::Known => return,
            Added::Full => {
                let name = &handle.name;
                log::warn!(
                    "session store {name}: too many undelivered tombstones; this server misses some ended sessions"
                );
                return;
            }
        }
        let hints = Arc::clone(&self.hints);
        let (key, clock, pending) = (key.clone(), self.clock.clone(), self.metrics.tombstones_owed.clone());
        let RetryBackoff { first, longest } = self.backoff;
        pending.inc();
        tokio::spawn(async move {
            let mut pause = first;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                // The hint may have been extended since the last attempt.
                let until = hints.until(&key, &handle.name).unwrap_or_default();
                let tombstone = Tombstone { until };
                let ttl = tombstone.ttl(clock.now());
                if ttl.is_zero() {
                    break;
                }
                let written = handle.node.write_tombstone(&key, tombstone, ttl);
                if handle.monitor.observe(Operation::End, written, always).await.is_ok() {
                    break;
                }
            }
            pending.dec();
            hints.settle(&key, &handle.name);
        });
    }
}
