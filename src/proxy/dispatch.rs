//! Each request tries the fast path first and takes the full path where it is not for that; on either it can be cut.

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;

use super::cancel::{Ends, until_cut};
use super::client_connection::Connection;
use super::downstream::h2_stream::RequestStream;
use super::fast_path::Express;

/// An HTTP application whose requests can be cut, and the short way beside it.
pub struct Cuttable<A> {
    application: Arc<A>,
    pub express: Express,
}

impl<A> Cuttable<A> {
    pub fn new(application: A, express: Express) -> Self {
        Self { application: Arc::new(application), express }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Cuttable<A> {
    /// A request over HTTP/2.
    pub async fn process_stream(&self, stream: Box<RequestStream>, shutdown: &ShutdownWatch) {
        let connection = Connection::of_stream(&stream).cloned();
        // Over HTTP/1 the connection says this itself.
        let seat = connection.as_ref().map(|connection| Arc::clone(&connection.seat));
        // One that was given up meanwhile goes without an answer, as one that comes a moment later would.
        let Ok(_busy) = seat.as_ref().map(|seat| seat.busy()).transpose() else { return };
        let ends = Ends::fast(connection.as_ref(), &stream.head().headers);
        let left = until_cut(Box::pin(self.express.serve_stream(stream)), ends).await.flatten();
        let Some(stream) = left else { return };
        let mut ends = Ends::full(connection.as_ref(), Some(&stream.head().headers));
        ends.departure = Some(stream.departure());
        let session = ServerSession::new_custom(stream);
        until_cut(self.application.process_new_http(session, shutdown), ends).await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Cuttable<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The head of a later request over HTTP/1 is not there yet; it is bounded as a whole.
        let ends = Ends::full(Connection::of(&session), None);
        until_cut(self.application.process_new_http(session, shutdown), ends).await.flatten()
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
