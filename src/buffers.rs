//! The memory that clients make the edge use while they do not read their responses, or while an application does not read
//! their requests: counted in bytes, per client and for all clients together.
//!
//! The limits of a single stream multiply with streams and connections, so the sum has a limit of its own. A request holds a
//! [`Reservation`] from its head to its end; the chunks of bodies in transit are counted one by one
//! ([`RequestMemory::track_chunk`]); and the bytes that Pingora reads ahead count while a chunk waits. Everything is released
//! when it is dropped, and there is no other way to count. How full an account is decides how much longer a waiting request
//! may wait.

mod held;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::client_prefix::ClientPrefix;
pub use held::{Exhausted, RequestMemory};

/// While all clients together hold too much, each client may hold this part (1/64) of the limit for all.
const SHARE_OF_ALL: usize = 64;
/// A client that holds more than this part (1/8) of its limit has its requests sent to applications one after the other, this
/// far apart.
const NEARLY_EMPTY: usize = 8;
const PACE_MICROS: u64 = 1000;

/// What all clients hold together, and the limits.
#[derive(Debug)]
pub struct Buffers {
    held: IntGauge,
    limit: usize,
    limit_per_client: usize,
    /// One entry for each client that is connected or still holds something.
    accounts: Mutex<HashMap<ClientPrefix, Weak<Account>>>,
}

/// What one client holds, over all its connections.
#[derive(Debug)]
pub struct Account {
    all: Arc<Buffers>,
    /// The client; `None` for a trusted proxy, of which there may be many accounts.
    client: Option<ClientPrefix>,
    held: AtomicUsize,
    limit: usize,
    /// When the next request may be sent, in microseconds after `created`.
    next: AtomicU64,
    created: Instant,
}

/// How full an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    Low,
    /// Half full: requests that wait too long are ended.
    Half,
    /// Full: no further request begins.
    Full,
    /// More than full, because of bytes that were in transit already: a request that has to wait and has made no progress at all
    /// is ended at once.
    Over,
    /// Far more than full: every request that has to wait is ended at once.
    FarOver,
}

impl Buffers {
    /// `held` is the metric of what all clients hold.
    pub fn new(held: IntGauge, limit: usize, limit_per_client: usize) -> Arc<Self> {
        Arc::new(Self { held, limit, limit_per_client, accounts: Mutex::default() })
    }

    /// Returns the account of a client. It exists as long as the client is connected or holds anything.
    pub fn account(self: &Arc<Self>, client: ClientPrefix) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&client).and_then(Weak::upgrade) {
            return account;
        }
        let account = self.new_account(self.limit_per_client, Some(client));
        accounts.insert(client, Arc::downgrade(&account));
        account
    }

    /// Creates an account for a trusted proxy, which forwards the requests of many clients: only the limit for all applies.
    pub fn unbounded_account(self: &Arc<Self>) -> Arc<Account> {
        self.new_account(self.limit, None)
    }

    fn new_account(self: &Arc<Self>, limit: usize, client: Option<ClientPrefix>) -> Arc<Account> {
        let (held, next) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Account { all: Arc::clone(self), client, held, limit, next, created: Instant::now() })
    }

    fn is_over_limit(&self) -> bool {
        usize::try_from(self.held.get()).is_ok_and(|held| held > self.limit)
    }
}

impl Account {
    pub fn fill(&self) -> Fill {
        let held = self.held.load(Ordering::Relaxed);
        let limit = if self.all.is_over_limit() { self.limit.min(self.all.limit / SHARE_OF_ALL) } else { self.limit };
        match held {
            _ if held < limit / 2 => Fill::Low,
            _ if held < limit => Fill::Half,
            _ if held < limit / 4 * 5 => Fill::Full,
            _ if held < limit / 2 * 3 => Fill::Over,
            _ => Fill::FarOver,
        }
    }

    /// Returns how long a request has to wait before it is sent to an application, so that its response can be counted before
    /// the next request is sent. It is zero while the account is nearly empty.
    pub fn pace(&self) -> Duration {
        if self.held.load(Ordering::Relaxed) < self.limit / NEARLY_EMPTY {
            return Duration::ZERO;
        }
        let now = u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX);
        let after = |next: u64| Some(next.max(now) + PACE_MICROS);
        let before = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).unwrap_or(now);
        Duration::from_micros(before.saturating_sub(now))
    }

    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.add(bytes);
        Reservation { account: Arc::clone(self), bytes }
    }

    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.all.held.add(signed(bytes));
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.all.held.sub(signed(bytes));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut accounts = self.all.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // A new account of the same client may have been created meanwhile.
        if accounts.get(&client).is_some_and(|account| account.strong_count() == 0) {
            accounts.remove(&client);
        }
    }
}

/// No sum of bytes in memory comes near the limit of the type.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of an account, reserved until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    bytes: usize,
}

impl Reservation {
    fn release(&mut self) {
        self.account.release(std::mem::take(&mut self.bytes));
    }

    /// Raises the reservation to `bytes` in all; does nothing if it is larger already.
    pub fn raise_to(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.add(bytes - self.bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, number].into())
    }

    fn buffers(limit: usize, limit_per_client: usize) -> Arc<Buffers> {
        Buffers::new(IntGauge::new("held", "held").unwrap(), limit, limit_per_client)
    }

    #[test]
    fn an_account_fills_by_what_is_held_and_all_of_it_is_released() {
        let buffers = buffers(1 << 20, 1000);
        let account = buffers.account(client(1));
        let mut reservations = Vec::new();
        for (bytes, fill) in [
            (499, Fill::Low),
            (1, Fill::Half),
            (499, Fill::Half),
            (1, Fill::Full),
            (249, Fill::Full),
            (1, Fill::Over),
            (250, Fill::FarOver),
        ] {
            reservations.push(account.reserve(bytes));
            assert_eq!(account.fill(), fill, "with {bytes} more");
        }
        assert_eq!(buffers.account(client(1)).fill(), Fill::FarOver, "a client has one, however often it connects");
        assert_eq!(buffers.account(client(2)).fill(), Fill::Low, "another client has its own");
        assert_eq!(buffers.held.get(), 1500);
        drop(reservations);
        assert_eq!((account.fill(), buffers.held.get()), (Fill::Low, 0));
        drop(account);
        assert!(buffers.accounts.lock().unwrap().is_empty(), "a client that has left is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_a_client_that_holds_much_are_sent_one_after_the_other() {
        let account = buffers(1 << 30, 8000).account(client(1));
        assert!((0..10_000).all(|_| account.pace().is_zero()));
        let _share = account.reserve(1000);
        let waits: Vec<_> = (0..100).map(|_| account.pace().as_millis()).collect();
        assert_eq!(waits, (0..100).collect::<Vec<_>>());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(account.pace().is_zero());
    }

    #[test]
    fn while_all_hold_too_much_a_client_that_holds_little_is_not_affected() {
        let buffers = buffers(64_000, 10_000);
        let accounts: [_; 12] = std::array::from_fn(|number| buffers.account(client(number as u8)));
        let _reservations = accounts.each_ref().map(|account| account.reserve(6000));
        assert!(
            accounts.iter().all(|account| account.fill() == Fill::FarOver),
            "more than a 64th of the limit for all"
        );
        assert_eq!(buffers.account(client(100)).fill(), Fill::Low);
        assert_eq!(buffers.unbounded_account().fill(), Fill::Low);
    }
}
