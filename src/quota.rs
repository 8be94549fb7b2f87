//! A limit per key: how much of something each client, user or session may use, so that none uses all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Permits in use, counted by key. A key has an entry only while it holds a permit, so whatever bounds the permits
/// bounds the map as well.
#[derive(Debug)]
pub struct Quota<K: Eq + Hash>(Mutex<HashMap<K, usize>>);

/// One unit of a key's quota, which is released when this is dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash> {
    quota: Arc<Quota<K>>,
    key: K,
}

impl<K: Eq + Hash> Default for Quota<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Quota<K> {
    /// Returns `None` when `key` already holds `most` permits.
    pub fn acquire(self: &Arc<Self>, key: K, most: usize) -> Option<Permit<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&key) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None if most == 0 => return None,
            None => drop(taken.insert(key.clone(), 1)),
        }
        Some(Permit { quota: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.quota.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_limit() {
        let quota = Arc::new(Quota::default());
        let first = quota.acquire("a", 2).unwrap();
        let _second = quota.acquire("a", 2).unwrap();
        assert!(quota.acquire("a", 2).is_none());
        assert!(quota.acquire("b", 2).is_some());
        drop(first);
        assert!(quota.acquire("a", 2).is_some(), "a permit was released");
    }

    #[test]
    fn a_key_without_permits_is_forgotten() {
        let quota = Arc::new(Quota::default());
        drop(quota.acquire("a", 1));
        assert!(quota.acquire("b", 0).is_none());
        assert!(quota.0.lock().unwrap().is_empty());
    }
}
