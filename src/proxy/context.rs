//! One request and its response, as far as the edge has got with it: Pingora's per-request context.
//!
//! Each field says which phase writes it. `record` reads all of them at the end and decides nothing.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use pingora::{Error, ErrorSource, ErrorType, Result};
use uuid::Uuid;

use super::headers;
use crate::auth::Identity;
use crate::auth::streams::OpenStream;
use crate::drain::{Drain, InFlight};
use crate::routes::Service;
use crate::snapshot::Snapshot;
use crate::tls::ClientCertificate;
use crate::upstream::Pool;
use crate::upstream::{Attempt, Owner};

pub struct RequestContext {
    pub begun: Instant,
    /// Taken once, so that one configuration holds from start to end.
    pub snapshot: Arc<Snapshot>,
    in_flight: InFlight,
    /// `request_filter`: the client's address, behind proxies that are trusted.
    pub client: Option<IpAddr>,
    /// `request_filter`: whether the request is a trusted proxy's own, such as a health check: it names no client.
    pub is_of_proxy: bool,
    /// `request_filter`: ours, or a trusted proxy's.
    pub request_id: RequestId,
    /// `request_filter`: the service of the request's host.
    pub service: Option<Arc<Service>>,
    /// `request_filter`: which of its routes.
    pub route: usize,
    /// `request_filter`: path and query for the application, where they are not the client's.
    pub upstream_target: Option<Box<str>>,
    /// `request_filter`: a CORS preflight; from the decision on, one that is let in as such, without identity.
    pub is_preflight: bool,
    /// `request_filter`: the client's certificate, where the host requires one.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// `request_filter`: set when the guard has admitted a user.
    pub identity: Option<Identity>,
    /// `request_filter`: how the guard decided, for the log.
    pub outcome: Option<&'static str>,
    pub reason: Option<&'static str>,
    pub auth_seconds: Option<f64>,
    /// `upstream_peer`: servers of the pool that this request went to, the present one last.
    pub tried: Vec<Attempt>,
    pub upstream_begun: Option<Instant>,
    /// `fail_to_connect`: whether the last attempt came to no connection.
    pub is_unconnected: bool,
    /// `request_body_filter`: whether the head of the request has been written to the server.
    pub is_request_written: bool,
    /// `response_filter`: how many interim responses have come.
    pub interim_responses: usize,
    /// `response_filter`: whether the final head of a response has come.
    pub is_responded: bool,
    /// `upstream_peer`: whose the upstream connection is; `None` where it may be shared.
    pub upstream_owner: Option<Owner>,
    /// `upstream_peer`: the `Set-Cookie` that names the present server, where the client has no good one.
    pub server_cookie: Option<HeaderValue>,
    /// `request_body_filter`: bytes of the request's body.
    pub body_bytes: usize,
    /// `request_filter`, `request_body_filter`: when more of the body has to be there, while there is more to come.
    pub body_due: Option<tokio::time::Instant>,
    /// `response_filter`: the status of the application's response, 0 before there is one.
    pub status: u16,
    /// `connected_to_upstream`: the socket of a connection that this request has for itself, while Pingora holds it.
    pub upstream_socket: Option<RawFd>,
    /// `response_filter`: more may come on the application's connection than the response, so it is not used again.
    pub upstream_out_of_sync: bool,
    /// `response_filter`: whether the response may have nothing to send for as long as it likes: a WebSocket, a stream of
    /// events, or a body of unknown length.
    pub may_be_silent: bool,
    /// `response_filter`: how long the application says that its body is.
    pub length: Option<usize>,
    /// `response_body_filter`: bytes of its body.
    pub bytes_sent: usize,
    /// `fail_to_proxy`: what went wrong, for the log.
    pub error: Option<&'static str>,
    /// `response_filter`, the filters of bodies: the request as a stream, while its session is watched.
    pub stream: Option<OpenStream>,
    /// `request_filter` on the full path, the filters of heads and bodies: records the request if it is dropped before it
    /// has ended. `logging` takes it out.
    pub on_drop: Option<Box<dyn RecordOnDrop>>,
}

/// Visible ASCII. A header's value, so that it is made once for all that we send.
pub struct RequestId(HeaderValue);

impl Default for RequestId {
    /// The placeholder until the request is identified.
    fn default() -> Self {
        Self(HeaderValue::from_static(""))
    }
}

impl RequestId {
    pub fn fresh() -> Self {
        let mut text = Uuid::encode_buffer();
        HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut text)).map(Self).unwrap_or_default()
    }

    /// The one that a request brings, if it looks like one. Of several it cannot be said which is the proxy's.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(&headers::REQUEST_ID).iter();
        let (Some(theirs), None) = (fields.next(), fields.next()) else { return None };
        let plain = theirs.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        (plain && (1..=64).contains(&theirs.len())).then(|| Self(theirs.clone()))
    }

    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl std::ops::Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl RequestContext {
    pub fn begin(snapshot: Arc<Snapshot>, in_flight: InFlight) -> Self {
        Self {
            begun: Instant::now(),
            snapshot,
            in_flight,
            client: None,
            is_of_proxy: false,
            request_id: RequestId::default(),
            service: None,
            route: 0,
            upstream_target: None,
            is_preflight: false,
            client_certificate: None,
            identity: None,
            outcome: None,
            reason: None,
            auth_seconds: None,
            tried: Vec::new(),
            upstream_begun: None,
            is_unconnected: false,
            is_request_written: false,
            interim_responses: 0,
            is_responded: false,
            upstream_owner: None,
            server_cookie: None,
            body_bytes: 0,
            body_due: None,
            status: 0,
            upstream_socket: None,
            upstream_out_of_sync: false,
            may_be_silent: false,
            length: None,
            bytes_sent: 0,
            error: None,
            stream: None,
            on_drop: None,
        }
    }

    pub fn drain(&self) -> &Drain {
        self.in_flight.drain()
    }

    pub fn is_body_late(&self) -> bool {
        self.body_due.is_some_and(|due| due <= tokio::time::Instant::now())
    }

    /// Returns the name of the user who was admitted.
    pub fn user(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.verified().claims().name.as_str())
    }
}

/// Records a request that is dropped before it has ended.
pub trait RecordOnDrop: Send + Sync {
    fn record_request(self: Box<Self>, ctx: &mut RequestContext);
}

impl Drop for RequestContext {
    /// A request that was cut does not reach `logging`, and is counted all the same.
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop.record_request(self);
        }
    }
}

/// Where the request goes, once its route is known. An error for a route that forwards nothing.
pub fn destination(ctx: &RequestContext) -> Result<(&Pool, Option<Duration>)> {
    let service = ctx.service.as_ref().ok_or_else(|| Error::new(ErrorType::InternalError))?;
    let route = service.at(ctx.route);
    let pool = route.pool.ok_or_else(|| Error::new(ErrorType::InternalError))?;
    Ok((&ctx.snapshot.pools[pool], route.config.read_timeout))
}

/// Whether an upstream timeout is the client's fault: the application had not received the whole request body.
pub fn is_fault_of_body(error: &Error, ctx: &RequestContext) -> bool {
    let timed_out = *error.etype() == ErrorType::ReadTimedout && *error.esource() == ErrorSource::Upstream;
    timed_out && ctx.body_due.is_some()
}
