//! The record of a request that has ended: its metrics sample and its line in the access log.

use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version, header};
use pingora::Error;

use super::context::{RequestContext, destination};
use super::decision_log::log_decision;
use super::gateway::Gateway;
use super::upstream::attempt;
use crate::access_log;

/// The request line as the access log writes it. A stream keeps it in case it is cancelled; its parts are shared, so a copy
/// is cheap.
pub struct RequestLine {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
}

impl RequestLine {
    pub fn of(request: &Parts) -> Self {
        Self {
            method: request.method.clone(),
            uri: request.uri.clone(),
            host: request.headers.get(header::HOST).cloned(),
            version: request.version,
        }
    }

    /// As the client wrote it.
    pub fn authority(&self) -> &str {
        let authority = match (self.uri.authority(), &self.host) {
            (Some(authority), _) => authority.as_str(),
            (None, Some(host)) => host.to_str().unwrap_or_default(),
            (None, None) => "",
        };
        access_log::truncate(authority)
    }
}

impl Gateway {
    /// The request has ended by itself: it can be cut no more, its last attempt is counted, and it is recorded. Both paths
    /// call it; a request that was cut is recorded by what it has left behind.
    pub(super) fn finish(
        &self,
        ctx: &mut RequestContext,
        error: Option<&Error>,
        line: impl FnOnce() -> RequestLine,
        status: u16,
        bytes: usize,
    ) {
        let now = Instant::now();
        attempt::ended(ctx, error, now);
        // Its connection was dropped before it was.
        if error.is_some() && ctx.error == Some("client_gone") && ctx.drain().is_cutting() {
            ctx.error = Some("cut_off");
            self.metrics.operation.drain_cut.inc();
        }
        self.record_request(ctx, line, status, bytes, now);
    }

    /// Counts a request and writes its line, once, when it has ended. `status` is 0 when nothing was answered.
    /// `line` is only made where it is written.
    pub(super) fn record_request(
        &self,
        ctx: &RequestContext,
        line: impl FnOnce() -> RequestLine,
        status: u16,
        bytes: usize,
        now: Instant,
    ) {
        // The client closed before there was a response: nginx's 499.
        let status = if status == 0 { 499 } else { status };
        let seconds = now.duration_since(ctx.begun).as_secs_f64();
        log_decision!(ctx, "completed status={status} bytes={bytes} duration={seconds:.6}");
        let service = ctx.service.as_ref().map_or(&ctx.snapshot.unrouted, |service| &service.metrics);
        service.count(status);
        service.duration.observe(seconds);
        if self.access.is_on() && ctx.service.as_ref().is_none_or(|service| service.config.access_log) {
            self.write_access_line(ctx, &line(), status, bytes, seconds);
        }
    }

    fn write_access_line(&self, ctx: &RequestContext, line: &RequestLine, status: u16, bytes: usize, seconds: f64) {
        let parameter = &ctx.snapshot.ticket_parameter;
        let redacted = line.uri.query().and_then(|query| access_log::redact_query(query, parameter));
        let server = ctx.tried.last().zip(destination(ctx).ok());
        self.access.write(&access_log::Entry {
            time: self.clock.now().rfc3339(),
            request_id: &ctx.request_id,
            client: ctx.client,
            method: line.method.as_str(),
            host: line.authority(),
            path: access_log::truncate(line.uri.path()),
            query: redacted.as_deref().or(line.uri.query()).map(access_log::truncate),
            protocol: if line.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            status,
            bytes,
            duration: seconds,
            service: ctx.service.as_ref().map_or("none", |service| &service.config.name),
            outcome: ctx.outcome,
            reason: ctx.reason,
            user: ctx.user(),
            client_certificate: ctx.client_certificate.as_ref().map(|certificate| certificate.fingerprint()),
            auth_duration: ctx.auth_seconds,
            server: server.map(|(attempt, (pool, _))| pool.server(attempt.endpoint.server).name.as_str()),
            upstream_duration: ctx.upstream_begun.map(|begun| begun.elapsed().as_secs_f64()),
            error: ctx.error,
        });
    }
}
