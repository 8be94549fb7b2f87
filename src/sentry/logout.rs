//! Logout. At a service it ends that service's session and redirects to the sign-on host, which ends the sessions that
//! the browser has there: the one of its cookie, and the one in the browser's record in the store. Only then does it
//! say that the user is signed out.
//!
//! There is only this one redirect: the sign-on host replies with a page, so no loop is possible.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ring::hmac;
use serde_json::json;

use super::csrf::is_own_form;
use super::return_url::{Parameter, encode, parameter};
use super::{Event, Sentry, device_session};
use crate::auth::cookie::Lookup;
use crate::auth::token::Verified;
use crate::pages;
use crate::reply::{ErrorContext, Reply};
use crate::request::{FetchSite, Head};
use crate::sessions::SessionKey;

/// Seconds that a browser has from a service to the sign-on host.
const PASS_SECONDS: u64 = 60;

/// The result of a logout. The later variants are the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LogoutOutcome {
    Complete,
    /// This browser's cookie is cleared, and the end is kept for a store that is unavailable.
    Pending,
    /// Only the cookie is cleared.
    LocalOnly,
}

/// The sessions of a host's cookies, after they were ended.
struct EndedSessions {
    outcome: LogoutOutcome,
    tokens: Vec<Arc<Verified>>,
}

impl LogoutOutcome {
    const ALL: [Self; 3] = [Self::Complete, Self::Pending, Self::LocalOnly];

    /// The value of `so_far` on the way to the sign-on host.
    fn label(self) -> &'static str {
        match self {
            Self::Complete => "done",
            Self::Pending => "pending",
            Self::LocalOnly => "here",
        }
    }

    /// What the page says of other applications, if the user may still be signed in there.
    fn notice(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Pending => {
                Some("A technical problem delays the sign-out from other applications. It follows by itself.")
            }
            Self::LocalOnly => Some(
                "Because of a technical problem you may still be signed in to other applications. Please sign out there \
                 as well.",
            ),
        }
    }
}

impl Sentry {
    /// Another site may neither post here nor make a browser follow a link that ends the session: such a GET gets a
    /// page with a button, and such a POST is refused.
    pub(super) async fn logout(&self, head: &Head<'_>, service: Option<&str>) -> Reply {
        if *head.method == Method::POST && !is_own_form(head) {
            let text = "The request to sign out came from another site. Use the link below to sign out.";
            let context = ErrorContext { sign_out: Some(self.sign_out(head)), ..self.error_context(head) };
            return Reply::problem(&context, StatusCode::FORBIDDEN, "Sign-out not confirmed", text);
        }
        if *head.method == Method::GET && !self.is_user_request(head) && !(service.is_none() && self.has_pass(head)) {
            return self.confirmation_page(head, service);
        }
        let ended = self.end_sessions(head, service).await;
        match service {
            // A browser that opens a page is redirected; a script's request could not be, and gets the result as JSON.
            Some(_) if head.opens_a_page() => self.redirect_to_sign_on_host(head, &ended),
            Some(_) => self.service_logout_reply(head, ended.outcome),
            None => {
                let outcome = self.sign_browser_out(head, &ended).await;
                self.signed_out_reply(head, outcome.max(self.service_outcome(head)))
            }
        }
    }

    /// Shows a page with a button. The form leads to the sign-on host in the end, if a service shows it.
    fn confirmation_page(&self, head: &Head<'_>, service: Option<&str>) -> Reply {
        // Keeps the parameters: where the user came from, and what is done already.
        let action = match head.query {
            Some(query) => format!("{}?{query}", head.path),
            None => head.path.to_owned(),
        };
        let page = pages::ConfirmLogout { branding: &self.branding, action: &action, request_id: head.request_id };
        let target = service.map(|_| format!(" {}", head.origin_of(&self.host))).unwrap_or_default();
        Reply::form(StatusCode::OK, page.render(), &target)
    }

