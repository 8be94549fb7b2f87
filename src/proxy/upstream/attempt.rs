//! A request's attempts at the servers of its pool: which comes next, and what each comes to.

use std::time::Instant;

use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_core::upstreams::peer::HttpPeer;

use super::connection_auth;
use crate::proxy::context::{Exchange, destination, is_fault_of_body};
use crate::proxy::request::Asking;
use crate::upstream::{Endpoint, Owner, Pool};

/// Where the request is to go now, of its pool, and since when. `owner` is that of its connection, if any.
pub fn next(exchange: &mut Exchange, owner: Option<Owner>) -> Result<(Endpoint, Instant)> {
    let (pool, _) = destination(exchange)?;
    let attempt = pool.select(&exchange.tried, owner).ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
    let now = Instant::now();
    exchange.tried.push(attempt);
    exchange.upstream_begun = Some(now);
    Ok((attempt.endpoint, now))
}

/// How Pingora reaches that server: on a connection of the client's own where that has to be.
pub fn peer(asking: &Asking<'_>, is_upgrade: bool, exchange: &mut Exchange) -> Result<HttpPeer> {
    let owner = connection_auth::owner(asking, destination(exchange)?.0, exchange);
    exchange.upstream_owner = owner;
    let (endpoint, _) = next(exchange, owner)?;
    let (pool, read_timeout) = destination(exchange)?;
    Ok(pool.peer(endpoint, read_timeout, is_upgrade, owner))
}

/// A connection that was never made has harmed nobody: the next server may have the request.
pub fn not_connected(exchange: &mut Exchange, error: &mut Error) {
    if let Some(attempt) = exchange.tried.last_mut() {
        attempt.timed_out = matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
    }
    if let Ok((pool, _)) = destination(exchange) {
        observe(exchange, pool, false, Instant::now());
        if let Some(attempt) = exchange.tried.last() {
            pool.server(attempt.endpoint.server).failed(error);
        }
        error.set_retry(pool.may_retry(&exchange.tried));
    }
    exchange.upstream_begun = None;
}

/// The request is over, by itself: nobody is to cut it any more.
pub fn ended(exchange: &mut Exchange, error: Option<&Error>, now: Instant) {
    (exchange.stream, exchange.unsettled) = (None, None);
    if let (Some(_), Ok((pool, _))) = (exchange.upstream_begun, destination(exchange)) {
        // A client that went away, or sent too much, says nothing of the server.
        let of_client = |error: &Error| *error.esource() != ErrorSource::Upstream || is_fault_of_body(error, exchange);
        if !error.is_some_and(of_client) {
            observe(exchange, pool, error.is_none(), now);
        }
    }
}

/// Counts the attempt that is under way, once.
fn observe(exchange: &Exchange, pool: &Pool, answered: bool, now: Instant) {
    let (Some(begun), Some(attempt)) = (exchange.upstream_begun, exchange.tried.last()) else { return };
    let server = pool.server(attempt.endpoint.server);
    let metrics = &server.metrics;
    if answered {
        server.answered();
        metrics.answered.inc();
    } else {
        metrics.failed.inc();
    }
    metrics.duration.observe(now.duration_since(begun).as_secs_f64());
}
