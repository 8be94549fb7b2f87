//! One store of several servers: a consistent hash says which of them a key lies on (`ring`), and each session may
//! lie on more than one (`copies`), so that a server that dies, is cut off or comes back empty logs nobody out.
//!
//! A session is written to all its servers and asked of all of them, because a server that was cut off during a
//! logout still holds a living copy: only who asks the others as well learns that it is a ghost. What follows from
//! their words is decided in `judgement`; `mending` sees to it that they come to know the same.
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

use super::instrumented::{Operation, Watchers, always};
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey, Tombstone,
};
use crate::clock::{Clock, UnixTime};
use crate::metrics::StoreMetrics;
use hints::{Debt, Debts};
use layout::{Layout, Owner};
use node::Member;
use repair::{Mending, Pauses};
use resolve::PATIENCE;

pub use layout::{Former, Server};

pub struct Cluster<M> {
    layout: ArcSwap<Layout<M>>,
    clock: Clock,
    metrics: StoreMetrics,
    watchers: Watchers,
    mending: Mending,
}

impl<M: Member> Cluster<M> {
    /// `servers` must not be empty. Each session lies on `copies` of them, or on all when there are fewer.
    pub fn new<E>(
        servers: &[Server],
        copies: usize,
        clock: Clock,
        metrics: &StoreMetrics,
        connect: impl FnMut(&Server) -> Result<M, E>,
    ) -> Result<Self, E> {
        let watchers = Watchers::new(metrics, &clock);
        let layout = Layout::new(servers, copies, &watchers, connect)?;
        Ok(Self {
            layout: ArcSwap::from_pointee(layout),
            mending: Mending::new(clock.clone(), Pauses::default(), metrics.clone()),
            clock,
            metrics: metrics.clone(),
            watchers,
        })
    }

    /// Takes up another list of servers. Those that stay keep their connections; what lies where it belonged
    /// before is found there for `keep`, the longest that a session may idle.
    pub fn rearrange<E>(
        &self,
        servers: &[Server],
        copies: usize,
        keep: Duration,
        connect: impl FnMut(&Server) -> Result<M, E>,
    ) -> Result<(), E> {
        let next = self.layout.load_full().next(servers, copies, &self.watchers, connect, Instant::now(), keep)?;
        self.layout.store(Arc::new(next));
        Ok(())
    }

    /// Has these former lists asked as well, as after changes that this process has not seen.
    pub fn remember<E>(&self, former: &[Former], connect: impl FnMut(&Server) -> Result<M, E>) -> Result<(), E> {
        let layout = self.layout.load_full().after(former, &self.watchers, connect, Instant::now())?;
        self.layout.store(Arc::new(layout));
        Ok(())
    }

    /// Takes up what another process has left to be told. Until it is, those sessions are found ended here. Servers that
    /// are in no list any more hold nothing that would be asked for. Answers whether there was room; else nothing was taken up.
    pub fn resume(&self, debts: Vec<Debt>) -> bool {
        if debts.is_empty() {
            return true;
        }
        let seats = self.layout.load().everybody(Instant::now());
        let seat_of = |debt: &Debt| seats.iter().find(|seat| seat.name == debt.server);
        let is_new =
            |debt: &&Debt| seat_of(debt).is_some() && self.debts().until(&debt.session, &debt.server).is_none();
        if debts.iter().filter(is_new).count() > self.debts().room() {
            return false;
        }
        for debt in &debts {
            if let Some(seat) = seat_of(debt) {
                self.mending.owe(Arc::clone(seat), &debt.session, Tombstone { until: debt.until });
            }
        }
        true
    }

    /// Which servers have yet to hear of which ends.
    pub fn debts(&self) -> &Debts {
        self.mending.debts()
    }

    fn owners(&self, key: &str) -> Vec<Owner<M>> {
        self.layout.load().owners(key, Instant::now())
    }
}

