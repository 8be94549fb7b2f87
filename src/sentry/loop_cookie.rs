//! The cookie of a redemption, which names the page and the login for half a minute: a browser that starts a sign-on
//! for that page within this time has lost the token cookie, and is in a loop.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::digest;

use super::Sentry;
use super::loop_guard::{Flow, LoginId, LostCookie, RedirectRound};
use crate::auth::cookie::{self, Lookup, SetCookie};
use crate::config::{ROUND_COOKIE, SameSite};
use crate::request::Head;

/// Seconds after a redemption in which a start for the same page continues its loop.
const ROUND_COOKIE_SECONDS: u64 = 30;

impl Sentry {
    /// Returns the cookie of a redemption's redirect: a browser that comes to that page and is not signed in there did
    /// not keep the token cookie, or came to an edge that does not accept it.
    pub(super) fn round_cookie(&self, url: &str, round: RedirectRound, login: LoginId) -> Option<HeaderValue> {
        let value = format!("{}.{}.{}", round.number(), page(url), login.text());
        let max_age = Some(ROUND_COOKIE_SECONDS);
        SetCookie { name: ROUND_COOKIE, value: &value, same_site: SameSite::Lax, max_age }.to_header()
    }

    /// Clears the cookie with a logout: a browser that comes back after it is not in a loop.
    pub(super) fn clear_round_cookie(&self, head: &Head<'_>) -> Option<HeaderValue> {
        let is_there = !matches!(cookie::find(head.headers, ROUND_COOKIE), Lookup::Absent);
        is_there.then(|| SetCookie::clear(ROUND_COOKIE, SameSite::Lax)).flatten()
    }

    /// Returns the progress of a flow that starts for this page. The cookie of a former version names no login.
    pub(super) fn flow_at_start(&self, head: &Head<'_>, url: &str, round: RedirectRound) -> Flow {
        let begun = Flow { round, ..Flow::NEW };
        let Lookup::One(value) = cookie::find(head.headers, ROUND_COOKIE) else { return begun };
        let Some((number, of)) = value.split_once('.') else { return begun };
        let (of, login) = of.split_once('.').unwrap_or((of, ""));
        if of != page(url) {
            return begun;
        }
        let round = number.bytes().next().and_then(RedirectRound::parse).and_then(RedirectRound::after_lost_cookie);
        Flow { lost: Some(LostCookie { round, login: LoginId::parse(login.as_bytes()) }), ..begun }
    }
}

/// Identifies a page; one of 2^64.
fn page(url: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, url.as_bytes()).as_ref()[..8])
}
