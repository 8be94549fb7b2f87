//! A bounded map whose entries expire by a clock that the caller reads. What happens when the map is full of active entries
//! is its [`Overflow`]. [`MemoryStore`](super::MemoryStore) has one map each for sessions, browsers and tickets.
//!
//! Each shard has an index of its entries by expiry, so expired entries are found without a scan. A touch changes only the
//! entry. Its position in the index changes when it is touched, or met by a sweep, after the moment under which it is
//! indexed. An entry thus costs one step in the index per lifetime, however often it is touched, and the work of a sweep is
//! spread over the calls before it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::UnixTime;
use crate::sessions::StoreError;

/// Two requests contend for a lock only when their keys share a shard, and then for well under a microsecond.
const SHARDS: usize = 16;
/// Expired entries that an insertion removes at most while the map is not full: more than it adds, so that memory is returned
/// as fast as it is taken, and few enough that no insertion is slow.
const SWEEP: usize = 4;
/// Entries that a scan visits under one lock, which takes some ten microseconds.
const SCAN_STEP: usize = 64;

/// What happens to a new entry when the map is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The new entry is rejected, because the present ones are worth more.
    Reject,
    /// The entry that would expire first is evicted.
    EvictFirst,
}

/// A value and its expiry.
pub struct Entry<V> {
    pub value: V,
    /// The first moment at which the entry is expired.
    pub expires: UnixTime,
}

pub struct ExpiringMap<K, V> {
    hasher: ahash::RandomState,
    shards: [Mutex<Shard<K, V>>; SHARDS],
    /// The number of entries in all shards, including expired ones that were not removed yet.
    held: AtomicUsize,
    capacity: usize,
    overflow: Overflow,
}

struct Shard<K, V> {
    entries: HashMap<K, Indexed<V>, ahash::RandomState>,
    /// The key of every entry once, under its `indexed_at`.
    index: BTreeSet<(UnixTime, K)>,
}

/// The position of a scan over all entries.
pub struct ScanCursor<K> {
    shard: usize,
    after: Option<(UnixTime, K)>,
}

impl<K> Default for ScanCursor<K> {
    fn default() -> Self {
        Self { shard: 0, after: None }
    }
}

struct Indexed<V> {
    entry: Entry<V>,
    /// The moment under which the entry is in the index. It is never later than the entry's expiry, otherwise a sweep would
    /// come too late.
    indexed_at: UnixTime,
}

