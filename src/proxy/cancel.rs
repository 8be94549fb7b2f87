//! Cancels a request from outside, even while it waits for bytes: a future around Pingora's HTTP application that drops the
//! request.
//!
//! Pingora has no such feature: a request that waits for bytes is woken by bytes or by a timeout, and by nothing else;
//! and over HTTP/2 it waits for a body without a timeout, so the deadline is held here.
//! Dropping the future closes an HTTP/1 connection or resets an HTTP/2 stream, and closes the application's connection
//! with it. A cancelled request does not reach `logging`; `long_lived` records it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora::{Error, ErrorType, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client_connection::ClientConnection;
use super::downstream::h2_stream::ResetWatch;
use crate::buffers::{Exhausted, RequestMemory};
use crate::deadline::Deadline;
use crate::validate;

tokio::task_local! {
    /// What may cancel the request that is being polled. It lives in that request's own future and is dropped with it, so
    /// it cannot cancel the next request of the connection; nothing is shared.
    static CANCEL_STATE: RefCell<CancelState>;
}

#[derive(Default)]
pub struct CancelState {
    signal: Option<oneshot::Receiver<()>>,
    /// Is moved with every chunk of a body.
    deadline: Deadline,
    /// What the request makes the edge hold, and the connection that it came on.
    held: Option<(RequestMemory, Arc<ClientConnection>)>,
    /// The request was cancelled because of that.
    is_over_limit: bool,
    /// Of a request over HTTP/2: whether its client has reset it.
    pub reset_watch: Option<ResetWatch>,
    /// Whether that ends it.
    cancel_when_reset: bool,
    /// How long it may take to notice that by itself.
    reset_grace: Deadline,
    /// The request was cancelled because of that.
    was_reset: bool,
}

/// For a request whose client has reset it to end by itself, which most do at once.
const RESET_GRACE: Duration = Duration::from_millis(200);

/// What a request without a body holds on the fast path: its task, what h2 keeps of it, buffers for the application's
/// response. As measured, with a small margin.
const FAST_BYTES: usize = 16 << 10;
/// The same of a request that Pingora's proxy serves.
const FULL_BYTES: usize = 32 << 10;
/// What a field takes in a map beside its bytes.
const FIELD_BYTES: usize = 128;

/// Called within a request: it is cancelled when `signal` arrives.
pub fn cancel_on(signal: oneshot::Receiver<()>) -> Result<()> {
    change(|state| state.signal = Some(signal))
}

/// Called within a request: it is cancelled at this moment, which replaces any earlier deadline; `None` removes it.
pub fn cancel_at(deadline: Option<Instant>) -> Result<()> {
    change(|state| state.deadline.set(deadline))
}

fn change(change: impl FnOnce(&mut CancelState)) -> Result<()> {
    let outside = |_| Error::explain(ErrorType::InternalError, "a request outside of what could cut it");
    CANCEL_STATE.try_with(|state| change(&mut state.borrow_mut())).map_err(outside)
}

/// From within a request: counts a piece of a body until it has gone; `ahead` is what may be read behind it while it
/// waits. `Err` has one that does not count.
pub fn track_chunk(bytes: Bytes, ahead: usize) -> std::result::Result<Bytes, Bytes> {
    let mut bytes = Some(bytes);
    let counted = CANCEL_STATE.try_with(|state| {
        let mut state = state.borrow_mut();
        let (held, _) = state.held.as_mut()?;
        bytes.take().map(|bytes| held.track_chunk(bytes, ahead))
    });
    counted.ok().flatten().unwrap_or_else(|| Err(bytes.unwrap_or_default()))
}

/// From within a request: so much more is kept of it until it ends. `Err` where there is no room for that.
pub fn reserve(bytes: usize) -> Result<()> {
    let has_room = CANCEL_STATE.try_with(|state| match &mut state.borrow_mut().held {
        Some((held, _)) => {
            held.reserve_extra(bytes);
            held.has_room()
        }
        None => true,
    });
    if has_room.unwrap_or(true) { Ok(()) } else { Err(Error::new_in(ErrorType::Custom(OVER_LIMIT))) }
}

/// Called within a request: it turns out to be long-lived.
pub fn mark_long_lived() {
    let lasts = |state: &RefCell<CancelState>| {
        if let Some((held, _)) = &mut state.borrow_mut().held {
            held.set_long_lived();
        }
    };
    // A request that cannot be cancelled is not accounted.
    CANCEL_STATE.try_with(lasts).ok();
}

/// From within a request over HTTP/2 that can be settled when it is cut: it ends when its client resets it, also while
/// nothing of it looks for that.
pub fn cancel_when_reset() -> Result<()> {
    change(|state| state.cancel_when_reset = true)
}

/// Whether the request is being dropped because its client has reset it.
pub fn was_reset() -> bool {
    CANCEL_STATE.try_with(|state| state.try_borrow().is_ok_and(|state| state.was_reset)).unwrap_or(false)
}

/// Whether the request is being dropped because of what it holds.
pub fn is_over_limit() -> bool {
    CANCEL_STATE.try_with(|state| state.try_borrow().is_ok_and(|state| state.is_over_limit)).unwrap_or(false)
}

