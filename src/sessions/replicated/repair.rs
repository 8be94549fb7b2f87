//! What is done behind the back of a request so that all servers come to know the same: copies for servers that
//! lost theirs, tombstones for servers that were not there when a session ended.

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

/// Mendings under way at once. One that finds no place is left to the session's next request.
const UNDER_WAY: usize = 64;

/// Between two trials to deliver what is owed.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Pauses {
    /// The first trial comes soon, because most outages are short.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(2) }
    }
}

pub struct Repairer {
    clock: Clock,
    pauses: Pauses,
    metrics: StoreMetrics,
    places: Arc<Semaphore>,
    hints: Arc<Hints>,
}

impl Repairer {
    pub fn new(clock: Clock, pauses: Pauses, metrics: StoreMetrics) -> Self {
        Self { clock, pauses, metrics, places: Arc::new(Semaphore::new(UNDER_WAY)), hints: Arc::default() }
    }

    /// Gives a session to a server that should have it. It is added, so what the server has learnt meanwhile
    /// stays: a tombstone above all.
    pub fn copy<M: Node>(&self, handle: Arc<NodeHandle<M>>, key: &SessionKey, record: &SessionRecord, ttl: Duration) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (key, record) = (key.clone(), record.clone());
        tokio::spawn(async move {
            let copied = handle.node.add(&key, &record, ttl);
            // A failure leaves the session with one copy less, which its next request sees.
            handle.monitor.observe(Operation::Copy, copied, |copied| *copied).await.ok();
            drop(place);
        });
    }

    /// Tells a server that answers of a session that has ended.
    pub fn write_tombstone<M: Node>(&self, handle: Arc<NodeHandle<M>>, key: &SessionKey, tombstone: Tombstone) {
        let ttl = tombstone.ttl(self.clock.now());
        if ttl.is_zero() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let key = key.clone();
        tokio::spawn(async move {
            handle
                .monitor
                .observe(Operation::End, handle.node.write_tombstone(&key, tombstone, ttl), always)
                .await
                .ok();
            drop(place);
        });
    }

    /// Whether some server has yet to hear of the end of a session.
    pub fn has_hint(&self, key: &SessionKey) -> bool {
        self.hints.has(key)
    }

    /// Which servers have yet to hear of which ends.
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// Tells a server that is away, as soon as it is back, of a session that has ended.
    pub fn hint<M: Node>(&self, handle: Arc<NodeHandle<M>>, key: &SessionKey, tombstone: Tombstone) {
        let hint = Hint { server: handle.name.clone(), session: key.clone(), until: tombstone.until };
        match self.hints.add(hint) {
            Added::New => {}
            Added::Known => return,
            Added::Full => {
                let name = &handle.name;
                log::warn!("session store {name}: too many ended sessions to tell it of; some it will not hear of");
                return;
            }
        }
        let hints = Arc::clone(&self.hints);
        let (key, clock, owed) = (key.clone(), self.clock.clone(), self.metrics.tombstones_owed.clone());
        let Pauses { first, longest } = self.pauses;
        owed.inc();
        tokio::spawn(async move {
            let mut pause = first;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                let until = hints.until(&key, &handle.name).unwrap_or_default();
                let tombstone = Tombstone { until };
                let ttl = tombstone.ttl(clock.now());
                if ttl.is_zero() {
                    break;
                }
                let told =
                    handle.monitor.observe(Operation::End, handle.node.write_tombstone(&key, tombstone, ttl), always);
                if told.await.is_ok() {
                    break;
                }
            }
            owed.dec();
            hints.settle(&key, &handle.name);
        });
    }
}
