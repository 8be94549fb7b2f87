//! Rate limits of clients, in all and for one service, and the deadlines and minimum rate of request bodies.

use std::time::Duration;

use http::{StatusCode, Version, header};
use pingora::Result;
use pingora_proxy::Session;
use tokio::time::Instant;

use super::cancel::{cancel_at, cancel_when_reset};
use super::context::{RequestContext, destination};
use super::decision::Decision;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::client_prefix::ClientPrefix;
use crate::rate_limit::RateKey;
use crate::reply::Reply;

impl Gateway {
    /// Counts a request against its client's rate: of its service once that is known, and else in all. `429` when
    /// that is used up. A trusted proxy's clients have theirs, and the proxy's own requests are not counted. Where the
    /// client that it names cannot be made out, the request counts as the proxy's: else a client could send what cannot
    /// be read and have no limit at all.
    pub(super) fn rate_limited(&self, request: &RequestView<'_>, ctx: &mut RequestContext) -> Option<Decision> {
        let snapshot = &ctx.snapshot;
        let (service, limit) = match &ctx.service {
            None => (None, snapshot.limits.requests_per_second),
            Some(service) => (Some(&service.config.name), service.config.requests_per_second),
        };
        let client = ctx.client.filter(|_| !ctx.is_of_proxy)?;
        let key = RateKey { prefix: ClientPrefix::of(client), service: service.cloned() };
        let scope = service.map_or("edge", |service| service);
        let Err(wait) = snapshot.rates.take(key, limit?, self.clock.now()) else {
            log_decision!(ctx, "rate limit passed scope={scope} client={client}");
            return None;
        };
        log_decision!(ctx, "rate limit exceeded scope={scope} client={client} retry_after={wait:?}");
        ctx.reason = Some("requests_per_second");
        self.metrics.limit_reached("requests_per_second");
        let text = "More requests came from this network address than are allowed. Please try again in a moment.";
        let reply =
            Reply::problem(&error_context(request, ctx), StatusCode::TOO_MANY_REQUESTS, "Too many requests", text);
        Some(reply.retry_after(wait.as_secs().max(1)).into())
    }

    /// Starts the deadline for the next bytes of the request body, if there are more. Over HTTP/1.1 Pingora has a timeout
    /// for each read; over HTTP/2 it has none, and the request is cancelled.
    pub(super) fn start_body_deadline(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        let done = session.as_downstream().is_upgrade_req() || session.as_downstream_mut().is_body_done();
        if done {
            return Ok(());
        }
        if is_http2(session) {
            self.record_if_cancelled(&RequestView::of(session), ctx);
            cancel_when_reset()?;
        }
        if expects_continue(session) || is_bidi_stream(session, ctx) {
            return Ok(());
        }
        ctx.body_due = Some(Instant::now());
        body_received(session, ctx, false)
    }
}

/// Moves the deadline after bytes of the body, or its end, have arrived.
pub fn body_received(session: &Session, ctx: &mut RequestContext, end: bool) -> Result<()> {
    if ctx.body_due.is_none() {
        return Ok(());
    }
    // A client that waits for an application which accepts no more bytes is not late itself: the write timeout of the
    // application comes first.
    let writes = destination(ctx).map_or(Duration::ZERO, |(pool, _)| pool.write_timeout());
    ctx.body_due = (!end).then(|| Instant::now() + body_timeout(ctx).max(writes));
    if is_http2(session) { cancel_at(ctx.body_due) } else { Ok(()) }
}

fn is_http2(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_2
}

/// Whether the client waits for `100 Continue` before it sends its body (RFC 9110 §10.1.1). Then a delay may be the
/// application's.
fn expects_continue(session: &Session) -> bool {
    !is_http2(session) && session.req_header().headers.contains_key(header::EXPECT)
}

/// The longest time between two reads of a request body.
fn body_timeout(ctx: &RequestContext) -> Duration {
    let route = ctx.service.as_ref().and_then(|service| service.at(ctx.route).config.read_timeout);
    ctx.snapshot.timeouts.read.max(route.unwrap_or_default())
}

/// Whether both sides may send by turns, and so be silent for long: gRPC and similar protocols, with HTTP/2 on both sides, and a body
/// without a length.
fn is_bidi_stream(session: &Session, ctx: &RequestContext) -> bool {
    is_http2(session)
        && !session.req_header().headers.contains_key(header::CONTENT_LENGTH)
        && destination(ctx).is_ok_and(|(pool, _)| pool.speaks_http2())
}

/// Whether a body takes longer than one read may, and arrives below the minimum rate. The read timeout bounds silence and
/// nothing else: a byte a minute would hold a connection, and one of the application's, for ever.
pub fn below_min_body_rate(session: &Session, ctx: &RequestContext) -> bool {
    if is_bidi_stream(session, ctx) {
        return false;
    }
    let body_timeout = body_timeout(ctx);
    let Some(late) = ctx.begun.elapsed().checked_sub(body_timeout) else { return false };
    (ctx.body_bytes as f64) < ctx.snapshot.limits.min_body_rate as f64 * late.as_secs_f64()
}
