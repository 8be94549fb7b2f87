//! How a connection is served: over HTTP/2 by Pingora, over HTTP/1 one request after the other.
//!
//! Pingora's own loop begins the next request at once, and has it wait for its head: with a session, buffers, a timer
//! and a future of some 20 KiB. Here the connection alone waits. An idle one holds what TLS needs, and a request begins
//! when its first bytes are there; they cannot be with Pingora, which is given nothing ahead (`intake`).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pingora_core::apps::{HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::Stream as AnyStream;
use pingora_core::protocols::http::ServerSession;

use super::listener::Service;
use super::patience::Patience;
use super::stream::Stream;

/// For the first head, in seconds, where nothing shorter is configured: what Pingora has.
const FIRST: u64 = 60;

impl Service {
    /// Until the connection ends.
    pub async fn converse<A>(&self, app: &Arc<A>, stream: Stream)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let mut closing = self.closing.clone();
        if stream.is_http2() {
            app.process_new(Box::new(stream), &self.closing).await;
            return;
        }
        let mut closed = pin!(closing.wait_for(|closing| *closing));
        let mut patience = Patience::default();
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_keepalive((!*self.closing.borrow()).then_some(FIRST));
        let mut done = app.process_new_http(session, &self.closing).await;
        while let Some((mut stream, settings)) = done.map(ReusedHttpStream::consume) {
            if let Some(keepalive) = self.keepalive() {
                let closed = poll_fn(|context| closed.as_mut().poll(context).map(drop));
                let Some(ready) = rest(stream, patience.renewed(keepalive), closed).await else { return };
                stream = ready;
            }
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            done = app.process_new_http(session, &self.closing).await;
        }
    }

    /// How long a client may rest between two requests, as the day's configuration has it.
    fn keepalive(&self) -> Option<Duration> {
        self.clients.as_ref().map(|clients| clients.snapshot.load().timeouts.keepalive)
    }
}

/// Waits for the next request. `None` when it will not come: the client has left, its time is up, or the edge closes.
async fn rest(stream: AnyStream, patience: &mut Patience, closed: impl Future<Output = ()>) -> Option<AnyStream> {
    // Every stream here is ours.
    let mut stream: Box<Stream> = stream.into_any().downcast().ok()?;
    let mut closed = pin!(closed);
    let readable = poll_fn(|context| {
        if let Poll::Ready(readable) = stream.poll_readable(context) {
            return Poll::Ready(readable);
        }
        let over = patience.poll(context).is_ready() || closed.as_mut().poll(context).is_ready();
        if over { Poll::Ready(false) } else { Poll::Pending }
    });
    readable.await.then_some(stream as AnyStream)
}
