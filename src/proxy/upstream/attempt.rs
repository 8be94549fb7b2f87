//! A request's attempts at the servers of its pool: which comes next, and what each comes to.

use std::time::Instant;

use http::Method;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_core::upstreams::peer::HttpPeer;

use super::retry::Progress;
use super::{connection_auth, retry, server_cookie};
use crate::proxy::context::{RequestContext, destination, is_fault_of_body};
use crate::proxy::decision_log::{is_logged, log_decision};
use crate::proxy::request::RequestView;
use crate::request::is_repeatable;
use crate::upstream::ejection::Failure;
use crate::upstream::{Attempt, ConnectionUse, Demand, Endpoint, MayRetry, Outcome, Owner, Pool};

/// Selects the next server of the request's pool, and returns it with the time of the selection. `owner` is the owner of
/// the upstream connection, if it must not be shared.
pub fn next(request: &RequestView<'_>, ctx: &mut RequestContext, owner: Option<Owner>) -> Result<(Endpoint, Instant)> {
    let (pool, _) = destination(ctx)?;
    let now = Instant::now();
    pool.note_request(now);
    let demand = Demand { key: owner.map(Owner::key), is_safe: is_repeatable(&request.head.method), now };
    let named = server_cookie::endpoint(request.headers(), pool);
    let Some(attempt) = pool.select_named(named, &ctx.tried, demand) else {
        log_decision!(ctx, "no server left pool={} tried={}", pool.config.name, ctx.tried.len());
        return Err(Error::new(ErrorType::HTTPStatus(503)));
    };
    if is_logged!() {
        let server = &pool.server(attempt.endpoint.server).name;
        let number = ctx.tried.len() + 1;
        log_decision!(ctx, "server chosen pool={} server={server} attempt={number}", pool.config.name);
    }
    let endpoint = attempt.endpoint;
    let cookie = server_cookie::set(pool, named, endpoint);
    // The attempt before this one is over, whatever it ended with.
    ctx.tried.last_mut().into_iter().for_each(Attempt::end);
    ctx.tried.push(attempt);
    ctx.upstream_begun = Some(now);
    ctx.server_cookie = cookie;
    (ctx.is_unconnected, ctx.is_request_written) = (false, false);
    Ok((endpoint, now))
}

/// Returns the peer for Pingora: a private connection of the client where that has to be.
pub fn peer(request: &RequestView<'_>, is_upgrade: bool, ctx: &mut RequestContext) -> Result<HttpPeer> {
    let owner = connection_auth::owner(request, destination(ctx)?.0, ctx);
    ctx.upstream_owner = owner;
    let (endpoint, _) = next(request, ctx, owner)?;
    let (pool, read_timeout) = destination(ctx)?;
    let connection = match is_upgrade {
        true => ConnectionUse::Upgrade,
        false if wants_new_connection(ctx) => ConnectionUse::Once,
        false => ConnectionUse::Kept,
    };
    Ok(pool.peer(endpoint, read_timeout, connection, owner))
}

/// Whether the request has met a kept connection that was closed: the others that are kept may be as well.
pub fn wants_new_connection(ctx: &RequestContext) -> bool {
    ctx.tried.len() > 1 && ctx.tried.iter().any(|attempt| attempt.outcome() == Outcome::KeptClosed)
}

/// Records a failed connect. The server has not seen the request, so the next one may be tried.
pub fn not_connected(ctx: &mut RequestContext, error: &mut Error) {
    let now = Instant::now();
    let outcome = retry::not_connected(error);
    let mut is_repeatable = false;
    if let (Ok((pool, _)), Some(attempt)) = (destination(ctx), ctx.tried.last()) {
        observe(ctx, pool, false, now);
        pool.server(attempt.endpoint.server).failed(error);
        if let Some(failure) = retry::connect_failure(error) {
            pool.note_failure(attempt, failure, false, now);
        }
        is_repeatable = pool.config.retry.on_connect;
    }
    let may_retry = conclude(ctx, outcome, is_repeatable, now);
    error.set_retry(may_retry);
    log_decision!(ctx, "connection failed error={} retry={may_retry}", error.etype().as_str());
    (ctx.upstream_begun, ctx.is_unconnected) = (None, true);
}

