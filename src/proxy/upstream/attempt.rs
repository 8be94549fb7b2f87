//! A request's attempts at the servers of its pool: which comes next, and what each comes to.

use std::time::Instant;

use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_core::upstreams::peer::HttpPeer;

use super::connection_auth;
use crate::proxy::context::{RequestContext, destination, is_fault_of_body};
use crate::proxy::decision_log::{is_logged, log_decision};
use crate::proxy::request::RequestView;
use crate::upstream::{Attempt, Endpoint, Owner, Pool};

/// Selects the next server of the request's pool, and returns it with the time of the selection. `owner` is the owner of
/// the upstream connection, if it must not be shared.
pub fn next(ctx: &mut RequestContext, owner: Option<Owner>) -> Result<(Endpoint, Instant)> {
    let (pool, _) = destination(ctx)?;
    let Some(attempt) = pool.select(&ctx.tried, owner.map(Owner::key)) else {
        log_decision!(ctx, "no server left pool={} tried={}", pool.config.name, ctx.tried.len());
        return Err(Error::new(ErrorType::HTTPStatus(503)));
    };
    if is_logged!() {
        let server = &pool.server(attempt.endpoint.server).name;
        let number = ctx.tried.len() + 1;
        log_decision!(ctx, "server chosen pool={} server={server} attempt={number}", pool.config.name);
    }
    let (endpoint, now) = (attempt.endpoint, Instant::now());
    // The attempt before this one is over, whatever it ended with.
    ctx.tried.last_mut().into_iter().for_each(Attempt::end);
    ctx.tried.push(attempt);
    ctx.upstream_begun = Some(now);
    Ok((endpoint, now))
}

/// Returns the peer for Pingora: a private connection of the client where that has to be.
pub fn peer(request: &RequestView<'_>, is_upgrade: bool, ctx: &mut RequestContext) -> Result<HttpPeer> {
    let owner = connection_auth::owner(request, destination(ctx)?.0, ctx);
    ctx.upstream_owner = owner;
    let (endpoint, _) = next(ctx, owner)?;
    let (pool, read_timeout) = destination(ctx)?;
    Ok(pool.peer(endpoint, read_timeout, is_upgrade, owner))
}

/// Records a failed connect. The server has not seen the request, so the next one may be tried.
pub fn not_connected(ctx: &mut RequestContext, error: &mut Error) {
    if let Some(attempt) = ctx.tried.last_mut() {
        attempt.failed(matches!(error.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout));
    }
    if let Ok((pool, _)) = destination(ctx) {
        observe(ctx, pool, false, Instant::now());
        if let Some(attempt) = ctx.tried.last() {
            pool.server(attempt.endpoint.server).failed(error);
        }
        error.set_retry(pool.may_retry(&ctx.tried));
        log_decision!(ctx, "connection failed error={} retry={}", error.etype().as_str(), error.retry());
    }
    ctx.upstream_begun = None;
}

/// Ends the request's last attempt. From here on the request cannot be cancelled.
pub fn ended(ctx: &mut RequestContext, error: Option<&Error>, now: Instant) {
    (ctx.stream, ctx.on_drop) = (None, None);
    if let (Some(_), Ok((pool, _))) = (ctx.upstream_begun, destination(ctx)) {
        // The client's own failures (it left, or sent too much) do not count against the server.
        let of_client = |error: &Error| *error.esource() != ErrorSource::Upstream || is_fault_of_body(error, ctx);
        if !error.is_some_and(of_client) {
            observe(ctx, pool, error.is_none(), now);
        }
    }
}

/// Counts the attempt that is under way, once.
fn observe(ctx: &RequestContext, pool: &Pool, answered: bool, now: Instant) {
    let (Some(begun), Some(attempt)) = (ctx.upstream_begun, ctx.tried.last()) else { return };
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
