//! The embedded store, in the memory of the process: the default, for a single edge. It loses everything at a restart and
//! shares nothing with other edges; `memcached` does.
//!
//! Expiry is exact to the millisecond of the given clock. Sessions, tickets and each kind of counter have a limit of their
//! own, so a flood of one kind does not affect the others. At the limit, expired entries are removed first. Then a new
//! session is rejected, because the active ones are in use; of tickets the oldest is evicted, because its owner only has to
//! start the sign-on again; likewise the browser that signed in longest ago, and the counter with the smallest count.

mod counters;
mod expiring_map;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;

use self::counters::Counters;
use super::listing::ListingBuilder;
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listed, Listing, Redemption, SessionKey, SessionRecord,
    SessionStore, StoreError, Swap, TicketKey,
};
use crate::clock::{Clock, UnixTime};
use expiring_map::{Entry, ExpiringMap, Overflow, ScanCursor};

pub struct MemoryStore {
    clock: Clock,
    sessions: ExpiringMap<SessionKey, SessionRecord>,
    devices: ExpiringMap<DeviceKey, DeviceRecord>,
    tickets: ExpiringMap<TicketKey, Ticket>,
    counters: Counters,
}

/// The limit on counters of each kind, of some 300 bytes each. Beyond it the smallest counts are evicted.
const MAX_COUNTERS: usize = 100_000;

/// The value under a ticket's key.
enum Ticket {
    Issued(Vec<u8>),
    Used,
}

impl MemoryStore {
    /// Holds up to `capacity` sessions, as many browsers, as many tickets, and as many counters of each kind, but at most
    /// 100,000 of those.
    pub fn new(clock: Clock, capacity: usize) -> Self {
        let sessions = ExpiringMap::new(capacity, Overflow::Reject);
        let devices = ExpiringMap::new(capacity, Overflow::EvictFirst);
        let tickets = ExpiringMap::new(capacity, Overflow::EvictFirst);
        Self { clock, sessions, devices, tickets, counters: Counters::new(capacity.min(MAX_COUNTERS)) }
    }

    /// Returns the number of sessions; some may have expired.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of tickets, including used ones that are remembered; some may have expired.
    pub fn tickets_len(&self) -> usize {
        self.tickets.len()
    }

    /// Returns the number of counters; some may have expired.
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
        let fresh = Entry { value: record.clone(), expires: now.plus(ttl) };
        self.sessions.insert_or_update(key, fresh, now, |old, fresh| *old = fresh)
    }

    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let now = self.now();
        let found = self.sessions.with_entry(key, now, |entry| {
            if let Some(ttl) = slide {
                entry.expires = now.plus(ttl);
            }
            entry.value.clone()
        });
        Ok(found.map_or(Found::Missing, Found::Active))
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        let present = self.now();
        let written = self.sessions.with_entry(key, present, |entry| {
            let later = now > entry.value.last_accessed;
            if later {
                entry.value.last_accessed = now;
                entry.expires = present.plus(ttl);
            }
            later
        });
        Ok(written.unwrap_or(false))
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        let renewed = self.sessions.with_entry(key, now, |entry| {
            *entry = Entry { value: record.clone(), expires: now.plus(ttl) };
        });
        Ok(renewed.is_some())
    }

    /// There is only this one copy, so no tombstone is needed.
    async fn end(&self, key: &SessionKey, _: UnixTime) -> Result<(), StoreError> {
        self.sessions.remove(key, self.now());
        Ok(())
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        Ok(self.devices.with_entry(key, self.now(), |entry| entry.value.clone()))
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let now = self.now();
        let fresh = Entry { value: next.clone(), expires: now.plus(ttl) };
        let Some(seen) = seen else {
            let mut swap = Swap::Done;
            self.devices
                .insert_or_update(key, fresh, now, |stored, _| swap = Swap::Found(Some(stored.value.clone())))?;
            return Ok(swap);
        };
        let swapped = self.devices.with_entry(key, now, |stored| {
            if stored.value != *seen {
                return Swap::Found(Some(stored.value.clone()));
            }
            *stored = fresh;
            Swap::Done
        });
        Ok(swapped.unwrap_or(Swap::Found(None)))
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let now = self.now();
        let fresh = Entry { value: Ticket::Issued(value.to_vec()), expires: now.plus(ttl) };
        self.tickets.insert_or_update(key, fresh, now, |old, fresh| *old = fresh)
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let now = self.now();
        let redemption =
            self.tickets.with_entry(key, now, |entry| match std::mem::replace(&mut entry.value, Ticket::Used) {
                Ticket::Issued(value) => {
                    entry.expires = now.plus(remember);
                    Redemption::Won(value)
                }
                Ticket::Used => Redemption::Replayed,
            });
        Ok(redemption.unwrap_or(Redemption::Unknown))
    }

    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let (count, left) = self.counters.increment(key, window, self.now());
        Ok(Count { count, left, server: None })
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let (count, left) = self.counters.get(key, self.now());
        Ok(Count { count, left, server: None })
    }

    async fn counter_decr(&self, key: &CounterKey, _: &Count) -> Result<(), StoreError> {
        self.counters.decrement(key, self.now());
        Ok(())
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.counters.reset(key);
        Ok(())
    }

    /// The scan yields after each step, so that other tasks can run.
    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        let mut builder = ListingBuilder::new(user, limit);
        let mut cursor = ScanCursor::default();
        while !builder.is_full() {
            let step = self.sessions.scan(&mut cursor, self.now(), |key, entry| {
                let (record, idle_expires_at) = (entry.value.clone(), entry.expires);
                builder.matches(&record).then(|| Listed {
                    key: key.clone(),
                    record,
                    idle_expires_at,
                    servers: Vec::new(),
                })
            });
            let Some(listed) = step else { break };
            listed.into_iter().for_each(|listed| builder.add(listed));
            tokio::task::yield_now().await;
        }
        builder.finish()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