    /// Returns whether a user on our own hosts made this GET: it is no image of a page, and no prefetch.
    fn is_user_request(&self, head: &Head<'_>) -> bool {
        if head.is_prefetch() || head.is_embedded() {
            return false;
        }
        match head.fetch_site() {
            FetchSite::SameOrigin | FetchSite::SameSite | FetchSite::None => true,
            FetchSite::CrossSite => false,
            FetchSite::Absent => match head.field(header::REFERER) {
                Some(referer) => self.return_urls.is_ours(referer),
                None => true,
            },
        }
    }

    /// Ends the session of every valid token in this host's cookies, though two of them sign no user in. The token
    /// alone identifies the session: one that is idle, whose fingerprint changed or whose times are from another clock
    /// may be ended too.
    ///
    /// An unavailable store keeps no browser signed in here: the browser deletes its cookie in any case, and the end is
    /// kept for the store, which is not used for that session until it has received the end.
    async fn end_sessions(&self, head: &Head<'_>, service: Option<&str>) -> EndedSessions {
        let mut ended = EndedSessions { outcome: LogoutOutcome::Complete, tokens: Vec::new() };
        let audience = match service {
            Some(service) => Self::service_audience(&self.settings, service),
            None => Self::audience(&self.settings),
        };
        for verified in self.tokens_of(head, &audience) {
            let session = verified.session_key();
            let outcome = self.store.end(session, self.tombstone_expiry(head.now)).await;
            // After the end: a request in between may have seen the session alive.
            self.guard.forget(session);
            let reason = outcome.err().map(|error| {
                let is_kept = self.store.has_hint(session);
                let rest = if is_kept { "kept until the store is back" } else { "not kept" };
                log::warn!(
                    "logout: the session store failed, the end is {rest} request_id={}: {error}",
                    head.request_id
                );
                ended.outcome =
                    ended.outcome.max(if is_kept { LogoutOutcome::Pending } else { LogoutOutcome::LocalOnly });
                "store_away"
            });
            self.audit(head, Event::Logout, Some(&verified.claims().name), Some(head.host.as_str()), reason);
            ended.tokens.push(verified);
        }
        if let Err(error) = self.end_unverified(head).await {
            log::warn!("logout: session of an unverified token not ended request_id={}: {error}", head.request_id);
            ended.outcome = LogoutOutcome::LocalOnly;
        }
        ended
    }

    /// Ends the session in this browser's record, besides the one of its cookie.
    async fn sign_browser_out(&self, head: &Head<'_>, ended: &EndedSessions) -> LogoutOutcome {
        let Some(device) = self.device(head) else { return ended.outcome };
        let may_begin = ended.tokens.iter().any(|token| device_session::has_signed_in(&device, token));
        match self.sign_device_out(&device_session::key(&device), head.now, may_begin).await {
            Ok(()) => ended.outcome,
            Err(error) => {
                log::warn!("logout: the browser's record could not be updated request_id={}: {error}", head.request_id);
                // The cookie's session is nearly always the only one, and its end is kept.
                if ended.outcome == LogoutOutcome::Pending { LogoutOutcome::Pending } else { LogoutOutcome::LocalOnly }
            }
        }
    }

    /// Redirects from a service, whose session has ended, to the sign-on host. `so_far` only selects a text on a page;
    /// that the user started the logout is proved by the id of the session, signed with our key.
    fn redirect_to_sign_on_host(&self, head: &Head<'_>, ended: &EndedSessions) -> Reply {
        let back = encode(&format!("{}/", head.origin_of(head.host)));
        let origin = head.origin_of(&self.host);
        let mut location = format!("{origin}/logout?redirectURL={back}&so_far={}", ended.outcome.label());
        if let Some(token) = ended.tokens.first() {
            let until = head.now.seconds() + PASS_SECONDS;
            location.push_str(&format!("&pass={until}.{}", self.pass(token.session_key(), until)));
        }
        let reply = match *head.method == Method::POST {
            true => Reply::see_other(&location),
            false => Reply::redirect(&location),
        };
        self.clear_site_data(head, reply)
    }

    fn pass(&self, session: &SessionKey, until: u64) -> String {
        let tag = hmac::sign(&self.logout_pass, format!("{until} {}", session.as_str()).as_bytes());
        URL_SAFE_NO_PAD.encode(tag)
    }

