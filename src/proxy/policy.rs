//! The order of decisions, in one place: from a request to "forward it" or the reply that it gets instead.
//!
//! This is policy; the numbers are those of docs/design/request-paths.md. Nothing is written here.

use std::net::IpAddr;
use std::sync::Arc;

use http::header;

use super::context::RequestContext;
use super::decision::Decision;
use super::decision_log::log_decision;
use super::error_response::error_context;
use super::gateway::Gateway;
use super::misdirected::misdirected;
use super::request::RequestView;
use super::route_reply::treatment;
use super::route_rules::{body_limit, refused_address, with_method};
use super::verdict_record;
use super::{headers, health, maintenance};
use crate::access_log::truncate;
use crate::audit_log::{self, Event};
use crate::auth::{self, Assurance, AuthDecision, Outcome, Reason, Requirement, Verdict};
use crate::client_prefix::UNKNOWN_CLIENT_IP;
use crate::clock::UnixTime;
use crate::config::Access;
use crate::host::{Authority, Origin};
use crate::reply::Reply;
use crate::request::Head;
use crate::routes::{Route, Service};
use crate::sentry::{FailedTicket, RedeemOutcome, Sentry};
use crate::snapshot::Snapshot;
use crate::validate::{self, Malformed, RequestTarget, UncheckedRequest, upgrade};

/// The path prefix on service hosts that belongs to the edge.
pub const RESERVED: &str = "/.sentry";

/// The service and the route that a request matches. Nothing is decided yet on whether it is allowed.
pub struct RouteMatch {
    pub service: Option<Arc<Service>>,
    /// Of the service's routes.
    pub route: Option<usize>,
    is_sentry: bool,
    pub is_sign_on: bool,
}

pub fn match_route(target: &RequestTarget, snapshot: &Snapshot) -> RouteMatch {
    let host = &target.authority.host;
    let is_sentry = snapshot.sentry.is_sentry_host(host);
    let is_sign_on = is_sentry || target.path.is_under(RESERVED);
    let service = snapshot.routes.find(host).filter(|_| !is_sentry).cloned();
    let route = service.as_ref().filter(|_| !is_sign_on).and_then(|service| service.route(&target.path));
    RouteMatch { service, route, is_sentry, is_sign_on }
}

impl RouteMatch {
    fn body_limit(&self, snapshot: &Snapshot) -> usize {
        body_limit(self.service.as_ref().zip(self.route).map(|(service, at)| service.at(at)), snapshot)
    }
}

impl Gateway {
    /// `raw` is the head as it came over HTTP/1.
    pub(super) async fn decide(
        &self,
        request: &RequestView<'_>,
        raw: Option<&[u8]>,
        ctx: &mut RequestContext,
    ) -> Decision {
        if health::is_health_check(request, &ctx.snapshot) {
            return health::answer(request, &self.drain);
        }
        // 1. A request that could be read in two ways, or whose body is too large.
        match self.inspect(request, raw, &ctx.snapshot) {
            Ok(target) => {
                let route_match = match_route(&target, &ctx.snapshot);
                if let Err(malformed) = validate::check_body(request.headers(), route_match.body_limit(&ctx.snapshot)) {
                    // Whose users send so much has to be seen in the log.
                    ctx.service = route_match.service;
                    return self.malformed(request, ctx, malformed);
                }
                self.authorize(request, &target, route_match, ctx).await
            }
            Err(malformed) => self.malformed(request, ctx, malformed),
        }
    }