#[async_trait]
impl<M: Member> SessionStore for Cluster<M> {
    /// Stored when one server has it; the others get theirs when it is first asked for.
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        let owners = self.owners(key.as_str());
        let stored = join_all(owners.iter().map(async |Owner { seat, .. }| {
            seat.watcher.watch(Operation::Insert, seat.member.add(key, record, ttl), |stored| *stored).await
        }));
        let taken = StoreError::Garbled { cause: "a new session's key is in use".into() };
        one_of(stored.await).and_then(|stored| if stored { Ok(()) } else { Err(taken) })
    }

    /// A lost packet or a starved moment is no outage: the look-up that meets it first is sent once more. From the second
    /// failure in a row on the server is left alone, so an outage costs a request two timeouts at most.
    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        if self.mending.owes(key) {
            return Ok(Found::Ended);
        }
        match self.find_once(key, slide).await {
            // Rare, and large.
            Err(error) if error.is_silence() && !self.is_out(key) => Box::pin(self.find_once(key, slide)).await,
            answer => answer,
        }
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        if self.mending.owes(key) {
            return Ok(false);
        }
        let owners = self.owners(key.as_str());
        let written = join_all(owners.iter().map(async |Owner { seat, .. }| {
            seat.watcher
                .watch(Operation::RecordAccess, seat.member.record_access(key, now, ttl), |written| *written)
                .await
        }));
        one_of(written.await)
    }

    /// Whoever renews has asked all servers before whether it lives; a tombstone that comes in between outweighs this.
    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        if self.mending.owes(key) {
            return Ok(false);
        }
        let owners = self.owners(key.as_str());
        let renewed = join_all(owners.iter().filter(|owner| owner.belongs).map(async |Owner { seat, .. }| {
            seat.watcher.watch(Operation::Renew, seat.member.renew(key, record, ttl), |renewed| *renewed).await
        }));
        one_of(renewed.await)
    }

    /// Ended when one server has the tombstone: whoever can reach that one knows. The others are told as soon as
    /// they are back.
    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        let tombstone = Tombstone { until };
        let ttl = tombstone.ttl(self.clock.now());
        let owners = self.owners(key.as_str());
        let buried = join_all(owners.iter().map(async |Owner { seat, .. }| {
            seat.watcher.watch(Operation::End, seat.member.bury(key, tombstone, ttl), always).await
        }));
        let buried = buried.await;
        // One that is only asked for a while is no witness: it is told, and does not count.
        let present = owners.iter().zip(&buried).filter(|(owner, _)| owner.belongs);
        let outcome = one_of(present.map(|(_, outcome)| outcome.clone().map(|()| true)).collect()).map(drop);
        // Where no server took it as well: until they have, this process itself finds the session ended.
        for (owner, _) in owners.iter().zip(&buried).filter(|(_, outcome)| outcome.is_err()) {
            self.mending.owe(Arc::clone(&owner.seat), key, tombstone);
            if owner.belongs && outcome.is_ok() {
                self.metrics.half_heard.with_label_values(&[&owner.seat.name]).inc();
                log::warn!(
                    "session store {}: has not heard that a session ended; an edge that reaches this server alone goes on \
                     with it until it has",
                    owner.seat.name
                );
            }
        }
        outcome
    }

    fn owes(&self, key: &SessionKey) -> bool {
        self.mending.owes(key)
    }

    fn is_half_heard(&self, key: &SessionKey) -> bool {
        let may_come_back = |owner: &Owner<M>| owner.belongs && owner.seat.member.silent_for() < PATIENCE;
        let is_owed = |owner: &Owner<M>| self.debts().until(key, &owner.seat.name).is_some();
        self.owes(key) && self.owners(key.as_str()).iter().any(|owner| may_come_back(owner) && is_owed(owner))
    }

    fn is_out(&self, key: &SessionKey) -> bool {
        let owners = self.owners(key.as_str());
        let mut silent = owners.iter().map(|owner| &owner.seat.member).filter(|member| member.is_failing()).peekable();
        silent.peek().is_some() && silent.all(Member::is_resting)
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

    fn patience(&self, key: &SessionKey) -> Duration {
        let owners = self.owners(key.as_str());
        let patience = |failing: bool| {
            let asked = owners.iter().map(|owner| &owner.seat.member).filter(|member| member.is_failing() == failing);
            asked.map(Member::patience).max()
        };
        // Where none fails, one did a moment ago.
        patience(true).or_else(|| patience(false)).unwrap_or_default()
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        let seat = Arc::clone(self.layout.load().first(key.as_str()));
        seat.watcher.watch(Operation::IssueTicket, seat.member.issue_ticket(key, value, ttl), always).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let seats = self.layout.load().first_and_former(key.as_str(), Instant::now());
        let won = |redemption: &Redemption| matches!(redemption, Redemption::Won(_));
        for seat in seats {
            let redeemed = seat.member.redeem_ticket(key, remember);
            match seat.watcher.watch(Operation::RedeemTicket, redeemed, won).await? {
                Redemption::Unknown => {}
                known => return Ok(known),
            }
        }
        Ok(Redemption::Unknown)
    }

    /// On the first server that answers, see `counted`.
    async fn add_failure(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        self.counted(key, window).await
    }

    async fn failures(&self, key: &CounterKey) -> Result<Count, StoreError> {
        self.count_of(key).await
    }

    async fn take_back_failure(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        self.take_back(key, counted).await
    }

    async fn forget_failures(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.forget_counts(key).await
    }

    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        listing::list(&self.layout.load_full(), user, limit).await
    }

    /// Whether any server answers: an edge that has lost some of its sessions still serves the others.
    async fn ping(&self) -> Result<(), StoreError> {
        let seats = self.layout.load().seats.clone();
        let answered =
            join_all(seats.iter().map(async |seat| {
                seat.watcher.watch(Operation::Ping, seat.member.ping(), always).await.map(|()| true)
            }));
        one_of(answered.await).map(drop)
    }

    /// Of the server that was heard of last.
    fn silent_for(&self) -> Duration {
        self.layout.load().seats.iter().map(|seat| seat.watcher.silent_for()).min().unwrap_or_default()
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
