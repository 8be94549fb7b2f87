//! Whether a client's connection is being used, or idle and may be given up so that another has its place.
//!
//! The connection says when requests begin and end, which costs one atomic operation each; the listener, when it has no
//! place left, looks for the one that has been idle for the longest. Both decide on the same atomic, so that no
//! connection is given up under a request, and none begins on a connection that was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// Given up for another. Nothing leads back.
const GIVEN_UP: u64 = u64::MAX;
/// Idle; the milliseconds of `opened` since when are in the lower bits. Without this bit: so many requests under way.
const IDLE: u64 = 1 << 63;
/// Idle, and it has had a request before.
const HAS_ASKED: u64 = 1 << 62;

/// A place among all connections.
#[derive(Debug)]
pub struct Seat {
    opened: Instant,
    state: AtomicU64,
    /// Of the connection's task, while it is idle.
    waker: AtomicWaker,
}

/// How a connection is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleSince {
    /// Whether it has had a request before.
    pub has_asked: bool,
    pub since: Instant,
}

/// The connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp;

/// One request; ended when this is dropped.
pub struct Busy<'a>(&'a Seat);

impl Default for Seat {
    /// Creates the state of a connection that has not had a request yet.
    fn default() -> Self {
        Self { opened: Instant::now(), state: AtomicU64::new(IDLE), waker: AtomicWaker::new() }
    }
}

impl Seat {
    /// A request has come. Over HTTP/2 there may be several at once.
    pub fn begin(&self) -> Result<(), GivenUp> {
        let begun = |state| match state {
            GIVEN_UP => None,
            idle if idle & IDLE != 0 => Some(1),
            requests => Some(requests + 1),
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, begun).map(drop).map_err(|_| GivenUp)
    }

    /// A request is over. Does nothing where none has begun.
    pub fn end(&self) {
        let since = IDLE | HAS_ASKED | self.opened.elapsed().as_millis() as u64;
        let ended = |state: u64| match state {
            idle if idle & IDLE != 0 => None,
            1 => Some(since),
            requests => Some(requests - 1),
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, ended).ok();
    }

    /// The same for as long as something is kept.
    pub fn busy(&self) -> Result<Busy<'_>, GivenUp> {
        self.begin().map(|()| Busy(self))
    }

    /// Whether it is idle, and since when.
    pub fn idle(&self) -> Option<IdleSince> {
        let state = self.state.load(Ordering::Acquire);
        let is_idle = state != GIVEN_UP && state & IDLE != 0;
        let since = self.opened + Duration::from_millis(state & !(IDLE | HAS_ASKED));
        is_idle.then_some(IdleSince { has_asked: state & HAS_ASKED != 0, since })
    }

    /// Gives it up if it is idle; answers whether it was.
    pub fn give_up(&self) -> bool {
        let given_up = |state: u64| (state != GIVEN_UP && state & IDLE != 0).then_some(GIVEN_UP);
        let is_given_up = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, given_up).is_ok();
        if is_given_up {
            self.waker.wake();
        }
        is_given_up
    }

    /// What becomes of `future`; `None` when the connection is given up before.
    pub async fn unless_given_up<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_given_up(context).map(|()| None),
        })
        .await
    }

    /// Ready when it was given up. Its task is woken then.
    pub fn poll_given_up(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.state.load(Ordering::Acquire) == GIVEN_UP { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_until_it_is_asked_for_something_and_from_its_end_on() {
        let seat = Seat::default();
        let opened = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(seat.idle(), Some(IdleSince { has_asked: false, since: opened }));
        tokio::time::advance(second).await;
        seat.begin().unwrap();
        assert!(seat.idle().is_none() && !seat.give_up(), "no request is broken off");
        seat.begin().unwrap();
        seat.end();
        assert_eq!(seat.idle(), None, "one of two is under way");
        seat.end();
        assert_eq!(seat.idle(), Some(IdleSince { has_asked: true, since: opened + second }));
        tokio::time::advance(second).await;
        seat.end();
        assert_eq!(seat.idle().unwrap().since, opened + second, "an end too many does no harm");
        drop(seat.busy().unwrap());
        assert_eq!(seat.idle().unwrap().since, opened + second * 2);
    }

    #[test]
    fn nothing_begins_on_a_connection_that_was_given_up() {
        let seat = Seat::default();
        let context = Context::from_waker(Waker::noop());
        assert!(seat.poll_given_up(&context).is_pending());
        assert!(seat.give_up() && !seat.give_up());
        assert!(seat.poll_given_up(&context).is_ready());
        assert_eq!((seat.begin(), seat.idle()), (Err(GivenUp), None));
        seat.end();
        assert!(seat.busy().is_err());
    }

    #[test]
    fn either_a_request_begins_or_its_connection_is_given_up() {
        for _ in 0..1000 {
            let seat = Seat::default();
            let (begun, given_up) = std::thread::scope(|scope| {
                let begun = scope.spawn(|| seat.begin().is_ok());
                let given_up = scope.spawn(|| seat.give_up());
                (begun.join().unwrap(), given_up.join().unwrap())
            });
            assert!(begun != given_up, "{begun} {given_up}");
        }
    }
}