impl<K: Clone + Eq + Hash + Ord, V> ExpiringMap<K, V> {
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        let shard = |_| Mutex::new(Shard { entries: HashMap::default(), index: BTreeSet::new() });
        Self {
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(shard),
            held: AtomicUsize::new(0),
            capacity,
            overflow,
        }
    }

    /// Calls `change` with the active entry under `key`; returns `None` when there is none.
    pub fn with_entry<R>(&self, key: &K, now: UnixTime, change: impl FnOnce(&mut Entry<V>) -> R) -> Option<R> {
        self.shard(key).with_entry(key, now, change)
    }

    /// Inserts `fresh` under `key`; if there is an active entry, calls `change` with both instead. Returns
    /// [`StoreError::Full`] when there is none, the map is full of active entries, and none may be evicted.
    pub fn insert_or_update(
        &self,
        key: &K,
        fresh: Entry<V>,
        now: UnixTime,
        change: impl FnOnce(&mut Entry<V>, Entry<V>),
    ) -> Result<(), StoreError> {
        // Room is reserved before the shard is locked, because the sweep that may free room locks every shard in turn.
        let reserved = self.reserve()
            || {
                self.sweep_all(now);
                self.reserve()
            }
            || {
                let is_new = !self.shard(key).is_active(key, now);
                is_new && self.evict_first() && self.reserve()
            };
        let mut shard = self.shard(key);
        let mut freed = shard.sweep(now, SWEEP);
        let outcome = if shard.is_active(key, now) {
            shard.with_entry(key, now, |entry| change(entry, fresh));
            // The entry is there already, so the reserved room is not needed.
            freed += usize::from(reserved);
            Ok(())
        } else if reserved {
            // An expired entry may still be under the key; it is replaced.
            freed += usize::from(shard.remove(key).is_some());
            shard.insert(key.clone(), fresh);
            Ok(())
        } else {
            Err(StoreError::Full)
        };
        self.release(freed);
        outcome
    }

    /// Removes the entry under `key`, and returns its value if it was active.
    pub fn remove(&self, key: &K, now: UnixTime) -> Option<V> {
        let entry = self.shard(key).remove(key)?;
        self.release(1);
        (entry.expires > now).then_some(entry.value)
    }

    /// Performs the next step of a scan: calls `visit` with some active entries and returns its results; returns `None` at
    /// the end. Entries that are inserted or removed during the scan may be missed; those that are touched during it may be
    /// visited twice.
    pub fn scan<R>(
        &self,
        cursor: &mut ScanCursor<K>,
        now: UnixTime,
        mut visit: impl FnMut(&K, &Entry<V>) -> Option<R>,
    ) -> Option<Vec<R>> {
        let shard = lock(self.shards.get(cursor.shard)?);
        let from = cursor.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut results = Vec::new();
        let mut left = SCAN_STEP;
        for (indexed_at, key) in shard.index.range((from, Bound::Unbounded)).take(SCAN_STEP) {
            left -= 1;
            let active = shard.entries.get(key).filter(|indexed| indexed.entry.expires > now);
            results.extend(active.and_then(|indexed| visit(key, &indexed.entry)));
            if left == 0 {
                cursor.after = Some((*indexed_at, key.clone()));
            }
        }
        // The shard had fewer entries than one step visits, so the scan continues in the next one.
        cursor.shard += usize::from(left > 0);
        Some(results)
    }

    /// Returns the number of entries; some may have expired.
    pub fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS])
    }

    fn sweep_all(&self, now: UnixTime) {
        for shard in &self.shards {
            let swept = lock(shard).sweep(now, usize::MAX);
            self.release(swept);
        }
    }

    /// Evicts the entry of all shards that would expire first, as far as the index knows.
    fn evict_first(&self) -> bool {
        if self.overflow == Overflow::Reject {
            return false;
        }
        let first = |shard: &Mutex<Shard<K, V>>| lock(shard).index.first().map(|(indexed_at, _)| *indexed_at);
        let oldest = self.shards.iter().filter_map(|shard| Some((first(shard)?, shard))).min_by_key(|(at, _)| *at);
        let evicted = oldest.map_or(0, |(_, shard)| lock(shard).drop_first());
        self.release(evicted);
        evicted > 0
    }

    /// Reserves room for one entry, if the map is not full.
    fn reserve(&self) -> bool {
        let one_more = |held| (held < self.capacity).then_some(held + 1);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn release(&self, entries: usize) {
        if entries > 0 {
            self.held.fetch_sub(entries, Ordering::Relaxed);
        }
    }
}

