//! What a stream was let in by, and whether it would be let in again: its request held against the configuration of the
//! day, by the same functions as a new one.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Method;

use super::client_connection::ClientConnection;
use super::context::RequestContext;
use super::policy::{match_route, requirement};
use super::request::RequestView;
use super::request::authority;
use super::route_rules::{ADDRESS, METHOD};
use crate::auth::streams::{Admission, EndReason, Terms};
use crate::auth::{Identity, Reason};
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::clock::UnixTime;
use crate::config::Access;
use crate::host::Authority;
use crate::path::CanonicalPath;
use crate::routes::{Route, Service};
use crate::snapshot::Snapshot;
use crate::tls::ClientCertificate;
use crate::validate::RequestTarget;

/// A stream's request, as far as it decides on whether it may be made.
pub struct Admitted {
    snapshot: Arc<ArcSwap<Snapshot>>,
    target: RequestTarget,
    method: Method,
    client: IpAddr,
    connection: Option<Arc<ClientConnection>>,
    /// `None` on a public route, and of a preflight.
    identity: Option<Identity>,
    is_preflight: bool,
    /// Names: where it leads.
    service: Arc<str>,
    /// `None` where it leads to static files.
    pool: Option<String>,
}

impl Admitted {
    /// `None` where there is no such request, which was let in nowhere.
    pub fn of(request: &RequestView<'_>, ctx: &RequestContext, snapshot: &Arc<ArcSwap<Snapshot>>) -> Option<Self> {
        let service = ctx.service.as_ref()?;
        let authority = Authority::parse(authority(request.head).ok()?.0.to_str().ok()?).ok()?;
        let target =
            RequestTarget { authority, path: CanonicalPath::of(request.head.uri.path()).ok()?, is_websocket: false };
        Some(Self {
            snapshot: Arc::clone(snapshot),
            target,
            method: request.head.method.clone(),
            client: ctx.client.unwrap_or(UNKNOWN_CLIENT_IP),
            connection: request.connection.cloned(),
            identity: ctx.identity.clone(),
            is_preflight: ctx.is_preflight,
            service: Arc::clone(&service.config.name),
            pool: service.at(ctx.route).config.action.pool().map(str::to_owned),
        })
    }

    /// Checks that the connection satisfies the host's TLS policy, and returns the client's certificate where the host
    /// requires one.
    fn connected(&self, snapshot: &Snapshot, now: UnixTime) -> Result<Option<Arc<ClientCertificate>>, EndReason> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let host = &self.target.authority.host;
        let policy = snapshot.connections.of(host);
        if connection.serves(host, policy).is_err() {
            return Err(EndReason::Connection);
        }
        match connection.client_certificate().filter(|_| policy.requests_certificates()) {
            Some(certificate) if certificate.has_ended(now) => Err(EndReason::CertificateEnded),
            certificate => Ok(certificate.cloned()),
        }
    }
}

/// The terms under which a route with this access rule lets a stream continue.
pub fn terms(
    service: &Service,
    route: &Route,
    demanded: &Access,
    certificate: Option<Arc<ClientCertificate>>,
) -> Terms {
    Terms {
        service: Arc::clone(&service.config.name),
        access: demanded.clone(),
        extends_session: route.config.extends_session,
        certificate,
    }
}

impl Admission for Admitted {
    fn recheck(&self, now: UnixTime) -> Result<(u64, Terms), EndReason> {
        let snapshot = self.snapshot.load_full();
        let certificate = self.connected(&snapshot, now)?;
        let route_match = match_route(&self.target, &snapshot);
        let (Some(service), Some(at)) = (route_match.service, route_match.route) else {
            return Err(EndReason::Rerouted);
        };
        let route = service.at(at);
        if service.config.name != self.service || route.config.action.pool() != self.pool.as_deref() {
            return Err(EndReason::Rerouted);
        }
        if !route.config.rules.addresses.admit(self.client) {
            return Err(EndReason::RouteRule(ADDRESS));
        }
        // The application decides on the methods of a preflight.
        if !self.is_preflight && !route.config.serves(&self.method) {
            return Err(EndReason::RouteRule(METHOD));
        }
        let demanded = route.demands(&self.target.path);
        let refused = match &self.identity {
            Some(identity) => snapshot.guard.would_refuse(identity, &requirement(&service, route, demanded), now),
            // It was let in without one.
            None if self.is_preflight && route.lets_preflights_in() => None,
            None => (!demanded.admits_anonymous()).then_some(Reason::NoToken),
        };
        match refused {
            Some(reason) => Err(EndReason::Refused(reason)),
            None => Ok((snapshot.generation, terms(&service, route, demanded, certificate))),
        }
    }
}
