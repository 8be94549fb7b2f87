//! Slots for connections, a fixed number in all. Where all are taken, an idle connection is evicted for a new one, as
//! nginx does: otherwise a client that opens connections and sends nothing would keep all others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::client_prefix::ClientPrefix;
use crate::proxy::{IdleSince, IdleTracker};
use crate::quota::Permit;

/// Idle connections that one search collects.
const MAX_FOUND: usize = 64;
/// The pause after a search that found no idle connection, for each connection that it looked at: 40 ms with 20,000 of
/// them. So many new connections that find no slot cause little work.
const SEARCH_PAUSE: Duration = Duration::from_micros(2);

/// New connections that wait for a slot at once, and for how long: a connection in constant use is idle for moments,
/// and is not to be evicted in such a moment.
const MAX_WAITING: usize = 64;
const WAIT: Duration = Duration::from_millis(20);
const WAITS: usize = 10;

/// How long a connection is idle before it may be evicted.
#[derive(Clone, Copy, Debug)]
pub struct IdleGrace {
    /// A connection without a request so far: time for a handshake and a first request.
    pub first: Duration,
    /// A connection that has been served.
    pub next: Duration,
}

impl IdleGrace {
    pub const CLIENTS: Self = Self { first: Duration::from_secs(2), next: Duration::from_millis(100) };
    /// Operators send a whole request at once.
    pub const NONE: Self = Self { first: Duration::ZERO, next: Duration::ZERO };

    /// The order of eviction, the least first: a connection without a request so far, where it had time for one, before
    /// one that has been served; then the one that has been idle for longest.
    fn order(self, idle: IdleSince) -> (bool, Instant) {
        (idle.had_request != self.first.is_zero(), idle.since)
    }

    fn is_over(self, idle: IdleSince, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) >= if idle.had_request { self.next } else { self.first }
    }
}

pub struct ConnectionSlots {
    free: Arc<Semaphore>,
    grace: IdleGrace,
    taken: Mutex<SlotTable>,
    waiting: Semaphore,
}

#[derive(Default)]
struct SlotTable {
    connections: HashMap<u64, Arc<SlotEntry>>,
    next: u64,
    /// Idle connections, the first to evict at the end; some of them may have become busy since.
    idle: Vec<Arc<SlotEntry>>,
    /// When the last search found none.
    none_found_at: Option<Instant>,
}

/// A connection and the resources that it holds, which pass to another when it is evicted.
struct SlotEntry {
    idle_tracker: Arc<IdleTracker>,
    /// The client, as far as it is known from the start.
    network: ClientPrefix,
    held: Mutex<Option<SlotResources>>,
}

struct SlotResources {
    permit: OwnedSemaphorePermit,
    place: Option<Permit<ClientPrefix>>,
}

