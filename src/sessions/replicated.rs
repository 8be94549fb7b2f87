//! One store made of several servers: a consistent hash (`ring`) maps a key to its servers, and each session may have copies
//! on more than one (`copies`), so that a server that dies, is unreachable or comes back empty logs no user out.
//!
//! A session is written to all its replicas and read from all of them, because a server that was unreachable during a
//! logout still holds an active copy: only the other replicas show that the session has ended. `resolve` decides what
//! follows from the replies; `repair` makes the replicas agree again (read repair and hinted handoff).
//!
//! Operations that must happen only once, such as redeeming a ticket, are decided by one server alone, the first for the
//! key. While that server is unavailable, a new ticket is issued under another key.

mod counters;
mod devices;
pub mod hints;
mod layout;
mod listing;
mod lookup;
pub mod node;
mod repair;
mod resolve;
pub mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::instrumented::{Operation, StoreMonitors, always};
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey, Tombstone,
};
use crate::clock::{Clock, UnixTime};
use crate::metrics::StoreMetrics;
use hints::{Hint, Hints};
use layout::{Layout, Replica};
use node::Node;
use repair::{Repairer, RetryBackoff};
use resolve::GRACE_PERIOD;

pub use layout::PreviousLayout;
pub use node::NodeConfig;

pub struct Cluster<N> {
    layout: ArcSwap<Layout<N>>,
    clock: Clock,
    metrics: StoreMetrics,
    monitors: StoreMonitors,
    repairer: Repairer,
}

impl<N: Node> Cluster<N> {
    /// `servers` must not be empty. Each session is stored on `copies` of them, or on all when there are fewer.
    pub fn new<E>(
        servers: &[NodeConfig],
        copies: usize,
        clock: Clock,
        metrics: &StoreMetrics,
        connect: impl FnMut(&NodeConfig) -> Result<N, E>,
    ) -> Result<Self, E> {
        let monitors = StoreMonitors::new(metrics, &clock);
        let layout = Layout::new(servers, copies, &monitors, connect)?;
        Ok(Self {
            layout: ArcSwap::from_pointee(layout),
            repairer: Repairer::new(clock.clone(), RetryBackoff::default(), metrics.clone()),
            clock,
            metrics: metrics.clone(),
            monitors,
        })
    }

    /// Switches to another list of servers. Servers that stay keep their connections; sessions are still found on their
    /// previous servers for `keep`, the longest idle timeout of a session.
    pub fn set_nodes<E>(
        &self,
        servers: &[NodeConfig],
        copies: usize,
        keep: Duration,
        connect: impl FnMut(&NodeConfig) -> Result<N, E>,
    ) -> Result<(), E> {
        let next = self.layout.load_full().next(servers, copies, &self.monitors, connect, Instant::now(), keep)?;
        self.layout.store(Arc::new(next));
        Ok(())
    }

    /// Also reads from these previous lists of servers: they were changed before this process started.
    pub fn add_previous_layouts<E>(
        &self,
        previous: &[PreviousLayout],
        connect: impl FnMut(&NodeConfig) -> Result<N, E>,
    ) -> Result<(), E> {
        let layout = self.layout.load_full().with_previous(previous, &self.monitors, connect, Instant::now())?;
        self.layout.store(Arc::new(layout));
        Ok(())
    }

    /// Takes over the hints that another process has not delivered. Until they are delivered, their sessions are found ended
    /// here. Hints for servers that are in no list any more are dropped, because those servers are not read. Returns false
    /// when there is no room for all hints; then none is taken over.
    pub fn restore_hints(&self, hints: Vec<Hint>) -> bool {
        if hints.is_empty() {
            return true;
        }
        let handles = self.layout.load().all_nodes(Instant::now());
        let handle_of = |hint: &Hint| handles.iter().find(|handle| handle.name == hint.server);
        let is_new =
            |hint: &&Hint| handle_of(hint).is_some() && self.hints().until(&hint.session, &hint.server).is_none();
        if hints.iter().filter(is_new).count() > self.hints().room() {
            return false;
        }
        for hint in &hints {
            if let Some(handle) = handle_of(hint) {
                self.repairer.hint(Arc::clone(handle), &hint.session, Tombstone { until: hint.until });
            }
        }
        true
    }

    /// The tombstones that are still to be delivered.
    pub fn hints(&self) -> &Hints {
        self.repairer.hints()
    }

    fn replicas(&self, key: &str) -> Vec<Replica<N>> {
        self.layout.load().replicas(key, Instant::now())
    }
}