    /// Returns whether a service has just ended the session of this browser's cookie because its user requested it. If
    /// services are on other sites than the sign-on host, the browser reports the redirect as cross-site, like an
    /// attacker's link. But an attacker knows no session of the browser that follows the link.
    fn has_pass(&self, head: &Head<'_>) -> bool {
        if head.is_prefetch() || head.is_embedded() {
            return false;
        }
        let Parameter::One(pass) = parameter(head.query, "pass") else { return false };
        let Some((until, tag)) = pass.split_once('.') else { return false };
        let (Ok(until), Ok(tag)) = (until.parse::<u64>(), URL_SAFE_NO_PAD.decode(tag)) else { return false };
        let is_now = (head.now.seconds()..=head.now.seconds() + PASS_SECONDS).contains(&until);
        let names = |session: &SessionKey| {
            hmac::verify(&self.logout_pass, format!("{until} {}", session.as_str()).as_bytes(), &tag).is_ok()
        };
        let brought = self.tokens_of(head, &Self::audience(&self.settings));
        is_now && brought.iter().any(|verified| names(verified.session_key()))
    }

    /// Returns the result of the service's part of the logout. A client that alters it sees another text.
    fn service_outcome(&self, head: &Head<'_>) -> LogoutOutcome {
        let Parameter::One(label) = parameter(head.query, "so_far") else { return LogoutOutcome::Complete };
        LogoutOutcome::ALL.into_iter().find(|outcome| outcome.label() == label).unwrap_or(LogoutOutcome::Complete)
    }

    /// The reply to a script at a service: its session has ended on every host. Only the sign-on host knows of other
    /// sessions of the same browser, and a script's request does not reach it.
    fn service_logout_reply(&self, head: &Head<'_>, outcome: LogoutOutcome) -> Reply {
        let back = encode(&format!("{}/", head.origin_of(head.host)));
        let logout_url = format!("{}/logout?redirectURL={back}", head.origin_of(&self.host));
        let mut body = json!({ "currentUser": null, "ended": "session", "logout_url": logout_url });
        let status = mark_pending(outcome, &mut body);
        self.clear_site_data(head, Reply::json(status, &body))
    }

    fn signed_out_reply(&self, head: &Head<'_>, outcome: LogoutOutcome) -> Reply {
        let reply = if head.accepts_html() || head.is_navigation() {
            // The page has a link and no redirect: an address that is none of ours is left out.
            let back = self.return_url(head).ok().flatten().map(|url| url.without_tickets(&self.tickets));
            let sign_in = back.unwrap_or_else(|| format!("{}/", head.origin_of(head.host)));
            let page = pages::SignedOut {
                branding: &self.branding,
                elsewhere: outcome.notice(),
                sign_in: Some(&sign_in),
                request_id: head.request_id,
            };
            Reply::page(StatusCode::OK, page.render(), "")
        } else {
            let mut body = json!({ "currentUser": null, "ended": "browser" });
            let status = mark_pending(outcome, &mut body);
            Reply::json(status, &body)
        };
        self.clear_site_data(head, reply)
    }

    /// Clears the browser's cache for this host. Cookies are cleared by name, because `Clear-Site-Data` would delete
    /// those of sibling hosts as well.
    fn clear_site_data(&self, head: &Head<'_>, reply: Reply) -> Reply {
        let reply = reply.with(HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\""));
        let reply = reply.with_cookie(self.clear_round_cookie(head));
        match self.cookie(head) {
            Lookup::Absent => reply,
            _ => reply.with_cookie(self.clear_token_cookie()),
        }
    }
}

/// 202: accepted and not yet done (RFC 9110 §15.3.3). A script may repeat the request.
fn mark_pending(outcome: LogoutOutcome, body: &mut serde_json::Value) -> StatusCode {
    if outcome == LogoutOutcome::Complete {
        return StatusCode::OK;
    }
    body["pending"] = true.into();
    StatusCode::ACCEPTED
}
