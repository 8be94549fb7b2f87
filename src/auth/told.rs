//! What an application is told of a user, as values of header fields: made once for a token, and shared by its requests.
//!
//! Called by `token`, which keeps it beside the claims, and by `verdict`, which hands it to `proxy`.

use http::HeaderValue;

use super::token::Claims;

pub struct Told {
    pub user: HeaderValue,
    pub email: Option<HeaderValue>,
    /// By the token; the directory may know better.
    pub(super) roles: HeaderValue,
}

impl Told {
    pub(super) fn of(claims: &Claims) -> Self {
        Self { user: value(&claims.name), email: claims.email.as_deref().map(value), roles: roles(&claims.roles) }
    }
}

pub(super) fn roles(roles: &[String]) -> HeaderValue {
    value(&roles.join(","))
}

/// Names may hold letters beyond ASCII; a header carries them as their UTF-8 octets.
fn value(text: &str) -> HeaderValue {
    pingora_http::header_value_from_slice(text.as_bytes())
}