    /// What comes after the first step.
    pub(super) async fn authorize(
        &self,
        request: &RequestView<'_>,
        target: &RequestTarget,
        route_match: RouteMatch,
        ctx: &mut RequestContext,
    ) -> Decision {
        let snapshot = ctx.snapshot.clone();
        log_decision!(ctx, "validated host={} path={:?}", target.authority, truncate(target.path.as_str()));
        if let Some(refusal) = self.rate_limited(request, ctx) {
            return refusal;
        }
        // 2. A host that is not ours, or that is not served over this connection.
        ctx.service = route_match.service;
        if let Some(refusal) = self.check_authority(request, ctx, &target.authority, route_match.is_sentry) {
            return refusal;
        }
        // 3. The sign-on routes, there and on service hosts.
        if route_match.is_sign_on {
            log_decision!(ctx, "route matched sign_on=true");
            return Decision::SignOn(target.authority.clone());
        }
        let Some(service) = ctx.service.clone() else { return misdirected(request, ctx) };
        // What is refused here has spent no ticket.
        let Some(at) = route_match.route else { return self.malformed(request, ctx, Malformed::Path) };
        let route = service.at(at);
        if let Some(refusal) = refused_address(request, ctx, &service, route) {
            return refusal;
        }
        let Ok(treatment) = treatment(route, &target.path, &request.head.uri) else {
            return self.malformed(request, ctx, Malformed::Path);
        };
        let client = ctx.client.unwrap_or(UNKNOWN_CLIENT_IP);
        let head = head_of(request, &target.authority, client, &ctx.request_id, self.clock.now());
        let ticket = snapshot.sentry.redeem(&head, &service.config.name).await;
        log_decision!(ctx, "ticket result={}", verdict_record::ticket_result(&ticket));
        if let RedeemOutcome::Reply(reply) = ticket {
            return Decision::Reply(reply);
        }
        let demanded = route.demands(&target.path);
        log_decision!(ctx, "route matched service={} route={at} access={demanded:?}", service.config.name);
        if service.maintenance.is_on()
            && !Box::pin(maintenance::gets_through(&head, &service, requirement(&service, route, demanded), ctx)).await
        {
            return maintenance::refusal(request, ctx);
        }
        ctx.is_preflight &= route.lets_preflights_in();
        // 4. to 11. Authentication and authorization.
        let judged = match demanded {
            Access::Deny => Some(AuthDecision::denied()),
            Access::Public => None,
            _ if ctx.is_preflight => None,
            _ => Some(snapshot.guard.check(head.headers, &requirement(&service, route, demanded), head.now).await),
        };
        // Where an identity is optional, a request without a good one is that of a client without a user.
        let judged = judged.filter(|judged| *demanded != Access::Optional || judged.is_allowed());
        let by_bearer = auth::is_by_bearer(head.headers, route.config.credentials);
        let by_preflight = ctx.is_preflight;
        let verdict_context = VerdictContext { sentry: &snapshot.sentry, service: &service, by_bearer, by_preflight };
        let decision = self.respond_to_verdict(&head, verdict_context, judged.as_ref(), &ticket);
        verdict_record::record(ctx, judged, at);
        // On a public route nothing was authenticated, so a method is refused before the sign-on.
        treatment.apply(with_method(decision, request, ctx, route), ctx)
    }

    /// Changes and counts nothing.
    pub(super) fn inspect(
        &self,
        request: &RequestView<'_>,
        raw: Option<&[u8]>,
        snapshot: &Snapshot,
    ) -> Result<RequestTarget, Malformed> {
        // The stream has refused the bytes as received, and this head is only a placeholder for them.
        if let Some(malformed) = request.connection.and_then(|connection| connection.refused()) {
            return Err(malformed);
        }
        // Over HTTP/2 a refusal is of one request, and the next ones of the connection may be good.
        if let Some(malformed) = request.head.extensions.get::<Malformed>() {
            return Err(*malformed);
        }
        let head = request.head;
        let unchecked = UncheckedRequest { method: &head.method, uri: &head.uri, headers: &head.headers, raw };
        let mut target = validate::inspect(unchecked, &snapshot.limits)?;
        // A port that the edge does not listen on is another server's address. 443 may be mapped to one of the edge's.
        let port = target.authority.port;
        let known = |port: &u16| *port == 443 || snapshot.ports.contains(port);
        if request.is_tls && port.is_some_and(|port| !known(&port)) {
            return Err(Malformed::Host);
        }
        if headers::has_spoofed_name(&head.headers, snapshot) {
            return Err(Malformed::HeaderName);
        }
        validate::check_method(&head.method, || has_methods(&target, snapshot))?;
        if target.is_websocket && !may_open(request, &target.authority, snapshot) {
            return Err(Malformed::Upgrade);
        }
        // All that is said of this host from here on names the port that clients connect to.
        target.authority.port = request.public_port().or(port);
        Ok(target)
    }

    /// Counts a refused request and notes the reason for the access log. Both request paths and both HTTP versions call it.
    pub(super) fn count_rejection(&self, malformed: Malformed, ctx: &mut RequestContext) {
        ctx.reason = Some(malformed.label());
        log_decision!(ctx, "rejected reason={} status={}", malformed.label(), malformed.status().as_u16());
        match malformed.is_limit() {
            true => self.metrics.limit_reached(malformed.label()),
            false => self.metrics.request_rejected(malformed.label()),
        }
    }

    fn malformed(&self, request: &RequestView<'_>, ctx: &mut RequestContext, malformed: Malformed) -> Decision {
        self.count_rejection(malformed, ctx);
        if malformed == Malformed::HeaderName {
            self.metrics.traffic.headers_dropped.spoofed.inc();
        }
        let error_context = error_context(request, ctx);
        let (title, text) = match malformed {
            Malformed::BodyTooLarge => ("Upload too large", "What you sent is larger than is accepted here."),
            Malformed::HeaderTooLarge => (
                "Request header too large",
                "The address or the cookies of the request are larger than is allowed here.",
            ),
            Malformed::Method => ("Method not allowed", "This address does not accept this kind of request."),
            _ => ("Bad request", "The request is malformed and cannot be processed."),
        };
        let reply = Reply::problem(&error_context, malformed.status(), title, text);
        let reply = match malformed {
            Malformed::Method => {
                let allow = header::HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
                reply.with(header::ALLOW, allow)
            }
            _ => reply,
        };
        // What follows on this connection may be the rest of the same trick.
        reply.closing().into()
    }

