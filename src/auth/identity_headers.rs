//! The header fields in which an application receives the user's identity. They are built once for a token and shared
//! by its requests.
//!
//! `token` keeps them beside the claims, and `verdict` hands them to `proxy`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ring::digest;

use super::token::Claims;

/// The values of the identity header fields of one token.
pub struct IdentityHeaders {
    pub user: HeaderValue,
    pub email: Option<HeaderValue>,
    /// A stable hash of the session id, the same at every service and edge until the session ends.
    pub session: HeaderValue,
    /// The roles in the token; the directory may have newer ones.
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

/// Returns 22 characters of base64url. Neither `sid` nor the key in the store follows from it; that key is another hash
/// of `sid`.
fn session(sid: &str) -> HeaderValue {
    let hash = digest::digest(&digest::SHA256, format!("session for applications\0{sid}").as_bytes());
    value(&URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]))
}

/// Names may have letters outside ASCII; the header has them as UTF-8.
fn value(text: &str) -> HeaderValue {
    pingora_http::header_value_from_slice(text.as_bytes())
}
