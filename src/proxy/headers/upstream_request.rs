//! Sets the fields of the request to the application, from what is known of the request. Called by
//! `upstream_request_filter` and by the fast path, for every server that is tried.

use std::net::IpAddr;

use http::{HeaderValue, Version, header};
use pingora::{Error, ErrorType, Result};

use super::edit::HeaderEdit;
use super::route_fields;
use crate::auth::{Source, has_bearer};
use crate::config::{Access, ForwardToken};
use crate::proxy::context::{RequestContext, destination};
use crate::proxy::gateway::Gateway;
use crate::proxy::headers;
use crate::proxy::request::{RequestView, authority};

impl Gateway {
    /// Takes out of an application's request what clients must not say, and says what only we may.
    pub fn set_forwarding_headers(
        &self,
        request: &RequestView<'_>,
        fields: &mut impl HeaderEdit,
        ctx: &RequestContext,
    ) -> Result<()> {
        let snapshot = &ctx.snapshot;
        self.metrics.traffic.headers_dropped.count(headers::strip(fields, snapshot));
        let keep = ctx
            .service
            .as_ref()
            .filter(|service| service.config.forward_token == ForwardToken::Cookie)
            // Only a cookie that was verified: on a public route it was not checked.
            .filter(|_| ctx.identity.as_ref().is_some_and(|identity| identity.source() == Source::Cookie))
            .map(|_| snapshot.guard.cookie_name());
        headers::join_cookies(fields, &snapshot.own_cookies, keep);
        let (authority, is_as_sent) = authority(request.head)?;
        let port = authority.to_str().ok().and_then(|text| text.split_once(':')?.1.parse().ok());
        let forwarding = headers::Forwarding {
            client: forwarded_for_value(request, ctx.client.unwrap_or(request.peer))?,
            peer: request.peer,
            peer_is_trusted: request.is_believed(&snapshot.trusted_proxies),
            host: &authority,
            port: request.public_port().or(port).unwrap_or(443),
            request_id: ctx.request_id.value(),
        };
        let identity = ctx.identity.as_ref().zip(ctx.service.as_deref());
        headers::set(fields, &forwarding, request.headers(), identity)?;
        if let Some(certificate) = &ctx.client_certificate {
            fields.set(&headers::CLIENT_CERTIFICATE, certificate.header().clone());
        }
        if let Some(prefix) = stripped_prefix(ctx) {
            fields.set(&headers::FORWARDED_PREFIX, prefix.clone());
        }
        self.assert_identity(fields, ctx)?;
        if ctx.identity.is_none() && may_be_taken_for_ours(request, ctx) {
            fields.remove(&header::AUTHORIZATION);
        }
        // Pingora takes it out with what belongs to a connection; over HTTP/2 it is a promise of the client's to take
        // trailers, which gRPC wants to hear (RFC 9113 §8.2.2).
        let takes_trailers = || request.head.headers.get(header::TE).is_some_and(|te| te == "trailers");
        if request.head.version == Version::HTTP_2 && leads_to_http2(ctx) && takes_trailers() {
            fields.set(&header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(changes) = route_fields::of_request(ctx) {
            route_fields::change_request(fields, changes);
        }
        // An HTTP/2 request may have no Host field, and the application needs one.
        if !is_as_sent {
            fields.set(&header::HOST, authority);
        }
        Ok(())
    }

    /// Sets the identity assertion for a service that has it configured: the user, signed for that service alone.
    fn assert_identity(&self, fields: &mut impl HeaderEdit, ctx: &RequestContext) -> Result<()> {
        let (Some(identity), Some(service)) = (&ctx.identity, &ctx.service) else { return Ok(()) };
        if !service.config.identity_assertion {
            return Ok(());
        }
        let claims = identity.claims();
        let assertion = ctx.snapshot.guard.tokens().assertion(&claims, &service.config.name, self.clock.now());
        let assertion = assertion
            .map_err(|error| Error::because(ErrorType::InternalError, "no assertion could be signed", error))?;
        fields.set(&headers::ASSERTION, headers::value(assertion)?);
        Ok(())
    }
}

fn leads_to_http2(ctx: &RequestContext) -> bool {
    destination(ctx).is_ok_and(|(pool, _)| pool.speaks_http2())
}

/// What is cut off the paths of the request's route.
fn stripped_prefix(ctx: &RequestContext) -> Option<&HeaderValue> {
    let forward = ctx.service.as_ref()?.at(ctx.route).config.action.forward()?;
    forward.prefixes.as_ref().map(|prefixes| &prefixes.strip).filter(|prefix| !prefix.is_empty())
}

/// Whether an application might take the client's `Authorization` for what the edge has verified. Where the edge writes the
/// field, that is all of them, on public routes too; elsewhere a bearer token on a route that takes those: it may be one of
/// the edge's, which was not verified.
fn may_be_taken_for_ours(request: &RequestView<'_>, ctx: &RequestContext) -> bool {
    let Some(service) = &ctx.service else { return false };
    let route = &service.at(ctx.route).config;
    let takes_bearer = route.credentials.bearer && route.access != Access::Public;
    service.config.forward_token == ForwardToken::Bearer
        || takes_bearer && (ctx.is_preflight || has_bearer(request.headers()))
}

/// A client's address. That of the peer is written once for its connection.
fn forwarded_for_value(request: &RequestView<'_>, client: IpAddr) -> Result<HeaderValue> {
    let connection = request.connection.filter(|_| client == request.peer);
    connection.map_or_else(|| headers::address(client), |connection| connection.forwarded_for_value(client))
}
