//! The login form's protection against cross-site requests: a signed double submit (OWASP CSRF cheat sheet).
//!
//! The browser has a random nonce in a cookie, the form has the nonce's MAC; another site can neither read the one nor
//! compute the other. Before that, what the browser says of the request's origin is checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use ring::hmac;

use crate::auth::cookie::{self, Lookup, SetCookie};
use crate::config::{FORM_COOKIE, SameSite};
use crate::request::{FetchSite, Head};
use crate::sessions::key::{NoRandomness, random_base64url};

/// The cookie with the nonce, on the sign-on host alone.
pub const COOKIE: &str = FORM_COOKIE;

pub struct Csrf {
    key: hmac::Key,
}

/// What a new form needs.
pub struct FormToken {
    pub field: String,
    pub cookie: Option<HeaderValue>,
}

/// Why a form is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// The browser says that another site sent it.
    OtherSite,
    /// The cookie is missing.
    NoCookie,
    /// Field and cookie do not match: the form is from another browser, or from before a change of keys.
    Mismatch,
}

impl Csrf {
    pub fn new(key: hmac::Key) -> Self {
        Self { key }
    }

    /// Returns a token for a form. The browser's nonce is kept if it has one, so that two open forms both work.
    pub fn token(&self, head: &Head<'_>) -> Result<FormToken, NoRandomness> {
        let nonce = match nonce(head) {
            Some(nonce) => nonce.to_owned(),
            None => random_base64url::<16>()?,
        };
        let cookie = SetCookie { name: COOKIE, value: &nonce, same_site: SameSite::Strict, max_age: None }.to_header();
        Ok(FormToken { field: URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, nonce.as_bytes())), cookie })
    }

    /// Fetch Metadata decides if the browser sends it, since no page can forge it. If it is absent, the signed double
    /// submit decides, together with `Origin`.
    pub fn check(&self, head: &Head<'_>, field: &str) -> Result<(), Forgery> {
        match origin(head) {
            Origin::Own | Origin::Unknown => {}
            Origin::Foreign => return Err(Forgery::OtherSite),
        }
        // A browser that keeps no cookie would not stay signed in either, and gets a message that says so.
        let nonce = nonce(head).ok_or(Forgery::NoCookie)?;
        if head.fetch_site() == FetchSite::SameOrigin {
            return Ok(());
        }
        let mac = URL_SAFE_NO_PAD.decode(field).map_err(|_| Forgery::Mismatch)?;
        hmac::verify(&self.key, nonce.as_bytes(), &mac).map_err(|_| Forgery::Mismatch)
    }
}

fn nonce<'a>(head: &Head<'a>) -> Option<&'a str> {
    match cookie::find(head.headers, COOKIE) {
        Lookup::One(nonce) if nonce.len() == 22 => Some(nonce),
        _ => None,
    }
}

/// The origin of a form, as far as the browser says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Own,
    Foreign,
    /// Browsers from before Fetch Metadata send `Origin: null` for a form of a page with the policy `no-referrer`, and
    /// for one in a sandboxed frame; programs send none. By itself this proves nothing.
    Unknown,
}

fn origin(head: &Head<'_>) -> Origin {
    match (head.fetch_site(), head.headers.get(header::ORIGIN)) {
        (FetchSite::SameOrigin, _) => Origin::Own,
        (FetchSite::SameSite | FetchSite::CrossSite | FetchSite::None, _) => Origin::Foreign,
        (FetchSite::Absent, None) => Origin::Unknown,
        (FetchSite::Absent, Some(origin)) if origin == "null" => Origin::Unknown,
        (FetchSite::Absent, Some(origin)) if origin.as_bytes() == head.origin_of(head.host).as_bytes() => Origin::Own,
        (FetchSite::Absent, Some(_)) => Origin::Foreign,
    }
}

/// Returns whether a form without a double submit is from one of our pages, or from a client that is no browser.
pub fn is_own_form(head: &Head<'_>) -> bool {
    match origin(head) {
        Origin::Own => true,
        Origin::Foreign => false,
        Origin::Unknown => !head.headers.contains_key(header::ORIGIN),
    }
}
