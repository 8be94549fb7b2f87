//! Sentry: the single sign-on service inside the edge. (Not Sentry.io, which collects errors.)
//!
//! Turns a request to a sign-on route into a [`Reply`]: the redirect from the sign-on host to a service with a one-time
//! ticket, login, logout, current user, keys. It decides; `proxy` reads bodies and writes replies. It awaits only the
//! session store and the login pool, each with its own deadline.

pub mod claims;
mod copy_cookie;
mod csrf;
mod current_user;
mod device;
mod device_session;
mod identity_provider;
mod kept_return_url;
mod login;
mod logout;
mod loop_cookie;
pub mod loop_guard;
mod redeem;
pub mod return_url;
mod start;
mod state;
mod ticket;
pub mod ticket_mark;
pub mod ticket_query;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::audit_log::{self, AuditLog, Event};
use crate::auth::{Guard, Reason, Requirement, Verdict};
use crate::config::{self, Access, Audience, Credentials, OutagePolicy};
use crate::host::Host;
use crate::metrics::Metrics;
use crate::pages::{self, Branding};
use crate::reply::{ErrorContext, Reply};
use crate::request::{Head, is_repeatable};
use crate::sessions::SessionStore;
use crate::users::login::LoginPool;
use loop_guard::FlowSealer;
use return_url::{Parameter, ReturnUrl, ReturnUrlPolicy};
use ticket_mark::TicketMarks;
use ticket_query::TicketParameter;

pub use device::{Device, DeviceId};
#[cfg(test)]
pub use device_session::SessionCandidate;
pub use login::{MAX_FORM_BYTES, account_counter};
pub use redeem::{FailedTicket, RedeemOutcome};

/// The logout path of a service host.
pub const SERVICE_LOGOUT: &str = "/.sentry/logout";

/// Seconds after which a page that waits for the session store reloads itself. Many people may have it open.
const STORE_REFRESH_SECONDS: u64 = 5;

/// Seconds for which the JWKS may be cached. An application that sees an unknown key fetches it again; a key that was
/// removed may be accepted for this long.
const JWKS_LIFETIME_SECONDS: u64 = 300;

/// Everything that the sign-on routes need.
pub struct Sentry {
    host: Host,
    guard: Arc<Guard>,
    store: Arc<dyn SessionStore>,
    logins: Arc<LoginPool>,
    return_urls: ReturnUrlPolicy,
    settings: config::Sentry,
    /// The idle timeout of every service, by name.
    idle_timeouts: HashMap<Arc<str>, Duration>,
    tickets: TicketParameter,
    flows: FlowSealer,
    csrf: csrf::Csrf,
    devices: device::Devices,
    /// Signs the pass with which a logout at a service continues at the sign-on host.
    logout_pass: ring::hmac::Key,
    branding: Branding,
    metrics: Arc<Metrics>,
    audit: Arc<AuditLog>,
}

/// What [`Sentry`] is built from, besides the configuration.
pub struct SentryParts {
    pub guard: Arc<Guard>,
    pub store: Arc<dyn SessionStore>,
    pub logins: Arc<LoginPool>,
    pub branding: Branding,
    pub metrics: Arc<Metrics>,
    pub audit: Arc<AuditLog>,
    /// Ports that this edge listens on, which its own URLs may name.
    pub ports: Vec<u16>,
}

/// The routes of the sign-on host, and those below `/.sentry/` of a service host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SsoRoute {
    Landing,
    NoCookie,
    CopyCookie,
    LoginForm,
    LoginPost,
    Logout,
    CurrentUser,
    Jwks,
    /// Redirects to a return URL that the browser keeps in a cookie.
    Return,
    /// The path exists, but not for this method; holds the value of `Allow`.
    WrongMethod(&'static str),
    Unknown,
}

impl SsoRoute {
    /// Returns whether the route reads a body; only the login does.
    pub fn takes_body(self) -> bool {
        self == Self::LoginPost
    }

