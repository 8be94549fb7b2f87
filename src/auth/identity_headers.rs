//! What an application is told of a user, as values of header fields: made once for a token, and shared by its requests.
//!
//! Called by `token`, which keeps it beside the claims, and by `verdict`, which hands it to `proxy`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::digest;

use super::token::Claims;

pub struct IdentityHeaders {
    pub user: HeaderValue,
    pub email: Option<HeaderValue>,
    /// A stable name of the session, the same at every service and edge until the session ends.
    pub session: HeaderValue,
    /// By the token; the directory may know better.
    pub(super) roles: HeaderValue,
}

impl IdentityHeaders {
    pub(super) fn new(claims: &Claims) -> Self {
        Self {
            user: value(&claims.name),
            email: claims.email.as_deref().map(value),
            session: session(&claims.sid),
            roles: roles(&claims.roles),
        }
    }
}

pub(super) fn roles(roles: &[String]) -> HeaderValue {
    value(&roles.join(","))
}

/// 22 characters of base64url. From it follows neither `sid` nor the key in the store, which is another hash of it.
fn session(sid: &str) -> HeaderValue {
    let hash = digest::digest(&digest::SHA256, format!("session for applications\0{sid}").as_bytes());
    value(&URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]))
}

/// Names may hold letters beyond ASCII; a header carries them as their UTF-8 octets.
fn value(text: &str) -> HeaderValue {
    pingora_http::header_value_from_slice(text.as_bytes())
}
