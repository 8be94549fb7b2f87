//! The full path: Pingora's phases, in Pingora's order. Filters ask `policy` and then act; policy is elsewhere.
//!
//! Every request ends in `record_request` (in `record`), which alone counts it and writes its line: from
//! `logging`, where Pingora takes every request, or when its `RequestContext` is dropped because it was cancelled.

use std::os::fd::RawFd;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Uri, Version, header};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use super::client_connection::ClientConnection;
use super::context::{RequestContext, destination};
use super::decision::Decision;
use super::decision_log::{Declined, is_logged, log_decision};
use super::error_response::error_context;
use super::file_response::FullWriter;
use super::gateway::Gateway;
use super::headers::{request_rules, route_fields, upstream_response};
use super::record::RequestLine;
use super::request::RequestView;
use super::upstream::retry::Progress;
use super::upstream::{attempt, connection_auth, retry};
use super::{buffering, error_response, file_response, headers, preflight, respond, static_files};
use crate::framing::is_bodiless;

/// The time for reading away the rest of an unwanted body, so that the response before it is not lost in a TCP reset.
const DRAIN: Duration = Duration::from_secs(5);

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::begin(self.snapshot.load_full(), self.drain.track_request())
    }

    /// No modules: the default adds a disabled compressor to every request, and `compress` has its own.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// Pingora's defaults are no limits: a connection would be kept, and a slow reader waited for, for ever.
    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        if let Some(connection) = ClientConnection::of(session.as_downstream()) {
            connection.head_read();
        }
        let timeouts = &ctx.snapshot.timeouts;
        let downstream = session.as_downstream_mut();
        // Off already where the client wants it so, as HTTP/1.0 does unless it says otherwise.
        let wanted =
            downstream.get_keepalive().is_some() && !request_rules::says_close(&downstream.req_header().headers);
        let keepalive = wanted.then_some(timeouts.keepalive.as_secs().max(1));
        downstream.set_keepalive(keepalive);
        downstream.set_read_timeout(Some(timeouts.read));
        downstream.set_write_timeout(Some(timeouts.write));
        downstream.set_total_drain_timeout(Some(DRAIN));
        downstream.set_pipelining_enabled(true);
        // RFC 9110 §15.2: HTTP/1.0 knows no interim responses.
        downstream.set_ignore_info_resp(downstream.req_header().version == Version::HTTP_10);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        ctx.is_preflight = preflight::is_preflight(session);
        let raw = session.as_downstream().as_http1().map(|h1| h1.get_headers_raw_bytes());
        let request = RequestView::of(session);
        self.identify(&request, ctx);
        self.record_if_cancelled(&request, ctx);
        if is_logged!() {
            log_declined(&request, ctx);
        }
        let reply = match self.decide(&request, raw.as_deref(), ctx).await {
            Decision::Forward => {
                if let (_, Some(timeout)) = destination(ctx)? {
                    // Both ways: a tunnel or an upload may be as quiet as the route allows.
                    let timeout = timeout.max(ctx.snapshot.timeouts.read);
                    session.as_downstream_mut().set_read_timeout(Some(timeout));
                }
                // Before Pingora makes the copy that the application gets.
                let is_old = session.req_header().version == Version::HTTP_10;
                headers::rewrite(session.req_header_mut(), |fields| {
                    if is_old {
                        // RFC 9110 §10.1.1: ignored, as an HTTP/1.0 client understands no 100 (Continue).
                        fields.remove(header::EXPECT);
                    }
                });
                self.start_body_deadline(session, ctx)?;
                return Ok(false);
            }
            Decision::SignOn(authority) => Box::new(self.sign_on(session, ctx, &authority).await?.without_error_page()),
            Decision::Challenge => self.challenge(&request, ctx).await,
            Decision::Reply(reply) => reply,
            Decision::File => match static_files::find(self, &request, ctx).await {
                Ok(file) => {
                    respond::close_if_draining(session, ctx);
                    return file_response::write(self, file, FullWriter(session), ctx).await.map(|()| true);
                }
                Err(reply) => reply,
            },
        };
        respond::write(*reply, session, ctx).await.map(|()| true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        // On a retry Pingora passes the part of the body that it has kept through the filters again.
        ctx.body_bytes = 0;
        let is_upgrade = session.as_downstream().is_upgrade_req();
        attempt::peer(&RequestView::of(session), is_upgrade, ctx).map(Box::new)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        socket: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        log_decision!(ctx, "connected reused={reused}");
        let pool = destination(ctx)?.0;
        connection_auth::check_shared(pool, ctx.upstream_owner, reused)?;
        // Over HTTP/2 a connection is not one request's alone, and streams cannot get out of step.
        ctx.upstream_socket = (!pool.speaks_http2()).then_some(socket);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        buffering::throttle(session).await;
        headers::rewrite(upstream, |fields| {
            fields.reserve(headers::MOST_SET + route_fields::most_set(ctx));
            self.set_forwarding_headers(&RequestView::of(session), fields, ctx)
        })?;
        if let Some(target) = &ctx.upstream_target {
            // The authority of an HTTP/2 request is in its Host field by now.
            upstream.set_uri(Uri::try_from(&**target).or_err(ErrorType::InvalidHTTPHeader, "no target")?);
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.is_request_written = true;
        self.filter_request_body(session, body, end, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        self.filter_response_head(&RequestView::of(session), response, ctx)?;
        self.compress(session, response, ctx)?;
        respond::close_if_draining(session, ctx);
        if upstream_response::is_close_delimited(session.req_header(), response) {
            session.as_downstream_mut().set_keepalive(None);
        }
        if is_bodiless(response.status, &session.req_header().method) && !response.status.is_informational() {
            upstream_response::release(session, ctx);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> Result<Option<Duration>> {
        if end {
            upstream_response::release(session, ctx);
        }
        ctx.bytes_sent += body.as_ref().map_or(0, Bytes::len);
        self.watch_body_bytes(&RequestView::of(session), body.as_ref(), ctx)?;
        self.hold_response(session, body, ctx);
        Ok(None)
    }

    /// The server has not seen the request, so the next one may be tried.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        attempt::not_connected(ctx, &mut error);
        error
    }

    /// Whether another attempt follows; Pingora's own rule is another one.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        is_reused: bool,
    ) -> Box<Error> {
        let progress = Progress {
            is_reused,
            is_unanswered: retry::is_unanswered(&error),
            is_unwritten: !ctx.is_request_written && *error.etype() == ErrorType::WriteError,
            is_body_kept: !session.as_downstream().retry_buffer_truncated(),
            is_trial: false,
        };
        attempt::failed(&session.req_header().method, ctx, &mut error, progress);
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut RequestContext) -> FailToProxy {
        let refused = ClientConnection::of(session.as_downstream()).and_then(|connection| connection.refused());
        if let Some(malformed) = refused.filter(|_| ctx.reason.is_none()) {
            self.count_rejection(malformed, ctx);
        }
        let status = match error_response::failed(ctx, error, refused.is_some()) {
            None => 0,
            Some(error_reply) => {
                // An interim response is none, unless it was the last over HTTP/1.1: then a conversation has begun.
                let is_interim = |head: &ResponseHeader| head.status.is_informational() && head.status != 101;
                if session.response_written().is_none_or(is_interim) {
                    let error_context = error_context(&RequestView::of(session), ctx);
                    let reply = error_reply.reply(&error_context);
                    respond::write(reply, session, ctx).await.ok();
                }
                error_reply.status.as_u16()
            }
        };
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// Failures stand in the access log and the metrics; Pingora's own line for each would flood the error log.
    fn suppress_error_log(&self, _session: &Session, _exchange: &RequestContext, _error: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut RequestContext) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let line = || RequestLine::of(session.req_header());
        self.finish(ctx, error, line, status, session.body_bytes_sent());
        if error.is_none() {
            respond::read_rest_if_draining(session, ctx).await;
        }
    }
}

/// Why the request did not take the fast path: over HTTP/2 its head has it, over HTTP/1 its connection.
#[cold]
fn log_declined(request: &RequestView<'_>, ctx: &RequestContext) {
    let of_connection = || request.connection.and_then(|connection| connection.take_declined());
    let reason = request.head.extensions.get::<Declined>().map(|declined| declined.0).or_else(of_connection);
    log_decision!(ctx, "full path taken fast_path_declined={}", reason.unwrap_or("plain_http"));
}
