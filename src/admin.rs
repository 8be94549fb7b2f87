//! The admin listener: `/livez`, `/readyz`, `/metrics` and, with a token, the API. Plain HTTP, for operators alone, by
//! default on loopback.

pub mod api;
pub mod session_list;

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
use crate::users::changes::Watch;
use crate::users::login::LoginPool;
use api::Api;

/// Scrapers and probes; more than this many at once is a mistake, or an attack.
pub const MAX_CONNECTIONS: usize = 64;
/// Of one address, those of this machine as well. The next one takes the place of the one that has asked for nothing for
/// the longest.
pub const MAX_PER_ADDRESS: usize = 16;
/// For the whole of a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
pub const HEADER_BYTES: usize = 16 << 10;
/// Between two requests. Scrapers that come again later open another connection.
pub const KEEPALIVE: Duration = Duration::from_secs(5);
/// For a client to take anything of what it is sent.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a request and its response as a whole. A list of all sessions takes some seconds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Admin {
    pub metrics: Arc<Metrics>,
    pub store: Arc<dyn SessionStore>,
    pub logins: Arc<LoginPool>,
    pub users: Arc<Watch>,
    pub drain: Arc<Drain>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// `None` without a token.
    pub api: Option<Api>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        if let Some(connection) = ClientConnection::of(session) {
            connection.head_read();
            // The head that Pingora has read only stands in for one that was refused.
            if let Some(malformed) = connection.refused() {
                session.set_keepalive(None);
                return text(malformed.status(), "that is no request that is served here\n");
            }
        }
        if api::has_body(&session.req_header().headers) {
            // It would be read to its end for the next request's sake.
            session.set_keepalive(None);
        }
        if api::is_under(session.req_header().uri.path()) {
            return self.api(session).await;
        }
        let request = session.req_header();
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this listener only tells\n");
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
}

impl Admin {
    async fn api(&self, session: &ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let client = session.client_addr().and_then(|address| address.as_inet()).map(SocketAddr::ip);
        let mut response = match &self.api {
            Some(api) => api.respond(request, client).await,
            None => api::off(),
        };
        if request.method == Method::HEAD {
            response.body_mut().clear();
        }
        response
    }

    /// Ready when requests can be decided on: not going away, and the session store answers or its absence is
    /// provided for.
    async fn ready(&self) -> Response<Vec<u8>> {
        let draining = self.drain.is_draining();
        let store = self.store.ping().await;
        let ready = !draining && self.can_decide(store.as_ref().err());
        let body = json!({
            "ready": ready,
            "draining": draining,
            // Without it nobody can sign in, but whoever is signed in can work: that is no reason to send them elsewhere.
            "user_directory": self.users.fault().map_or_else(|| "ok".into(), |why| why.to_string()),
            "session_store": store.map_or_else(|error| error.to_string(), |()| "ok".into()),
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(status, "application/json", format!("{body}\n").into_bytes())
    }

    /// A policy speaks for a store that is silent, and for no other: one that answers and cannot be used stays so. After
    /// the time that `recent` reaches back nobody passes by it. That begins with the present silence, which a request may
    /// have met long before the first probe, and which may have ended between two probes.
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
            // Its thread may hang at the directory, and does not say so itself.
            self.metrics.sign_on.directory.up.set(0);
        }
        self.metrics.sign_on.login_queue.set(i64::try_from(self.logins.queued()).unwrap_or(i64::MAX));
        match self.metrics.scrape() {
            Ok(body) => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(error) => {
                log::error!("metrics cannot be written: {error}");
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
