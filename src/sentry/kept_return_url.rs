//! A return URL that is too long for a query is kept in a cookie of its own host during the sign-on.
//!
//! The sign-on then returns to `/.sentry/return/KEY`, which redirects to the page in the cookie. The browser keeps it
//! and no edge does, so strangers cannot fill a store with addresses. An address that does not fit into a cookie, or
//! that was not kept, ends with a page that says so: nothing of an address is dropped silently.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, StatusCode};
use ring::digest;

use super::Sentry;
use super::return_url::{KEPT_PATH, ReturnUrl};
use super::state::LIFETIME_SECONDS;
use crate::auth::Reason;
use crate::auth::cookie::{self, Lookup, MAX_COOKIE_BYTES, SetCookie};
use crate::config::{RETURN_COOKIE, SameSite};
use crate::pages;
use crate::reply::Reply;
use crate::request::Head;

/// Path and query of a page of this host, with the key under which the browser keeps them.
pub struct KeptReturnUrl {
    key: String,
    /// `None` if browsers would not keep it.
    cookie: Option<String>,
}

impl KeptReturnUrl {
    /// `target` begins with a slash and has only characters that a return URL may have.
    pub fn of(target: &str) -> Self {
        let key = key(target);
        let cookie = format!("{key}.{}", encode_target(target));
        let fits = RETURN_COOKIE.len() + 1 + cookie.len() <= MAX_COOKIE_BYTES;
        Self { key, cookie: fits.then_some(cookie) }
    }

    pub fn path(&self) -> String {
        format!("{KEPT_PATH}{}", self.key)
    }

    pub fn cookie(&self) -> Option<HeaderValue> {
        let (value, max_age) = (self.cookie.as_deref()?, Some(LIFETIME_SECONDS));
        SetCookie { name: RETURN_COOKIE, value, same_site: SameSite::Lax, max_age }.to_header()
    }
}

fn key(target: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, target.as_bytes()).as_ref()[..8])
}

/// In a return URL `|` is always escaped, so it can be the escape character here for what a cookie's value must not
/// have (RFC 6265 §4.1.1).
fn encode_target(target: &str) -> String {
    target.replace(',', "|c").replace(';', "|s")
}

fn decode_target(encoded: &str) -> String {
    encoded.replace("|s", ";").replace("|c", ",")
}

impl Sentry {
    /// Redirects from `/.sentry/return/KEY` to the page itself, with the ticket that came along. A request that may not
    /// redeem a ticket does not consume the cookie either.
    pub(super) async fn redirect_to_kept_url(&self, head: &Head<'_>) -> Reply {
        if !head.may_redeem() {
            return self.challenge(head, &Reason::NoToken);
        }
        let extracted = head.query.and_then(|query| self.tickets.extract(query));
        let ours =
            extracted.as_ref().and_then(|extracted| extracted.tickets.last()).filter(|ticket| ticket.is_canonical);
        if let Some(url) = self.kept_url(head) {
            let location = match ours {
                Some(ticket) => url.with_ticket(&self.tickets, &ticket.id),
                None => url.without_tickets(&self.tickets),
            };
            return Reply::redirect(&location).with_cookie(SetCookie::clear(RETURN_COOKIE, SameSite::Lax));
        }
        if let Some(ticket) = ours {
            // The ticket would stay in the URL of an open page, so it is redeemed. Nothing is lost: the page's link
            // starts the sign-on again.
            self.store.redeem_ticket(&ticket.id.key(), self.settings.ticket.lifetime).await.ok();
        }
        self.url_not_kept_page(head)
    }

    /// Returns the page that this browser keeps under the key of the path.
    fn kept_url(&self, head: &Head<'_>) -> Option<ReturnUrl> {
        let Lookup::One(cookie) = cookie::find(head.headers, RETURN_COOKIE) else { return None };
        let (of, encoded) = cookie.split_once('.')?;
        let target = decode_target(encoded);
        let is_for_this_path = head.path.strip_prefix(KEPT_PATH) == Some(of) && key(&target) == of;
        let url = is_for_this_path.then(|| format!("{}{target}", head.origin_of(head.host)))?;
        self.return_urls.validate_kept(&url).ok().filter(|url| url.host == *head.host)
    }

    fn url_not_kept_page(&self, head: &Head<'_>) -> Reply {
        let page = pages::Problem {
            branding: &self.branding,
            status: StatusCode::BAD_REQUEST.as_u16(),
            title: "The address could not be kept",
            text: "You are signed in. The address that you opened is too long to be taken through the sign-in, and your \
                   browser could not keep it. Open it once more, or begin at the first page of the application.",
            request_id: head.request_id,
            ways: pages::Ways { again: Some("/"), ..pages::Ways::default() },
        };
        Reply::page(StatusCode::BAD_REQUEST, page.render(), "")
    }
}

#[cfg(test)]
mod tests {
    use super::super::return_url::is_kept_return_path;
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_fits_into_a_cookie() {
        let target = format!("/report;v=1/a,b?x=%7C&y={}&,;", "z".repeat(3000));
        let kept = KeptReturnUrl::of(&target);
        let header = kept.cookie().unwrap();
        let value = header.to_str().unwrap().split(';').next().unwrap();
        assert!(
            value.len() <= MAX_COOKIE_BYTES && value.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b))
        );
        assert_eq!(decode_target(value.split_once('.').unwrap().1), target);
        assert!(is_kept_return_path(&kept.path()));
        let longer = KeptReturnUrl::of(&format!("/{}", "z".repeat(MAX_COOKIE_BYTES)));
        assert!(longer.cookie().is_none() && is_kept_return_path(&longer.path()), "said on the way back");
    }

    #[test]
    fn nothing_else_below_the_edges_own_path_is_a_stand_in() {
        for path in ["/.sentry/return/", "/.sentry/return/short", "/.sentry/return/AAAAAAAAAAA/", "/.sentry/logout"] {
            assert!(!is_kept_return_path(path), "{path}");
        }
        for path in ["/.sentry/return/../logout", "/.sentry/return/AAAAAAAAA%2f", "//.sentry/return/AAAAAAAAAAA"] {
            assert!(!is_kept_return_path(path), "{path}");
        }
    }
}