    fn of_sentry_host(method: &Method, path: &str) -> Self {
        let get = method == Method::GET || method == Method::HEAD;
        match path {
            "/login" if method == Method::POST => Self::LoginPost,
            "/login" if get => Self::LoginForm,
            "/login" => Self::WrongMethod("GET, HEAD, POST"),
            "/logout" => Self::logout(method),
            "/" | "/noCookie" | "/copyCookie" | "/currentUser" | "/.well-known/jwks.json" if !get => {
                Self::WrongMethod("GET, HEAD")
            }
            "/" => Self::Landing,
            "/noCookie" => Self::NoCookie,
            "/copyCookie" => Self::CopyCookie,
            "/currentUser" => Self::CurrentUser,
            "/.well-known/jwks.json" => Self::Jwks,
            _ => Self::Unknown,
        }
    }

    fn of_service_host(method: &Method, path: &str) -> Self {
        match path {
            SERVICE_LOGOUT => Self::logout(method),
            "/.sentry/currentUser" if method == Method::GET || method == Method::HEAD => Self::CurrentUser,
            "/.sentry/jwks.json" if is_repeatable(method) => Self::Jwks,
            "/.sentry/currentUser" | "/.sentry/jwks.json" => Self::WrongMethod("GET, HEAD"),
            path if return_url::is_kept_return_path(path) && method == Method::GET => Self::Return,
            path if return_url::is_kept_return_path(path) => Self::WrongMethod("GET"),
            _ => Self::Unknown,
        }
    }

    /// A HEAD request must not change anything, so it does not log out.
    fn logout(method: &Method) -> Self {
        if method == Method::GET || method == Method::POST { Self::Logout } else { Self::WrongMethod("GET, POST") }
    }
}

const ANY_USER: Access = Access::Required;

impl Sentry {
    pub fn new(config: &config::Config, parts: SentryParts) -> Self {
        let settings = config.sentry.clone();
        Self {
            host: settings.host.clone(),
            return_urls: ReturnUrlPolicy::new(settings.host.clone(), &config.services, parts.ports),
            idle_timeouts: config.services.iter().map(|s| (Arc::clone(&s.name), s.idle_timeout)).collect(),
            tickets: TicketParameter::new(
                settings.ticket.parameter.clone(),
                TicketMarks::new(parts.guard.tokens().keys()),
            ),
            flows: FlowSealer::new(parts.guard.tokens().keys()),
            csrf: csrf::Csrf::new(parts.guard.tokens().keys().derive("login form")),
            logout_pass: parts.guard.tokens().keys().derive("logout at a service"),
            devices: device::Devices::new(parts.guard.tokens().keys()),
            guard: parts.guard,
            store: parts.store,
            logins: parts.logins,
            branding: parts.branding,
            metrics: parts.metrics,
            audit: parts.audit,
            settings,
        }
    }

    /// Returns the `aud` of the sign-on host's own tokens. No service has the same: the name of a service has no dot
    /// and no colon. A host of one label could equal such a name, so it is written as a URL; other hosts are not, so
    /// that tokens issued before stay valid.
    pub fn audience(settings: &config::Sentry) -> String {
        let host = settings.host.as_str();
        if host.contains('.') { host.into() } else { format!("https://{host}") }
    }

    /// Returns the `aud` of a service's tokens.
    pub fn service_audience(settings: &config::Sentry, service: &str) -> String {
        match settings.token.audience {
            Audience::PerService => service.into(),
            Audience::Shared => Self::audience(settings),
        }
    }

    /// Returns the names of all cookies that the edge sets: no application sees them, and none may set them.
    pub fn cookie_names(settings: &config::Sentry) -> Vec<String> {
        settings.cookie_names()
    }

    pub fn is_sentry_host(&self, host: &Host) -> bool {
        *host == self.host
    }

    /// Returns the route of a request to the sign-on host, or to a reserved path of a service host.
    pub fn route(&self, head: &Head<'_>) -> SsoRoute {
        if self.is_sentry_host(head.host) {
            SsoRoute::of_sentry_host(head.method, head.path)
        } else {
            SsoRoute::of_service_host(head.method, head.path)
        }
    }

