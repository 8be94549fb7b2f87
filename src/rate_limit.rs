//! How fast each client may ask: a leaky bucket for each, in the form of the generic cell rate algorithm.
//!
//! Exact for every client that is remembered: a sketch that counts strangers together would refuse some for what others
//! did. What a client may ask in a second it may ask at once, and then evenly. Asked by `proxy`, which knows whom to ask
//! for and what to answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client_prefix::Network;
use crate::clock::UnixTime;

/// Tables that clients are spread over, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// Clients remembered in each. One is worth remembering for a second after its last request.
const CLIENTS: usize = 16_384;

const SECOND: u64 = 1_000_000;

/// Whose requests are counted together: a client's, in all or to one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    pub network: Network,
    pub service: Option<Arc<str>>,
}

/// What each client has asked of late.
#[derive(Debug)]
pub struct Rates {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
}

/// For each client the microsecond at which it would be even, had it asked no faster than it may.
type Shard = HashMap<Asker, u64, ahash::RandomState>;

impl Default for Rates {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: ahash::RandomState::new() }
    }
}

impl Rates {
    /// Counts a request, of which `per_second` may be made. `Err` is for how long the next one had better wait; it was
    /// not counted then.
    pub fn take(&self, asker: Asker, per_second: u32, now: UnixTime) -> Result<(), Duration> {
        let at = usize::try_from(self.hasher.hash_one(&asker) % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.millis().saturating_mul(1000);
        let cost = SECOND / u64::from(per_second.max(1));
        // Further ahead than a second is nobody: the clock was set back.
        let even = shard.get(&asker).copied().filter(|even| *even <= now + SECOND).map_or(now, |even| even.max(now));
        let after = even + cost;
        if after > now + SECOND {
            return Err(Duration::from_micros(after - now - SECOND));
        }
        if shard.len() >= CLIENTS && !shard.contains_key(&asker) {
            make_room(&mut shard, now);
        }
        shard.insert(asker, after);
        Ok(())
    }
}

/// Forgets who is even. Where nobody is, so many ask at once that none of them alone matters: all are forgotten.
fn make_room(shard: &mut Shard, now: u64) {
    shard.retain(|_, even| *even > now);
    if shard.len() >= CLIENTS {
        shard.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_seconds(1_000_000_000);

    fn asker(address: &str) -> Asker {
        Asker { network: Network::of(address.parse().unwrap()), service: None }
    }

    fn millis(millis: u64) -> UnixTime {
        START.plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_the_rest_evenly() {
        let rates = Rates::default();
        let take = |now| rates.take(asker("192.0.2.1"), 10, now);
        assert!((0..10).all(|_| take(START).is_ok()));
        assert_eq!(take(START), Err(Duration::from_millis(100)));
        assert_eq!(take(millis(60)), Err(Duration::from_millis(40)));
        assert!(take(millis(100)).is_ok());
        assert!(take(millis(100)).is_err());
        assert!((0..10).all(|_| take(millis(2000)).is_ok()), "after a pause");
        assert!(take(millis(2000)).is_err());
    }

    #[test]
    fn clients_and_services_are_counted_apart() {
        let rates = Rates::default();
        let of = |service: &str| Asker { service: Some(service.into()), ..asker("2001:db8::1") };
        assert!(rates.take(asker("2001:db8::1"), 1, START).is_ok());
        assert!(rates.take(asker("2001:db8::2"), 1, START).is_err(), "one /64");
        assert!(rates.take(asker("2001:db8:0:1::1"), 1, START).is_ok());
        assert!(rates.take(of("iqueue"), 1, START).is_ok());
        assert!(rates.take(of("dextor"), 1, START).is_ok());
        assert!(rates.take(of("iqueue"), 1, START).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_refuses_nobody_for_long() {
        let rates = Rates::default();
        let later = START.plus(Duration::from_secs(3600));
        assert!(rates.take(asker("192.0.2.1"), 1, later).is_ok());
        assert!(rates.take(asker("192.0.2.1"), 1, START).is_ok());
        assert!(rates.take(asker("192.0.2.1"), 1, START).is_err());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let rates = Rates::default();
        for number in 0..(SHARDS * CLIENTS * 2) as u32 {
            let network = Network::of(std::net::Ipv4Addr::from(number).into());
            rates.take(Asker { network, service: None }, 1, START).unwrap();
        }
        let held: usize = rates.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * CLIENTS, "{held}");
    }
}
