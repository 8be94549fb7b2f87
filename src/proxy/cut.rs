//! The way to cut a request from outside, however quiet it is: around Pingora's HTTP application, a future that can be
//! told to drop it.
//!
//! Pingora has no such thing: a request that waits for bytes is woken by bytes or by a timeout, and by nothing else.
//! Dropping its future closes an HTTP/1 connection or resets an HTTP/2 stream, and closes the application's connection
//! with it. What is cut does not reach `logging`; `stream` settles it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::{Error, ErrorType, Result};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use tokio::sync::oneshot;

use super::connection::Connection;

tokio::task_local! {
    /// The signal that the request being polled may be cut by, if it has one. It lives in that request's own future
    /// and goes with it, so that it cannot hit the next request of the connection; nothing is shared.
    static SIGNAL: RefCell<Option<oneshot::Receiver<()>>>;
}

/// An HTTP application whose requests can be cut.
pub struct Cuttable<A>(Arc<A>);

impl<A> Cuttable<A> {
    pub fn new(application: A) -> Self {
        Self(Arc::new(application))
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cuttable<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // HTTP/2 has many requests on their way at once, and Pingora a timeout for when there is none.
        if let Some(connection) = session.as_http1().and_then(|_| Connection::of(&session)) {
            connection.head_may_come();
        }
        SIGNAL.scope(RefCell::default(), until_cut(self.0.process_new_http(session, shutdown))).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.0.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }

    async fn http_cleanup(&self) {
        self.0.http_cleanup().await;
    }
}

/// From within a request: cut it when `signal` comes.
pub fn cut_on(signal: oneshot::Receiver<()>) -> Result<()> {
    let outside = |_| Error::explain(ErrorType::InternalError, "a request outside of what could cut it");
    SIGNAL.try_with(|slot| drop(slot.replace(Some(signal)))).map_err(outside)
}

type Request<'a> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>>;

/// Drops a request when its signal comes, and with it the connection.
async fn until_cut(mut request: Request<'_>) -> Option<ReusedHttpStream> {
    poll_fn(|context| match request.as_mut().poll(context) {
        Poll::Pending => poll_signal(context).map(|()| None),
        done => done,
    })
    .await
}

/// Ready when the request is to be cut. Most requests have no signal, and then this is all there is to it.
fn poll_signal(context: &mut Context<'_>) -> Poll<()> {
    SIGNAL.with(|slot| {
        let mut slot = slot.borrow_mut();
        let Some(signal) = slot.as_mut() else { return Poll::Pending };
        match Pin::new(signal).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // Nobody watches any more: the request is about to end by itself.
            Poll::Ready(Err(_)) => {
                *slot = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that takes a signal, as one does under way, and then never ends.
    async fn endless(signal: Option<oneshot::Receiver<()>>) -> Option<ReusedHttpStream> {
        if let Some(signal) = signal {
            cut_on(signal).unwrap();
        }
        std::future::pending().await
    }

    fn scoped(request: Request<'_>) -> impl Future<Output = Option<ReusedHttpStream>> {
        SIGNAL.scope(RefCell::default(), until_cut(request))
    }

    #[tokio::test]
    async fn a_quiet_request_ends_at_its_signal_and_at_no_other() {
        let (cut, signal) = oneshot::channel();
        let request = tokio::spawn(scoped(Box::pin(endless(Some(signal)))));
        let bystander = tokio::spawn(scoped(Box::pin(endless(None))));
        tokio::task::yield_now().await;
        assert!(!request.is_finished());
        cut.send(()).unwrap();
        assert!(request.await.unwrap().is_none());
        assert!(!bystander.is_finished());
    }

    #[tokio::test]
    async fn a_request_that_is_watched_no_more_goes_on() {
        let (cut, signal) = oneshot::channel();
        let request = tokio::spawn(scoped(Box::pin(endless(Some(signal)))));
        tokio::task::yield_now().await;
        drop(cut);
        tokio::task::yield_now().await;
        assert!(!request.is_finished());
    }

    #[test]
    fn what_nobody_could_cut_is_not_watched() {
        assert!(cut_on(oneshot::channel().1).is_err());
    }
}
