//! The beginning of a sign-on: a service host sends a browser without a good session to the sign-on host.

use http::{HeaderValue, Method, StatusCode, header};

use super::return_url::{encode, is_reserved, strip_tickets, within_length};
use super::state::{LIFETIME_SECONDS, State};
use super::{Event, Sentry};
use crate::auth::Reason;
use crate::auth::cookie::{self, Lookup, SetCookie};
use crate::host::Host;
use crate::pages;
use crate::reply::Reply;
use crate::request::Head;

impl Sentry {
    /// Step 5 of the order of decisions: a navigation is sent to sign on, a form post too but by GET, and
    /// anything else is told in JSON. A cookie that can never be good again is cleared.
    pub fn login_required(&self, head: &Head<'_>, reason: &Reason) -> Reply {
        let reply = if head.is_navigation() {
            self.start(head, &head.url())
        } else if head.is_form_post() {
            self.start(head, &self.referring_page(head))
        } else {
            self.unauthorized(head, reason, "Bearer realm=\"sentry-edge\"")
        };
        self.without_spent_cookie(head, reason, reply)
    }

    /// Starts again at `url`, after a ticket that was no good.
    pub fn start_over(&self, head: &Head<'_>, reason: &Reason, url: &str) -> Reply {
        self.without_spent_cookie(head, reason, self.start(head, url))
    }

    fn without_spent_cookie(&self, head: &Head<'_>, reason: &Reason, reply: Reply) -> Reply {
        let spent = reason.spends_cookie() && !matches!(self.cookie(head), Lookup::Absent);
        reply.with_cookie(spent.then(|| self.clear_token_cookie()).flatten())
    }

    /// For a program: its bearer token is no good, or missing where nothing else is taken (RFC 6750 §3). Never a
    /// redirect, and no cookie is cleared, because none was judged.
    pub fn challenge(&self, head: &Head<'_>, reason: &Reason) -> Reply {
        let challenge = match reason {
            Reason::NoToken => "Bearer realm=\"sentry-edge\"",
            _ => "Bearer realm=\"sentry-edge\", error=\"invalid_token\"",
        };
        self.unauthorized(head, reason, challenge)
    }

    /// A JSON 401 for whoever cannot follow a redirect.
    fn unauthorized(&self, head: &Head<'_>, reason: &Reason, challenge: &'static str) -> Reply {
        let (public, message) = match reason {
            Reason::NoToken => ("no_session", "Nobody is signed in. Sign in at login_url, then repeat the request."),
            _ => ("session_ended", "The session has ended. Sign in again at login_url, then repeat the request."),
        };
        let login_url = self.no_cookie_url(head, &self.referring_page(head), None);
        Reply::login_required(public, message, &login_url, head.request_id)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Step 1: to `/noCookie` with this URL and the state's hash, and the state's secret half in a cookie.
    /// A browser that was sent away too often gets an explanation instead.
    fn start(&self, head: &Head<'_>, url: &str) -> Reply {
        let state = match self.state(head) {
            Some(state) => state,
            None => match State::fresh(head.now) {
                Ok(state) => state,
                Err(_) => return self.internal(head, &"no randomness for a state"),
            },
        };
        let Some(state) = state.count_redirect(head.now) else {
            return self.broken_loop(head, head.host, url, None);
        };
        let location = self.no_cookie_url(head, url, Some(state.hash().as_str()));
        let reply = if *head.method == Method::POST { Reply::see_other(&location) } else { Reply::redirect(&location) };
        let value = state.cookie_value();
        let cookie = SetCookie {
            name: &self.settings.cookie.state_name,
            value: &value,
            // Lax whatever the token cookie is: the browser comes back from the sign-on host by a link.
            same_site: crate::config::SameSite::Lax,
            max_age: Some(LIFETIME_SECONDS),
        };
        reply.with_cookie(cookie.to_header())
    }

    fn no_cookie_url(&self, head: &Head<'_>, url: &str, state: Option<&str>) -> String {
        // A longer URL would be refused on the way; the application's first page is better than an error.
        let url = strip_tickets(url, self.parameter());
        // So is one that the sign-on would not lead back to.
        let fits = within_length(&url).is_some_and(|url| !is_reserved(url.path()));
        let url = if fits { url } else { format!("{}/", head.origin_of(head.host)) };
        let mut location = format!("{}/noCookie?redirectURL={}", head.origin_of(&self.host), encode(&url));
        if let Some(state) = state {
            location.push_str("&state=");
            location.push_str(state);
        }
        location
    }

    /// The page that a script or form belongs to, if it is this host's; else the host's first page.
    fn referring_page(&self, head: &Head<'_>) -> String {
        let own = format!("{}/", head.origin_of(head.host));
        match head.field(header::REFERER) {
            Some(referer) if referer.starts_with(&own) => referer.split('#').next().unwrap_or(&own).to_owned(),
            _ => own,
        }
    }

    /// Says what is wrong instead of redirecting once more. `user` is who is signed in at the sign-on host.
    pub(super) fn broken_loop(&self, head: &Head<'_>, host: &Host, retry: &str, user: Option<&str>) -> Reply {
        self.audit_anonymous(head, Event::LoopBroken, Some(host.as_str()), None);
        self.metrics.limit_reached("redirects");
        if !head.accepts_html() && !head.is_navigation() {
            let message = "The sign-in keeps starting over: the session cookie does not come back.";
            return Reply::error(StatusCode::BAD_REQUEST, "redirect_loop", message, head.request_id);
        }
        let applications = self.applications(head.port);
        let ways = pages::Ways {
            user,
            again: Some(retry),
            applications: Some(&applications),
            sign_out: Some(self.sign_out(head)),
        };
        let page = pages::Loop { branding: &self.branding, host: host.as_str(), request_id: head.request_id, ways };
        Reply::page(StatusCode::BAD_REQUEST, page.render(), "")
    }

    /// The state that this browser brings; two state cookies are none.
    pub(super) fn state(&self, head: &Head<'_>) -> Option<State> {
        match cookie::find(head.headers, &self.settings.cookie.state_name) {
            Lookup::One(value) => State::parse(value),
            Lookup::Absent | Lookup::Several => None,
        }
    }

    pub(super) fn cookie<'a>(&self, head: &Head<'a>) -> Lookup<'a> {
        cookie::find(head.headers, &self.settings.cookie.name)
    }

    pub(super) fn clear_token_cookie(&self) -> Option<HeaderValue> {
        SetCookie::clear(&self.settings.cookie.name, self.settings.cookie.same_site)
    }

    pub(super) fn clear_state_cookie(&self) -> Option<HeaderValue> {
        SetCookie::clear(&self.settings.cookie.state_name, crate::config::SameSite::Lax)
    }

    pub(super) fn token_cookie(&self, token: &str) -> Option<HeaderValue> {
        let cookie = &self.settings.cookie;
        SetCookie { name: &cookie.name, value: token, same_site: cookie.same_site, max_age: None }.to_header()
    }
}