    /// Returns the reply of a route. `service` is the service of the request's host, `None` on the sign-on host; `body`
    /// is the request's body, if the route reads one.
    pub async fn respond(&self, route: SsoRoute, head: &Head<'_>, service: Option<&str>, body: &[u8]) -> Reply {
        match route {
            SsoRoute::Landing => self.landing(head).await,
            SsoRoute::NoCookie => self.no_cookie(head),
            SsoRoute::CopyCookie => self.copy_cookie(head).await,
            SsoRoute::LoginForm => self.login_form(head).await,
            SsoRoute::LoginPost => self.login_post(head, body).await,
            SsoRoute::Logout => self.logout(head, service).await,
            SsoRoute::CurrentUser => self.current_user(head, service).await,
            SsoRoute::Return => self.redirect_to_kept_url(head).await,
            SsoRoute::Jwks => {
                Reply::json(StatusCode::OK, &self.guard.tokens().keys().jwks()).cacheable(JWKS_LIFETIME_SECONDS)
            }
            SsoRoute::WrongMethod(allow) => self.wrong_method(head, allow),
            SsoRoute::Unknown => {
                self.problem(head, StatusCode::NOT_FOUND, "Page not found", "There is no page at this address.")
            }
        }
    }

    /// The first page of the sign-on host: the signed-in user, and the applications that the user may open.
    async fn landing(&self, head: &Head<'_>) -> Reply {
        let identity = match self.signed_in(head, true).await {
            Verdict::Allowed(identity) => identity,
            Verdict::Refused(Reason::StoreUnavailable(_)) => return self.store_unavailable(head),
            Verdict::Refused(_) => return Reply::redirect(&format!("{}/login", head.origin_of(&self.host))),
        };
        let claims = identity.verified().claims();
        let registered = |name: &str| identity.services().iter().any(|service| service == name);
        let hosts = self.return_urls.primary_hosts().iter().filter(|(name, _)| registered(name));
        let services: Vec<(String, String)> =
            hosts.map(|(name, host)| (name.to_string(), format!("{}/", head.origin_of(host)))).collect();
        let page = pages::Home {
            branding: &self.branding,
            user: &claims.name,
            services: &services,
            logout: "/logout",
            request_id: head.request_id,
        };
        Reply::form(StatusCode::OK, page.render(), "")
    }

    /// Authenticates a request for the sign-on host or for a service as a whole, whatever its routes require.
    async fn authenticate(&self, head: &Head<'_>, service: Option<&str>, extends_session: bool) -> Verdict {
        let audience = match service {
            Some(service) => Self::service_audience(&self.settings, service),
            None => Self::audience(&self.settings),
        };
        let requirement = Requirement {
            audience: &audience,
            service: None,
            access: &ANY_USER,
            credentials: Credentials { cookie: true, bearer: false },
            extends_session,
            // The sign-on host issues tickets and needs the store for that in any case.
            on_outage: OutagePolicy::Deny,
        };
        let decision = self.guard.check(head.headers, &requirement, head.now).await;
        if let Verdict::Refused(reason) = &decision.verdict
            && reason.names_a_user()
        {
            let host = Some(head.host.as_str());
            self.audit(head, Event::AccessRefused, decision.refused_user(), host, Some(reason.label()));
        }
        decision.verdict
    }

    /// Returns the validated `redirectURL` of the query, and `Ok(None)` if there is none or more than one.
    fn return_url(&self, head: &Head<'_>) -> Result<Option<ReturnUrl>, Box<Reply>> {
        match return_url::parameter(head.query, "redirectURL") {
            Parameter::Absent | Parameter::Several => Ok(None),
            Parameter::One(text) => self.validate_return_url(head, &text).map(Some),
        }
    }

    fn validate_return_url(&self, head: &Head<'_>, text: &str) -> Result<ReturnUrl, Box<Reply>> {
        self.return_urls.validate(text).map_err(|_| {
            let text = "The address to return to does not belong to one of our applications. Open the application again, \
                        from your applications or from a bookmark.";
            Box::new(self.problem(head, StatusCode::BAD_REQUEST, "Invalid return address", text))
        })
    }

