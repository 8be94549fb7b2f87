//! The policies by which a pool chooses the server of an attempt (`pools.NAME.balance`).
//!
//! A policy knows servers by their index in the pool and sees neither addresses nor connections. `Pool::select` is the
//! only caller; it decides when another attempt is made, and at which address of the server.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Balance;

/// The policy of one pool, with its state.
pub enum Balancer {
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// `weights` has one for each server of the pool.
    pub fn new(policy: Balance, weights: &[usize]) -> Self {
        match policy {
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(weights)),
        }
    }

    /// Returns the server of a request's first attempt; `None` when the pool has no server. Requests with the same `key`
    /// get the same server.
    pub fn first(&self, key: Option<u64>) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.first(key),
        }
    }

    /// Returns a server for which `is_candidate` holds; `None` when there is none.
    pub fn among(&self, is_candidate: impl Fn(usize) -> bool, key: Option<u64>) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.among(is_candidate, key),
        }
    }
}

/// Weighted round robin. A request takes one turn. Its further attempts do not move that turn but have turns of their own:
/// otherwise a server that is down would draw every turn of a pool of two upon itself.
pub struct RoundRobin {
    /// Indices of servers, each as often as its weight says, spread evenly.
    turns: Vec<usize>,
    next: AtomicUsize,
    /// The next turn of a further attempt.
    next_further: AtomicUsize,
}

impl RoundRobin {
    fn new(weights: &[usize]) -> Self {
        Self { turns: spread(weights), next: AtomicUsize::new(0), next_further: AtomicUsize::new(0) }
    }

    fn first(&self, key: Option<u64>) -> Option<usize> {
        if self.turns.is_empty() {
            return None;
        }
        let turn = key.map_or_else(|| self.next.fetch_add(1, Ordering::Relaxed), |key| key as usize);
        Some(self.turns[turn % self.turns.len()])
    }

    fn among(&self, is_candidate: impl Fn(usize) -> bool, key: Option<u64>) -> Option<usize> {
        let candidates = || self.turns.iter().copied().filter(|server| is_candidate(*server));
        let count = candidates().count();
        if count == 0 {
            return None;
        }
        let turn = key.map_or_else(|| self.next_further.fetch_add(1, Ordering::Relaxed), |key| key as usize);
        candidates().nth(turn % count)
    }
}

/// Returns the order of smooth weighted round robin, worked out in advance: weights 3 and 1 give 0 0 1 0, never 0 0 0 1.
fn spread(weights: &[usize]) -> Vec<usize> {
    let total: usize = weights.iter().sum();
    let mut credit = vec![0_isize; weights.len()];
    let mut turns = Vec::with_capacity(total);
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += *weight as isize;
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|server| credit[*server]) else { break };
        credit[richest] -= total as isize;
        turns.push(richest);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_by_weight_and_not_in_bursts() {
        assert_eq!(spread(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(spread(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(spread(&[]), [0; 0]);
    }

    /// What every policy keeps to, whatever it prefers.
    #[test]
    fn every_policy_chooses_a_candidate_where_there_is_one_and_the_same_for_one_key() {
        for policy in [Balance::RoundRobin] {
            let balancer = Balancer::new(policy, &[1, 2, 3]);
            assert_eq!(Balancer::new(policy, &[]).first(None), None, "{policy:?}");
            for key in 0..20 {
                assert_eq!(balancer.first(Some(key)), balancer.first(Some(key)), "{policy:?}");
                assert!(balancer.first(None).is_some_and(|server| server < 3), "{policy:?}");
                for only in 0..3 {
                    for key in [None, Some(key)] {
                        assert_eq!(balancer.among(|server| server == only, key), Some(only), "{policy:?}");
                    }
                }
                assert_eq!(balancer.among(|_| false, None), None, "{policy:?}");
            }
        }
    }
}
