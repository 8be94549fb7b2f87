//! Memory that clients make the edge hold while they do not take what they requested, or while an application does not
//! take what they send: counted in bytes, for each client and for all of them.
//!
//! What is bounded for one stream is multiplied by streams and connections, so the sum has a bound of its own. A request
//! holds a [`Share`] from its head to its end, the pieces of bodies that are on their way count one by one ([`Held::piece`]),
//! and what Pingora reads ahead counts while a piece waits. All of them are given back when they are dropped, and there
//! is no other way to count. How full an account is decides how long a waiting request may continue to wait.

mod held;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::client_prefix::ClientPrefix;
pub use held::{Exhausted, Held};

/// What every client may hold while all of them together hold too much, as a part of the bound on all.
const SHARE_OF_ALL: usize = 64;
/// A client that holds more than this part of what it may has its requests sent to applications one after the other,
/// so far apart.
const NEARLY_EMPTY: usize = 8;
const PACE_MICROS: u64 = 1000;

/// What all clients hold together, and how much that may be.
#[derive(Debug)]
pub struct Buffers {
    held: IntGauge,
    most: usize,
    most_each: usize,
    /// As many entries as there are clients that are connected, or hold something yet.
    accounts: Mutex<HashMap<ClientPrefix, Weak<Account>>>,
}

/// What one client holds, over all its connections.
#[derive(Debug)]
pub struct Account {
    all: Arc<Buffers>,
    /// The client that it belongs to; `None` is a trusted proxy, of which there may be many.
    client: Option<ClientPrefix>,
    held: AtomicUsize,
    most: usize,
    /// When the next request may continue, in microseconds from `begun`.
    next: AtomicU64,
    begun: Instant,
}

/// How full an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    Low,
    /// Half full: requests that wait too long are ended.
    Half,
    /// Nothing more begins.
    Full,
    /// More than that, by what was on its way already: what has to wait and has not moved at all is ended at once.
    Over,
    /// Far more than that: what has to wait is ended at once.
    FarOver,
}

impl Buffers {
    /// `held` shows operators what all of them hold.
    pub fn new(held: IntGauge, most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { held, most, most_each, accounts: Mutex::default() })
    }

    /// Returns the one account of a client; it lasts for as long as the client is connected or holds anything.
    pub fn account(self: &Arc<Self>, client: ClientPrefix) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(&client).and_then(Weak::upgrade) {
            return account;
        }
        let account = self.account_of(self.most_each, Some(client));
        accounts.insert(client, Arc::downgrade(&account));
        account
    }

    /// Returns an account of a trusted proxy, which stands for many clients: it is bounded by what all may hold together.
    pub fn unbounded_account(self: &Arc<Self>) -> Arc<Account> {
        self.account_of(self.most, None)
    }

    fn account_of(self: &Arc<Self>, most: usize, client: Option<ClientPrefix>) -> Arc<Account> {
        let (held, next) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Account { all: Arc::clone(self), client, held, most, next, begun: Instant::now() })
    }

    fn is_over_limit(&self) -> bool {
        usize::try_from(self.held.get()).is_ok_and(|held| held > self.most)
    }
}

impl Account {
    pub fn fill(&self) -> Fill {
        let held = self.held.load(Ordering::Relaxed);
        let most = if self.all.is_over_limit() { self.most.min(self.all.most / SHARE_OF_ALL) } else { self.most };
        match held {
            _ if held < most / 2 => Fill::Low,
            _ if held < most => Fill::Half,
            _ if held < most / 4 * 5 => Fill::Full,
            _ if held < most / 2 * 3 => Fill::Over,
            _ => Fill::FarOver,
        }
    }

    /// Returns how long a request has to wait before it is sent to an application, so that what comes in answer can be counted
    /// before more is requested. Returns zero while the account is nearly empty.
    pub fn pace(&self) -> Duration {
        if self.held.load(Ordering::Relaxed) < self.most / NEARLY_EMPTY {
            return Duration::ZERO;
        }
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let after = |next: u64| Some(next.max(now) + PACE_MICROS);
        let before = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).unwrap_or(now);
        Duration::from_micros(before.saturating_sub(now))
    }

    pub fn hold(self: &Arc<Self>, bytes: usize) -> Share {
        self.add(bytes);
        Share { account: Arc::clone(self), bytes }
    }

    fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.all.held.add(signed(bytes));
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.all.held.sub(signed(bytes));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut accounts = self.all.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have been made meanwhile.
        if accounts.get(&client).is_some_and(|account| account.strong_count() == 0) {
            accounts.remove(&client);
        }
    }
}

/// No sum of what is in memory comes near the bound.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of an account, held until this is dropped.
#[derive(Debug)]
pub struct Share {
    account: Arc<Account>,
    bytes: usize,
}

impl Share {
    fn lower(&mut self) {
        self.account.give_back(std::mem::take(&mut self.bytes));
    }

    /// Holds so much in all, if it was less.
    pub fn raise(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.add(bytes - self.bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(number: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, number].into())
    }

    fn buffers(most: usize, most_each: usize) -> Arc<Buffers> {
        Buffers::new(IntGauge::new("held", "held").unwrap(), most, most_each)
    }

    #[test]
    fn an_account_fills_by_what_is_held_and_all_of_it_is_given_back() {
        let buffers = buffers(1 << 20, 1000);
        let account = buffers.account(prefix(1));
        let mut shares = Vec::new();
        for (bytes, fill) in [
            (499, Fill::Low),
            (1, Fill::Half),
            (499, Fill::Half),
            (1, Fill::Full),
            (249, Fill::Full),
            (1, Fill::Over),
            (250, Fill::FarOver),
        ] {
            shares.push(account.hold(bytes));
            assert_eq!(account.fill(), fill, "with {bytes} more");
        }
        assert_eq!(buffers.account(prefix(1)).fill(), Fill::FarOver, "a client has one, however often it connects");
        assert_eq!(buffers.account(prefix(2)).fill(), Fill::Low, "another client has its own");
        assert_eq!(buffers.held.get(), 1500);
        drop(shares);
        assert_eq!((account.fill(), buffers.held.get()), (Fill::Low, 0));
        drop(account);
        assert!(buffers.accounts.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_a_client_that_holds_much_go_on_one_after_the_other() {
        let account = buffers(1 << 30, 8000).account(prefix(1));
        assert!((0..10_000).all(|_| account.pace().is_zero()));
        let _share = account.hold(1000);
        let waits: Vec<_> = (0..100).map(|_| account.pace().as_millis()).collect();
        assert_eq!(waits, (0..100).collect::<Vec<_>>());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(account.pace().is_zero());
    }

    #[test]
    fn where_all_hold_too_much_who_holds_little_is_let_be() {
        let buffers = buffers(64_000, 10_000);
        let accounts: [_; 12] = std::array::from_fn(|number| buffers.account(prefix(number as u8)));
        let _shares = accounts.each_ref().map(|account| account.hold(6000));
        assert!(accounts.iter().all(|account| account.fill() == Fill::FarOver), "more than a 64th of what all may");
        assert_eq!(buffers.account(prefix(100)).fill(), Fill::Low);
        assert_eq!(buffers.unbounded_account().fill(), Fill::Low);
    }
}