#[async_trait]
impl<N: Node> SessionStore for Cluster<N> {
    /// The session counts as stored when one server has it; the others get their copy by read repair, when it is first read.
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        let replicas = self.replicas(key.as_str());
        let stored = join_all(replicas.iter().map(async |Replica { handle, .. }| {
            handle.monitor.observe(Operation::Insert, handle.node.add(key, record, ttl), |stored| *stored).await
        }));
        let taken = StoreError::Protocol { cause: "a new session's key is in use".into() };
        any_ok(stored.await).and_then(|stored| if stored { Ok(()) } else { Err(taken) })
    }

    /// A lost packet or a moment without CPU is no outage, so a look-up that fails is sent once more. From the second failure
    /// in a row on the circuit breaker is open, so an outage costs a request two timeouts at most.
    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        if self.repairer.has_hint(key) {
            return Ok(Found::Ended);
        }
        match self.find_once(key, slide).await {
            // This future is boxed because it is rarely needed, and large.
            Err(error) if error.is_unavailable() && !self.is_down(key) => Box::pin(self.find_once(key, slide)).await,
            found => found,
        }
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        if self.repairer.has_hint(key) {
            return Ok(false);
        }
        let replicas = self.replicas(key.as_str());
        let written = join_all(replicas.iter().map(async |Replica { handle, .. }| {
            handle
                .monitor
                .observe(Operation::RecordAccess, handle.node.record_access(key, now, ttl), |written| *written)
                .await
        }));
        any_ok(written.await)
    }

    /// The caller has read all replicas before, and found the session active; a tombstone that is written in between outranks
    /// this write.
    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        if self.repairer.has_hint(key) {
            return Ok(false);
        }
        let replicas = self.replicas(key.as_str());
        let renewed =
            join_all(replicas.iter().filter(|replica| replica.is_current).map(async |Replica { handle, .. }| {
                handle.monitor.observe(Operation::Renew, handle.node.renew(key, record, ttl), |renewed| *renewed).await
            }));
        any_ok(renewed.await)
    }

    /// The session counts as ended when one current replica has the tombstone: every edge that reaches that server knows.
    /// The other replicas get theirs as soon as they are back (hinted handoff).
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        let tombstone = Tombstone { until };
        let ttl = tombstone.ttl(self.clock.now());
        let replicas = self.replicas(key.as_str());
        let written = join_all(replicas.iter().map(async |Replica { handle, .. }| {
            handle.monitor.observe(Operation::End, handle.node.write_tombstone(key, tombstone, ttl), always).await
        }));
        let written = written.await;
        // A replica of a previous layout is read for a while only: it gets the tombstone too, but does not count.
        let current = replicas.iter().zip(&written).filter(|(replica, _)| replica.is_current);
        let outcome = any_ok(current.map(|(_, outcome)| outcome.clone().map(|()| true)).collect()).map(drop);
        // Hints are kept even when no server took the tombstone: until they are delivered, this process itself finds the
        // session ended.
        for (replica, _) in replicas.iter().zip(&written).filter(|(_, outcome)| outcome.is_err()) {
            self.repairer.hint(Arc::clone(&replica.handle), key, tombstone);
            if replica.is_current && outcome.is_ok() {
                self.metrics.half_heard.with_label_values(&[&replica.handle.name]).inc();
                log::warn!(
                    "session store {}: tombstone not delivered, kept as a hint; until it is, an edge that reaches only this \
                     server still accepts the session",
                    replica.handle.name
                );
            }
        }
        outcome
    }

    fn has_hint(&self, key: &SessionKey) -> bool {
        self.repairer.has_hint(key)
    }

    fn may_resurface(&self, key: &SessionKey) -> bool {
        let may_come_back =
            |replica: &Replica<N>| replica.is_current && replica.handle.node.unavailable_for() < GRACE_PERIOD;
        let has_hint = |replica: &Replica<N>| self.hints().until(key, &replica.handle.name).is_some();
        self.has_hint(key)
            && self.replicas(key.as_str()).iter().any(|replica| may_come_back(replica) && has_hint(replica))
    }

    fn is_down(&self, key: &SessionKey) -> bool {
        let replicas = self.replicas(key.as_str());
        let mut failing =
            replicas.iter().map(|replica| &replica.handle.node).filter(|node| node.is_failing()).peekable();
        failing.peek().is_some() && failing.all(Node::is_open)
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.read_device(key).await
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        self.compare_and_swap_device(key, seen, next, ttl).await
    }

    fn retry_window(&self, key: &SessionKey) -> Duration {
        let replicas = self.replicas(key.as_str());
        let longest = |failing: bool| {
            let nodes = replicas.iter().map(|replica| &replica.handle.node).filter(|node| node.is_failing() == failing);
            nodes.map(Node::retry_window).max()
        };
        // If no node is failing now, one of them did a moment ago.
        longest(true).or_else(|| longest(false)).unwrap_or_default()
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let handle = Arc::clone(self.layout.load().first(key.as_str()));
        handle.monitor.observe(Operation::IssueTicket, handle.node.issue_ticket(key, value, ttl), always).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let handles = self.layout.load().first_and_previous(key.as_str(), Instant::now());
        let won = |redemption: &Redemption| matches!(redemption, Redemption::Won(_));
        for handle in handles {
            let redeemed = handle.node.redeem_ticket(key, remember);
            match handle.monitor.observe(Operation::RedeemTicket, redeemed, won).await? {
                Redemption::Unknown => {}
                known => return Ok(known),
            }
        }
        Ok(Redemption::Unknown)
    }

    /// Counts on the first server that answers, see [`Cluster::increment_counter`].
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        self.increment_counter(key, window).await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        self.read_counter(key).await
    }

    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        self.decrement_counter(key, counted).await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.reset_counter(key).await
    }

    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        listing::list(&self.layout.load_full(), user, limit).await
    }

    /// Succeeds when any server answers: an edge that has lost some of its sessions still serves the others.
    async fn ping(&self) -> Result<(), StoreError> {
        let handles = self.layout.load().handles.clone();
        let answered = join_all(handles.iter().map(async |handle| {
            handle.monitor.observe(Operation::Ping, handle.node.ping(), always).await.map(|()| true)
        }));
        any_ok(answered.await).map(drop)
    }

    /// Returns the shortest time of all servers.
    fn unavailable_for(&self) -> Duration {
        self.layout.load().handles.iter().map(|handle| handle.monitor.unavailable_for()).min().unwrap_or_default()
    }
}

/// Returns true when any server returned true; an error when none of them answered.
fn any_ok(outcomes: Vec<Result<bool, StoreError>>) -> Result<bool, StoreError> {
    let mut result = Err(StoreError::TimedOut);
    for outcome in outcomes {
        result = match (result, outcome) {
            (Ok(before), Ok(now)) => Ok(before || now),
            (Ok(before), Err(_)) => Ok(before),
            (Err(_), outcome) => outcome,
        };
    }
    result
}
