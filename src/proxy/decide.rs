//! The order of decisions, in one place: from a request to "forward it" or the reply that it gets instead.
//!
//! This is policy; the numbers are those of the sign-on flow in ARCHITECTURE.md. Nothing is written here.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::{Gateway, headers};
use crate::audit_log::{self, Event};
use crate::auth::{self, Demand, Outcome, Reason, Verdict};
use crate::config::Access;
use crate::host::Authority;
use crate::hygiene::{self, Incoming, Malformed, Target};
use crate::reply::{Asked, Reply};
use crate::request::Head;
use crate::routes::{Route, Service};
use crate::sentry::{LARGEST_FORM, Redeemed, Sentry, SsoRoute};

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

/// Time for the whole of a login form to arrive.
const FORM_DEADLINE: Duration = Duration::from_secs(10);

impl Gateway {
    pub(super) async fn decide(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<Decision> {
        let snapshot = exchange.snapshot.clone();
        let client = exchange.client.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        // 1. A request that could be read in two ways.
        let target = match self.inspect(session, exchange) {
            Ok(target) => target,
            Err(malformed) => return Ok(self.malformed(session, exchange, malformed)),
        };
        // 2. A host that is not ours.
        let Authority { host, port } = &target.authority;
        let sentry = snapshot.sentry.is_sentry_host(host);
        exchange.service = snapshot.routes.find(host).filter(|_| !sentry).cloned();
        if !sentry && exchange.service.is_none() {
            return Ok(misdirected(session, exchange));
        }
        if !is_tls(session) {
            return Ok(to_https(session, &target.authority, snapshot.https_port));
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
        let Some(at) = service.route(&target.path) else { return Ok(misdirected(session, exchange)) };
        let route = service.at(at);
        let demanded = route.demands(&target.path);
        // 4. to 11. Who asks, and whether they may.
        let begun = Instant::now();
        let verdict = if *demanded == Access::Public && !matches!(ticket, Redeemed::Failed { .. }) {
            None
        } else {
            Some(snapshot.guard.check(head.headers, &demand(&service, route, demanded), head.now).await)
        };
        let seconds = begun.elapsed().as_secs_f64();
        let by_bearer = auth::is_by_bearer(head.headers, route.credentials);
        let place = Place { sentry: &snapshot.sentry, service: &service, by_bearer };
        let decision = self.conclude(&head, place, verdict.as_ref(), &ticket, seconds);
        note(exchange, verdict, at, seconds);
        Ok(decision)
    }

    fn inspect(&self, session: &Session, exchange: &Exchange) -> Result<Target, Malformed> {
        let request = session.req_header();
        let raw = session.as_downstream().as_http1().map(|h1| h1.get_headers_raw_bytes());
        let incoming =
            Incoming { method: &request.method, uri: &request.uri, headers: &request.headers, raw: raw.as_deref() };
        let target = hygiene::inspect(incoming, &exchange.snapshot.limits)?;
        // A port that we do not listen on is somebody else's address.
        let port = target.authority.port;
        let known = |port: &u16| matches!(port, 80 | 443) || exchange.snapshot.ports.contains(port);
        if is_tls(session) && port.is_some_and(|port| !known(&port)) {
            return Err(Malformed::Host);
        }
        if headers::has_disguised(&request.headers, &exchange.snapshot) {
            self.metrics.headers_dropped.with_label_values(&["disguised"]).inc();
            return Err(Malformed::HeaderName);
        }
        Ok(target)
    }

    fn malformed(&self, session: &Session, exchange: &mut Exchange, malformed: Malformed) -> Decision {
        exchange.reason = Some(malformed.label());
        self.metrics.limits_reached.with_label_values(&[malformed.label()]).inc();
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
                self.metrics.limits_reached.with_label_values(&["form"]).inc();
                let text = "The form is larger than any of ours, or did not arrive in time.";
                return Ok(Reply::problem(&asked(session, exchange), status, "Form not taken", text).closing().into());
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
            (None, _) => {
                service.metrics.public.inc();
                return Decision::Forward;
            }
            // The ticket was no good, but whoever is signed in here goes on without it.
            (Some(Verdict::Known(_)), Redeemed::Failed { url }) => return Reply::redirect(url).into(),
            (Some(Verdict::Known(_)), _) => {
                service.metrics.allowed.inc();
                service.metrics.auth_allowed_duration.observe(seconds);
                return Decision::Forward;
            }
            (Some(Verdict::Refused(reason)), _) => reason,
        };
        let outcome = reason.outcome();
        self.metrics.refused(&service.metrics, outcome.label(), reason.label(), seconds);
        if *reason != Reason::NoToken && outcome != Outcome::Unavailable {
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
            (Outcome::LoginRequired, Redeemed::Failed { url }) => sentry.start(head, url),
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
    }
}

pub(super) fn asked<'a>(session: &Session, exchange: &'a Exchange) -> Asked<'a> {
    let accept = session.req_header().headers.get(header::ACCEPT);
    let html = accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"));
    Asked { html, request_id: &exchange.request_id, branding: &exchange.snapshot.branding }
}

/// `421`: not for us. Says nothing of what is.
fn misdirected(session: &Session, exchange: &Exchange) -> Decision {
    let text = "Nothing is served under this name here.";
    Reply::problem(&asked(session, exchange), StatusCode::MISDIRECTED_REQUEST, "Unknown address", text).into()
}

fn is_tls(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// Plain HTTP is only ever sent to the same place over TLS.
fn to_https(session: &Session, authority: &Authority, port: Option<u16>) -> Decision {
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let target = session.req_header().uri.path_and_query().map_or("/", |target| target.as_str());
    Reply::moved(&format!("https://{}{port}{target}", authority.host)).into()
}

/// A login's form, within its limits; nothing for routes that take no body.
async fn read_form(session: &mut Session, route: SsoRoute) -> pingora::Result<Result<Vec<u8>, StatusCode>> {
    if !route.takes_body() {
        return Ok(Ok(Vec::new()));
    }
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = session.as_downstream_mut().read_request_body().await? {
            if body.len() + chunk.len() > LARGEST_FORM {
                return Ok(Err(StatusCode::PAYLOAD_TOO_LARGE));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Ok(()))
    };
    match tokio::time::timeout(FORM_DEADLINE, read).await {
        Ok(Ok(Ok(()))) => Ok(Ok(body)),
        Ok(Ok(Err(status))) => Ok(Err(status)),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Err(StatusCode::REQUEST_TIMEOUT)),
    }
}
