//! How much of something each client, user or session has, so that none takes all there is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Places by whose they are. As many entries as places are taken, so what bounds those bounds it.
#[derive(Debug)]
pub struct Crowd<K: Eq + Hash>(Mutex<HashMap<K, usize>>);

/// One place, counted until this is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    crowd: Arc<Crowd<K>>,
    key: K,
}

impl<K: Eq + Hash> Default for Crowd<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Crowd<K> {
    /// `None` when this one has so many already.
    pub fn enter(self: &Arc<Self>, key: K, most: usize) -> Option<Place<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&key) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None if most == 0 => return None,
            None => drop(taken.insert(key.clone(), 1)),
        }
        Some(Place { crowd: Arc::clone(self), key })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn each_has_so_many_places_and_others_have_theirs() {
        let crowd = Arc::new(Crowd::default());
        let first = crowd.enter("a", 2).unwrap();
        let _second = crowd.enter("a", 2).unwrap();
        assert!(crowd.enter("a", 2).is_none());
        assert!(crowd.enter("b", 2).is_some());
        drop(first);
        assert!(crowd.enter("a", 2).is_some(), "a place is free again");
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let crowd = Arc::new(Crowd::default());
        drop(crowd.enter("a", 1));
        assert!(crowd.enter("b", 0).is_none());
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
