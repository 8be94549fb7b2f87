//! `services.NAME.identity_headers`: the names of the header fields that carry the identity to applications.

use http::HeaderName;

use super::{Check, defaults, file};
use crate::config::IdentityHeaders;

/// Field names, in lower case, that an identity header may not have. The edge removes identity headers from every request to
/// every service, so what HTTP, browsers or the edge itself send in these fields would be lost. They are the names in
/// the IANA registry that applications see, and unregistered ones that are as common.
#[rustfmt::skip]
const SPOKEN_FOR: &[&str] = &[
    // Connections and framing (RFC 9110 §7.6, RFC 9112).
    "connection", "expect", "host", "http2-settings", "keep-alive", "max-forwards", "te", "trailer", "transfer-encoding", "upgrade", "via",
    // The request and its preconditions.
    "a-im", "alt-used", "cache-control", "depth", "destination", "dnt", "early-data", "forwarded", "from", "last-event-id", "lock-token",
    "origin", "overwrite", "pragma", "prefer", "priority", "range", "referer", "save-data", "timeout", "upgrade-insecure-requests", "user-agent",
    "warning", "x-requested-with",
    // Credentials and identity.
    "authorization", "authentication-info", "client-cert", "client-cert-chain", "cookie", "cookie2", "dpop", "www-authenticate",
    "x-csrf-token", "x-xsrf-token", "x-client-ip", "x-forwarded-client-cert", "x-real-ip", "true-client-ip",
    // Response fields.
    "age", "allow", "alt-svc", "clear-site-data", "date", "etag", "expires", "last-modified", "link", "location", "refresh", "referrer-policy",
    "retry-after", "server", "server-timing", "set-cookie", "set-cookie2", "strict-transport-security", "vary", "x-content-type-options",
    "x-frame-options",
    // Forwarding and tracing.
    "baggage", "traceparent", "tracestate", "x-request-id", "x-correlation-id", "x-http-method", "x-http-method-override", "x-method-override",
    "x-forwarded-by", "x-forwarded-for", "x-forwarded-host", "x-forwarded-method", "x-forwarded-path", "x-forwarded-port",
    "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-protocol", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-session",
    "x-forwarded-ssl", "x-forwarded-uri", "x-sentry-assertion",
];

/// Families of such fields.
const FAMILIES: &[&str] = &[
    "accept",
    "access-control-",
    "content-",
    "cross-origin-",
    "if-",
    "proxy-",
    "sec-",
    "service-worker",
    "x-original-",
    "x-rewrite-",
];

fn is_spoken_for(name: &HeaderName) -> bool {
    SPOKEN_FOR.contains(&name.as_str()) || FAMILIES.iter().any(|family| name.as_str().starts_with(family))
}

impl Check<'_> {
    pub(super) fn identity_headers(&mut self, place: &str, written: &file::IdentityHeaders) -> IdentityHeaders {
        let mut header = |key: &str, written: &Option<String>, default: &'static str| {
            let name = written.as_deref().unwrap_or(default);
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let key = format!("{place}.identity_headers.{key}");
            let parsed: Option<HeaderName> = name.parse().ok().filter(|_| plain);
            if parsed.as_ref().is_some_and(is_spoken_for) {
                self.faults.add(&key, format!("`{name}` is a reserved header name"), "choose another name");
            }
            parsed.unwrap_or_else(|| {
                self.faults.add(key, format!("`{name}` is no header name"), "use letters, digits and -");
                HeaderName::from_static("x-forwarded-user")
            })
        };
        let headers = IdentityHeaders {
            user: header("user", &written.user, defaults::USER_HEADER),
            email: header("email", &written.email, defaults::EMAIL_HEADER),
            roles: header("roles", &written.roles, defaults::ROLES_HEADER),
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
