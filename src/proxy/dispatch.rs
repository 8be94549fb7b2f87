//! Each request tries the fast path first, and takes the full path where that declines it. It can be cancelled on both.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;

use super::cancel::{CancelState, run_until_cancelled};
use super::client_connection::ClientConnection;
use super::downstream::h2_stream::RequestStream;
use super::fast_path::FastPath;

/// The full path, whose requests can be cancelled, and the fast path before it.
pub struct Cancellable<A> {
    application: Arc<A>,
    pub fast_path: FastPath,
}

impl<A> Cancellable<A> {
    pub fn new(application: A, fast_path: FastPath) -> Self {
        Self { application: Arc::new(application), fast_path }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Cancellable<A> {
    /// A request over HTTP/2.
    pub async fn process_stream(&self, stream: Box<RequestStream>, shutdown: &ShutdownWatch) {
        let connection = ClientConnection::of_stream(&stream).cloned();
        // Over HTTP/1 the connection says this itself.
        let idle_tracker = connection.as_ref().map(|connection| Arc::clone(&connection.idle_tracker));
        // The connection was evicted meanwhile, so the request gets no response, as one a moment later would get none.
        let Ok(_busy) = idle_tracker.as_ref().map(|idle_tracker| idle_tracker.track_request()).transpose() else {
            return;
        };
        let cancel_state = CancelState::fast(connection.as_ref(), &stream.head().headers);
        let left = run_until_cancelled(Box::pin(self.fast_path.serve_stream(stream)), cancel_state).await.flatten();
        let Some(stream) = left else { return };
        let mut cancel_state = CancelState::full(connection.as_ref(), Some(&stream.head().headers));
        cancel_state.reset_watch = Some(stream.reset_watch());
        let session = ServerSession::new_custom(stream);
        run_until_cancelled(self.application.process_new_http(session, shutdown), cancel_state).await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cancellable<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The head of a later request over HTTP/1 is not there yet; it is bounded as a whole.
        let cancel_state = CancelState::full(ClientConnection::of(&session), None);
        run_until_cancelled(self.application.process_new_http(session, shutdown), cancel_state).await.flatten()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.application.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.application.server_options()
    }

    async fn http_cleanup(&self) {
        self.application.http_cleanup().await;
    }
}
