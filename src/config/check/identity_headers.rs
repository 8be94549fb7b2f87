//! `services.NAME.identity_headers`: the names under which applications are told who asks.

use http::HeaderName;

use super::{Check, file};
use crate::config::IdentityHeaders;

/// Header names, in lower case, that an identity may not go by: those that HTTP or the edge itself has a use for.
const SPOKEN_FOR: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-sentry-assertion",
];

impl Check<'_> {
    pub(super) fn identity_headers(&mut self, place: &str, written: &file::IdentityHeaders) -> IdentityHeaders {
        let mut header = |key: &str, written: &Option<String>, default: &'static str| {
            let name = written.as_deref().unwrap_or(default);
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let key = format!("{place}.identity_headers.{key}");
            let parsed: Option<HeaderName> = name.parse().ok().filter(|_| plain);
            if parsed.as_ref().is_some_and(|name| SPOKEN_FOR.contains(&name.as_str())) {
                self.faults.add(&key, format!("`{name}` says something else already"), "choose another name");
            }
            parsed.unwrap_or_else(|| {
                self.faults.add(key, format!("`{name}` is no header name"), "use letters, digits and -");
                HeaderName::from_static("x-forwarded-user")
            })
        };
        let headers = IdentityHeaders {
            user: header("user", &written.user, "X-Forwarded-User"),
            email: header("email", &written.email, "X-Forwarded-Email"),
            roles: header("roles", &written.roles, "X-Forwarded-Groups"),
        };
        let IdentityHeaders { user, email, roles } = &headers;
        let known = |key: &str| !self.faults.concern(&format!("{place}.identity_headers.{key}"));
        if (user == email || user == roles || email == roles) && ["user", "email", "roles"].iter().all(|key| known(key))
        {
            self.fault(format!("{place}.identity_headers"), "one name for two things", "give each a name of its own");
        }
        headers
    }
}
