//! How a connection is served: over HTTP/2 by Pingora, over HTTP/1 one request after the other, on the gateway's fast
//! path where that accepts the request, and on the full path, by Pingora, otherwise.
//!
//! Pingora's own loop begins the next request at once and lets it wait for its head, with a session, buffers, a timer
//! and a future of some 20 KiB. Here the connection alone waits. An idle one holds what TLS needs, and a request begins
//! when its first bytes are received. Pingora never reads ahead of it: `request_framer` delivers nothing of the next
//! request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::client_stream::ClientStream;
use super::{ListenerContext, ListenerKind};
use crate::admin::{self, Admin};
use crate::deadline::Deadline;
use crate::proxy::{
    CancelState, Cancellable, FastPath, Gateway, IdleTracker, Outcome, RequestStream, read, run_until_cancelled,
};

/// The keep-alive timeout of the first request, in seconds, where nothing shorter is configured. It is Pingora's own
/// value.
const FIRST_KEEPALIVE_SECONDS: u64 = 60;

/// Handles the requests of a listener.
pub trait HttpHandler: HttpServerApp + Send + Sync + 'static {
    /// Returns the fast path, if there is one.
    fn fast_path(&self) -> Option<&FastPath> {
        None
    }

    /// Handles a request over HTTP/2, which is offered to clients only.
    fn process_stream(
        self: &Arc<Self>,
        stream: Box<RequestStream>,
        closing: &ShutdownWatch,
    ) -> impl Future<Output = ()> + Send {
        async move { drop(self.process_new_http(ServerSession::new_custom(stream), closing).await) }
    }
}

impl HttpHandler for Admin {}

impl HttpHandler for Cancellable<HttpProxy<Gateway>> {
    fn fast_path(&self) -> Option<&FastPath> {
        Some(&self.fast_path)
    }

    async fn process_stream(self: &Arc<Self>, stream: Box<RequestStream>, closing: &ShutdownWatch) {
        Cancellable::process_stream(self, stream, closing).await;
    }
}

impl ListenerContext {
    /// Serves a connection until it ends, or is evicted for another.
    pub async fn serve_connection<A: HttpHandler>(
        &self,
        app: &Arc<A>,
        stream: ClientStream,
        idle_tracker: &IdleTracker,
    ) {
        if stream.is_http2() {
            idle_tracker.run_until_evicted(self.serve_http2(app, stream)).await;
            return;
        }
        // Not when the listener closes: the next request of an idle connection may be under way, and would be lost.
        let mut closed = pin!(poll_fn(|context| idle_tracker.poll_evicted(context)));
        let mut deadline = Deadline::default();
        let mut client = Box::new(stream);
        let mut settings = None;
        loop {
            client.head_may_come();
            let served = match self.kind {
                ListenerKind::Internal => idle_tracker.begin().ok().map(|()| Outcome::Declined(client)),
                _ => try_fast_path(app, client, idle_tracker, closed.as_mut()).await,
            };
            client = match served {
                Some(Outcome::KeepAlive(client)) => client,
                Some(Outcome::Declined(client)) => match self.serve_full_path_in_time(app, client, &mut settings).await
                {
                    Some(client) => client,
                    None => return,
                },
                Some(Outcome::Close) | None => return,
            };
            idle_tracker.end();
            if let Some(keepalive) = self.keepalive()
                && !wait_for_next_request(&mut client, deadline.reset(keepalive), closed.as_mut()).await
            {
                return;
            }
        }
    }

    /// Serves one request on the full path. A request of an operator has a deadline as a whole, see
    /// `admin::deadlines`.
    async fn serve_full_path_in_time<A: HttpHandler>(
        &self,
        app: &Arc<A>,
        client: Box<ClientStream>,
        settings: &mut Option<HttpPersistentSettings>,
    ) -> Option<Box<ClientStream>> {
        let served = self.serve_full_path(app, client, settings);
        match self.kind {
            ListenerKind::Clients(_) | ListenerKind::Internal => served.await,
            ListenerKind::Admin(_) => tokio::time::timeout(admin::deadlines::CALL, served).await.ok().flatten(),
        }
    }

    /// Serves one request by Pingora. Returns `None` when the connection is over.
    async fn serve_full_path<A: HttpHandler>(
        &self,
        app: &Arc<A>,
        client: Box<ClientStream>,
        settings: &mut Option<HttpPersistentSettings>,
    ) -> Option<Box<ClientStream>> {
        let mut session = ServerSession::new_http1(client);
        match settings.take() {
            Some(settings) => settings.apply_to_session(&mut session),
            None => session.set_keepalive(Some(FIRST_KEEPALIVE_SECONDS)),
        }
        let done = app.process_new_http(session, &self.closing).await;
        let (stream, kept) = done.map(ReusedHttpStream::consume)?;
        *settings = kept;
        // Every stream here is a `ClientStream`.
        stream.into_any().downcast().ok()
    }

    /// Returns how long a connection may be idle between two requests, from the current configuration.
    fn keepalive(&self) -> Option<Duration> {
        match &self.kind {
            ListenerKind::Clients(clients) => Some(clients.snapshot.load().timeouts.keepalive),
            ListenerKind::Admin(_) => Some(admin::KEEPALIVE),
            ListenerKind::Internal => None,
        }
    }
}

/// Serves one request on the fast path. Returns `None` when there is no request, because the client has left or the
/// connection was evicted, and when the request was cancelled.
async fn try_fast_path<A: HttpHandler>(
    app: &Arc<A>,
    mut client: Box<ClientStream>,
    idle_tracker: &IdleTracker,
    mut closed: Pin<&mut impl Future<Output = ()>>,
) -> Option<Outcome<ClientStream>> {
    let bytes = {
        let mut bytes = pin!(read(&mut *client));
        poll_fn(|context| match bytes.as_mut().poll(context) {
            Poll::Ready(bytes) => Poll::Ready(bytes.ok().flatten()),
            Poll::Pending => closed.as_mut().poll(context).map(|()| None),
        })
        .await?
    };
    idle_tracker.begin().ok()?;
    let Some(fast_path) = app.fast_path() else {
        client.give_back(&bytes);
        return Some(Outcome::Declined(client));
    };
    // Boxed, so that an idle connection holds no memory for it.
    let cancel_state = CancelState::fast_in(client.connection(), bytes.len());
    run_until_cancelled(Box::pin(fast_path.serve(client, bytes)), cancel_state).await
}

/// Waits for the next request. Returns `false` when there will be none: the client has left, the keep-alive timeout has
/// passed, or the connection was evicted.
async fn wait_for_next_request(
    client: &mut ClientStream,
    deadline: &mut Deadline,
    mut closed: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    poll_fn(|context| {
        if let Poll::Ready(readable) = client.poll_readable(context) {
            return Poll::Ready(readable);
        }
        let over = deadline.poll(context).is_ready() || closed.as_mut().poll(context).is_ready();
        if over { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}
