//! Logout: ends the session in the store, which ends it on every host, and clears this host's cookie.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::csrf::is_own_form;
use super::{Event, Sentry};
use crate::auth::cookie::{self, Lookup};
use crate::clock::UnixTime;
use crate::pages;
use crate::reply::{Asked, Reply};
use crate::request::{FetchSite, Head};

/// Cookies of our name that a logout looks at; an honest browser sends one.
const MOST_COOKIES: usize = 4;

/// A store's clock ticks in seconds, and those of other edges may be behind.
const MARGIN: Duration = Duration::from_secs(60);

/// How far a logout has come. The later ones are the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Everywhere,
    /// This browser's cookie is cleared, and the end is kept for a store that is away.
    HereFirst,
    /// The cookie is cleared, and that is all.
    HereAlone,
}

impl Outcome {
    /// What is to be said of other applications, where they have not heard.
    fn elsewhere(self) -> Option<&'static str> {
        match self {
            Self::Everywhere => None,
            Self::HereFirst => {
                Some("Our session store is away at the moment. Other applications follow as soon as it is back.")
            }
            Self::HereAlone => Some(
                "Our session store is away at the moment. In other applications you may still be signed in: \
                 please sign out there as well.",
            ),
        }
    }
}

impl Sentry {
    /// A foreign page may neither post here nor make a browser follow a link that ends the session: such a GET
    /// gets a page with a button, such a POST is refused.
    pub(super) async fn logout(&self, head: &Head<'_>, service: Option<&str>) -> Reply {
        if *head.method == Method::POST && !is_own_form(head) {
            let text = "The request to sign out came from another site. Use the link below to sign out.";
            let asked = Asked { sign_out: Some(self.sign_out(head)), ..self.asked(head) };
            return Reply::problem(&asked, StatusCode::FORBIDDEN, "Sign-out not confirmed", text);
        }
        if *head.method == Method::GET && !self.is_wanted(head) {
            let page =
                pages::ConfirmLogout { branding: &self.branding, action: head.path, request_id: head.request_id };
            return Reply::form(StatusCode::OK, page.render(), "");
        }
        let outcome = self.end_session(head, service).await;
        self.signed_out(head, outcome)
    }

    /// Whether a GET comes from a person on our own hosts: no picture that a page embeds, no look-ahead.
    fn is_wanted(&self, head: &Head<'_>) -> bool {
        if head.is_look_ahead() || head.is_embedded() {
            return false;
        }
        match head.fetch_site() {
            FetchSite::SameOrigin | FetchSite::SameSite | FetchSite::None => true,
            FetchSite::CrossSite => false,
            FetchSite::Absent => match head.field(header::REFERER) {
                Some(referer) => self.realm.is_ours(referer),
                None => true,
            },
        }
    }

    /// Ends the session of every good token that this host's cookies bring, though two of them sign nobody in.
    /// The token alone says which session: one that idled out, or whose fingerprint changed, may end too.
    ///
    /// A store that is away keeps no browser signed in here: the browser forgets its cookie in any case, and the end is
    /// kept for the store, which is asked for nothing of that session until it has heard.
    async fn end_session(&self, head: &Head<'_>, service: Option<&str>) -> Outcome {
        let mut outcome = Outcome::Everywhere;
        let audience = match service {
            Some(service) => Self::service_audience(&self.settings, service),
            None => Self::audience(&self.settings),
        };
        for token in cookie::all(head.headers, self.guard.cookie_name()).take(MOST_COOKIES) {
            let Ok(verified) = self.guard.tokens().verify(token, head.now) else { continue };
            if verified.claims().aud != audience {
                continue;
            }
            // For as long as any of the session's tokens could be shown: they all end together.
            let until = UnixTime::from_seconds(verified.claims().exp).plus(self.settings.token.leeway + MARGIN);
            let ended = self.store.end(verified.session_key(), until).await;
            // After the end: a request in between may have seen the session alive.
            self.guard.forget(verified.session_key());
            let reason = ended.err().map(|error| {
                let is_kept = self.store.owes(verified.session_key());
                let rest = if is_kept { "it follows as soon as the store is back" } else { "and cannot be kept" };
                log::warn!("request {}: a logout could not be carried out, {rest}: {error}", head.request_id);
                outcome = outcome.max(if is_kept { Outcome::HereFirst } else { Outcome::HereAlone });
                "store_away"
            });
            self.audit(head, Event::Logout, Some(&verified.claims().name), Some(head.host.as_str()), reason);
        }
        outcome
    }

    fn signed_out(&self, head: &Head<'_>, outcome: Outcome) -> Reply {
        let reply = if head.accepts_html() || head.is_navigation() {
            let sign_in = format!("{}/", head.origin_of(head.host));
            let page = pages::SignedOut {
                branding: &self.branding,
                elsewhere: outcome.elsewhere(),
                sign_in: Some(&sign_in),
                request_id: head.request_id,
            };
            Reply::page(StatusCode::OK, page.render(), "")
        } else if outcome == Outcome::Everywhere {
            Reply::json(StatusCode::OK, &json!({ "currentUser": null }))
        } else {
            // Accepted, and not yet done (RFC 9110 §15.3.3): a script that clears up behind itself may ask again.
            Reply::json(StatusCode::ACCEPTED, &json!({ "currentUser": null, "pending": true }))
        };
        // What this host's pages left in the browser goes too; cookies are cleared by name, because this
        // header would take those of sibling hosts with them.
        let reply = reply.with(HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cache\""));
        match self.cookie(head) {
            Lookup::Absent => reply,
            _ => reply.with_cookie(self.clear_token_cookie()),
        }
    }
}
