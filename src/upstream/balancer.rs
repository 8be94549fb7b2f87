//! The policies by which a pool chooses the server of an attempt (`pools.NAME.balance`).
//!
//! A policy knows servers by their index in the pool and sees neither addresses nor connections: what it has to know of
//! them at the moment of a choice are [`Candidates`]. `Pool::select` is the only caller; it decides when another attempt
//! is made, and at which address of the server.
//!
//! A choice costs the same in a pool of 2 servers and in one of 200, takes no lock and allocates nothing: a policy draws
//! servers until one may be chosen, and looks at all of them only where most may not.

mod turns;

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Balance;
use turns::WeightedTurns;

/// Draws before all servers are looked at.
const DRAWS: usize = 32;
/// Draws for the second of two servers that are compared.
const DRAWS_OF_SECOND: usize = 8;
/// The whole weight of a server, as a share.
pub const WHOLE: u8 = u8::MAX;

/// What a policy has to know of the servers of a pool at the moment of a choice.
pub trait Candidates {
    /// Returns how much of its weight a server has: [`WHOLE`], less in a slow start, and 0 where it may not be chosen.
    fn share(&self, server: usize) -> u8;

    /// Returns the attempts that are under way at a server.
    fn in_flight(&self, server: usize) -> u64;
}

/// The policy of one pool, with its state.
pub struct Balancer {
    turns: WeightedTurns,
    policy: Policy,
}

enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest,
}

/// Weighted round robin. A request takes one turn. Its further attempts do not move that turn but have turns of their own:
/// otherwise a server that is down would draw every turn of a pool of two upon itself.
#[derive(Default)]
struct RoundRobin {
    next: AtomicUsize,
    /// The next turn of a further attempt, or of a request whose server may not be chosen.
    next_further: AtomicUsize,
}

impl Balancer {
    /// `weights` has one for each server of the pool.
    pub fn new(policy: &Balance, weights: &[usize]) -> Self {
        let policy = match policy {
            // Requests without a good cookie take turns.
            Balance::RoundRobin | Balance::Sticky { .. } => Policy::RoundRobin(RoundRobin::default()),
            Balance::LeastRequest => Policy::LeastRequest,
        };
        Self { turns: WeightedTurns::new(weights), policy }
    }

    /// Returns the server of a request's first attempt; `None` when none may be chosen. Requests with the same `key` get
    /// the same server, for as long as it may be chosen.
    pub fn first(&self, servers: &impl Candidates, key: Option<u64>) -> Option<usize> {
        if let (Policy::RoundRobin(policy), None) = (&self.policy, key) {
            let server = self.turns.at(policy.next.fetch_add(1, Ordering::Relaxed))?;
            if admits(servers, server) {
                return Some(server);
            }
        }
        self.another(servers, key)
    }

    /// Returns the server of a further attempt.
    pub fn another(&self, servers: &impl Candidates, key: Option<u64>) -> Option<usize> {
        let drawn = match (&self.policy, key) {
            (_, Some(key)) => self.turns.draw(DRAWS, |draw| mix(key, draw), |server| servers.share(server) > 0),
            (Policy::RoundRobin(policy), None) => {
                let turn = |_| policy.next_further.fetch_add(1, Ordering::Relaxed);
                self.turns.draw(DRAWS, turn, |server| admits(servers, server))
            }
            (Policy::LeastRequest, None) => self.least_request(servers),
        };
        // Nothing was drawn where most servers may not be chosen, or have just come back.
        drawn.or_else(|| {
            let turn = key.map_or_else(|| fastrand::usize(..), |key| mix(key, DRAWS));
            self.turns.among(turn, |server| servers.share(server) > 0)
        })
    }

    /// The power of two choices: of two servers that are drawn by weight, the one with fewer attempts in flight for its
    /// weight. For equal weights this is Envoy's rule. For others Envoy compares weight / (in flight + 1); of two servers
    /// without any that is always the heavier one, so that a light one would get nothing from a pool with little to do.
    /// Here the first one drawn is taken, and requests are spread by weight.
    fn least_request(&self, servers: &impl Candidates) -> Option<usize> {
        let any = |_| fastrand::usize(..);
        let first = self.turns.draw(DRAWS, any, |server| admits(servers, server))?;
        // A server in a slow start has few attempts in flight and would win every comparison, so it is drawn first or not
        // at all: its share of the requests is that of its weight.
        let is_second = |server: usize| server != first && servers.share(server) == WHOLE;
        let second = self.turns.draw(DRAWS_OF_SECOND, any, is_second);
        let Some(second) = second.or_else(|| self.turns.next_to(first, is_second)) else { return Some(first) };
        let (of_first, of_second) = (servers.in_flight(first), servers.in_flight(second));
        let is_busier = of_first * self.turns.weight(second) > of_second * self.turns.weight(first);
        Some(if is_busier { second } else { first })
    }
}

/// Whether a server may be chosen that was drawn by its whole weight, of which it may have less.
fn admits(servers: &impl Candidates, server: usize) -> bool {
    match servers.share(server) {
        0 => false,
        WHOLE => true,
        share => fastrand::u8(..) < share,
    }
}

/// Returns the turn of a draw for a key: the same each time, and another one for each draw.
fn mix(key: u64, draw: usize) -> usize {
    // The finalizer of SplitMix64. The keys of some callers are alike in their upper or lower bits.
    let mut mixed = key.wrapping_add((draw as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as usize
}

#[cfg(test)]
mod tests;
