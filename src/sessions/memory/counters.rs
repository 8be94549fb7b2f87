//! The counters of the memory store: failed logins of accounts and of addresses, hand-offs of a session to a page.
//!
//! Any client can create a counter, by signing in under an unknown name. Each kind therefore has a table of its own, and a
//! full table rejects nothing: the smallest count is evicted, of several the one that expires first. A count near its limit
//! stays as long as there are smaller ones, and a flood of login attempts keeps no user from signing in.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::sessions::CounterKey;

/// Expired counters that an increment removes: more than it adds, so that memory is returned as fast as it is taken.
const SWEEP: usize = 4;

/// One lock guards all tables. It is held for some microseconds, by operations that take milliseconds otherwise: a password
/// hash, a redirect.
pub struct Counters {
    /// The tables by kind of counter. The kinds are constants in the code.
    tables: Mutex<HashMap<&'static str, Table>>,
    /// The limit on counters in each table.
    max: usize,
}

#[derive(Default)]
struct Table {
    counters: HashMap<CounterKey, Counter, ahash::RandomState>,
    /// Both indexes contain every counter once.
    by_end: BTreeSet<(UnixTime, CounterKey)>,
    by_count: BTreeSet<(u64, UnixTime, CounterKey)>,
}

#[derive(Clone, Copy)]
struct Counter {
    count: u64,
    /// The first moment at which the counter is expired. The first increment sets it.
    ends: UnixTime,
}

impl Counters {
    pub fn new(max: usize) -> Self {
        Self { tables: Mutex::default(), max }
    }

    /// Adds one, and returns the new count and the remaining lifetime of the counter.
    pub fn increment(&self, key: &CounterKey, window: Duration, now: UnixTime) -> (u64, Duration) {
        let mut tables = self.tables();
        let table = tables.entry(key.kind()).or_default();
        table.sweep(now, SWEEP);
        let before = table.remove(key).filter(|counter| counter.ends > now);
        let fresh = Counter { count: 0, ends: now.plus(window) };
        let Counter { count, ends } = before.unwrap_or(fresh);
        if table.counters.len() >= self.max {
            table.make_room(now, self.max);
        }
        let counter = Counter { count: count.saturating_add(1), ends };
        table.insert(key, counter);
        (counter.count, ends.since(now))
    }

    /// Returns the count and the remaining lifetime of the counter; both are zero when there is none.
    pub fn get(&self, key: &CounterKey, now: UnixTime) -> (u64, Duration) {
        let tables = self.tables();
        let counter = tables.get(key.kind()).and_then(|table| table.counters.get(key));
        let counter = counter.filter(|counter| counter.ends > now);
        counter.map_or((0, Duration::ZERO), |counter| (counter.count, counter.ends.since(now)))
    }

    /// Subtracts one. A counter that reaches zero is removed.
    pub fn decrement(&self, key: &CounterKey, now: UnixTime) {
        let mut tables = self.tables();
        let Some(table) = tables.get_mut(key.kind()) else { return };
        let Some(Counter { count, ends }) = table.remove(key) else { return };
        if count > 1 && ends > now {
            table.insert(key, Counter { count: count - 1, ends });
        }
    }

    pub fn reset(&self, key: &CounterKey) {
        if let Some(table) = self.tables().get_mut(key.kind()) {
            table.remove(key);
        }
    }

    /// Returns the number of counters; some may have expired.
    pub fn len(&self) -> usize {
        self.tables().values().map(|table| table.counters.len()).sum()
    }

    /// No code panics while it holds the lock, so a poisoned lock is still consistent.
    fn tables(&self) -> MutexGuard<'_, HashMap<&'static str, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, key: &CounterKey, counter: Counter) {
        self.by_end.insert((counter.ends, key.clone()));
        self.by_count.insert((counter.count, counter.ends, key.clone()));
        self.counters.insert(key.clone(), counter);
    }

    fn remove(&mut self, key: &CounterKey) -> Option<Counter> {
        let counter = self.counters.remove(key)?;
        self.by_end.remove(&(counter.ends, key.clone()));
        self.by_count.remove(&(counter.count, counter.ends, key.clone()));
        Some(counter)
    }

    /// Removes up to `at_most` expired counters.
    fn sweep(&mut self, now: UnixTime, at_most: usize) {
        for _ in 0..at_most {
            match self.by_end.first() {
                Some((ends, key)) if *ends <= now => drop(self.remove(&key.clone())),
                _ => return,
            }
        }
    }

    /// Removes expired counters, and then the smallest counts, until there is room for one more.
    fn make_room(&mut self, now: UnixTime, max: usize) {
        self.sweep(now, usize::MAX);
        while self.counters.len() >= max {
            let Some((_, _, least)) = self.by_count.first().cloned() else { return };
            self.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(900);
    const START: UnixTime = UnixTime::from_seconds(1_000_000);

    fn account(name: impl std::fmt::Display) -> CounterKey {
        CounterKey::new("account", &name.to_string())
    }

    fn assert_sound(counters: &Counters) {
        for table in counters.tables().values() {
            let (by_end, by_count) = (table.by_end.len(), table.by_count.len());
            assert_eq!((by_end, by_count), (table.counters.len(), table.counters.len()));
            assert!(by_end <= counters.max);
        }
    }

    #[test]
    fn a_full_table_takes_new_counters_and_keeps_what_is_near_its_limit() {
        let counters = Counters::new(10);
        // This is the oldest counter, so it would be evicted first by age alone.
        for count in 1..=5 {
            assert_eq!(counters.increment(&account("ada"), WINDOW, START).0, count);
        }
        for number in 0..1000 {
            let now = START.plus(Duration::from_millis(number));
            assert_eq!(counters.increment(&account(number), WINDOW, now).0, 1);
        }
        assert_eq!(counters.increment(&account("ada"), WINDOW, START.plus(WINDOW / 2)).0, 6);
        assert_eq!(counters.len(), 10);
        assert_sound(&counters);
    }

    #[test]
    fn each_kind_has_a_table_of_its_own() {
        let counters = Counters::new(2);
        for kind in ["account", "address", "hand-off"] {
            assert_eq!(counters.increment(&CounterKey::new(kind, "known"), WINDOW, START).0, 1);
            assert_eq!(counters.increment(&CounterKey::new(kind, "known"), WINDOW, START).0, 2);
        }
        for number in 0..100 {
            counters.increment(&account(number), WINDOW, START);
        }
        for kind in ["account", "address", "hand-off"] {
            assert_eq!(counters.increment(&CounterKey::new(kind, "known"), WINDOW, START).0, 3, "{kind}");
        }
    }

    #[test]
    fn a_counter_that_is_taken_back_to_zero_is_removed() {
        let counters = Counters::new(10);
        for number in 0..1000 {
            counters.increment(&account(number), WINDOW, START);
            counters.decrement(&account(number), START);
        }
        assert_eq!(counters.len(), 0);
        assert_sound(&counters);
    }

    #[test]
    fn a_counter_ends_its_window_after_its_first_addition_and_its_memory_is_returned() {
        let counters = Counters::new(1_000_000);
        for number in 0..10_000_u64 {
            counters.increment(&account(number), Duration::from_millis(100), START.plus(Duration::from_millis(number)));
        }
        assert!(counters.len() < 200, "{} counters for 100 that are active", counters.len());
        let late = START.plus(Duration::from_millis(9_950 + 100));
        counters.increment(&account(9_950), WINDOW, late.minus(Duration::from_millis(1)));
        assert_eq!(counters.increment(&account(9_950), WINDOW, late).0, 1);
        assert_sound(&counters);
    }
}
