//! The store inside the process: the embedded default, for one edge alone. It forgets all at a restart and
//! shares nothing with other edges; for that there is `memcached`.
//!
//! Expiry is exact: an entry is gone in the very millisecond in which its time has passed by the given clock.
//! Sessions, tickets and each kind of counter have a bound of their own, so a flood of one kind leaves the others
//! alone. When a bound is met, what has expired makes room. Then a session is refused, because those that live are
//! in use; the oldest ticket gives way, because its owner goes round once more; so does the browser that signed in longest
//! ago; and so does the smallest counter.

mod counters;
mod expiring_map;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;

use self::counters::Counters;
use super::listing::Gathering;
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listed, Listing, Redemption, SessionKey, SessionRecord,
    SessionStore, StoreError, Swap, TicketKey,
};
use crate::clock::{Clock, UnixTime};
use expiring_map::{Overflow, Shelf, Slot, Walk};

pub struct MemoryStore {
    clock: Clock,
    sessions: Shelf<SessionKey, SessionRecord>,
    devices: Shelf<DeviceKey, DeviceRecord>,
    tickets: Shelf<TicketKey, Ticket>,
    counters: Counters,
}

/// Counters of a kind that are worth their memory, some 300 bytes each; the smallest give way.
const MOST_COUNTERS: usize = 100_000;

/// What lies under a ticket's key.
enum Ticket {
    Issued(Vec<u8>),
    Used,
}

impl MemoryStore {
    /// Holds up to `capacity` sessions, as many browsers, as many tickets and, up to 100,000, as many counters of each kind.
    pub fn new(clock: Clock, capacity: usize) -> Self {
        let sessions = Shelf::new(capacity, Overflow::Refuse);
        let devices = Shelf::new(capacity, Overflow::PushOut);
        let tickets = Shelf::new(capacity, Overflow::PushOut);
        Self { clock, sessions, devices, tickets, counters: Counters::new(capacity.min(MOST_COUNTERS)) }
    }

    /// Sessions held; some may have expired. For a gauge.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Tickets held, used ones that are remembered among them; some may have expired.
    pub fn tickets_len(&self) -> usize {
        self.tickets.len()
    }

    /// Counters held; some may have expired.
    pub fn counters_len(&self) -> usize {
        self.counters.len()
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        let now = self.now();
        let fresh = Slot { value: record.clone(), expires: now.plus(ttl) };
        self.sessions.put_or(key, fresh, now, |old, fresh| *old = fresh)
    }

    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let now = self.now();
        let found = self.sessions.visit(key, now, |slot| {
            if let Some(ttl) = slide {
                slot.expires = now.plus(ttl);
            }
            slot.value.clone()
        });
        Ok(found.map_or(Found::Missing, Found::Active))
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        let present = self.now();
        let written = self.sessions.visit(key, present, |slot| {
            let later = now > slot.value.last_accessed;
            if later {
                slot.value.last_accessed = now;
                slot.expires = present.plus(ttl);
            }
            later
        });
        Ok(written.unwrap_or(false))
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        let renewed = self.sessions.visit(key, now, |slot| {
            *slot = Slot { value: record.clone(), expires: now.plus(ttl) };
        });
        Ok(renewed.is_some())
    }

    /// There is but this one copy, so nothing has to stay in its place.
    async fn end(&self, key: &SessionKey, _: UnixTime) -> Result<(), StoreError> {
        self.sessions.remove(key, self.now());
        Ok(())
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.devices.visit(key, self.now(), |slot| slot.value.clone()))
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let now = self.now();
        let fresh = Slot { value: next.clone(), expires: now.plus(ttl) };
        let Some(seen) = seen else {
            let mut swap = Swap::Done;
            self.devices.put_or(key, fresh, now, |there, _| swap = Swap::Found(Some(there.value.clone())))?;
            return Ok(swap);
        };
        let swapped = self.devices.visit(key, now, |there| {
            if there.value != *seen {
                return Swap::Found(Some(there.value.clone()));
            }
            *there = fresh;
            Swap::Done
        });
        Ok(swapped.unwrap_or(Swap::Found(None)))
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let now = self.now();
        let fresh = Slot { value: Ticket::Issued(value.to_vec()), expires: now.plus(ttl) };
        self.tickets.put_or(key, fresh, now, |old, fresh| *old = fresh)
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let now = self.now();
        let redemption = self.tickets.visit(key, now, |slot| match std::mem::replace(&mut slot.value, Ticket::Used) {
            Ticket::Issued(value) => {
                slot.expires = now.plus(remember);
                Redemption::Won(value)
            }
            Ticket::Used => Redemption::Replayed,
        });
        Ok(redemption.unwrap_or(Redemption::Unknown))
    }

    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let (count, left) = self.counters.add(key, window, self.now());
        Ok(Count { count, left, server: None })
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let (count, left) = self.counters.get(key, self.now());
        Ok(Count { count, left, server: None })
    }

    async fn counter_decr(&self, key: &CounterKey, _: &Count) -> Result<(), StoreError> {
        self.counters.take_back(key, self.now());
        Ok(())
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.counters.forget(key);
        Ok(())
    }

    /// In steps, between which others have their turn.
    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        let mut gathering = Gathering::new(user, limit);
        let mut walk = Walk::default();
        while !gathering.is_full() {
            let step = self.sessions.walk(&mut walk, self.now(), |key, slot| {
                let (record, idle_expires_at) = (slot.value.clone(), slot.expires);
                gathering.wants(&record).then(|| Listed {
                    key: key.clone(),
                    record,
                    idle_expires_at,
                    servers: Vec::new(),
                })
            });
            let Some(listed) = step else { break };
            listed.into_iter().for_each(|listed| gathering.add(listed));
            tokio::task::yield_now().await;
        }
        gathering.done()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