/// No code panics while it holds a lock. If it did, one entry might be inconsistent, which is better than a store that fails
/// every request from then on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Eq + Hash + Ord, V> Shard<K, V> {
    fn is_active(&self, key: &K, now: UnixTime) -> bool {
        self.entries.get(key).is_some_and(|indexed| indexed.entry.expires > now)
    }

    fn with_entry<R>(&mut self, key: &K, now: UnixTime, change: impl FnOnce(&mut Entry<V>) -> R) -> Option<R> {
        let indexed = self.entries.get_mut(key).filter(|indexed| indexed.entry.expires > now)?;
        let result = change(&mut indexed.entry);
        let expires = indexed.entry.expires;
        // The position in the index changes only if a sweep would otherwise come too late, or has the moment behind it.
        if expires < indexed.indexed_at || indexed.indexed_at <= now {
            let indexed_at = std::mem::replace(&mut indexed.indexed_at, expires);
            if let Some((_, key)) = self.index.take(&(indexed_at, key.clone())) {
                self.index.insert((expires, key));
            }
        }
        Some(result)
    }

    fn insert(&mut self, key: K, entry: Entry<V>) {
        let indexed_at = entry.expires;
        self.index.insert((indexed_at, key.clone()));
        self.entries.insert(key, Indexed { entry, indexed_at });
    }

    fn remove(&mut self, key: &K) -> Option<Entry<V>> {
        let (key, indexed) = self.entries.remove_entry(key)?;
        self.index.remove(&(indexed.indexed_at, key));
        Some(indexed.entry)
    }

    /// Removes the first entry of the index. Returns how many were removed: one, unless the shard is empty.
    fn drop_first(&mut self) -> usize {
        let Some((_, key)) = self.index.pop_first() else { return 0 };
        usize::from(self.entries.remove(&key).is_some())
    }

    /// Takes up to `at_most` entries whose indexed moment has passed out of the index: expired ones are removed, touched ones
    /// are indexed under their new expiry. Returns how many were removed.
    fn sweep(&mut self, now: UnixTime, at_most: usize) -> usize {
        let mut removed = 0;
        for _ in 0..at_most {
            if self.index.first().is_none_or(|(indexed_at, _)| *indexed_at > now) {
                break;
            }
            let Some((_, key)) = self.index.pop_first() else { break };
            match self.entries.get_mut(&key) {
                Some(touched) if touched.entry.expires > now => {
                    touched.indexed_at = touched.entry.expires;
                    self.index.insert((touched.indexed_at, key));
                }
                _ => removed += usize::from(self.entries.remove(&key).is_some()),
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(millis)
    }

    fn put(map: &ExpiringMap<u32, u32>, key: u32, expires: u64, now: u64) -> Result<(), StoreError> {
        map.insert_or_update(&key, Entry { value: key, expires: at(expires) }, at(now), |old, fresh| *old = fresh)
    }

    /// Checks that the entries and the index agree.
    fn assert_sound(map: &ExpiringMap<u32, u32>) {
        let mut held = 0;
        for shard in &map.shards {
            let shard = lock(shard);
            assert_eq!(shard.entries.len(), shard.index.len());
            for (indexed_at, key) in &shard.index {
                assert_eq!(shard.entries[key].indexed_at, *indexed_at);
                assert!(*indexed_at <= shard.entries[key].entry.expires);
            }
            held += shard.entries.len();
        }
        assert_eq!(held, map.len());
        assert!(held <= map.capacity);
    }

    #[test]
    fn an_entry_is_gone_the_moment_it_expires() {
        let map = ExpiringMap::new(10, Overflow::Reject);
        put(&map, 1, 100, 0).unwrap();
        assert_eq!(map.with_entry(&1, at(99), |entry| entry.value), Some(1));
        assert_eq!(map.with_entry(&1, at(100), |entry| entry.value), None);
        assert_eq!(map.remove(&1, at(100)), None);
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn the_capacity_holds_for_all_shards_together() {
        let map = ExpiringMap::new(3, Overflow::Reject);
        for key in 0..3 {
            put(&map, key, 100, 0).unwrap();
        }
        for key in 3..50 {
            assert_eq!(put(&map, key, 100, 0), Err(StoreError::Full));
        }
        put(&map, 1, 200, 0).expect("a key that is there needs no room");
        assert_eq!(map.remove(&0, at(0)), Some(0));
        put(&map, 3, 100, 0).expect("its room is free again");
        assert_sound(&map);
    }

    #[test]
    fn expired_entries_of_every_shard_make_room() {
        let map = ExpiringMap::new(1000, Overflow::Reject);
        for key in 0..1000 {
            put(&map, key, 100, 0).unwrap();
        }
        assert_eq!(put(&map, 1000, 200, 99), Err(StoreError::Full));
        for key in 1000..2000 {
            put(&map, key, 200, 100).unwrap();
        }
        assert_eq!(map.len(), 1000);
        assert_sound(&map);
    }

    #[test]
    fn the_entry_that_expires_first_is_evicted_whatever_the_shard() {
        let map = ExpiringMap::new(3, Overflow::EvictFirst);
        for key in 0..100 {
            put(&map, key, 1000 + u64::from(key), 0).unwrap();
            assert_sound(&map);
        }
        assert!((97..100).all(|key| map.with_entry(&key, at(0), |_| ()).is_some()), "the last three");
        put(&map, 98, 2000, 0).expect("a key that is there needs no room");
        assert!((97..100).all(|key| map.with_entry(&key, at(0), |_| ()).is_some()), "and evicts none");
    }

    #[test]
    fn a_sweep_leaves_what_was_touched() {
        let map = ExpiringMap::new(100, Overflow::Reject);
        for key in 0..100 {
            put(&map, key, 100, 0).unwrap();
        }
        for key in 0..50 {
            map.with_entry(&key, at(50), |entry| entry.expires = at(150)).unwrap();
        }
        for key in 100..150 {
            put(&map, key, 200, 120).unwrap();
        }
        assert_eq!(put(&map, 150, 200, 120), Err(StoreError::Full));
        assert!((0..50).all(|key| map.with_entry(&key, at(149), |_| ()).is_some()));
        assert_sound(&map);
    }

    #[test]
    fn an_entry_whose_end_was_brought_forward_makes_room_in_time() {
        let map = ExpiringMap::new(1, Overflow::Reject);
        put(&map, 1, 1000, 0).unwrap();
        map.with_entry(&1, at(0), |entry| entry.expires = at(10)).unwrap();
        put(&map, 2, 1000, 10).unwrap();
        assert_sound(&map);
    }

    #[test]
    fn a_scan_visits_every_active_entry_though_others_are_touched_meanwhile() {
        let map = ExpiringMap::new(10_000, Overflow::Reject);
        for key in 0..5000 {
            put(&map, key, if key % 5 == 0 { 50 } else { 100 + u64::from(key) }, 0).unwrap();
        }
        let (mut cursor, mut met, mut steps) = (ScanCursor::default(), BTreeSet::new(), 0);
        while let Some(step) = map.scan(&mut cursor, at(60), |key, entry| (entry.value == *key).then_some(*key)) {
            assert!(step.len() <= SCAN_STEP);
            met.extend(step);
            steps += 1;
            for key in (1..5000).step_by(5).skip(steps).take(40) {
                map.with_entry(&key, at(60), |entry| entry.expires = at(20_000)).unwrap();
            }
        }
        let active: BTreeSet<u32> = (0..5000).filter(|key| key % 5 != 0).collect();
        assert_eq!(met, active);
        assert_sound(&map);
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let map = ExpiringMap::new(8, Overflow::Reject);
        for round in 0..10_000 {
            put(&map, round % 4, 1_000_000, u64::from(round)).unwrap();
            map.remove(&(round % 3), at(u64::from(round)));
        }
        assert_sound(&map);
    }

    #[test]
    fn memory_is_returned_before_the_map_is_full() {
        let map = ExpiringMap::new(1_000_000, Overflow::Reject);
        for key in 0..100_000_u32 {
            put(&map, key, u64::from(key) + 100, u64::from(key)).unwrap();
        }
        assert!(map.len() < 1000, "{} entries for 100 active ones", map.len());
        assert_sound(&map);
    }

    #[test]
    fn additions_from_many_threads_all_count() {
        let map = ExpiringMap::new(100, Overflow::Reject);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for key in (0..20).cycle().take(2000) {
                        let one = Entry { value: 1, expires: at(100) };
                        map.insert_or_update(&key, one, at(0), |old, _| old.value += 1).unwrap();
                    }
                });
            }
        });
        assert!((0..20).all(|key| map.with_entry(&key, at(0), |entry| entry.value) == Some(800)));
        assert_sound(&map);
    }
}
