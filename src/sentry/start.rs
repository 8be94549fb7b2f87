//! The start of a sign-on: a service host redirects a browser without a valid session to the sign-on host.

use http::{HeaderValue, Method, StatusCode, header};

use super::kept_return_url::KeptReturnUrl;
use super::loop_guard::{Flow, RedirectRound};
use super::redeem::FailedTicket;
use super::return_url::{encode, escaped, is_reserved, within_length};
use super::state::{LIFETIME_SECONDS, State, StateHash};
use super::{Event, Sentry};
use crate::auth::Reason;
use crate::auth::cookie::{self, Lookup, SetCookie};
use crate::config::SameSite;
use crate::host::Host;
use crate::pages;
use crate::reply::Reply;
use crate::request::{Head, ResponseUse};

impl Sentry {
    /// Step 5 of the order of decisions: a page is redirected to sign on, a form post too but by GET, and any other
    /// request gets JSON: a request that could not redeem a ticket gets none. A cookie that can never become valid
    /// again is cleared.
    pub fn login_required(&self, head: &Head<'_>, reason: &Reason) -> Reply {
        let reply = match head.response_use() {
            ResponseUse::Page if *head.method == Method::GET => {
                self.start_sign_on(head, &head.url(), Some(RedirectRound::FIRST))
            }
            ResponseUse::Page if head.is_form_post() => {
                self.start_sign_on(head, &self.referring_page(head), Some(RedirectRound::FIRST))
            }
            ResponseUse::ForeignFrame if *head.method == Method::GET || head.is_form_post() => {
                self.open_in_window_page(head)
            }
            _ => self.unauthorized(head, reason, "Bearer realm=\"sentry-edge\""),
        };
        self.clear_invalid_cookie(head, reason, reply)
    }

    /// Starts the sign-on again after a ticket that was refused.
    pub fn restart_sign_on(&self, head: &Head<'_>, reason: Option<&Reason>, failed: &FailedTicket) -> Reply {
        let reply = self.start_sign_on(head, &failed.url, failed.round.next());
        match reason {
            Some(reason) => self.clear_invalid_cookie(head, reason, reply),
            None => reply,
        }
    }

    /// Redirects to the same URL without its ticket: whatever the ticket is, it is not for the application.
    pub fn redirect_without_ticket(&self, head: &Head<'_>, url: &str) -> Reply {
        let reads = *head.method == Method::GET || *head.method == Method::HEAD;
        if reads { Reply::redirect(url) } else { Reply::repeat(url) }
    }

    /// A frame inside a page of another site gets none of our cookies, so no sign-on is possible in it.
    fn open_in_window_page(&self, head: &Head<'_>) -> Reply {
        let url = self.tickets.strip_from_url(&head.url());
        let own = format!("{}/", head.origin_of(head.host));
        let href = if *head.method == Method::GET { &url } else { &own };
        let (branding, host, why) = (&self.branding, head.host.as_str(), pages::Why::ForeignFrame);
        let page = pages::Beside { branding, host, why, href, request_id: head.request_id };
        Reply::frameable(StatusCode::UNAUTHORIZED, page.render())
    }

    fn clear_invalid_cookie(&self, head: &Head<'_>, reason: &Reason, reply: Reply) -> Reply {
        let is_invalid = reason.invalidates_cookie() && !matches!(self.cookie(head), Lookup::Absent);
        reply.with_cookie(is_invalid.then(|| self.clear_token_cookie()).flatten())
    }

    /// The reply to a program whose bearer token is invalid, or missing where nothing else is accepted (RFC 6750 §3).
    /// It is never a redirect, and no cookie is cleared, because none was checked.
    pub fn challenge(&self, head: &Head<'_>, reason: &Reason) -> Reply {
        let challenge = match reason {
            Reason::NoToken => "Bearer realm=\"sentry-edge\"",
            _ => "Bearer realm=\"sentry-edge\", error=\"invalid_token\"",
        };
        self.unauthorized(head, reason, challenge)
    }

