//! The admin listener: `/livez`, `/readyz`, `/metrics` and, with a token, the API. Plain HTTP, for operators alone, by
//! default on loopback. The control socket serves the same to root and to the edge's own user, without a token.

pub mod actor;
pub mod api;
pub mod control_socket;
pub mod deadlines;
pub mod reload;
pub mod session_list;
pub mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::json;

use crate::config::OutagePolicy;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::proxy::ClientConnection;
use crate::sessions::{SessionStore, StoreError};
use crate::snapshot::Snapshot;
use crate::users::changes::DirectoryChanges;
use crate::users::login::LoginPool;
use actor::Connection;
use api::Api;

/// Connections of scrapers and probes at once; more are a mistake, or an attack.
pub const MAX_CONNECTIONS: usize = 64;
/// Connections of one address, those of this machine as well. The next one evicts the one that has had no request for
/// longest.
pub const MAX_PER_ADDRESS: usize = 16;
/// The time limit for a complete request head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
pub const HEADER_BYTES: usize = 16 << 10;
/// The keep-alive timeout. Scrapers that come again later open another connection.
pub const KEEPALIVE: Duration = Duration::from_secs(5);
/// The time within which a client must take some of what it is sent.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub store: Arc<dyn SessionStore>,
    pub logins: Arc<LoginPool>,
    pub users: Arc<DirectoryChanges>,
    pub drain: Arc<Drain>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// `None` where there is neither a token nor a control socket.
    pub api: Option<Api>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(connection) = ClientConnection::of(session) {
            connection.head_read();
            // The head that Pingora has read is the placeholder of one that was refused.
            if let Some(malformed) = connection.refused() {
                session.set_keepalive(None);
                return text(malformed.status(), "that is no request that is served here\n");
            }
        }
        let client = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
        self.respond(session, Connection::Listener(client)).await
    }
}

impl Admin {
    /// Answers a request whose head was read.
    pub async fn respond(&self, session: &mut ServerSession, connection: Connection) -> Response<Vec<u8>> {
        // Otherwise a body would be read to its end so that the next request can follow; and after an upgrade the next
        // request is another process's.
        if api::has_body(&session.req_header().headers) || self.drain.is_draining() {
            session.set_keepalive(None);
        }
        if api::is_under(session.req_header().uri.path()) {
            return self.api(session, connection).await;
        }
        let request = session.req_header();
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this listener accepts GET and HEAD only\n");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = match request.uri.path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => self.ready().await,
            "/metrics" => self.scrape(),
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n"),
        };
        if session.req_header().method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }

    async fn api(&self, session: &mut ServerSession, connection: Connection) -> Response<Vec<u8>> {
        let mut response = match &self.api {
            Some(api) => api.respond(session, connection).await,
            None => api::off(),
        };
        if session.req_header().method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }

    /// Refuses a process that opened the control socket and is of another user.
    pub fn refuse_user(&self, uid: u32) -> Response<Vec<u8>> {
        self.api.as_ref().map_or_else(api::off, |api| api.refuse_user(uid))
    }

    /// Counts a connection that is served.
    pub fn count_connection(&self, listener: &str) {
        self.metrics.traffic.connections_total.with_label_values(&[listener]).inc();
    }

    /// Counts a connection that is not served.
    pub fn count_refused(&self, listener: &str, reason: &str) {
        self.metrics.traffic.connections_refused.with_label_values(&[listener, reason]).inc();
    }

    /// Ready when requests can be decided: the edge is not draining, and the session store answers or the outage policy
    /// provides for its absence.
    async fn ready(&self) -> Response<Vec<u8>> {
        let draining = self.drain.is_leaving();
        let store = self.store.ping().await;
        let ready = !draining && self.can_decide(store.as_ref().err());
        let body = json!({
            "ready": ready,
            "draining": draining,
            // Without the directory no user can sign in, but users who are signed in can work: that is no reason to
            // send them to another edge.
            "user_directory": self.users.fault().map_or_else(|| "ok".into(), |why| why.to_string()),
            "session_store": store.map_or_else(|error| error.to_string(), |()| "ok".into()),
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(status, "application/json", format!("{body}\n").into_bytes())
    }

    /// The policy applies to a store that is unavailable, and to no other: a store that answers and cannot be used
    /// keeps the edge unready. With `recent`, no user is admitted after `within`, which counts from the begin of the
    /// present outage. A request may have met the outage long before the first probe, and it may have ended between two
    /// probes.
    fn can_decide(&self, failure: Option<&StoreError>) -> bool {
        if !failure.is_some_and(StoreError::is_unavailable) {
            return failure.is_none();
        }
        match self.snapshot.load().on_outage {
            OutagePolicy::Deny => false,
            OutagePolicy::TokenOnly => true,
            OutagePolicy::Recent { within } => self.store.unavailable_for() <= within,
        }
    }

    fn scrape(&self) -> Response<Vec<u8>> {
        if self.users.fault().is_some() {
            // The thread that reads the directory may hang, and then does not report it itself.
            self.metrics.sign_on.directory.up.set(0);
        }
        self.metrics.sign_on.login_queue.set(i64::try_from(self.logins.queued()).unwrap_or(i64::MAX));
        match self.metrics.scrape() {
            Ok(body) => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(error) => {
                log::error!("metrics cannot be encoded: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written; see the log\n")
            }
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    response(status, "text/plain; charset=utf-8", body.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