/// Drops a request when its signal or its deadline comes, or when it holds too much for too long, and with it the
/// connection that it owns. `None` then.
pub fn run_until_cancelled<R: Future + ?Sized>(
    mut request: Pin<Box<R>>,
    state: CancelState,
) -> impl Future<Output = Option<R::Output>> {
    let whole_or_cut = poll_fn(move |context| match request.as_mut().poll(context) {
        Poll::Pending => CANCEL_STATE.with(|state| state.borrow_mut().poll(context)).map(|()| None),
        Poll::Ready(done) => Poll::Ready(Some(done)),
    });
    CANCEL_STATE.scope(RefCell::new(state), whole_or_cut)
}

/// The kind of error of a request that there is no room for.
pub const OVER_LIMIT: &str = "buffers";

impl CancelState {
    /// Of a request on the fast path.
    pub fn fast(connection: Option<&Arc<ClientConnection>>, headers: &HeaderMap) -> Self {
        Self::holding(connection, FAST_BYTES + in_memory(headers))
    }

    /// Of one that Pingora serves, which copies the head for the application.
    pub fn full(connection: Option<&Arc<ClientConnection>>, headers: Option<&HeaderMap>) -> Self {
        Self::holding(connection, FULL_BYTES + 2 * headers.map_or(0, in_memory))
    }

    /// Of one on the fast path whose head is in so many bytes.
    pub fn fast_in(connection: Option<&Arc<ClientConnection>>, head: usize) -> Self {
        Self::holding(connection, FAST_BYTES + 2 * head)
    }

    fn holding(connection: Option<&Arc<ClientConnection>>, bytes: usize) -> Self {
        let held = connection.and_then(|connection| {
            let account = connection.account.as_ref()?;
            Some((RequestMemory::new(account, bytes), Arc::clone(connection)))
        });
        Self { held, ..Self::default() }
    }

    /// Is ready when the request is to be cancelled.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(signal) = &mut self.signal {
            match Pin::new(signal).poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                // The sender is gone, as the request is about to end by itself.
                Poll::Ready(Err(_)) => self.signal = None,
                Poll::Pending => {}
            }
        }
        if let Some((held, connection)) = &mut self.held
            && let Poll::Ready(Exhausted) = held.poll_wait(context, connection.bytes_sent())
        {
            self.is_over_limit = true;
            return Poll::Ready(());
        }
        if let Some(reset_watch) = self.reset_watch.as_ref().filter(|_| self.cancel_when_reset)
            && reset_watch.poll(context).is_ready()
            && self.reset_grace.start_if_unset(RESET_GRACE).poll(context).is_ready()
        {
            self.was_reset = true;
            return Poll::Ready(());
        }
        self.deadline.poll(context)
    }
}

fn in_memory(headers: &HeaderMap) -> usize {
    validate::bytes(headers) + FIELD_BYTES * headers.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that takes a signal, as one does under way, and then never ends.
    async fn endless(signal: Option<oneshot::Receiver<()>>) {
        if let Some(signal) = signal {
            cancel_on(signal).unwrap();
        }
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn a_quiet_request_ends_at_its_signal_and_at_no_other() {
        let (cut, signal) = oneshot::channel();
        let request = tokio::spawn(run_until_cancelled(Box::pin(endless(Some(signal))), CancelState::default()));
        let bystander = tokio::spawn(run_until_cancelled(Box::pin(endless(None)), CancelState::default()));
        tokio::task::yield_now().await;
        assert!(!request.is_finished());
        cut.send(()).unwrap();
        assert!(request.await.unwrap().is_none());
        assert!(!bystander.is_finished());
    }

    #[tokio::test]
    async fn a_request_that_is_watched_no_more_goes_on() {
        let (cut, signal) = oneshot::channel();
        let request = tokio::spawn(run_until_cancelled(Box::pin(endless(Some(signal))), CancelState::default()));
        tokio::task::yield_now().await;
        drop(cut);
        tokio::task::yield_now().await;
        assert!(!request.is_finished());
    }

    #[test]
    fn what_could_not_be_cancelled_is_not_watched() {
        assert!(cancel_on(oneshot::channel().1).is_err());
    }

    /// A request whose deadline is moved on so many times, a tenth of a second each, and then stands.
    async fn fed(times: u32) {
        for _ in 0..times {
            cancel_at(Some(Instant::now() + std::time::Duration::from_millis(150))).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_cuts_when_it_is_moved_no_more() {
        let begun = Instant::now();
        assert!(run_until_cancelled(Box::pin(fed(10)), CancelState::default()).await.is_none());
        assert_eq!(begun.elapsed().as_millis(), 1050);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_taken_away_cuts_nothing() {
        let request = run_until_cancelled(Box::pin(fed(1)), CancelState::default());
        let spared = run_until_cancelled(
            Box::pin(async {
                cancel_at(Some(Instant::now() + std::time::Duration::from_secs(1))).unwrap();
                tokio::task::yield_now().await;
                cancel_at(None).unwrap();
                std::future::pending::<()>().await;
            }),
            CancelState::default(),
        );
        let hour = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, request).await.is_ok());
        assert!(tokio::time::timeout(hour, spared).await.is_err());
    }
}
