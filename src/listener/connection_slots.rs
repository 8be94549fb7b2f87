//! Places for connections: so many in all. Where all are taken, a connection that is idle is given up for a new one, as
//! nginx does: else a client that opens connections and sends nothing keeps all others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::client_prefix::ClientPrefix;
use crate::proxy::{IdleSince, Seat};
use crate::quota::Permit;

/// How many idle connections one look at all of them finds.
const FOUND_AT_ONCE: usize = 64;
/// After a look that found none, the next one, for each connection that it looks at: 40 ms with 20,000 of them. So a crowd
/// that finds no place has little done for it.
const LOOK_AGAIN: Duration = Duration::from_micros(2);

/// New connections that wait for a place at once, and for how long: one that is used all the time is idle for moments, and
/// is not to be given up in such a moment.
const WAITING: usize = 64;
const WAIT: Duration = Duration::from_millis(20);
const WAITS: usize = 10;

/// When an idle connection may be given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One that has never asked for anything: time for a handshake and a first request.
    pub first: Duration,
    /// One that has.
    pub next: Duration,
}

impl Patience {
    pub const OF_CLIENTS: Self = Self { first: Duration::from_secs(2), next: Duration::from_millis(100) };
    /// Of operators, who send a whole request at once.
    pub const NONE: Self = Self { first: Duration::ZERO, next: Duration::ZERO };

    /// The least goes first: one that has never asked for anything, where it had time for it, and else one that has been
    /// served; then the longest idle.
    fn order(self, idle: IdleSince) -> (bool, Instant) {
        (idle.has_asked != self.first.is_zero(), idle.since)
    }

    fn is_over(self, idle: IdleSince, now: Instant) -> bool {
        now.saturating_duration_since(idle.since) >= if idle.has_asked { self.next } else { self.first }
    }
}

