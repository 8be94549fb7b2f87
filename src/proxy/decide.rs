//! The order of decisions, in one place: from a request to "forward it" or the reply that it gets instead.
//!
//! This is policy; the numbers are those of the sign-on flow in ARCHITECTURE.md. Nothing is written here.

use std::net::IpAddr;
use std::time::Instant;

use http::{StatusCode, header};
use pingora_proxy::Session;

use super::address::{is_tls, misdirected};
use super::connection::Connection;
use super::exchange::Exchange;
use super::form::read_form;
use super::{Gateway, headers};
use crate::audit_log::{self, Event};
use crate::auth::{self, Assurance, Demand, Outcome, Verdict};
use crate::config::Access;
use crate::host::Authority;
use crate::hygiene::{self, Incoming, Malformed, Target};
use crate::reply::{Asked, Reply};
use crate::request::Head;
use crate::routes::{Route, Service};
use crate::sentry::{Redeemed, Sentry};

/// What to do with a request.
pub enum Decision {
    Forward,
    Answer(Box<Reply>),
}

impl From<Reply> for Decision {
    fn from(reply: Reply) -> Self {
        Self::Answer(Box::new(reply))
    }
}

/// Below this, a service host is ours.
const RESERVED: &str = "/.sentry";

impl Gateway {
    pub(super) async fn decide(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<Decision> {
        let snapshot = exchange.snapshot.clone();
        let client = exchange.client.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        // 1. A request that could be read in two ways.
        let target = match self.inspect(session, exchange) {
            Ok(target) => target,
            Err(malformed) => return Ok(self.malformed(session, exchange, malformed)),
        };
        if let Some(refusal) = self.too_fast(session, exchange) {
            return Ok(refusal);
        }
        // 2. A host that is not ours, or that is not asked for in this way.
        let host = &target.authority.host;
        let port = &target.authority.port;
        let sentry = snapshot.sentry.is_sentry_host(host);
        exchange.service = snapshot.routes.find(host).filter(|_| !sentry).cloned();
        if let Some(refusal) = self.misaddressed(session, exchange, &target.authority, sentry) {
            return Ok(refusal);
        }
        let request = session.req_header();
        let head = Head {
            method: &request.method,
            headers: &request.headers,
            host,
            port: port.filter(|port| *port != 443),
            path: request.uri.path(),
            query: request.uri.query(),
            client,
            request_id: &exchange.request_id,
            now: self.clock.now(),
        };
        // 3. The sign-on routes, there and on service hosts.
        if sentry || target.path.is_under(RESERVED) {
            return self.sign_on(session, exchange, &target.authority, client).await;
        }
        let Some(service) = exchange.service.clone() else { return Ok(misdirected(session, exchange)) };
        let ticket = snapshot.sentry.redeem(&head, &service.name).await;
        if let Redeemed::Answer(reply) = ticket {
            return Ok(Decision::Answer(reply));
        }
        let Some(at) = service.route(&target.path) else {
            return Ok(self.malformed(session, exchange, Malformed::Path));
        };
        let route = service.at(at);
        let demanded = route.demands(&target.path);
        // 4. to 11. Who asks, and whether they may.
        let begun = Instant::now();
        let verdict = match demanded {
            Access::Public => None,
            _ => Some(snapshot.guard.check(head.headers, &demand(&service, route, demanded), head.now).await),
        };
        let seconds = begun.elapsed().as_secs_f64();
        let by_bearer = auth::is_by_bearer(head.headers, route.credentials);
        let place = Place { sentry: &snapshot.sentry, service: &service, by_bearer };
        let decision = self.conclude(&head, place, verdict.as_ref(), &ticket, seconds);
        note(exchange, verdict, at, seconds);
        if let Some(timeout) = route.read_timeout {
            // Both ways: a tunnel or an upload may be as quiet as the route allows.
            let timeout = timeout.max(snapshot.timeouts.read);
            session.as_downstream_mut().set_read_timeout(Some(timeout));
        }
        Ok(decision)
    }

    fn inspect(&self, session: &Session, exchange: &Exchange) -> Result<Target, Malformed> {
        // The stream has seen its bytes, and this head only stands in for them.
        if let Some(malformed) = Connection::of(session.as_downstream()).and_then(|connection| connection.refused()) {
            return Err(malformed);
        }
        let request = session.req_header();
        let raw = session.as_downstream().as_http1().map(|h1| h1.get_headers_raw_bytes());
        let incoming =
            Incoming { method: &request.method, uri: &request.uri, headers: &request.headers, raw: raw.as_deref() };
        let target = hygiene::inspect(incoming, &exchange.snapshot.limits)?;
        // A port that we do not listen on is somebody else's address. 443 may be mapped to one of ours.
        let port = target.authority.port;
        let known = |port: &u16| *port == 443 || exchange.snapshot.ports.contains(port);
        if is_tls(session) && port.is_some_and(|port| !known(&port)) {
            return Err(Malformed::Host);
        }
        if headers::has_disguised(&request.headers, &exchange.snapshot) {
            self.metrics.traffic.headers_dropped.disguised.inc();
            return Err(Malformed::HeaderName);
        }
        Ok(target)
    }

    fn malformed(&self, session: &Session, exchange: &mut Exchange, malformed: Malformed) -> Decision {
        exchange.reason = Some(malformed.label());
        self.metrics.limit_reached(malformed.label());
        let asked = asked(session, exchange);
        let reply = Reply::problem(
            &asked,
            malformed.status(),
            "That request cannot be served",
            "It is malformed, or larger than is allowed here.",
        );
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

    async fn sign_on(
        &self,
        session: &mut Session,
        exchange: &Exchange,
        authority: &Authority,
        client: IpAddr,
    ) -> pingora::Result<Decision> {
        // The head is copied: a login's body is read from the session while the head is still needed.
        let request = session.req_header().as_owned_parts();
        let head = Head {
            method: &request.method,
            headers: &request.headers,
            host: &authority.host,
            port: authority.port.filter(|port| *port != 443),
            path: request.uri.path(),
            query: request.uri.query(),
            client,
            request_id: &exchange.request_id,
            now: self.clock.now(),
        };
        let route = exchange.snapshot.sentry.route(&head);
        let body = match read_form(session, route).await? {
            Ok(body) => body,
            Err(status) => {
                self.metrics.limit_reached("form");
                let text = "The form is larger than any of ours, or did not arrive in time.";
                let reply = Reply::problem(&asked(session, exchange), status, "Form not taken", text);
                // Of a form that drips, no more is waited for.
                let closes = status == StatusCode::REQUEST_TIMEOUT;
                return Ok(if closes { reply.closing() } else { reply }.into());
            }
        };
        let service = exchange.service.as_ref().map(|service| &*service.name);
        Ok(exchange.snapshot.sentry.answer(route, &head, service, &body).await.into())
    }

    /// The reply to a verdict. `None` is a public route.
    fn conclude(
        &self,
        head: &Head<'_>,
        asked: Place<'_>,
        verdict: Option<&Verdict>,
        ticket: &Redeemed,
        seconds: f64,
    ) -> Decision {
        let Place { sentry, service, by_bearer } = asked;
        let reason = match (verdict, ticket) {
            // The ticket was no good, but nobody asks for one here, or whoever is signed in goes on without it.
            (None | Some(Verdict::Known(_)), Redeemed::Failed { url }) => return Reply::redirect(url).into(),
            (None, _) => {
                service.metrics.public.inc();
                return Decision::Forward;
            }
            (Some(Verdict::Known(identity)), _) => {
                match identity.assurance() {
                    Assurance::Session | Assurance::Token => service.metrics.allowed.inc(),
                    by_policy => self.metrics.sign_on.allowed_by_policy(&service.metrics, by_policy.label()),
                }
                service.metrics.auth_allowed_duration.observe(seconds);
                return Decision::Forward;
            }
            (Some(Verdict::Refused(reason)), _) => reason,
        };
        let outcome = reason.outcome();
        self.metrics.sign_on.refused(&service.metrics, outcome.label(), reason.label(), seconds);
        // What anybody can send by the thousand is counted and not audited.
        if reason.is_of_a_user() {
            let entry = audit_log::Entry {
                event: Event::AccessRefused,
                client: head.client,
                request_id: head.request_id,
                user: None,
                host: Some(head.host.as_str()),
                reason: Some(reason.label()),
            };
            self.audit.write(head.now, entry);
        }
        match (outcome, ticket) {
            (Outcome::Unavailable, _) => sentry.store_away(head),
            (Outcome::Forbidden, _) => sentry.forbidden(head),
            (Outcome::LoginRequired, _) if by_bearer => sentry.challenge(head, reason),
            (Outcome::LoginRequired, Redeemed::Failed { url }) => sentry.start_over(head, reason, url),
            (Outcome::LoginRequired, _) => sentry.login_required(head, reason),
        }
        .into()
    }
}

/// Where a request went: the service, the sign-on that guards it, and whether a program asked (see `is_by_bearer`).
#[derive(Clone, Copy)]
struct Place<'a> {
    sentry: &'a Sentry,
    service: &'a Service,
    by_bearer: bool,
}

/// Remembers for the log and for the phases that follow.
fn note(exchange: &mut Exchange, verdict: Option<Verdict>, route: usize, seconds: f64) {
    exchange.route = route;
    match verdict {
        None => exchange.outcome = Some("public"),
        Some(Verdict::Known(identity)) => {
            exchange.outcome = Some("allowed");
            exchange.reason = Some(identity.assurance().label()).filter(|label| *label != "none");
            exchange.auth_seconds = Some(seconds);
            exchange.identity = Some(identity);
        }
        Some(Verdict::Refused(reason)) => {
            exchange.outcome = Some(reason.outcome().label());
            exchange.reason = Some(reason.label());
            exchange.auth_seconds = Some(seconds);
        }
    }
}

fn demand<'a>(service: &'a Service, route: &'a Route, access: &'a Access) -> Demand<'a> {
    Demand {
        audience: &service.audience,
        service: Some(&service.name),
        access,
        credentials: route.credentials,
        counts_as_activity: route.counts_as_activity,
        on_outage: service.on_outage,
    }
}

pub(super) fn asked<'a>(session: &Session, exchange: &'a Exchange) -> Asked<'a> {
    let accept = session.req_header().headers.get(header::ACCEPT);
    let html = accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"));
    Asked { html, request_id: &exchange.request_id, branding: &exchange.snapshot.branding }
}
