//! The login form's protection against being sent by another site: a signed double submit (OWASP CSRF cheat sheet).
//!
//! The browser holds a random nonce in a cookie, the form holds the nonce's MAC; another site can neither read the
//! one nor compute the other. Beside it stands what the browser says of the request's origin.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use ring::hmac;

use crate::auth::cookie::{self, Lookup, SetCookie};
use crate::config::SameSite;
use crate::request::{FetchSite, Head};
use crate::sessions::key::{NoRandomness, random_base64url};

/// Holds the nonce, on the sign-on host alone.
pub const COOKIE: &str = "__Host-SSOLogin";

pub struct Csrf {
    key: hmac::Key,
}

/// What a new form needs.
pub struct FormToken {
    pub field: String,
    pub cookie: Option<HeaderValue>,
}

/// Why a form was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// The browser says that another site sent it.
    OtherSite,
    /// The cookie did not come back.
    NoCookie,
    /// Field and cookie do not belong together: another browser's form, or one from before a change of keys.
    Mismatch,
}

impl Csrf {
    pub fn new(key: hmac::Key) -> Self {
        Self { key }
    }

    /// A token for a form; the browser's nonce is kept when it has one, so that two open forms both work.
    pub fn token(&self, head: &Head<'_>) -> Result<FormToken, NoRandomness> {
        let nonce = match nonce(head) {
            Some(nonce) => nonce.to_owned(),
            None => random_base64url::<16>()?,
        };
        let cookie = SetCookie { name: COOKIE, value: &nonce, same_site: SameSite::Strict, max_age: None }.to_header();
        Ok(FormToken { field: URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, nonce.as_bytes())), cookie })
    }

    pub fn check(&self, head: &Head<'_>, field: &str) -> Result<(), Forgery> {
        if !is_own_form(head) {
            return Err(Forgery::OtherSite);
        }
        let nonce = nonce(head).ok_or(Forgery::NoCookie)?;
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

/// Fetch Metadata decides where the browser has it. Else the Origin must be ours, or absent in clients that are
/// no browsers. (A page with `no-referrer`, as ours are, sends `Origin: null`: that alone proves nothing.)
pub fn is_own_form(head: &Head<'_>) -> bool {
    match head.fetch_site() {
        FetchSite::SameOrigin => true,
        FetchSite::SameSite | FetchSite::CrossSite | FetchSite::None => false,
        FetchSite::Absent => match head.headers.get(header::ORIGIN) {
            Some(origin) => origin.as_bytes() == head.origin_of(head.host).as_bytes(),
            None => true,
        },
    }
}
