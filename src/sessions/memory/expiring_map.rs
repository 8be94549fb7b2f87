//! A bounded map whose entries expire by a clock that the caller reads. What happens when every place is taken by a
//! live entry is the shelf's [`Overflow`]. [`MemoryStore`](super::MemoryStore) has one shelf for sessions and one for
//! tickets.
//!
//! Each entry is also filed under an expiry in its shard's timeline, so that what has expired is found
//! without a scan. A touch only changes the entry: it is filed anew when it is touched, or met by a sweep,
//! after the expiry it was filed under. So an entry costs the timeline one step for each lifetime, however
//! often it is touched, and a sweep's work was paid for by earlier calls, entry by entry.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::UnixTime;
use crate::sessions::StoreError;

/// Two requests meet at one lock only when their keys share a shard, and then for well under a microsecond.
const SHARDS: usize = 16;
/// What an insertion sweeps at most while there is room: more than it adds, so that memory is returned
/// as fast as it is taken, and few enough that no insertion is slow.
const SWEEP: usize = 4;
/// Entries that a walk looks at under one lock: some ten microseconds.
const STRIDE: usize = 64;

/// What becomes of a newcomer for whom there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused: those that are there are worth more.
    Refuse,
    /// The entry whose time is up first gives way.
    PushOut,
}

/// An entry's value and end.
pub struct Slot<V> {
    pub value: V,
    /// The first moment at which the entry is gone.
    pub expires: UnixTime,
}

pub struct Shelf<K, V> {
    hasher: ahash::RandomState,
    shards: [Mutex<Shard<K, V>>; SHARDS],
    /// Entries in all shards, expired ones that were not swept yet among them.
    held: AtomicUsize,
    capacity: usize,
    overflow: Overflow,
}

struct Shard<K, V> {
    entries: HashMap<K, Filed<V>, ahash::RandomState>,
    /// Every entry's key once, under `filed`.
    timeline: BTreeSet<(UnixTime, K)>,
}

/// How far a walk over all entries has come.
pub struct Walk<K> {
    shard: usize,
    after: Option<(UnixTime, K)>,
}

impl<K> Default for Walk<K> {
    fn default() -> Self {
        Self { shard: 0, after: None }
    }
}

struct Filed<V> {
    slot: Slot<V>,
    /// Never later than the slot's own expiry, or a sweep would come too late.
    filed: UnixTime,
}

impl<K: Clone + Eq + Hash + Ord, V> Shelf<K, V> {
    pub fn new(capacity: usize, overflow: Overflow) -> Self {
        let shard = |_| Mutex::new(Shard { entries: HashMap::default(), timeline: BTreeSet::new() });
        Self {
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(shard),
            held: AtomicUsize::new(0),
            capacity,
            overflow,
        }
    }

    /// Lets `change` see and alter the live entry under `key`; `None` when there is none.
    pub fn visit<R>(&self, key: &K, now: UnixTime, change: impl FnOnce(&mut Slot<V>) -> R) -> Option<R> {
        self.shard(key).visit(key, now, change)
    }

    /// Puts `fresh` under `key`; a live entry there is given to `change` instead.
    /// [`StoreError::Full`] when nothing is there, every place is taken by a live entry, and none gives way.
    pub fn put_or(
        &self,
        key: &K,
        fresh: Slot<V>,
        now: UnixTime,
        change: impl FnOnce(&mut Slot<V>, Slot<V>),
    ) -> Result<(), StoreError> {
        // A place is taken before the shard's lock, because the sweep that may free one takes every lock in turn.
        let reserved = self.reserve()
            || {
                self.sweep_all(now);
                self.reserve()
            }
            || {
                let is_new = !self.shard(key).is_live(key, now);
                is_new && self.push_out() && self.reserve()
            };
        let mut shard = self.shard(key);
        let mut freed = shard.sweep(now, SWEEP);
        let outcome = if shard.is_live(key, now) {
            shard.visit(key, now, |slot| change(slot, fresh));
            freed += usize::from(reserved);
            Ok(())
        } else if reserved {
            freed += usize::from(shard.remove(key).is_some());
            shard.file(key.clone(), fresh);
            Ok(())
        } else {
            Err(StoreError::Full)
        };
        self.release(freed);
        outcome
    }

    /// Takes the live entry under `key` away.
    pub fn remove(&self, key: &K, now: UnixTime) -> Option<V> {
        let slot = self.shard(key).remove(key)?;
        self.release(1);
        (slot.expires > now).then_some(slot.value)
    }

    /// The next step of a walk: shows `look` some live entries and answers what it made of them; `None` at the end.
    /// What comes or goes during the walk may be missed; what is touched during it may be shown twice.
    pub fn walk<R>(
        &self,
        walk: &mut Walk<K>,
        now: UnixTime,
        mut look: impl FnMut(&K, &Slot<V>) -> Option<R>,
    ) -> Option<Vec<R>> {
        let shard = lock(self.shards.get(walk.shard)?);
        let from = walk.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = Vec::new();
        let mut left = STRIDE;
        for (filed, key) in shard.timeline.range((from, Bound::Unbounded)).take(STRIDE) {
            left -= 1;
            let entry = shard.entries.get(key).filter(|entry| entry.slot.expires > now);
            seen.extend(entry.and_then(|entry| look(key, &entry.slot)));
            if left == 0 {
                walk.after = Some((*filed, key.clone()));
            }
        }
        walk.shard += usize::from(left > 0);
        Some(seen)
    }

