//! One store of several servers: a consistent hash says which of them a key lies on (`ring`), and each session may
//! lie on more than one (`copies`), so that a server that dies, is cut off or comes back empty logs nobody out.
//!
//! A session is written to all its servers and asked of all of them, because a server that was cut off during a
//! logout still holds a living copy: only who asks the others as well learns that it is a ghost. What follows from
//! their words is decided in `resolution`; `repairer` sees to it that they come to know the same.
//!
//! What must happen once, such as the redemption of a ticket, is decided by one server alone, the first for its key.
//! Who issues a ticket while that server is away takes another ticket.

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
use repair::{Pauses, Repairer};
use resolve::PATIENCE;

pub use layout::{NodeConfig, PreviousLayout};

pub struct Cluster<M> {
    layout: ArcSwap<Layout<M>>,
    clock: Clock,
    metrics: StoreMetrics,
    monitors: StoreMonitors,
    repairer: Repairer,
}

impl<M: Node> Cluster<M> {
    /// `servers` must not be empty. Each session lies on `copies` of them, or on all when there are fewer.
    pub fn new<E>(
        servers: &[NodeConfig],
        copies: usize,
        clock: Clock,
        metrics: &StoreMetrics,
        connect: impl FnMut(&NodeConfig) -> Result<M, E>,
    ) -> Result<Self, E> {
        let monitors = StoreMonitors::new(metrics, &clock);
        let layout = Layout::new(servers, copies, &monitors, connect)?;
        Ok(Self {
            layout: ArcSwap::from_pointee(layout),
            repairer: Repairer::new(clock.clone(), Pauses::default(), metrics.clone()),
            clock,
            metrics: metrics.clone(),
            monitors,
        })
    }

    /// Takes up another list of servers. Those that stay keep their connections; what lies where it belonged
    /// before is found there for `keep`, the longest that a session may idle.
    pub fn set_nodes<E>(
        &self,
        servers: &[NodeConfig],
        copies: usize,
        keep: Duration,
        connect: impl FnMut(&NodeConfig) -> Result<M, E>,
    ) -> Result<(), E> {
        let next = self.layout.load_full().next(servers, copies, &self.monitors, connect, Instant::now(), keep)?;
        self.layout.store(Arc::new(next));
        Ok(())
    }

    /// Has these former lists asked as well, as after changes that this process has not seen.
    pub fn add_previous_layouts<E>(
        &self,
        former: &[PreviousLayout],
        connect: impl FnMut(&NodeConfig) -> Result<M, E>,
    ) -> Result<(), E> {
        let layout = self.layout.load_full().after(former, &self.monitors, connect, Instant::now())?;
        self.layout.store(Arc::new(layout));
        Ok(())
    }

    /// Takes up what another process has left to be told. Until it is, those sessions are found ended here. Servers that
    /// are in no list any more hold nothing that would be asked for. Answers whether there was room; else nothing was taken up.
    pub fn restore_hints(&self, hints: Vec<Hint>) -> bool {
        if hints.is_empty() {
            return true;
        }
        let handles = self.layout.load().all_nodes(Instant::now());
        let seat_of = |hint: &Hint| handles.iter().find(|handle| handle.name == hint.server);
        let is_new =
            |hint: &&Hint| seat_of(hint).is_some() && self.hints().until(&hint.session, &hint.server).is_none();
        if hints.iter().filter(is_new).count() > self.hints().room() {
            return false;
        }
        for hint in &hints {
            if let Some(handle) = seat_of(hint) {
                self.repairer.hint(Arc::clone(handle), &hint.session, Tombstone { until: hint.until });
            }
        }
        true
    }

    /// Which servers have yet to hear of which ends.
    pub fn hints(&self) -> &Hints {
        self.repairer.hints()
    }

    fn replicas(&self, key: &str) -> Vec<Replica<M>> {
        self.layout.load().replicas(key, Instant::now())
    }
}

