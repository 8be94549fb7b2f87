//! What is done behind the back of a request so that all servers come to know the same: copies for servers that
//! lost theirs, tombstones for servers that were not there when a session ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::layout::Seat;
use super::member::Member;
use crate::clock::Clock;
use crate::metrics::StoreMetrics;
use crate::sessions::observed::{Operation, always};
use crate::sessions::{SessionKey, SessionRecord, Tombstone};

/// Mendings under way at once. One that finds no place is left to the session's next request.
const UNDER_WAY: usize = 64;
/// Tombstones that wait for a server that is away; about 300 bytes each.
const OWED: usize = 10_000;

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

/// Ends that servers have not heard of, by session with the number of those servers: at most [`OWED`] in all.
#[derive(Default)]
struct Debts {
    owed: Mutex<HashMap<SessionKey, usize, ahash::RandomState>>,
    /// The sum of them, for those who need not lock in good times.
    count: AtomicUsize,
}

impl Debts {
    /// Whether there was room for one more.
    fn add(&self, key: &SessionKey) -> bool {
        let mut owed = self.owed();
        let count = self.count.load(Ordering::Relaxed);
        if count >= OWED {
            return false;
        }
        *owed.entry(key.clone()).or_default() += 1;
        self.count.store(count + 1, Ordering::Release);
        true
    }

    fn settle(&self, key: &SessionKey) {
        let mut owed = self.owed();
        if let Some(servers) = owed.get_mut(key) {
            *servers -= 1;
            if *servers == 0 {
                owed.remove(key);
            }
            self.count.fetch_sub(1, Ordering::Release);
        }
    }

    fn has(&self, key: &SessionKey) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.owed().contains_key(key)
    }

    /// Nothing panics under the lock.
    fn owed(&self) -> MutexGuard<'_, HashMap<SessionKey, usize, ahash::RandomState>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Tells a server that is away, as soon as it is back, of a session that has ended.
    pub fn owe<M: Member>(&self, seat: Arc<Seat<M>>, key: &SessionKey, tombstone: Tombstone) {
        if !self.debts.add(key) {
            log::warn!("session store {}: too many ended sessions to tell it of; some it will not hear of", seat.name);
            return;
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
            debts.settle(&key);
        });
    }
}
