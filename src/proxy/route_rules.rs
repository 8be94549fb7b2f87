//! What a route refuses of requests, whether a user has signed in or not: by the client's address, by the method, by the
//! size of the body. Decided on both request paths by the same functions.

use http::{HeaderValue, StatusCode, header};

use super::context::RequestContext;
use super::decision::Decision;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::request::RequestView;
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::reply::Reply;
use crate::routes::{Route, Service};
use crate::snapshot::Snapshot;

/// The `reason` in the log of a request from an address that its route does not admit.
pub const ADDRESS: &str = "address";

/// The `reason` in the log of a request by a method that its route does not serve.
pub const METHOD: &str = "method";

/// Returns the limit of a body in bytes: that of its route, or that of all requests.
pub fn body_limit(route: Option<&Route>, snapshot: &Snapshot) -> usize {
    route.and_then(|route| route.config.rules.body_bytes).unwrap_or(snapshot.limits.body_bytes)
}

/// `403` for a client from an address that the route does not admit. Nothing has been looked up or spent for it: neither
/// a ticket nor a session.
pub fn refused_address(
    request: &RequestView<'_>,
    ctx: &mut RequestContext,
    service: &Service,
    route: &Route,
) -> Option<Decision> {
    let client = ctx.client.unwrap_or(UNKNOWN_CLIENT_IP);
    if route.config.rules.addresses.admit(client) {
        return None;
    }
    log_decision!(ctx, "refused reason={ADDRESS} client={client}");
    (ctx.outcome, ctx.reason) = (Some("forbidden"), Some(ADDRESS));
    service.metrics.refused_by_rule(ADDRESS);
    let text = "This page cannot be opened from the network that you are in.";
    let context = error_context(request, ctx).bare();
    Some(Reply::problem(&context, StatusCode::FORBIDDEN, "Not available here", text).into())
}

/// Returns the decision for a request that is forwarded, unless its route does not serve the method. A preflight that its
/// route leaves to the application is not held against that: the application decides on methods itself.
pub fn with_method(decision: Decision, request: &RequestView<'_>, ctx: &mut RequestContext, route: &Route) -> Decision {
    let serves = |ctx: &RequestContext| ctx.is_preflight || route.config.serves(&request.head.method);
    match decision {
        Decision::Forward if !serves(ctx) => refused_method(request, ctx, route),
        decision => decision,
    }
}

/// `405` for a method that the route does not serve, with those that it serves (RFC 9110 §15.5.6).
#[cold]
fn refused_method(request: &RequestView<'_>, ctx: &mut RequestContext, route: &Route) -> Decision {
    log_decision!(ctx, "refused reason={METHOD}");
    ctx.reason = Some(METHOD);
    let text = "This address does not accept this kind of request.";
    let context = error_context(request, ctx);
    let reply = Reply::problem(&context, StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", text);
    match HeaderValue::try_from(route.config.allow()) {
        Ok(allow) => reply.with(header::ALLOW, allow).into(),
        // Names of methods are ASCII, so this cannot be.
        Err(_) => reply.into(),
    }
}
