//! Clients that ask faster than they may, in all and of one service; and those whose bodies drip.

use http::{StatusCode, Version, header};
use pingora_proxy::Session;

use super::Gateway;
use super::client::is_trusted;
use super::decide::{Decision, asked};
use super::exchange::Exchange;
use crate::network::Network;
use crate::rates::Asker;
use crate::reply::Reply;

impl Gateway {
    /// Counts a request against its client's rate: of its service once that is known, and else in all. `429` when
    /// that is used up. A trusted proxy's clients have theirs, and it itself has none.
    pub(super) fn too_fast(&self, session: &Session, exchange: &mut Exchange) -> Option<Decision> {
        let snapshot = &exchange.snapshot;
        let (service, limit) = match &exchange.service {
            None => (None, snapshot.limits.requests_per_second),
            Some(service) => (Some(&service.name), service.requests_per_second),
        };
        let client = exchange.client.filter(|client| !is_trusted(*client, &snapshot.trusted_proxies))?;
        let asker = Asker { network: Network::of(client), service: service.cloned() };
        let wait = snapshot.rates.take(asker, limit?, self.clock.now()).err()?;
        exchange.reason = Some("requests_per_second");
        self.metrics.limit_reached("requests_per_second");
        let text = "There were more requests from this address than are allowed. Try again in a moment.";
        let reply = Reply::problem(&asked(session, exchange), StatusCode::TOO_MANY_REQUESTS, "Too many requests", text);
        Some(reply.retry_after(wait.as_secs().max(1)).into())
    }
}

/// Whether a body takes longer than one read may, and brings less than it has to. The read timeout bounds silence and
/// nothing else: a byte a minute would hold a connection, and one of the application's, for ever.
pub fn drips(session: &Session, exchange: &Exchange) -> bool {
    let request = session.req_header();
    // What has no length over HTTP/2 may be a conversation, as in gRPC.
    if request.version == Version::HTTP_2 && !request.headers.contains_key(header::CONTENT_LENGTH) {
        return false;
    }
    let route = exchange.service.as_ref().and_then(|service| service.at(exchange.route).read_timeout);
    let patience = exchange.snapshot.timeouts.read.max(route.unwrap_or_default());
    let Some(late) = exchange.begun.elapsed().checked_sub(patience) else { return false };
    (exchange.body_bytes as f64) < exchange.snapshot.limits.body_rate as f64 * late.as_secs_f64()
}