    /// Entries held; some may have expired.
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

    /// Makes room by the entry that was to go first, of all shards.
    fn push_out(&self) -> bool {
        if self.overflow == Overflow::Refuse {
            return false;
        }
        let first = |shard: &Mutex<Shard<K, V>>| lock(shard).timeline.first().map(|(filed, _)| *filed);
        let oldest =
            self.shards.iter().filter_map(|shard| Some((first(shard)?, shard))).min_by_key(|(filed, _)| *filed);
        let gone = oldest.map_or(0, |(_, shard)| lock(shard).drop_first());
        self.release(gone);
        gone > 0
    }

    /// Takes a place, if one is free.
    fn reserve(&self) -> bool {
        let one_more = |held| (held < self.capacity).then_some(held + 1);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn release(&self, places: usize) {
        if places > 0 {
            self.held.fetch_sub(places, Ordering::Relaxed);
        }
    }
}

/// Nothing panics under a lock. If something did, one entry might be odd, and that is better than a store
/// that refuses everybody from then on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + Eq + Hash + Ord, V> Shard<K, V> {
    fn is_live(&self, key: &K, now: UnixTime) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.slot.expires > now)
    }

    fn visit<R>(&mut self, key: &K, now: UnixTime, change: impl FnOnce(&mut Slot<V>) -> R) -> Option<R> {
        let entry = self.entries.get_mut(key).filter(|entry| entry.slot.expires > now)?;
        let answer = change(&mut entry.slot);
        let expires = entry.slot.expires;
        if expires < entry.filed || entry.filed <= now {
            let filed = std::mem::replace(&mut entry.filed, expires);
            if let Some((_, key)) = self.timeline.take(&(filed, key.clone())) {
                self.timeline.insert((expires, key));
            }
        }
        Some(answer)
    }

    fn file(&mut self, key: K, slot: Slot<V>) {
        let filed = slot.expires;
        self.timeline.insert((filed, key.clone()));
        self.entries.insert(key, Filed { slot, filed });
    }

    fn remove(&mut self, key: &K) -> Option<Slot<V>> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.timeline.remove(&(entry.filed, key));
        Some(entry.slot)
    }

    /// Answers how many are gone: one, unless there was none.
    fn drop_first(&mut self) -> usize {
        let Some((_, key)) = self.timeline.pop_first() else { return 0 };
        usize::from(self.entries.remove(&key).is_some())
    }

    /// Takes up to `at_most` entries whose filed expiry has passed out of the timeline: expired ones for
    /// good, touched ones to file them anew. Answers how many are gone.
    fn sweep(&mut self, now: UnixTime, at_most: usize) -> usize {
        let mut gone = 0;
        for _ in 0..at_most {
            if self.timeline.first().is_none_or(|(filed, _)| *filed > now) {
                break;
            }
            let Some((_, key)) = self.timeline.pop_first() else { break };
            match self.entries.get_mut(&key) {
                Some(touched) if touched.slot.expires > now => {
                    touched.filed = touched.slot.expires;
                    self.timeline.insert((touched.filed, key));
                }
                _ => gone += usize::from(self.entries.remove(&key).is_some()),
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(millis)
    }

    fn put(shelf: &Shelf<u32, u32>, key: u32, expires: u64, now: u64) -> Result<(), StoreError> {
        shelf.put_or(&key, Slot { value: key, expires: at(expires) }, at(now), |old, fresh| *old = fresh)
    }

    /// The entries and the timeline tell the same story.
    fn assert_sound(shelf: &Shelf<u32, u32>) {
        let mut held = 0;
        for shard in &shelf.shards {
            let shard = lock(shard);
            assert_eq!(shard.entries.len(), shard.timeline.len());
            for (filed, key) in &shard.timeline {
                assert_eq!(shard.entries[key].filed, *filed);
                assert!(*filed <= shard.entries[key].slot.expires);
            }
            held += shard.entries.len();
        }
        assert_eq!(held, shelf.len());
        assert!(held <= shelf.capacity);
    }

    #[test]
    fn an_entry_is_gone_the_moment_it_expires() {
        let shelf = Shelf::new(10, Overflow::Refuse);
        put(&shelf, 1, 100, 0).unwrap();
        assert_eq!(shelf.visit(&1, at(99), |slot| slot.value), Some(1));
        assert_eq!(shelf.visit(&1, at(100), |slot| slot.value), None);
        assert_eq!(shelf.remove(&1, at(100)), None);
        assert_eq!(shelf.len(), 0);
    }

    #[test]
    fn the_last_place_is_the_last_whatever_the_shard() {
        let shelf = Shelf::new(3, Overflow::Refuse);
        for key in 0..3 {
            put(&shelf, key, 100, 0).unwrap();
        }
        for key in 3..50 {
            assert_eq!(put(&shelf, key, 100, 0), Err(StoreError::Full));
        }
        put(&shelf, 1, 200, 0).expect("a key that is there needs no place");
        assert_eq!(shelf.remove(&0, at(0)), Some(0));
        put(&shelf, 3, 100, 0).expect("its place is free again");
        assert_sound(&shelf);
    }

    #[test]
    fn expired_entries_make_room_wherever_they_lie() {
        let shelf = Shelf::new(1000, Overflow::Refuse);
        for key in 0..1000 {
            put(&shelf, key, 100, 0).unwrap();
        }
        assert_eq!(put(&shelf, 1000, 200, 99), Err(StoreError::Full));
        for key in 1000..2000 {
            put(&shelf, key, 200, 100).unwrap();
        }
        assert_eq!(shelf.len(), 1000);
        assert_sound(&shelf);
    }

    #[test]
    fn where_newcomers_come_first_the_oldest_gives_way_whatever_the_shard() {
        let shelf = Shelf::new(3, Overflow::PushOut);
        for key in 0..100 {
            put(&shelf, key, 1000 + u64::from(key), 0).unwrap();
            assert_sound(&shelf);
        }
        assert!((97..100).all(|key| shelf.visit(&key, at(0), |_| ()).is_some()), "the last three");
        put(&shelf, 98, 2000, 0).expect("a key that is there needs no place");
        assert!((97..100).all(|key| shelf.visit(&key, at(0), |_| ()).is_some()), "and pushes none out");
    }

    #[test]
    fn a_sweep_leaves_what_was_touched() {
        let shelf = Shelf::new(100, Overflow::Refuse);
        for key in 0..100 {
            put(&shelf, key, 100, 0).unwrap();
        }
        for key in 0..50 {
            shelf.visit(&key, at(50), |slot| slot.expires = at(150)).unwrap();
        }
        for key in 100..150 {
            put(&shelf, key, 200, 120).unwrap();
        }
        assert_eq!(put(&shelf, 150, 200, 120), Err(StoreError::Full));
        assert!((0..50).all(|key| shelf.visit(&key, at(149), |_| ()).is_some()));
        assert_sound(&shelf);
    }

    #[test]
    fn an_entry_whose_end_was_brought_forward_makes_room_in_time() {
        let shelf = Shelf::new(1, Overflow::Refuse);
        put(&shelf, 1, 1000, 0).unwrap();
        shelf.visit(&1, at(0), |slot| slot.expires = at(10)).unwrap();
        put(&shelf, 2, 1000, 10).unwrap();
        assert_sound(&shelf);
    }

    #[test]
    fn a_walk_meets_every_live_entry_though_others_are_touched_meanwhile() {
        let shelf = Shelf::new(10_000, Overflow::Refuse);
        for key in 0..5000 {
            put(&shelf, key, if key % 5 == 0 { 50 } else { 100 + u64::from(key) }, 0).unwrap();
        }
        let (mut walk, mut met, mut steps) = (Walk::default(), BTreeSet::new(), 0);
        while let Some(step) = shelf.walk(&mut walk, at(60), |key, slot| (slot.value == *key).then_some(*key)) {
            assert!(step.len() <= STRIDE);
            met.extend(step);
            steps += 1;
            for key in (1..5000).step_by(5).skip(steps).take(40) {
                shelf.visit(&key, at(60), |slot| slot.expires = at(20_000)).unwrap();
            }
        }
        let live: BTreeSet<u32> = (0..5000).filter(|key| key % 5 != 0).collect();
        assert_eq!(met, live);
        assert_sound(&shelf);
    }

    #[test]
    fn coming_and_going_leaves_nothing_behind() {
        let shelf = Shelf::new(8, Overflow::Refuse);
        for round in 0..10_000 {
            put(&shelf, round % 4, 1_000_000, u64::from(round)).unwrap();
            shelf.remove(&(round % 3), at(u64::from(round)));
        }
        assert_sound(&shelf);
    }

    #[test]
    fn memory_is_returned_before_the_shelf_is_full() {
        let shelf = Shelf::new(1_000_000, Overflow::Refuse);
        for key in 0..100_000_u32 {
            put(&shelf, key, u64::from(key) + 100, u64::from(key)).unwrap();
        }
        assert!(shelf.len() < 1000, "{} entries for 100 live ones", shelf.len());
        assert_sound(&shelf);
    }

    #[test]
    fn additions_from_many_threads_all_count() {
        let shelf = Shelf::new(100, Overflow::Refuse);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for key in (0..20).cycle().take(2000) {
                        let one = Slot { value: 1, expires: at(100) };
                        shelf.put_or(&key, one, at(0), |old, _| old.value += 1).unwrap();
                    }
                });
            }
        });
        assert!((0..20).all(|key| shelf.visit(&key, at(0), |slot| slot.value) == Some(800)));
        assert_sound(&shelf);
    }
}