#[async_trait]
impl<M: Node> SessionStore for Cluster<M> {
    /// Stored when one server has it; the others get theirs when it is first asked for.
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        let replicas = self.replicas(key.as_str());
        let stored = join_all(replicas.iter().map(async |Replica { handle, .. }| {
            handle.monitor.observe(Operation::Insert, handle.node.add(key, record, ttl), |stored| *stored).await
        }));
        let taken = StoreError::Protocol { cause: "a new session's key is in use".into() };
        one_of(stored.await).and_then(|stored| if stored { Ok(()) } else { Err(taken) })
    }

    /// A lost packet or a starved moment is no outage: the look-up that meets it first is sent once more. From the second
    /// failure in a row on the server is left alone, so an outage costs a request two timeouts at most.
    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        if self.repairer.has_hint(key) {
            return Ok(Found::Ended);
        }
        match self.find_once(key, slide).await {
            // Rare, and large.
            Err(error) if error.is_unavailable() && !self.is_down(key) => Box::pin(self.find_once(key, slide)).await,
            answer => answer,
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
        one_of(written.await)
    }

    /// Whoever renews has asked all servers before whether it lives; a tombstone that comes in between outweighs this.
    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        if self.repairer.has_hint(key) {
            return Ok(false);
        }
        let replicas = self.replicas(key.as_str());
        let renewed =
            join_all(replicas.iter().filter(|replica| replica.is_current).map(async |Replica { handle, .. }| {
                handle.monitor.observe(Operation::Renew, handle.node.renew(key, record, ttl), |renewed| *renewed).await
            }));
        one_of(renewed.await)
    }

    /// Ended when one server has the tombstone: whoever can reach that one knows. The others are told as soon as
    /// they are back.
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        let tombstone = Tombstone { until };
        let ttl = tombstone.ttl(self.clock.now());
        let replicas = self.replicas(key.as_str());
        let buried = join_all(replicas.iter().map(async |Replica { handle, .. }| {
            handle.monitor.observe(Operation::End, handle.node.write_tombstone(key, tombstone, ttl), always).await
        }));
        let buried = buried.await;
        // One that is only asked for a while is no witness: it is told, and does not count.
        let present = replicas.iter().zip(&buried).filter(|(replica, _)| replica.is_current);
        let outcome = one_of(present.map(|(_, outcome)| outcome.clone().map(|()| true)).collect()).map(drop);
        // Where no server took it as well: until they have, this process itself finds the session ended.
        for (replica, _) in replicas.iter().zip(&buried).filter(|(_, outcome)| outcome.is_err()) {
            self.repairer.hint(Arc::clone(&replica.handle), key, tombstone);
            if replica.is_current && outcome.is_ok() {
                self.metrics.half_heard.with_label_values(&[&replica.handle.name]).inc();
                log::warn!(
                    "session store {}: has not heard that a session ended; an edge that reaches this server alone goes on \
                     with it until it has",
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
            |replica: &Replica<M>| replica.is_current && replica.handle.node.unavailable_for() < PATIENCE;
        let is_owed = |replica: &Replica<M>| self.hints().until(key, &replica.handle.name).is_some();
        self.has_hint(key)
            && self.replicas(key.as_str()).iter().any(|replica| may_come_back(replica) && is_owed(replica))
    }

    fn is_down(&self, key: &SessionKey) -> bool {
        let replicas = self.replicas(key.as_str());
        let mut silent =
            replicas.iter().map(|replica| &replica.handle.node).filter(|member| member.is_failing()).peekable();
        silent.peek().is_some() && silent.all(Node::is_resting)
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.device_anywhere(key).await
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        self.swap_device_somewhere(key, seen, next, ttl).await
    }

    fn retry_window(&self, key: &SessionKey) -> Duration {
        let replicas = self.replicas(key.as_str());
        let patience = |failing: bool| {
            let asked =
                replicas.iter().map(|replica| &replica.handle.node).filter(|member| member.is_failing() == failing);
            asked.map(Node::retry_window).max()
        };
        // Where none fails, one did a moment ago.
        patience(true).or_else(|| patience(false)).unwrap_or_default()
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let handle = Arc::clone(self.layout.load().first(key.as_str()));
        handle.monitor.observe(Operation::IssueTicket, handle.node.issue_ticket(key, value, ttl), always).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let handles = self.layout.load().first_and_former(key.as_str(), Instant::now());
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

    /// On the first server that answers, see `increment_counter`.
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        self.increment_counter(key, window).await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        self.count_of(key).await
    }

    async fn counter_decr(&self, key: &CounterKey, increment_counter: &Count) -> Result<(), StoreError> {
        self.take_back(key, increment_counter).await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.forget_counts(key).await
    }

    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        listing::list(&self.layout.load_full(), user, limit).await
    }

    /// Whether any server answers: an edge that has lost some of its sessions still serves the others.
    async fn ping(&self) -> Result<(), StoreError> {
        let handles = self.layout.load().handles.clone();
        let answered = join_all(handles.iter().map(async |handle| {
            handle.monitor.observe(Operation::Ping, handle.node.ping(), always).await.map(|()| true)
        }));
        one_of(answered.await).map(drop)
    }

    /// Of the server that was heard of last.
    fn unavailable_for(&self) -> Duration {
        self.layout.load().handles.iter().map(|handle| handle.monitor.unavailable_for()).min().unwrap_or_default()
    }
}

/// True when any server said so; an error when none gave an answer.
fn one_of(outcomes: Vec<Result<bool, StoreError>>) -> Result<bool, StoreError> {
    let mut answer = Err(StoreError::TimedOut);
    for outcome in outcomes {
        answer = match (answer, outcome) {
            (Ok(before), Ok(now)) => Ok(before || now),
            (Ok(before), Err(_)) => Ok(before),
            (Err(_), outcome) => outcome,
        };
    }
    answer
}
