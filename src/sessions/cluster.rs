//! One store of several servers: a consistent hash says which of them a key lies on (`ring`), and each session may
//! lie on more than one (`copies`), so that a server that dies, is cut off or comes back empty logs nobody out.
//!
//! A session is written to all its servers and asked of all of them, because a server that was cut off during a
//! logout still holds a living copy: only who asks the others as well learns that it is a ghost. What follows from
//! their words is decided in `judgement`; `mending` sees to it that they come to know the same.
//!
//! What must happen once, such as the redemption of a ticket, is decided by one server alone, the first for its key.
//! Who issues a ticket while that server is away takes another ticket.

mod judgement;
mod layout;
mod listing;
pub mod member;
mod mending;
pub mod ring;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::Instant;

use self::judgement::{Mend, Word, judge};
use self::layout::{Layout, Owner, Seat};
use self::member::Member;
use self::mending::{Mending, Pauses};
use super::observed::{Operation, always};
use super::{
    CounterKey, Found, Held, Listing, Redemption, SessionKey, SessionRecord, SessionStore, StoreError, TicketKey,
    Tombstone,
};
use crate::clock::{Clock, UnixTime};
use crate::metrics::StoreMetrics;

pub use self::layout::Server;

/// Servers that a counter may be kept on: the first for its key and, while that is away, the next.
const COUNTER_PLACES: usize = 2;

pub struct Cluster<M> {
    layout: ArcSwap<Layout<M>>,
    clock: Clock,
    metrics: StoreMetrics,
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
        let layout = Layout::new(servers, copies, metrics, connect)?;
        Ok(Self {
            layout: ArcSwap::from_pointee(layout),
            mending: Mending::new(clock.clone(), Pauses::default(), metrics.clone()),
            clock,
            metrics: metrics.clone(),
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
        let next = self.layout.load_full().next(servers, copies, &self.metrics, connect, Instant::now(), keep)?;
        self.layout.store(Arc::new(next));
        Ok(())
    }

    fn owners(&self, key: &str) -> Vec<Owner<M>> {
        self.layout.load().owners(key, Instant::now())
    }

    async fn look_up(seat: &Seat<M>, key: &SessionKey, slide: Option<Duration>) -> Result<Option<Held>, StoreError> {
        let lives = |held: &Option<Held>| matches!(held, Some(Held::Session(_)));
        seat.watcher.watch(Operation::Find, seat.member.look_up(key, slide), lives).await
    }

    /// Of several servers, what all their words come to.
    async fn confer(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let owners = self.owners(key.as_str());
        let words = join_all(owners.iter().map(async |owner| {
            let said = Self::look_up(&owner.seat, key, slide.filter(|_| owner.belongs)).await;
            let silent_for = if said.is_ok() { Duration::ZERO } else { owner.seat.member.silent_for() };
            Word { said, silent_for, belongs: owner.belongs }
        }));
        let words = words.await;
        let judgement = judge(&words);
        self.mend(&owners, &words, key, slide, &judgement.found, judgement.mend);
        judgement.found
    }

    fn mend(
        &self,
        owners: &[Owner<M>],
        words: &[Word],
        key: &SessionKey,
        slide: Option<Duration>,
        found: &Result<Found, StoreError>,
        mend: Mend,
    ) {
        match (mend, found, slide) {
            // Without a slide it is not known how long the session may still idle.
            (Mend::Copy(places), Ok(Found::Lives(record)), Some(ttl)) => {
                for place in places {
                    self.mending.copy(Arc::clone(&owners[place].seat), key, record, ttl);
                }
            }
            // The slide has shortened the life of the tombstones that it met.
            (Mend::Bury(tombstone, _), _, Some(_)) => {
                for (owner, _) in owners.iter().zip(words).filter(|(_, word)| word.said.is_ok()) {
                    self.mending.bury(Arc::clone(&owner.seat), key, tombstone);
                }
            }
            (Mend::Bury(tombstone, places), _, None) => {
                for place in places {
                    self.mending.bury(Arc::clone(&owners[place].seat), key, tombstone);
                }
            }
            _ => {}
        }
    }

    /// Counts where the counter lies or, while that server gives no answer, on the next. Then a count begins anew,
    /// which a guesser cannot bring about; and nobody is kept from signing in because one server is down.
    async fn count<T, F>(
        &self,
        operation: Operation,
        key: &CounterKey,
        ask: impl Fn(Arc<Seat<M>>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let candidates = self.layout.load().candidates(key.as_str(), COUNTER_PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        for seat in candidates {
            outcome = seat.watcher.watch(operation, ask(Arc::clone(&seat)), always).await;
            if !outcome.as_ref().is_err_and(StoreError::is_silence) {
                break;
            }
        }
        outcome
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

    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let layout = self.layout.load_full();
        let Some(seat) = layout.only_owner(key.as_str()) else { return self.confer(key, slide).await };
        Ok(match Self::look_up(seat, key, slide).await? {
            None => Found::Missing,
            Some(Held::Session(record)) => Found::Lives(record),
            Some(Held::Ended(tombstone)) => {
                if slide.is_some() {
                    self.mending.bury(Arc::clone(seat), key, tombstone);
                }
                Found::Ended
            }
        })
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        let owners = self.owners(key.as_str());
        let written = join_all(owners.iter().map(async |Owner { seat, .. }| {
            seat.watcher
                .watch(Operation::RecordAccess, seat.member.record_access(key, now, ttl), |written| *written)
                .await
        }));
        one_of(written.await)
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
        if outcome.is_ok() {
            for (owner, _) in owners.iter().zip(&buried).filter(|(_, outcome)| outcome.is_err()) {
                self.mending.owe(Arc::clone(&owner.seat), key, tombstone);
            }
        }
        outcome
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

    async fn add_failure(&self, key: &CounterKey, window: Duration) -> Result<u64, StoreError> {
        self.count(Operation::AddFailure, key, async |seat| seat.member.add_failure(key, window).await).await
    }

    async fn take_back_failure(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.count(Operation::TakeBackFailure, key, async |seat| seat.member.take_back_failure(key).await).await
    }

    async fn forget_failures(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.count(Operation::ForgetFailures, key, async |seat| seat.member.forget_failures(key).await).await
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
