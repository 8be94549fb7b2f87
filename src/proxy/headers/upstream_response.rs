//! The head of an application's response on its way to the client, on both request paths.

use http::{HeaderMap, Version, header};
use nix::sys::socket::{Shutdown, shutdown};
use pingora::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::location;
use super::response_rules::{RequestFacts, UpstreamSync, sanitize};
use super::route_fields;
use crate::framing::is_bodiless;
use crate::host::Authority;
use crate::proxy::context::{RequestContext, destination};
use crate::proxy::decision_log::log_decision;
use crate::proxy::gateway::Gateway;
use crate::proxy::headers;
use crate::proxy::request::RequestView;
use crate::proxy::upstream::{attempt, connection_auth, server_cookie};

/// Interim responses (RFC 9110 §15.2) to one request; what sends more never comes to a response.
const MAX_INTERIM_RESPONSES: usize = 64;

impl Gateway {
    /// What a head becomes, but for its compression. Interim heads come here too. An ordinary head goes the fast path past
    /// this, because `upstream::parse` has checked that nothing here would change it but for what it leaves out itself.
    pub fn filter_response_head(
        &self,
        request: &RequestView<'_>,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        log_decision!(ctx, "response received status={}", response.status.as_u16());
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS && !request.headers().contains_key(header::UPGRADE)
        {
            // Whatever followed would pass for a conversation. Pingora lets it through.
            return Err(refused("an upgrade that was not requested"));
        }
        if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
            ctx.interim_responses += 1;
            if ctx.interim_responses > MAX_INTERIM_RESPONSES {
                return Err(refused("too many interim responses"));
            }
        } else {
            attempt::responded(ctx, response.status.as_u16());
        }
        if connection_auth::challenges(&response.headers)
            && let (Some(attempt), Ok((pool, _))) = (ctx.tried.last(), destination(ctx))
        {
            // Before the connection goes back to a pool; one of the client's own is kept for the next step.
            pool.server(attempt.endpoint.server).authenticates_connections();
            ctx.upstream_out_of_sync |= ctx.upstream_owner.is_none();
        }
        headers::drop_reserved_set_cookies(response, ctx.snapshot.own_cookies.names())?;
        let client = request.head.version;
        let facts = RequestFacts {
            method: &request.head.method,
            version: client,
            // Pingora reads trailers of HTTP/2 applications alone, and writes them to HTTP/2 clients alone.
            takes_trailers: client == Version::HTTP_2 && destination(ctx)?.0.speaks_http2(),
        };
        let (status, version) = (response.status, response.version);
        let is_final = !status.is_informational() || status == http::StatusCode::SWITCHING_PROTOCOLS;
        let mut sanitized = Ok(UpstreamSync::InSync);
        headers::rewrite_response(response, |fields| {
            sanitized = sanitize(status, version, fields, facts);
            repair_location(request, fields, ctx);
            fields.insert(headers::REQUEST_ID.clone(), ctx.request_id.value().clone());
        })?;
        if sanitized.map_err(refused)? == UpstreamSync::OutOfSync {
            ctx.upstream_out_of_sync = true;
        }
        if client != Version::HTTP_2 {
            // A status line has the version of its sender (RFC 9112 §2.3).
            response.set_version(Version::HTTP_11);
        }
        // The Content-Length is that of the application, before compression removes it.
        Self::store_content_length(response, ctx);
        // What kind of response it is was said by the application, whatever is changed of that.
        self.watch_response_head(request, response, ctx)?;
        route_fields::change_response(response, ctx)?;
        match ctx.server_cookie.as_ref().filter(|_| is_final) {
            // After what the configuration changes, which may take out every cookie, or say that caches may store it.
            Some(cookie) => headers::rewrite_response(response, |fields| server_cookie::add(fields, cookie)),
            None => Ok(()),
        }
    }
}

/// Repairs the `Location` of a redirect, where the route has it so.
fn repair_location(request: &RequestView<'_>, fields: &mut HeaderMap, ctx: &RequestContext) {
    if !fields.contains_key(header::LOCATION) {
        return;
    }
    let forward = ctx.service.as_ref().and_then(|service| service.at(ctx.route).config.action.forward());
    let Some(forward) = forward.filter(|forward| forward.location_repair) else { return };
    let written = match request.head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let Some((written, Ok(authority))) = written.map(|written| (written, Authority::parse(written))) else { return };
    let server = ctx.tried.last().zip(destination(ctx).ok());
    let facts = location::Facts {
        host: &authority.host,
        authority: written,
        path: request.head.uri.path(),
        // A Unix socket has no address that a location could name.
        server: server.and_then(|(attempt, (pool, _))| {
            Some((pool.server(attempt.endpoint.server).name.as_str(), attempt.endpoint.address?))
        }),
        prefixes: forward.prefixes.as_ref(),
    };
    location::repair(fields, &facts);
}

/// The whole response has been read, so that Pingora is about to keep the application's connection for other requests.
/// Where that must not be, the socket is shut down beneath it: Pingora has no other way to prevent the reuse, and does not
/// reuse an idle connection that has ended.
pub fn release(session: &mut Session, ctx: &mut RequestContext) {
    let Some(socket) = ctx.upstream_socket.take().filter(|_| ctx.upstream_out_of_sync) else { return };
    // A body that is still on its way to the application may go on.
    let how = if session.as_downstream_mut().is_body_empty() { Shutdown::Both } else { Shutdown::Read };
    // It may have ended by itself.
    shutdown(socket, how).ok();
}

/// Whether the client cannot know otherwise where the body ends: over HTTP/1.0 there are no chunks (RFC 9112 §6.1).
pub fn is_close_delimited(request: &RequestHeader, response: &ResponseHeader) -> bool {
    request.version == Version::HTTP_10
        && !is_bodiless(response.status, &request.method)
        && !response.headers.contains_key(header::CONTENT_LENGTH)
}

fn refused(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}