    /// The reply to a verdict. `None` is a public route.
    fn respond_to_verdict(
        &self,
        head: &Head<'_>,
        to: VerdictContext<'_>,
        judged: Option<&AuthDecision>,
        ticket: &RedeemOutcome,
    ) -> Decision {
        let VerdictContext { sentry, service, by_bearer, by_preflight } = to;
        let seconds = judged.map_or(0.0, |judged| judged.took.as_secs_f64());
        let user = judged.and_then(AuthDecision::refused_user);
        let reason = match (judged.map(|judged| &judged.verdict), ticket) {
            // The user of the cookie is not the one whom the ticket names, and who has signed in since.
            (Some(Verdict::Allowed(identity)), RedeemOutcome::Failed(failed)) if failed.names_other_than(identity) => {
                return sentry.restart_sign_on(head, None, failed).into();
            }
            // The ticket was no good, or is for another kind of request. No application sees it.
            (
                None | Some(Verdict::Allowed(_)),
                RedeemOutcome::Failed(FailedTicket { url, .. }) | RedeemOutcome::NotRedeemable { url },
            ) => {
                return sentry.redirect_without_ticket(head, url).into();
            }
            (None, _) => {
                match by_preflight {
                    true => service.metrics.preflight(),
                    false => service.metrics.public.inc(),
                }
                return Decision::Forward;
            }
            (Some(Verdict::Allowed(identity)), _) => {
                match identity.assurance() {
                    Assurance::Session | Assurance::Token => service.metrics.allowed.inc(),
                    by_policy => service.metrics.allowed_by_policy(by_policy.label()),
                }
                service.metrics.auth_allowed_duration.observe(seconds);
                return Decision::Forward;
            }
            (Some(Verdict::Refused(reason)), _) => reason,
        };
        let outcome = reason.outcome();
        service.metrics.refused(outcome.label(), reason.label(), seconds);
        // Refusals that an anonymous client can cause by the thousand are counted and not audited.
        if reason.names_a_user() {
            let entry = audit_log::Entry {
                event: Event::AccessRefused,
                client: head.client,
                request_id: head.request_id,
                user,
                host: Some(head.host.as_str()),
                reason: Some(reason.label()),
            };
            self.audit.write(head.now, entry);
        }
        match (outcome, ticket) {
            (Outcome::Unavailable | Outcome::Forbidden, RedeemOutcome::Failed(failed)) => {
                sentry.redirect_without_ticket(head, &failed.url)
            }
            (Outcome::Unavailable, _) => sentry.store_unavailable(head),
            (Outcome::Forbidden, _) if *reason == Reason::Denied => sentry.denied(head),
            (Outcome::Forbidden, _) => sentry.forbidden(head, user),
            (Outcome::LoginRequired, _) if by_bearer => sentry.challenge(head, reason),
            (Outcome::LoginRequired, RedeemOutcome::Failed(failed)) => {
                sentry.restart_sign_on(head, Some(reason), failed)
            }
            (Outcome::LoginRequired, _) => sentry.login_required(head, reason),
        }
        .into()
    }
}

/// Where a request went: the service, the sign-on that guards it, whether a bearer token is used (see `is_by_bearer`), and
/// whether it is a browser's CORS preflight.
#[derive(Clone, Copy)]
struct VerdictContext<'a> {
    sentry: &'a Sentry,
    service: &'a Service,
    by_bearer: bool,
    by_preflight: bool,
}

fn head_of<'a>(
    request: &RequestView<'a>,
    authority: &'a Authority,
    client: IpAddr,
    request_id: &'a str,
    now: UnixTime,
) -> Head<'a> {
    Head {
        method: &request.head.method,
        headers: request.headers(),
        host: &authority.host,
        port: authority.port.filter(|port| *port != 443),
        path: request.head.uri.path(),
        query: request.head.uri.query(),
        client,
        request_id,
        now,
    }
}

/// Whether the route of a request has a list of methods.
fn has_methods(target: &RequestTarget, snapshot: &Snapshot) -> bool {
    let RouteMatch { service, route, .. } = match_route(target, snapshot);
    service.zip(route).is_some_and(|(service, at)| service.at(at).config.rules.methods.is_some())
}

/// Whether the page that opens a WebSocket is this host's own or one that the service names.
fn may_open(request: &RequestView<'_>, authority: &Authority, snapshot: &Snapshot) -> bool {
    let Authority { host, port } = authority;
    let public = request.public_port();
    let is_own = |origin: &Origin| {
        *origin == Origin::of(host, *port) || (public.is_some() && *origin == Origin::of(host, public))
    };
    let is_named = |origin: &Origin| {
        snapshot.routes.find(host).is_some_and(|service| service.config.websocket_origins.contains(origin))
    };
    upgrade::page_may_open(request.headers(), |origin| is_own(origin) || is_named(origin))
}

pub fn requirement<'a>(service: &'a Service, route: &'a Route, access: &'a Access) -> Requirement<'a> {
    Requirement {
        audience: &service.audience,
        service: Some(&service.config.name),
        access,
        credentials: route.config.credentials,
        extends_session: route.config.extends_session,
        on_outage: service.config.on_outage,
    }
}