pub struct Seats {
    free: Arc<Semaphore>,
    patience: Patience,
    taken: Mutex<Taken>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Taken {
    connections: HashMap<u64, Arc<Sitting>>,
    next: u64,
    /// Idle ones, the first to go last; some of them may have become busy since.
    idle: Vec<Arc<Sitting>>,
    /// When there was none.
    barren: Option<Instant>,
}

/// A connection and what it holds, which passes to another when it is given up.
struct Sitting {
    seat: Arc<Seat>,
    /// Whose it is, where that is known from the start.
    network: ClientPrefix,
    held: Mutex<Option<Held>>,
}

struct Held {
    permit: OwnedSemaphorePermit,
    place: Option<Permit<ClientPrefix>>,
}

/// A connection's place, for as long as it is kept.
pub struct Taking {
    seats: Arc<Seats>,
    number: u64,
    sitting: Arc<Sitting>,
    /// Whether another was given up for it.
    pub in_anothers_place: bool,
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seats {
    pub fn new(most: usize, patience: Patience) -> Self {
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { free, patience, taken: Mutex::default(), waiting: Semaphore::new(WAITING) }
    }

    /// For a new connection; `None` when all are taken by connections that are used.
    pub fn take(self: &Arc<Self>, network: ClientPrefix) -> Option<Taking> {
        let free = Arc::clone(&self.free).try_acquire_owned().ok();
        let in_anothers_place = free.is_none();
        let mut taken = locked(&self.taken);
        let permit = match free {
            Some(permit) => permit,
            None => taken.give_up_idle(self.patience)?.permit,
        };
        let held = Mutex::new(Some(Held { permit, place: None }));
        let sitting = Arc::new(Sitting { seat: Arc::default(), network, held });
        let number = taken.next;
        taken.next += 1;
        taken.connections.insert(number, Arc::clone(&sitting));
        drop(taken);
        Some(Taking { seats: Arc::clone(self), number, sitting, in_anothers_place })
    }

    /// The same; waits a moment for one, unless too many do already.
    pub async fn wait(self: &Arc<Self>, network: ClientPrefix) -> Option<Taking> {
        if self.patience.first.is_zero() {
            // There is no moment in which an idle connection is kept.
            return None;
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        for _ in 0..WAITS {
            tokio::time::sleep(WAIT).await;
            if let Some(taking) = self.take(network) {
                return Some(taking);
            }
        }
        None
    }

    /// Gives up an idle connection of a client for this one, and with it the share that it holds; answers whether there was
    /// one. Looks at all connections: for listeners that have few.
    pub fn give_up_of(&self, network: ClientPrefix, but: &Taking) -> bool {
        let taken = locked(&self.taken);
        let of_client = taken.connections.iter().filter(|(number, sitting)| {
            // One that was accepted and has no share yet would give none back.
            let has_share = || locked(&sitting.held).as_ref().is_some_and(|held| held.place.is_some());
            sitting.network == network && **number != but.number && has_share()
        });
        let mut idle: Vec<_> = of_client.filter_map(|(_, sitting)| Some((sitting.seat.idle()?, sitting))).collect();
        idle.sort_by_key(|(idle, _)| self.patience.order(*idle));
        let given_up = idle.into_iter().find(|(_, sitting)| sitting.seat.give_up());
        // With its permit: it is over, though its task may not know yet.
        given_up.is_some_and(|(_, sitting)| locked(&sitting.held).take().is_some())
    }
}

impl Taken {
    fn give_up_idle(&mut self, patience: Patience) -> Option<Held> {
        // What the last look found may all be gone or used since.
        self.give_up_found(patience).or_else(|| {
            self.look(patience);
            self.give_up_found(patience)
        })
    }

    fn give_up_found(&mut self, patience: Patience) -> Option<Held> {
        let now = Instant::now();
        while let Some(sitting) = self.idle.pop() {
            if sitting.seat.idle().is_some_and(|idle| patience.is_over(idle, now))
                && sitting.seat.give_up()
                && let Some(held) = locked(&sitting.held).take()
            {
                return Some(held);
            }
        }
        None
    }

    /// Finds some of those that are to go first.
    fn look(&mut self, patience: Patience) {
        let now = Instant::now();
        let pause = LOOK_AGAIN.saturating_mul(u32::try_from(self.connections.len()).unwrap_or(u32::MAX));
        if self.barren.is_some_and(|barren| now.saturating_duration_since(barren) < pause) {
            return;
        }
        let all = self.connections.values().filter_map(|sitting| Some((sitting.seat.idle()?, sitting)));
        let mut idle: Vec<_> = all.filter(|(idle, _)| patience.is_over(*idle, now)).collect();
        if idle.len() > FOUND_AT_ONCE {
            idle.select_nth_unstable_by_key(FOUND_AT_ONCE, |(idle, _)| patience.order(*idle));
            idle.truncate(FOUND_AT_ONCE);
        }
        idle.sort_unstable_by_key(|(idle, _)| std::cmp::Reverse(patience.order(*idle)));
        self.idle = idle.into_iter().map(|(_, sitting)| Arc::clone(sitting)).collect();
        self.barren = self.idle.is_empty().then_some(now);
    }
}

impl Taking {
    pub fn seat(&self) -> &Arc<Seat> {
        &self.sitting.seat
    }

    /// What the connection holds of its client's share, given back with the rest.
    pub fn holds(&self, place: Option<Permit<ClientPrefix>>) {
        if let Some(held) = &mut *locked(&self.sitting.held) {
            held.place = place;
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        locked(&self.seats.taken).connections.remove(&self.number);
        // It may stand among the idle ones still, and is not to be given up there for a place that it has not.
        locked(&self.sitting.held).take();
        self.sitting.seat.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn network(last: u8) -> ClientPrefix {
        ClientPrefix::of([192, 0, 2, last].into())
    }

    fn take(seats: &Arc<Seats>, last: u8) -> Option<Taking> {
        seats.take(network(last))
    }

    /// Has asked for something.
    fn ask(taking: &Taking) {
        drop(taking.seat().busy().unwrap());
    }

    fn is_given_up(taking: &Taking) -> bool {
        taking.seat().begin().inspect(|()| taking.seat().end()).is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_never_asked_goes_first_and_then_who_has_been_idle_for_the_longest() {
        let seats = Arc::new(Seats::new(4, Patience::OF_CLIENTS));
        let mut open = Vec::new();
        for last in 0..4 {
            open.push(take(&seats, last).unwrap());
            tokio::time::advance(SECOND).await;
            if last < 3 {
                ask(&open[usize::from(last)]);
            }
        }
        ask(&open[0]);
        open[2].seat().begin().unwrap();
        tokio::time::advance(SECOND * 2).await;
        let order = [3, 1, 0].map(|expected: usize| {
            let newcomer = take(&seats, 9).unwrap();
            newcomer.seat().begin().unwrap();
            assert!(newcomer.in_anothers_place);
            (is_given_up(&open[expected]), newcomer)
        });
        assert!(order.iter().all(|(gone, _)| *gone));
        assert!(take(&seats, 9).is_none(), "all are used");
        open[2].seat().end();
        assert!(take(&seats, 9).is_none(), "for a moment");
        tokio::time::advance(SECOND).await;
        assert!(take(&seats, 9).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_waits_a_moment_for_one_that_is_idle() {
        let seats = Arc::new(Seats::new(1, Patience::OF_CLIENTS));
        let first = take(&seats, 1).unwrap();
        assert!(seats.wait(network(2)).await.is_none(), "its first request is expected");
        ask(&first);
        assert!(take(&seats, 2).is_none());
        assert!(seats.wait(network(2)).await.is_some_and(|taking| taking.in_anothers_place));
        assert!(is_given_up(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn without_patience_a_new_connection_goes_after_those_that_were_served() {
        let seats = Arc::new(Seats::new(2, Patience::NONE));
        let (new, served) = (take(&seats, 1).unwrap(), take(&seats, 1).unwrap());
        tokio::time::advance(SECOND).await;
        ask(&served);
        assert!(take(&seats, 2).is_some_and(|taking| taking.in_anothers_place));
        assert!(is_given_up(&served) && !is_given_up(&new));
    }

    #[test]
    fn there_are_never_more_than_there_are_places() {
        let seats = Arc::new(Seats::new(10, Patience::NONE));
        let mut open: Vec<Taking> = Vec::new();
        for round in 0..500_usize {
            if let Some(taking) = take(&seats, round as u8) {
                if round % 3 == 0 {
                    taking.seat().begin().unwrap();
                }
                open.push(taking);
            }
            if round % 4 == 0 && !open.is_empty() {
                drop(open.swap_remove(round % open.len()));
            }
            let holding = open.iter().filter(|taking| locked(&taking.sitting.held).is_some()).count();
            assert_eq!(holding + seats.free.available_permits(), 10, "round {round}");
        }
        drop(open);
        assert_eq!(seats.free.available_permits(), 10);
        assert!(locked(&seats.taken).connections.is_empty());
    }

    #[test]
    fn a_client_may_give_up_its_own_and_nobody_elses() {
        let (seats, crowd) = (Arc::new(Seats::new(10, Patience::NONE)), Arc::new(crate::quota::Quota::default()));
        let placed = |last: u8| {
            let taking = take(&seats, last).unwrap();
            taking.holds(crowd.acquire(network(last), 2));
            taking
        };
        let (unplaced, own, other, new) = (take(&seats, 1).unwrap(), placed(1), placed(2), placed(1));
        assert!(crowd.acquire(network(1), 2).is_none());
        assert!(seats.give_up_of(network(1), &new));
        assert!(crowd.acquire(network(1), 2).is_some(), "its share is free");
        assert!(is_given_up(&own) && !is_given_up(&other) && !is_given_up(&new));
        assert!(!is_given_up(&unplaced), "it has no share that it could give back");
        new.seat().begin().unwrap();
        assert!(!seats.give_up_of(network(2), &other) && !seats.give_up_of(network(1), &own));
    }
}
