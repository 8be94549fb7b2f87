//! How replies of ours go out: in time, and over TLS with the word that it is to stay so.

use http::header::STRICT_TRANSPORT_SECURITY;
use pingora::Result;
use pingora_proxy::Session;

use super::asking::Asking;
use super::exchange::Exchange;
use crate::reply::Reply;
use crate::snapshot::Snapshot;

/// Errors when the client is gone or has not taken the reply in time.
pub async fn write(reply: Reply, session: &mut Session, exchange: &Exchange) -> Result<()> {
    let snapshot = &exchange.snapshot;
    let reply = dressed(reply, Asking::of(session).is_tls, snapshot);
    reply.write(session, &exchange.request_id, snapshot.timeouts.write).await
}

/// Over plain HTTP anybody could say it (RFC 6797 §7.2), and browsers do not listen.
pub fn dressed(reply: Reply, is_tls: bool, snapshot: &Snapshot) -> Reply {
    match &snapshot.hsts {
        Some(hsts) if is_tls => reply.with(STRICT_TRANSPORT_SECURITY, hsts.clone()),
        _ => reply,
    }
}
