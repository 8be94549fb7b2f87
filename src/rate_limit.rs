//! The request rate limit: a leaky bucket per client, implemented as the generic cell rate algorithm (GCRA).
//!
//! The count is exact for every client that is remembered: a sketch that counts several clients together would refuse some
//! for what others did. A client may send a second's worth of requests at once, and then evenly spaced ones. `proxy`
//! chooses the key and answers a request that is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client_prefix::ClientPrefix;
use crate::clock::UnixTime;

/// Clients are spread over this many tables, so that workers seldom wait for each other.
const SHARDS: usize = 16;

/// Clients that each table remembers. A client has to be remembered for one second after its last request.
const CLIENTS: usize = 16_384;

const SECOND: u64 = 1_000_000;

/// What requests are counted by: the client, either in all or to one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateKey {
    pub prefix: ClientPrefix,
    pub service: Option<Arc<str>>,
}

/// The recent requests of each client.
#[derive(Debug)]
pub struct RateLimiter {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
}

/// The "theoretical arrival time" of GCRA for each client, in microseconds: when the client will have used up the time
/// that its requests so far cost.
type Shard = HashMap<RateKey, u64, ahash::RandomState>;

impl Default for RateLimiter {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: ahash::RandomState::new() }
    }
}

impl RateLimiter {
    /// Counts a request; `per_second` are allowed. `Err` has the time after which the client should retry; a refused request
    /// is not counted.
    pub fn take(&self, key: RateKey, per_second: u32, now: UnixTime) -> Result<(), Duration> {
        let at = usize::try_from(self.hasher.hash_one(&key) % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.millis().saturating_mul(1000);
        let cost = SECOND / u64::from(per_second.max(1));
        // A client is never more than a second ahead. If it seems so, the clock was set back.
        let arrival = shard.get(&key).copied().filter(|at| *at <= now + SECOND).map_or(now, |at| at.max(now));
        let after = arrival + cost;
        if after > now + SECOND {
            return Err(Duration::from_micros(after - now - SECOND));
        }
        if shard.len() >= CLIENTS && !shard.contains_key(&key) {
            make_room(&mut shard, now);
        }
        shard.insert(key, after);
        Ok(())
    }
}

/// Forgets the clients whose bucket is empty. If none is, so many clients send requests at once that no single one
/// matters, and all are forgotten.
fn make_room(shard: &mut Shard, now: u64) {
    shard.retain(|_, arrival| *arrival > now);
    if shard.len() >= CLIENTS {
        shard.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_seconds(1_000_000_000);

    fn key(address: &str) -> RateKey {
        RateKey { prefix: ClientPrefix::of(address.parse().unwrap()), service: None }
    }

    fn millis(millis: u64) -> UnixTime {
        START.plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_the_rest_evenly() {
        let limiter = RateLimiter::default();
        let take = |now| limiter.take(key("192.0.2.1"), 10, now);
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
        let limiter = RateLimiter::default();
        let of = |service: &str| RateKey { service: Some(service.into()), ..key("2001:db8::1") };
        assert!(limiter.take(key("2001:db8::1"), 1, START).is_ok());
        assert!(limiter.take(key("2001:db8::2"), 1, START).is_err(), "one /64");
        assert!(limiter.take(key("2001:db8:0:1::1"), 1, START).is_ok());
        assert!(limiter.take(of("iqueue"), 1, START).is_ok());
        assert!(limiter.take(of("dextor"), 1, START).is_ok());
        assert!(limiter.take(of("iqueue"), 1, START).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_refuses_no_client_for_long() {
        let limiter = RateLimiter::default();
        let later = START.plus(Duration::from_secs(3600));
        assert!(limiter.take(key("192.0.2.1"), 1, later).is_ok());
        assert!(limiter.take(key("192.0.2.1"), 1, START).is_ok());
        assert!(limiter.take(key("192.0.2.1"), 1, START).is_err());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let limiter = RateLimiter::default();
        for number in 0..(SHARDS * CLIENTS * 2) as u32 {
            let prefix = ClientPrefix::of(std::net::Ipv4Addr::from(number).into());
            limiter.take(RateKey { prefix, service: None }, 1, START).unwrap();
        }
        let held: usize = limiter.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(held <= SHARDS * CLIENTS, "{held}");
    }
}
