//! What is done behind the back of a request so that all servers come to know the same: copies for servers that
//! lost theirs, tombstones for servers that were not there when a session ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::hints::{Added, Debt, Debts};
use super::layout::Seat;
use super::node::Member;
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

pub struct Mending {
    clock: Clock,
    pauses: Pauses,
    metrics: StoreMetrics,
    places: Arc<Semaphore>,
    debts: Arc<Debts>,
}

impl Mending {
    pub fn new(clock: Clock, pauses: Pauses, metrics: StoreMetrics) -> Self {
        Self { clock, pauses, metrics, places: Arc::new(Semaphore::new(UNDER_WAY)), debts: Arc::default() }
    }

    /// Gives a session to a server that should have it. It is added, so what the server has learnt meanwhile
    /// stays: a tombstone above all.
    pub fn copy<M: Member>(&self, seat: Arc<Seat<M>>, key: &SessionKey, record: &SessionRecord, ttl: Duration) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let (key, record) = (key.clone(), record.clone());
        tokio::spawn(async move {
            let copied = seat.member.add(&key, &record, ttl);
            // A failure leaves the session with one copy less, which its next request sees.
            seat.watcher.watch(Operation::Copy, copied, |copied| *copied).await.ok();
            drop(place);
        });
    }

    /// Tells a server that answers of a session that has ended.
    pub fn bury<M: Member>(&self, seat: Arc<Seat<M>>, key: &SessionKey, tombstone: Tombstone) {
        let ttl = tombstone.ttl(self.clock.now());
        if ttl.is_zero() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let key = key.clone();
        tokio::spawn(async move {
            seat.watcher.watch(Operation::End, seat.member.bury(&key, tombstone, ttl), always).await.ok();
            drop(place);
        });
    }

    /// Whether some server has yet to hear of the end of a session.
    pub fn owes(&self, key: &SessionKey) -> bool {
        self.debts.has(key)
    }

    /// Which servers have yet to hear of which ends.
    pub fn debts(&self) -> &Debts {
        &self.debts
    }

    /// Tells a server that is away, as soon as it is back, of a session that has ended.
    pub fn owe<M: Member>(&self, seat: Arc<Seat<M>>, key: &SessionKey, tombstone: Tombstone) {
        let debt = Debt { server: seat.name.clone(), session: key.clone(), until: tombstone.until };
        match self.debts.add(debt) {
            Added::New => {}
            Added::Known => return,
            Added::Full => {
                let name = &seat.name;
                log::warn!("session store {name}: too many ended sessions to tell it of; some it will not hear of");
                return;
            }
        }
        let debts = Arc::clone(&self.debts);
        let (key, clock, owed) = (key.clone(), self.clock.clone(), self.metrics.tombstones_owed.clone());
        let Pauses { first, longest } = self.pauses;
        owed.inc();
        tokio::spawn(async move {
            let mut pause = first;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                let until = debts.until(&key, &seat.name).unwrap_or_default();
                let tombstone = Tombstone { until };
                let ttl = tombstone.ttl(clock.now());
                if ttl.is_zero() {
                    break;
                }
                let told = seat.watcher.watch(Operation::End, seat.member.bury(&key, tombstone, ttl), always);
                if told.await.is_ok() {
                    break;
                }
            }
            owed.dec();
            debts.settle(&key, &seat.name);
        });
    }
}
