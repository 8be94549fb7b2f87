//! Whether a client connection is in use, or idle, so that it may be evicted to make room for another.
//!
//! The connection records when requests begin and end, which costs one atomic operation each; the listener, when its limit
//! is reached, evicts the one that has been idle for the longest. Both decide on the same atomic, so that no
//! connection is evicted during a request, and no request begins on an evicted connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// The connection was evicted. This state is final.
const EVICTED: u64 = u64::MAX;
/// Idle; the lower bits hold since when, in milliseconds after `opened`. Without this bit the value is the number of
/// requests in progress.
const IDLE: u64 = 1 << 63;
/// Idle, and it has had a request before.
const HAD_REQUEST: u64 = 1 << 62;

/// The idle state of one client connection.
#[derive(Debug)]
pub struct IdleTracker {
    opened: Instant,
    state: AtomicU64,
    /// Wakes the connection's task when it is evicted.
    waker: AtomicWaker,
}

/// Since when a connection is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleSince {
    /// Whether it has had a request before.
    pub had_request: bool,
    pub since: Instant,
}

/// The connection was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted;

/// A request in progress; it ends when this is dropped.
pub struct RequestGuard<'a>(&'a IdleTracker);

impl Default for IdleTracker {
    /// Creates the state of a connection that has not had a request yet.
    fn default() -> Self {
        Self { opened: Instant::now(), state: AtomicU64::new(IDLE), waker: AtomicWaker::new() }
    }
}

impl IdleTracker {
    /// A request begins. Over HTTP/2 there may be several at once.
    pub fn begin(&self) -> Result<(), Evicted> {
        let begun = |state| match state {
            EVICTED => None,
            idle if idle & IDLE != 0 => Some(1),
            requests => Some(requests + 1),
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, begun).map(drop).map_err(|_| Evicted)
    }

    /// A request ends. Does nothing where none has begun.
    pub fn end(&self) {
        let since = IDLE | HAD_REQUEST | self.opened.elapsed().as_millis() as u64;
        let ended = |state: u64| match state {
            idle if idle & IDLE != 0 => None,
            1 => Some(since),
            requests => Some(requests - 1),
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, ended).ok();
    }

    /// Begins a request that ends when the guard is dropped.
    pub fn track_request(&self) -> Result<RequestGuard<'_>, Evicted> {
        self.begin().map(|()| RequestGuard(self))
    }

    /// Returns since when the connection is idle; `None` while it is in use.
    pub fn idle(&self) -> Option<IdleSince> {
        let state = self.state.load(Ordering::Acquire);
        let is_idle = state != EVICTED && state & IDLE != 0;
        let since = self.opened + Duration::from_millis(state & !(IDLE | HAD_REQUEST));
        is_idle.then_some(IdleSince { had_request: state & HAD_REQUEST != 0, since })
    }

    /// Evicts the connection if it is idle; returns whether it was.
    pub fn evict(&self) -> bool {
        let given_up = |state: u64| (state != EVICTED && state & IDLE != 0).then_some(EVICTED);
        let is_given_up = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, given_up).is_ok();
        if is_given_up {
            self.waker.wake();
        }
        is_given_up
    }

    /// Returns the output of `future`; `None` when the connection is evicted before.
    pub async fn run_until_evicted<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_evicted(context).map(|()| None),
        })
        .await
    }

    /// Is ready once the connection was evicted, which wakes the task.
    pub fn poll_evicted(&self, context: &Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.state.load(Ordering::Acquire) == EVICTED { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_until_a_request_comes_and_from_its_end_on() {
        let idle_tracker = IdleTracker::default();
        let opened = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(idle_tracker.idle(), Some(IdleSince { had_request: false, since: opened }));
        tokio::time::advance(second).await;
        idle_tracker.begin().unwrap();
        assert!(idle_tracker.idle().is_none() && !idle_tracker.evict(), "no request is broken off");
        idle_tracker.begin().unwrap();
        idle_tracker.end();
        assert_eq!(idle_tracker.idle(), None, "one of two is under way");
        idle_tracker.end();
        assert_eq!(idle_tracker.idle(), Some(IdleSince { had_request: true, since: opened + second }));
        tokio::time::advance(second).await;
        idle_tracker.end();
        assert_eq!(idle_tracker.idle().unwrap().since, opened + second, "an end too many does no harm");
        drop(idle_tracker.track_request().unwrap());
        assert_eq!(idle_tracker.idle().unwrap().since, opened + second * 2);
    }

    #[test]
    fn nothing_begins_on_a_connection_that_was_given_up() {
        let idle_tracker = IdleTracker::default();
        let context = Context::from_waker(Waker::noop());
        assert!(idle_tracker.poll_evicted(&context).is_pending());
        assert!(idle_tracker.evict() && !idle_tracker.evict());
        assert!(idle_tracker.poll_evicted(&context).is_ready());
        assert_eq!((idle_tracker.begin(), idle_tracker.idle()), (Err(Evicted), None));
        idle_tracker.end();
        assert!(idle_tracker.track_request().is_err());
    }

    #[test]
    fn either_a_request_begins_or_its_connection_is_given_up() {
        for _ in 0..1000 {
            let idle_tracker = IdleTracker::default();
            let (begun, given_up) = std::thread::scope(|scope| {
                let begun = scope.spawn(|| idle_tracker.begin().is_ok());
                let given_up = scope.spawn(|| idle_tracker.evict());
                (begun.join().unwrap(), given_up.join().unwrap())
            });
            assert!(begun != given_up, "{begun} {given_up}");
        }
    }
}
