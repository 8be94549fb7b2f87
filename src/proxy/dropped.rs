//! Requests that are dropped before they have ended, by a signal, with their connection or at the end of the drain: each
//! has its line in the access log, with the reason.
//!
//! A request on the full path keeps what its line needs from its first filter on, because only Pingora knows where its
//! head is. On the fast path the head outlives the request, and a guard on the stack is enough.

use std::time::Instant;

use super::cancel;
use super::context::{RecordOnDrop, RequestContext};
use super::gateway::Gateway;
use super::record::RequestLine;
use super::request::RequestView;
use crate::audit_log::{self, Event};
use crate::auth::streams::{EndReason, OpenStream};
use crate::client_prefix::UNKNOWN_CLIENT_IP;

/// A request that may be dropped, with what is needed to record it without Pingora.
pub struct CancellableRequest {
    pub gateway: Gateway,
    pub line: RequestLine,
}

/// A request on the fast path. It is recorded when this is dropped, unless it has been recorded by then.
pub struct RecordGuard<'a> {
    gateway: &'a Gateway,
    request: &'a RequestView<'a>,
    pub ctx: &'a mut RequestContext,
    pub is_recorded: bool,
}

impl<'a> RecordGuard<'a> {
    pub fn new(gateway: &'a Gateway, request: &'a RequestView<'a>, ctx: &'a mut RequestContext) -> Self {
        Self { gateway, request, ctx, is_recorded: false }
    }
}

impl Drop for RecordGuard<'_> {
    fn drop(&mut self) {
        if !self.is_recorded {
            // A stream would be recorded by what it has left behind, which comes to the same.
            self.ctx.on_drop = None;
            record_dropped(self.gateway, self.ctx, RequestLine::of(self.request.head));
        }
    }
}

impl RecordOnDrop for CancellableRequest {
    fn record_request(self: Box<Self>, ctx: &mut RequestContext) {
        record_dropped(&self.gateway, ctx, self.line);
    }
}

fn record_dropped(gateway: &Gateway, ctx: &mut RequestContext, line: RequestLine) {
    let stream = ctx.stream.take();
    match stream.as_ref().and_then(OpenStream::end_reason) {
        Some(over) => {
            ctx.error = Some(if ctx.identity.is_some() { "session_ended" } else { "access_ended" });
            ctx.reason = Some(over.label());
            stream_closed(gateway, ctx, &line, over);
        }
        None if cancel::is_over_limit() => {
            ctx.error = Some(cancel::OVER_LIMIT);
            gateway.metrics.limit_reached(cancel::OVER_LIMIT);
        }
        None if cancel::was_reset() => ctx.error = Some("client_gone"),
        None if ctx.is_body_late() => ctx.error = Some("client_timeout"),
        None if std::thread::panicking() => ctx.error = Some("internal"),
        None if ctx.drain().is_cutting() => {
            ctx.error = Some("cut_off");
            gateway.metrics.operation.drain_cut.inc();
        }
        // Its connection has ended.
        None => ctx.error = Some("client_gone"),
    }
    gateway.record_request(ctx, || line, ctx.status, ctx.bytes_sent, Instant::now());
}

fn stream_closed(gateway: &Gateway, ctx: &RequestContext, line: &RequestLine, over: &EndReason) {
    gateway.metrics.traffic.streams_closed.with_label_values(&[over.kind()]).inc();
    let entry = audit_log::Entry {
        event: Event::StreamClosed,
        client: ctx.client.unwrap_or(UNKNOWN_CLIENT_IP),
        request_id: &ctx.request_id,
        user: ctx.user(),
        host: Some(line.authority()),
        reason: Some(over.label()),
    };
    gateway.audit.write(gateway.clock.now(), entry);
}
