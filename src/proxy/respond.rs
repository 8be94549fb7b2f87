//! Writes the edge's own replies: within a time limit, and with HSTS over TLS.

use std::time::Duration;

use http::header::{EXPECT, STRICT_TRANSPORT_SECURITY};
use http::{HeaderName, HeaderValue, Version};
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use pingora_timeout::timeout;

use super::context::RequestContext;
use super::downstream::writer::ResponseWriter;
use super::policy::RESERVED;
use super::request::{RequestView, authority};
use crate::host::{Authority, Host};
use crate::path::{self, CanonicalPath};
use crate::reply::Reply;
use crate::routes::Service;
use crate::snapshot::Snapshot;

/// For a reply of ours over HTTP/2.
const HTTP2_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes a reply on the full path. Errors when the client is gone or has not taken the reply in time.
pub async fn write(reply: Reply, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
    let (reply, limit) = prepare(reply, &RequestView::of(session), ctx);
    // Of a request that is cut while its client takes no body, the line has what was answered.
    ctx.status = reply.status().as_u16();
    close_if_draining(session, ctx);
    reply.write(session, &ctx.request_id, limit).await
}

/// Called on the full path before a head is written: a connection over HTTP/1.1 is closed after this response if the
/// process drains, and the head says so.
pub fn close_if_draining(session: &mut Session, ctx: &RequestContext) {
    if !ctx.drain().keeps_alive(true) {
        session.as_downstream_mut().set_keepalive(None);
    }
}

/// Called when a response over HTTP/1.1 is complete: reads the rest of the request's body away if the process drains, within
/// the time that `full_path` sets. Pingora does that only on connections that are kept, and closing one with a body in it resets
/// it, which may take the response away (RFC 9112 §9.6). Not where the client may wait for `100 Continue`, see
/// [`linger`](crate::reply::linger).
pub async fn read_rest_if_draining(session: &mut Session, ctx: &RequestContext) {
    let downstream = session.as_downstream_mut();
    let may_have_body = downstream.as_http1().is_some()
        && !downstream.is_upgrade_req()
        && !downstream.req_header().headers.contains_key(EXPECT);
    if ctx.drain().is_draining() && may_have_body {
        // It is closed in any case.
        downstream.drain_request_body().await.ok();
    }
}

/// Writes a reply on the fast path; errors as [`write`] does.
pub async fn write_to<W: ResponseWriter>(
    reply: Reply,
    request: &RequestView<'_>,
    writer: &mut W,
    ctx: &mut RequestContext,
) -> Result<()> {
    let (reply, limit) = prepare(reply, request, ctx);
    ctx.status = reply.status().as_u16();
    if reply.closes() {
        writer.disable_keep_alive();
    }
    let head = reply.head(&ctx.request_id)?;
    writer.write_head(Box::new(head), reply.body().is_empty()).await?;
    let Ok(written) = timeout(limit, writer.write_body(reply.body().clone(), true)).await else {
        return Err(Error::new_down(ErrorType::WriteTimedout));
    };
    written?;
    writer.finish().await
}

/// What both paths do to a reply before it is written, and how long the client has to take it.
fn prepare(reply: Reply, request: &RequestView<'_>, ctx: &RequestContext) -> (Reply, Duration) {
    let snapshot = &ctx.snapshot;
    let service = service(request, ctx);
    // Pages of the sign-on, below `/.sentry/` of each service too, are the edge's.
    let reply = if is_reserved(request.head.uri.path()) { reply } else { with_error_page(reply, service, ctx) };
    let reply = match hsts(request.is_tls, service, snapshot) {
        // A fixed reply may have that of its route.
        Some((name, value)) if reply.field(&name).is_none() => reply.with(name, value),
        _ => reply,
    };
    (reply, reply_timeout(request.head.version, snapshot))
}

/// The service of a request's host, also where the request was refused before it was looked for, as one too many or with
/// a malformed path.
fn service<'a>(request: &RequestView<'_>, ctx: &'a RequestContext) -> Option<&'a Service> {
    let of_host = || {
        let host = host(request)?;
        // A pattern of a service may be for the sign-on host too.
        ctx.snapshot.routes.find(&host).filter(|_| !ctx.snapshot.sentry.is_sentry_host(&host))
    };
    ctx.service.as_ref().or_else(of_host).map(AsRef::as_ref)
}

/// Puts the service's own page in the place of the edge's, where it has one for the status.
fn with_error_page(reply: Reply, service: Option<&Service>, ctx: &RequestContext) -> Reply {
    let pages = &ctx.snapshot.error_pages;
    if !reply.is_error_page() || pages.is_empty() {
        return reply;
    }
    let pages = service.and_then(|service| pages.get(&service.config.name));
    match pages.and_then(|pages| pages.page(reply.status(), &ctx.request_id)) {
        Some(html) => reply.with_page(html),
        None => reply,
    }
}

/// Whether a path is one of the sign-on's. One that cannot be read is judged by how it begins.
fn is_reserved(path: &str) -> bool {
    let begins = || path::is_under_in_any_case(path.as_bytes(), RESERVED.as_bytes());
    CanonicalPath::of(path).map_or_else(|_| begins(), |path| path.is_under(RESERVED))
}

/// The host that a request names, if it can be read.
fn host(request: &RequestView<'_>) -> Option<Host> {
    let (authority, _) = authority(request.head).ok()?;
    Some(Authority::parse(authority.to_str().ok()?).ok()?.host)
}

/// How long a client has to take a reply of ours. Over HTTP/2 it is short enough for most windows, so a client that
/// leaves them shut gets less time than for an application's response; over HTTP/1.1 it may stand behind one of those.
fn reply_timeout(version: Version, snapshot: &Snapshot) -> Duration {
    match version {
        Version::HTTP_2 => snapshot.timeouts.write.min(HTTP2_REPLY_TIMEOUT),
        _ => snapshot.timeouts.write,
    }
}

/// `Strict-Transport-Security`, over TLS alone: over plain HTTP an attacker could set it, and browsers ignore it (RFC
/// 6797 §7.2). A browser keeps the last one that it gets from a host (RFC 6797 §8.1), so all of a service's hosts say the
/// same.
pub fn hsts(is_tls: bool, service: Option<&Service>, snapshot: &Snapshot) -> Option<(HeaderName, HeaderValue)> {
    let of_service = || service.and_then(|service| service.hsts.as_ref());
    let value = is_tls.then(|| of_service().or(snapshot.hsts.as_ref())).flatten();
    value.map(|hsts| (STRICT_TRANSPORT_SECURITY, hsts.clone()))
}