/// Records an attempt that has failed after its connection was there, and decides whether there is another one.
pub fn failed(method: &Method, ctx: &mut RequestContext, error: &mut Error, progress: Progress) {
    let now = Instant::now();
    let has_head = ctx.status != 0;
    let mut outcome = None;
    if let (Ok((pool, _)), Some(attempt)) = (destination(ctx), ctx.tried.last()) {
        let progress = Progress { is_trial: attempt.is_trial(), ..progress };
        let is_of_client = is_fault_of_body(error, ctx);
        if !has_head && !is_of_client {
            outcome = retry::repeatable(error, method, progress, pool.config.retry);
        }
        // What may be silent has been so for too long: that says nothing of its server.
        let is_silence = |failure| failure == Failure::Timeout && ctx.is_responded && ctx.may_be_silent;
        let is_of_server =
            |failure: &Failure| !is_of_client && !retry::is_kept_closed(error, progress) && !is_silence(*failure);
        if let Some(failure) = retry::failure(error).filter(is_of_server) {
            pool.note_failure(attempt, failure, ctx.is_responded, now);
            if is_retry(&ctx.tried) && !ctx.is_responded {
                pool.retries().failed.inc();
            }
        }
    }
    let may_retry = outcome.is_some_and(|outcome| conclude(ctx, outcome, true, now));
    if may_retry {
        log_decision!(ctx, "attempt failed error={} retry=true", error.etype().as_str());
    }
    error.set_retry(may_retry);
}

/// Ends an attempt after which the request may be sent again, and returns whether it is.
fn conclude(ctx: &mut RequestContext, outcome: Outcome, is_wanted: bool, now: Instant) -> bool {
    let is_trial = ctx.tried.last().is_some_and(Attempt::is_trial);
    if let Some(attempt) = ctx.tried.last_mut() {
        attempt.failed(outcome);
    }
    let Ok((pool, _)) = destination(ctx) else { return false };
    let next = pool.may_retry(&ctx.tried);
    let is_unconnected = matches!(outcome, Outcome::NotConnected | Outcome::ConnectTimedOut);
    if is_unconnected && is_retry(&ctx.tried) && next != MayRetry::FurtherAddress {
        pool.retries().failed.inc();
    }
    let may_retry = match next {
        MayRetry::No => false,
        MayRetry::FurtherAddress => true,
        // A trial is made for the sake of the others, so its request is owed another attempt.
        MayRetry::Yes => is_wanted && (is_trial || pool.take_retry(now)),
    };
    if may_retry && outcome == Outcome::NoResponse {
        observe(ctx, pool, false, now);
        ctx.upstream_begun = None;
    }
    may_retry
}

/// The head of a response has come, interim ones apart.
pub fn responded(ctx: &mut RequestContext, status: u16) {
    ctx.is_responded = true;
    let (Some(attempt), Ok((pool, _))) = (ctx.tried.last(), destination(ctx)) else { return };
    pool.server(attempt.endpoint.server).metrics.responded(status);
    pool.note_head(attempt, status);
    if is_retry(&ctx.tried) {
        pool.retries().answered.inc();
    }
}

/// Whether the request was sent again: further addresses of one server are no retries.
fn is_retry(tried: &[Attempt]) -> bool {
    tried.len() > 1 && tried.iter().filter(|attempt| !attempt.is_further_address()).count() > 1
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
        // A client that left in the midst of a body has not seen whether it would have broken off.
        if let Some(attempt) = ctx.tried.last().filter(|_| ctx.is_responded && error.is_none()) {
            pool.note_end(attempt);
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