/// The slot of a connection, held until this is dropped.
pub struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    entry: Arc<SlotEntry>,
    /// Whether another connection was evicted for it.
    pub evicted_another: bool,
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionSlots {
    pub fn new(most: usize, grace: IdleGrace) -> Self {
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { free, grace, taken: Mutex::default(), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Takes a slot for a new connection. Returns `None` when all are taken by connections in use.
    pub fn take(self: &Arc<Self>, network: ClientPrefix) -> Option<ConnectionSlot> {
        let free = Arc::clone(&self.free).try_acquire_owned().ok();
        let evicted_another = free.is_none();
        let mut taken = locked(&self.taken);
        let permit = match free {
            Some(permit) => permit,
            None => taken.evict_idle(self.grace)?.permit,
        };
        let held = Mutex::new(Some(SlotResources { permit, place: None }));
        let entry = Arc::new(SlotEntry { idle_tracker: Arc::default(), network, held });
        let number = taken.next;
        taken.next += 1;
        taken.connections.insert(number, Arc::clone(&entry));
        drop(taken);
        Some(ConnectionSlot { slots: Arc::clone(self), number, entry, evicted_another })
    }

    /// Takes a slot and waits a moment for one, unless too many connections wait already.
    pub async fn wait(self: &Arc<Self>, network: ClientPrefix) -> Option<ConnectionSlot> {
        if self.grace.first.is_zero() {
            // Every idle connection may be evicted at once, so waiting would bring nothing.
            return None;
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        for _ in 0..WAITS {
            tokio::time::sleep(WAIT).await;
            if let Some(slot) = self.take(network) {
                return Some(slot);
            }
        }
        None
    }

    /// Evicts an idle connection of a client for this one, and frees the share that it holds; returns whether there was
    /// one. Looks at all connections, so this is for listeners that have few.
    pub fn evict_idle_of(&self, network: ClientPrefix, but: &ConnectionSlot) -> bool {
        let taken = locked(&self.taken);
        let of_client = taken.connections.iter().filter(|(number, entry)| {
            // A connection that has no share yet would free none.
            let has_share = || locked(&entry.held).as_ref().is_some_and(|held| held.place.is_some());
            entry.network == network && **number != but.number && has_share()
        });
        let mut idle: Vec<_> = of_client.filter_map(|(_, entry)| Some((entry.idle_tracker.idle()?, entry))).collect();
        idle.sort_by_key(|(idle, _)| self.grace.order(*idle));
        let given_up = idle.into_iter().find(|(_, entry)| entry.idle_tracker.evict());
        // Its permit is freed with it: the connection is over, though its task may not have noticed yet.
        given_up.is_some_and(|(_, entry)| locked(&entry.held).take().is_some())
    }
}

impl SlotTable {
    fn evict_idle(&mut self, grace: IdleGrace) -> Option<SlotResources> {
        // All that the last search found may be closed or in use by now.
        self.evict_found(grace).or_else(|| {
            self.find_idle(grace);
            self.evict_found(grace)
        })
    }

    fn evict_found(&mut self, grace: IdleGrace) -> Option<SlotResources> {
        let now = Instant::now();
        while let Some(entry) = self.idle.pop() {
            if entry.idle_tracker.idle().is_some_and(|idle| grace.is_over(idle, now))
                && entry.idle_tracker.evict()
                && let Some(held) = locked(&entry.held).take()
            {
                return Some(held);
            }
        }
        None
    }

    /// Searches for some of the connections that are to be evicted first.
    fn find_idle(&mut self, grace: IdleGrace) {
        let now = Instant::now();
        let pause = SEARCH_PAUSE.saturating_mul(u32::try_from(self.connections.len()).unwrap_or(u32::MAX));
        if self.none_found_at.is_some_and(|none_found_at| now.saturating_duration_since(none_found_at) < pause) {
            return;
        }
        let all = self.connections.values().filter_map(|entry| Some((entry.idle_tracker.idle()?, entry)));
        let mut idle: Vec<_> = all.filter(|(idle, _)| grace.is_over(*idle, now)).collect();
        if idle.len() > MAX_FOUND {
            idle.select_nth_unstable_by_key(MAX_FOUND, |(idle, _)| grace.order(*idle));
            idle.truncate(MAX_FOUND);
        }
        idle.sort_unstable_by_key(|(idle, _)| std::cmp::Reverse(grace.order(*idle)));
        self.idle = idle.into_iter().map(|(_, entry)| Arc::clone(entry)).collect();
        self.none_found_at = self.idle.is_empty().then_some(now);
    }
}

impl ConnectionSlot {
    pub fn idle_tracker(&self) -> &Arc<IdleTracker> {
        &self.entry.idle_tracker
    }

    /// Stores the share of its client that the connection holds, so that it is freed with the rest.
    pub fn holds(&self, place: Option<Permit<ClientPrefix>>) {
        if let Some(held) = &mut *locked(&self.entry.held) {
            held.place = place;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        locked(&self.slots.taken).connections.remove(&self.number);
        // The entry may still be in the list of idle connections, and must not be evicted there for a slot that it does
        // not have.
        locked(&self.entry.held).take();
        self.entry.idle_tracker.evict();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network(last: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, last].into())
    }

    fn take(slots: &Arc<ConnectionSlots>, last: u8) -> Option<ConnectionSlot> {
        slots.take(network(last))
    }

    /// Serves a request on the connection.
    fn ask(slot: &ConnectionSlot) {
        drop(slot.idle_tracker().track_request().unwrap());
    }

    fn is_given_up(slot: &ConnectionSlot) -> bool {
        slot.idle_tracker().begin().inspect(|()| slot.idle_tracker().end()).is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_goes_first_and_then_the_one_that_has_been_idle_for_the_longest() {
        let slots = Arc::new(ConnectionSlots::new(4, IdleGrace::CLIENTS));
        let mut open = Vec::new();
        for last in 0..4 {
            open.push(take(&slots, last).unwrap());
            tokio::time::advance(SECOND).await;
            if last < 3 {
                ask(&open[usize::from(last)]);
            }
        }
        ask(&open[0]);
        open[2].idle_tracker().begin().unwrap();
        tokio::time::advance(SECOND * 2).await;
        let order = [3, 1, 0].map(|expected: usize| {
            let newcomer = take(&slots, 9).unwrap();
            newcomer.idle_tracker().begin().unwrap();
            assert!(newcomer.evicted_another);
            (is_given_up(&open[expected]), newcomer)
        });
        assert!(order.iter().all(|(gone, _)| *gone));
        assert!(take(&slots, 9).is_none(), "all are used");
        open[2].idle_tracker().end();
        assert!(take(&slots, 9).is_none(), "for a moment");
        tokio::time::advance(SECOND).await;
        assert!(take(&slots, 9).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_waits_a_moment_for_one_that_is_idle() {
        let slots = Arc::new(ConnectionSlots::new(1, IdleGrace::CLIENTS));
        let first = take(&slots, 1).unwrap();
        assert!(slots.wait(network(2)).await.is_none(), "its first request is expected");
        ask(&first);
        assert!(take(&slots, 2).is_none());
        assert!(slots.wait(network(2)).await.is_some_and(|slot| slot.evicted_another));
        assert!(is_given_up(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn without_grace_a_new_connection_goes_after_those_that_were_served() {
        let slots = Arc::new(ConnectionSlots::new(2, IdleGrace::NONE));
        let (new, served) = (take(&slots, 1).unwrap(), take(&slots, 1).unwrap());
        tokio::time::advance(SECOND).await;
        ask(&served);
        assert!(take(&slots, 2).is_some_and(|slot| slot.evicted_another));
        assert!(is_given_up(&served) && !is_given_up(&new));
    }

    #[test]
    fn there_are_never_more_than_there_are_places() {
        let slots = Arc::new(ConnectionSlots::new(10, IdleGrace::NONE));
        let mut open: Vec<ConnectionSlot> = Vec::new();
        for round in 0..500_usize {
            if let Some(slot) = take(&slots, round as u8) {
                if round % 3 == 0 {
                    slot.idle_tracker().begin().unwrap();
                }
                open.push(slot);
            }
            if round % 4 == 0 && !open.is_empty() {
                drop(open.swap_remove(round % open.len()));
            }
            let holding = open.iter().filter(|slot| locked(&slot.entry.held).is_some()).count();
            assert_eq!(holding + slots.free.available_permits(), 10, "round {round}");
        }
        drop(open);
        assert_eq!(slots.free.available_permits(), 10);
        assert!(locked(&slots.taken).connections.is_empty());
    }

    #[test]
    fn a_client_may_give_up_its_own_and_no_other_clients() {
        let (slots, quota) =
            (Arc::new(ConnectionSlots::new(10, IdleGrace::NONE)), Arc::new(crate::quota::Quota::default()));
        let placed = |last: u8| {
            let slot = take(&slots, last).unwrap();
            slot.holds(quota.acquire(network(last), 2));
            slot
        };
        let (unplaced, own, other, new) = (take(&slots, 1).unwrap(), placed(1), placed(2), placed(1));
        assert!(quota.acquire(network(1), 2).is_none());
        assert!(slots.evict_idle_of(network(1), &new));
        assert!(quota.acquire(network(1), 2).is_some(), "its share is free");
        assert!(is_given_up(&own) && !is_given_up(&other) && !is_given_up(&new));
        assert!(!is_given_up(&unplaced), "it has no share that it could give back");
        new.idle_tracker().begin().unwrap();
        assert!(!slots.evict_idle_of(network(2), &other) && !slots.evict_idle_of(network(1), &own));
    }
}
