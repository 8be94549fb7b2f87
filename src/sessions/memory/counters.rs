//! Counters of the memory store: failed logins of accounts and of addresses, hand-offs of a session to a page.
//!
//! Any client can make a new counter, by signing in under an unknown name. So each kind has a table of
//! its own, and a full table refuses nothing: the smallest count gives way, of several the one that began first. A
//! count that is near its limit stays, as long as there are smaller ones; and a flood of guesses keeps no user from
//! signing in.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::sessions::CounterKey;

/// Expired counters that an addition takes away: more than it adds, so that memory is returned as fast as it is taken.
const SWEEP: usize = 4;

/// One lock for all, held for some microseconds by what takes milliseconds beside it: a password's hash, a redirect.
pub struct Counters {
    /// By the kind of counter. The kinds are constants of the code.
    tables: Mutex<HashMap<&'static str, Table>>,
    /// Counters in each table.
    most: usize,
}

#[derive(Default)]
struct Table {
    counters: HashMap<CounterKey, Counter, ahash::RandomState>,
    /// Every counter once in each of them.
    by_end: BTreeSet<(UnixTime, CounterKey)>,
    by_count: BTreeSet<(u64, UnixTime, CounterKey)>,
}

#[derive(Clone, Copy)]
struct Counter {
    count: u64,
    /// The first moment at which it is gone. The first addition sets it.
    ends: UnixTime,
}

impl Counters {
    pub fn new(most: usize) -> Self {
        Self { tables: Mutex::default(), most }
    }

    /// Adds one, and returns the new count and how long the counter stays.
    pub fn add(&self, key: &CounterKey, window: Duration, now: UnixTime) -> (u64, Duration) {
        let mut tables = self.tables();
        let table = tables.entry(key.kind()).or_default();
        table.sweep(now, SWEEP);
        let before = table.remove(key).filter(|counter| counter.ends > now);
        let fresh = Counter { count: 0, ends: now.plus(window) };
        let Counter { count, ends } = before.unwrap_or(fresh);
        if table.counters.len() >= self.most {
            table.make_room(now, self.most);
        }
        let counter = Counter { count: count.saturating_add(1), ends };
        table.insert(key, counter);
        (counter.count, ends.since(now))
    }

    /// The count and how long the counter stays; zero of both where nothing is counted.
    pub fn get(&self, key: &CounterKey, now: UnixTime) -> (u64, Duration) {
        let tables = self.tables();
        let counter = tables.get(key.kind()).and_then(|table| table.counters.get(key));
        let counter = counter.filter(|counter| counter.ends > now);
        counter.map_or((0, Duration::ZERO), |counter| (counter.count, counter.ends.since(now)))
    }

    /// Takes one back. A counter that counts nothing any more is gone.
    pub fn take_back(&self, key: &CounterKey, now: UnixTime) {
        let mut tables = self.tables();
        let Some(table) = tables.get_mut(key.kind()) else { return };
        let Some(Counter { count, ends }) = table.remove(key) else { return };
        if count > 1 && ends > now {
            table.insert(key, Counter { count: count - 1, ends });
        }
    }

    pub fn forget(&self, key: &CounterKey) {
        if let Some(table) = self.tables().get_mut(key.kind()) {
            table.remove(key);
        }
    }

    /// Counters held; some may have expired.
    pub fn len(&self) -> usize {
        self.tables().values().map(|table| table.counters.len()).sum()
    }

    /// Nothing panics under the lock.
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

    /// Takes away up to `at_most` counters whose time has passed.
    fn sweep(&mut self, now: UnixTime, at_most: usize) {
        for _ in 0..at_most {
            match self.by_end.first() {
                Some((ends, key)) if *ends <= now => drop(self.remove(&key.clone())),
                _ => return,
            }
        }
    }

    /// Until there is a place: what has expired, and then what counts least.
    fn make_room(&mut self, now: UnixTime, most: usize) {
        self.sweep(now, usize::MAX);
        while self.counters.len() >= most {
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
            assert!(by_end <= counters.most);
        }
    }

    #[test]
    fn a_full_table_takes_newcomers_and_keeps_what_is_near_its_limit() {
        let counters = Counters::new(10);
        // The oldest of all, so that age alone would push it out first.
        for count in 1..=5 {
            assert_eq!(counters.add(&account("ada"), WINDOW, START).0, count);
        }
        for number in 0..1000 {
            let now = START.plus(Duration::from_millis(number));
            assert_eq!(counters.add(&account(number), WINDOW, now).0, 1);
        }
        assert_eq!(counters.add(&account("ada"), WINDOW, START.plus(WINDOW / 2)).0, 6);
        assert_eq!(counters.len(), 10);
        assert_sound(&counters);
    }

    #[test]
    fn each_kind_has_a_table_of_its_own() {
        let counters = Counters::new(2);
        for kind in ["account", "address", "hand-off"] {
            assert_eq!(counters.add(&CounterKey::new(kind, "known"), WINDOW, START).0, 1);
            assert_eq!(counters.add(&CounterKey::new(kind, "known"), WINDOW, START).0, 2);
        }
        for number in 0..100 {
            counters.add(&account(number), WINDOW, START);
        }
        for kind in ["account", "address", "hand-off"] {
            assert_eq!(counters.add(&CounterKey::new(kind, "known"), WINDOW, START).0, 3, "{kind}");
        }
    }

    #[test]
    fn what_is_taken_back_to_nothing_is_gone() {
        let counters = Counters::new(10);
        for number in 0..1000 {
            counters.add(&account(number), WINDOW, START);
            counters.take_back(&account(number), START);
        }
        assert_eq!(counters.len(), 0);
        assert_sound(&counters);
    }

    #[test]
    fn a_counter_ends_its_window_after_its_first_addition_and_its_memory_is_returned() {
        let counters = Counters::new(1_000_000);
        for number in 0..10_000_u64 {
            counters.add(&account(number), Duration::from_millis(100), START.plus(Duration::from_millis(number)));
        }
        assert!(counters.len() < 200, "{} held for 100 that count", counters.len());
        let late = START.plus(Duration::from_millis(9_950 + 100));
        counters.add(&account(9_950), WINDOW, late.minus(Duration::from_millis(1)));
        assert_eq!(counters.add(&account(9_950), WINDOW, late).0, 1);
        assert_sound(&counters);
    }
}