    fn audit(&self, head: &Head<'_>, event: Event, user: Option<&str>, host: Option<&str>, reason: Option<&str>) {
        let entry = audit_log::Entry { event, client: head.client, request_id: head.request_id, user, host, reason };
        self.audit.write(head.now, entry);
    }

    /// Writes an event that any client can cause, without a user.
    fn audit_anonymous(&self, head: &Head<'_>, event: Event, host: Option<&str>, reason: Option<&str>) {
        let (client, request_id, user) = (head.client, head.request_id, None);
        self.audit.write_anonymous(head.now, audit_log::Entry { event, client, request_id, user, host, reason });
    }

    /// Returns what an error reply needs of the request. No user is assumed to be signed in.
    pub fn error_context<'a>(&'a self, head: &Head<'a>) -> ErrorContext<'a> {
        ErrorContext {
            html: head.accepts_html(),
            repeats: is_repeatable(head.method),
            request_id: head.request_id,
            branding: &self.branding,
            user: None,
            applications: Some(self.applications(head.port)),
            sign_out: None,
        }
    }

    /// Returns the URL of the sign-on host's first page, which lists the user's applications. `port` is given unless it
    /// is 443.
    pub fn applications(&self, port: Option<u16>) -> String {
        match port {
            Some(port) => format!("https://{}:{port}/", self.host),
            None => format!("https://{}/", self.host),
        }
    }

    /// Returns the logout path on the host of this request.
    fn sign_out(&self, head: &Head<'_>) -> &'static str {
        if self.is_sentry_host(head.host) { "/logout" } else { SERVICE_LOGOUT }
    }

    fn problem(&self, head: &Head<'_>, status: StatusCode, title: &str, text: &str) -> Reply {
        Reply::problem(&self.error_context(head), status, title, text)
    }

    /// The reply while the session store is unavailable: no user is logged out for that, the browser keeps its cookie
    /// and tries again.
    pub fn store_unavailable(&self, head: &Head<'_>) -> Reply {
        let text = "Your sign-in cannot be checked at the moment. You are still signed in. Please try again shortly.";
        let context =
            ErrorContext { applications: None, sign_out: Some(self.sign_out(head)), ..self.error_context(head) };
        let reply = Reply::problem(&context, StatusCode::SERVICE_UNAVAILABLE, "One moment, please", text);
        reply.retry_after(1).refreshing(&context, STORE_REFRESH_SECONDS)
    }

    fn internal(&self, head: &Head<'_>, cause: &dyn std::fmt::Display) -> Reply {
        log::error!("sign-on: internal error request_id={}: {cause}", head.request_id);
        let text = "An error occurred on our side. Please try again.";
        self.problem(head, StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong", text)
    }

    fn wrong_method(&self, head: &Head<'_>, allow: &'static str) -> Reply {
        self.problem(
            head,
            StatusCode::METHOD_NOT_ALLOWED,
            "Method not allowed",
            "This address does not accept this kind of request.",
        )
        .with(http::header::ALLOW, http::HeaderValue::from_static(allow))
    }

    /// The reply to a user who is signed in but has no access. It is never a redirect: signing on again as the same
    /// user would not help. `user` is the name, if it is known.
    pub fn forbidden(&self, head: &Head<'_>, user: Option<&str>) -> Reply {
        let text = "Your account has no access to this page. Ask your administrator, or sign in with another account.";
        let context = ErrorContext { user, sign_out: Some(self.sign_out(head)), ..self.error_context(head) };
        Reply::problem(&context, StatusCode::FORBIDDEN, "No access", text)
    }

    /// The reply on a route that admits no client.
    pub fn denied(&self, head: &Head<'_>) -> Reply {
        let text = "This address is not available. Check the address, then try again.";
        self.problem(head, StatusCode::FORBIDDEN, "Not available", text)
    }
}