    /// A 401 as JSON, for clients that cannot follow a redirect.
    pub(super) fn unauthorized(&self, head: &Head<'_>, reason: &Reason, challenge: &'static str) -> Reply {
        let (public, message) = match reason {
            Reason::NoToken => ("no_session", "You are not signed in. Sign in at login_url, then repeat the request."),
            _ => ("session_ended", "The session has ended. Sign in again at login_url, then repeat the request."),
        };
        let page = escaped(&self.tickets.strip_from_url(&self.referring_page(head)));
        // A script's browser is not redirected yet, so nothing is kept in it.
        let page = match self.sign_on_return_url(head, page) {
            (page, None) => page,
            (_, Some(_)) => format!("{}/", head.origin_of(head.host)),
        };
        let login_url = self.sign_on_url(head, "/noCookie", &page, None);
        Reply::login_required(public, message, &login_url, head.request_id)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Step 1: redirects to `/noCookie` with this URL and the hash of the state, and sets the secret half of the state
    /// as a cookie. A flow without a round left gets an explanation instead; but if the cookie of another flow says so,
    /// the browser is redirected to the sign-on host, which alone knows whether the same login would be used again.
    /// Such a flow skips `/noCookie`, so that there are at most twelve redirects.
    ///
    /// A browser that has a state keeps it. Another tab may have received a newer one meanwhile, which the state of
    /// this request must not overwrite.
    fn start_sign_on(&self, head: &Head<'_>, url: &str, round: Option<RedirectRound>) -> Reply {
        let url = escaped(&self.tickets.strip_from_url(url));
        let Some(round) = round else { return self.redirect_loop_page(head, head.host, &url, None) };
        let flow = self.flow_at_start(head, &url, round);
        let (url, kept) = self.sign_on_return_url(head, url);
        let brought = self.state(head);
        let is_fresh = brought.is_none();
        let Ok(state) = brought.map_or_else(|| State::fresh(head.now), Ok) else {
            return self.internal(head, &"no randomness for a state");
        };
        let route = if flow.has_rounds_left() { "/noCookie" } else { "/copyCookie" };
        let location = self.sign_on_url(head, route, &url, Some((&state.hash(), flow)));
        let reply = if *head.method == Method::POST { Reply::see_other(&location) } else { Reply::redirect(&location) };
        let reply = reply.with_cookie(kept.and_then(|kept| kept.cookie()));
        if is_fresh { reply.with_cookie(self.state_cookie(&state)) } else { reply }
    }

    fn state_cookie(&self, state: &State) -> Option<HeaderValue> {
        let (name, value) = (&self.settings.cookie.state_name, &state.cookie_value());
        // Lax, whatever the token cookie is: the browser comes back from the sign-on host by a cross-site redirect.
        SetCookie { name, value, same_site: SameSite::Lax, max_age: Some(LIFETIME_SECONDS) }.to_header()
    }

    /// Returns the URL that a sign-on carries: this one, or if it is too long, the path of a kept return URL.
    fn sign_on_return_url(&self, head: &Head<'_>, url: String) -> (String, Option<KeptReturnUrl>) {
        let own = head.origin_of(head.host);
        match url.strip_prefix(&own).filter(|path| path.starts_with('/')) {
            // Except a path that the sign-on would not redirect back to.
            Some(path) if !is_reserved(path.split(['?', '#']).next().unwrap_or(path)) => {
                if within_length(&url).is_some() {
                    return (url, None);
                }
                let kept = KeptReturnUrl::of(path);
                (format!("{own}{}", kept.path()), Some(kept))
            }
            _ => (format!("{own}/"), None),
        }
    }

    fn sign_on_url(&self, head: &Head<'_>, route: &str, url: &str, flow: Option<(&StateHash, Flow)>) -> String {
        let mut location = format!("{}{route}?redirectURL={}", head.origin_of(&self.host), encode(url));
        if let Some((state, flow)) = flow {
            location.push_str("&state=");
            location.push_str(state.as_str());
            if let Some(sealed) = self.flows.seal(flow, state) {
                location.push_str("&flow=");
                location.push_str(&sealed);
            }
        }
        location
    }

    /// Returns the page of this host that a script or form belongs to, or else the first page of the host.
    fn referring_page(&self, head: &Head<'_>) -> String {
        let own = format!("{}/", head.origin_of(head.host));
        match head.field(header::REFERER) {
            Some(referer) if referer.starts_with(&own) => referer.split('#').next().unwrap_or(&own).to_owned(),
            _ => own,
        }
    }

    /// Shows what is wrong instead of another redirect. `user` is the user at the sign-on host.
    pub(super) fn redirect_loop_page(&self, head: &Head<'_>, host: &Host, retry: &str, user: Option<&str>) -> Reply {
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

    /// Returns the state of this browser; two state cookies count as none.
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
        SetCookie::clear(&self.settings.cookie.state_name, SameSite::Lax)
    }

    pub(super) fn token_cookie(&self, token: &str) -> Option<HeaderValue> {
        let cookie = &self.settings.cookie;
        SetCookie { name: &cookie.name, value: token, same_site: cookie.same_site, max_age: None }.to_header()
    }
}
