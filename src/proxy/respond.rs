//! Writes the edge's own replies: within a time limit, and with HSTS over TLS.

use std::time::Duration;

use http::Version;
use http::header::STRICT_TRANSPORT_SECURITY;
use pingora::Result;
use pingora_proxy::Session;

use super::context::RequestContext;
use super::request::RequestView;
use crate::reply::Reply;
use crate::snapshot::Snapshot;

/// For a reply of ours over HTTP/2.
const HTTP2_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Errors when the client is gone or has not taken the reply in time.
pub async fn write(reply: Reply, session: &mut Session, ctx: &RequestContext) -> Result<()> {
    let snapshot = &ctx.snapshot;
    let request = RequestView::of(session);
    let (reply, limit) = (with_hsts(reply, request.is_tls, snapshot), reply_timeout(request.head.version, snapshot));
    reply.write(session, &ctx.request_id, limit).await
}

/// How long a client has to take a reply of ours. Over HTTP/2 it is short enough for most windows, so a client that
/// leaves them shut gets less time than for an application's response; over HTTP/1.1 it may stand behind one of those.
pub fn reply_timeout(version: Version, snapshot: &Snapshot) -> Duration {
    match version {
        Version::HTTP_2 => snapshot.timeouts.write.min(HTTP2_REPLY_TIMEOUT),
        _ => snapshot.timeouts.write,
    }
}

/// Adds `Strict-Transport-Security`, over TLS alone: over plain HTTP an attacker could set it, and browsers ignore it (RFC
/// 6797 §7.2).
pub fn with_hsts(reply: Reply, is_tls: bool, snapshot: &Snapshot) -> Reply {
    match &snapshot.hsts {
        Some(hsts) if is_tls => reply.with(STRICT_TRANSPORT_SECURITY, hsts.clone()),
        _ => reply,
    }
}
