//! Replies to requests with the wrong address: an unknown host, plain HTTP, or a connection for another host.

use http::StatusCode;

use super::client_connection::Misdirected;
use super::context::RequestContext;
use super::decision::Decision;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::request::RequestView;
use crate::acme::challenge_token;
use crate::config::UnknownHosts;
use crate::host::{Authority, Host};
use crate::reply::Reply;

impl Gateway {
    /// Decides on a request whose host is not configured, or that has to arrive in another way (over TLS, on another
    /// connection). `sentry`: the host is the sign-on host; otherwise the context has the service.
    pub(super) fn check_authority(
        &self,
        request: &RequestView<'_>,
        ctx: &mut RequestContext,
        authority: &Authority,
        sentry: bool,
    ) -> Option<Decision> {
        if !sentry && ctx.service.is_none() {
            return Some(misdirected(request, ctx));
        }
        if !sentry && let Some(refusal) = self.rate_limited(request, ctx) {
            return Some(refusal);
        }
        if !request.is_tls
            && ctx.snapshot.acme_challenge.is_some()
            && challenge_token(request.head.uri.path()).is_some()
        {
            log_decision!(ctx, "route matched acme_challenge");
            return Some(Decision::Challenge);
        }
        if !request.is_tls {
            log_decision!(ctx, "redirected to=https");
            return Some(redirect_to_https(request, authority, ctx.snapshot.https_port));
        }
        self.check_connection(request, ctx, &authority.host).err()
    }

    /// HTTP/2 clients send requests for all hosts of a certificate over one connection (RFC 9113 §9.1.1). For other
    /// hosts the client has seen no certificate; and a host may require more of a connection than was negotiated on this
    /// one. Stores the client's certificate for a host that requires one.
    fn check_connection(
        &self,
        request: &RequestView<'_>,
        ctx: &mut RequestContext,
        host: &Host,
    ) -> Result<(), Decision> {
        // Every TLS connection was accepted by the edge's own listener; without its state the certificate is unknown.
        let Some(connection) = request.connection else {
            return Err(misdirected_connection(request, ctx, Misdirected::Certificate));
        };
        let policy = ctx.snapshot.connections.of(host);
        if let Err(why) = connection.serves(host, policy) {
            return Err(misdirected_connection(request, ctx, why));
        }
        if policy.requests_certificates() {
            let shown = connection.client_certificate();
            if shown.is_some_and(|shown| shown.has_ended(self.clock.now())) {
                return Err(misdirected_connection(request, ctx, Misdirected::Policy));
            }
            ctx.client_certificate = shown.cloned();
        }
        Ok(())
    }
}

/// The host is not configured: what the configuration has for such requests, `421` unless it says otherwise. The reply does
/// not name hosts that are.
pub fn misdirected(request: &RequestView<'_>, ctx: &RequestContext) -> Decision {
    log_decision!(ctx, "misdirected reason=unknown_host");
    let text = "No application has this address here. Check the address, then try again.";
    match &ctx.snapshot.unknown_hosts {
        UnknownHosts::Redirect(to) => Reply::configured_redirect(StatusCode::FOUND, to),
        UnknownHosts::Status(status) => {
            Reply::problem(&error_context(request, ctx).bare(), *status, "Unknown address", text)
        }
    }
    .into()
}

/// Plain HTTP is always redirected to the same URL over TLS.
fn redirect_to_https(request: &RequestView<'_>, authority: &Authority, port: Option<u16>) -> Decision {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let target = request.head.uri.path_and_query().map_or("/", |target| target.as_str());
    Reply::moved(&format!("https://{}{port}{target}", authority.host)).into()
}

/// `421` (RFC 9110 §15.5.20): the host is served here, but on a new connection.
fn misdirected_connection(request: &RequestView<'_>, ctx: &mut RequestContext, why: Misdirected) -> Decision {
    let reason = match why {
        Misdirected::Certificate => "certificate",
        Misdirected::Policy => "tls_policy",
    };
    ctx.reason = Some(reason);
    log_decision!(ctx, "misdirected reason={reason}");
    let text = "This address needs a connection of its own. Please try again.";
    Reply::problem(&error_context(request, ctx), StatusCode::MISDIRECTED_REQUEST, "New connection needed", text).into()
}
