//! A request's attempts at the servers of its pool: which comes next, and what each comes to.

use std::time::Instant;

use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_core::upstreams::peer::HttpPeer;

use super::connection_auth;
use crate::proxy::context::{RequestContext, destination, is_fault_of_body};
use crate::proxy::decision_log::{is_logged, log_decision};
use crate::proxy::request::RequestView;
use crate::upstream::{Attempt, Endpoint, Owner, Pool};

/// Where the request is to go now, of its pool, and since when. `owner` is that of its connection, if any.
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

/// How Pingora reaches that server: on a connection of the client's own where that has to be.
pub fn peer(request: &RequestView<'_>, is_upgrade: bool, ctx: &mut RequestContext) -> Result<HttpPeer> {
    let owner = connection_auth::owner(request, destination(ctx)?.0, ctx);
    ctx.upstream_owner = owner;
    let (endpoint, _) = next(ctx, owner)?;
    let (pool, read_timeout) = destination(ctx)?;
    Ok(pool.peer(endpoint, read_timeout, is_upgrade, owner))
}

/// A connection that was never made has harmed nobody: the next server may have the request.
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

/// The request is over, by itself: nobody is to cut it any more.
pub fn ended(ctx: &mut RequestContext, error: Option<&Error>, now: Instant) {
    (ctx.stream, ctx.on_drop) = (None, None);
    if let (Some(_), Ok((pool, _))) = (ctx.upstream_begun, destination(ctx)) {
        // A client that went away, or sent too much, says nothing of the server.
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
