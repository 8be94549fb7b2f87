//! Which fields of a request belong to the client's connection, and which need more than to be passed on: the one home of
//! these rules for both request paths.
//!
//! On the full path Pingora removes the hop-by-hop fields from the request to the application, and so does the fast path
//! by declining them: a request that has one is read by Pingora. The two exceptions are those that browsers send over
//! HTTP/2, where they say nothing that the application has to know.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that belong to one connection (RFC 9110 §7.6.1). `Connection` is one more, and names others.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // The settings that an `Upgrade: h2c` would begin with (RFC 7540 §3.2.1).
    HeaderName::from_static("http2-settings"),
];
/// The same, by names that no standard registers.
const UNREGISTERED_HOP_BY_HOP: [&str; 2] = ["keep-alive", "proxy-connection"];
/// Fields that announce a body, or that ask for an interim response before it.
const OF_BODIES: [HeaderName; 2] = [header::CONTENT_LENGTH, header::EXPECT];

/// What the `Connection` fields of a request ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    KeepAlive,
    Close,
    /// It names fields, or more than one option.
    Other,
}

impl Connection {
    /// Returns what one field asks for.
    pub fn of(value: &[u8]) -> Self {
        match value {
            _ if value.eq_ignore_ascii_case(b"close") => Self::Close,
            _ if value.eq_ignore_ascii_case(b"keep-alive") => Self::KeepAlive,
            _ => Self::Other,
        }
    }
}

/// Whether any `Connection` field has the option `close` (RFC 9112 §9.6). Pingora looks at the first field alone.
pub fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    options.any(|option| Connection::of(option.trim_ascii()) == Connection::Close)
}

/// Whether a field needs the full path: it belongs to the connection, announces a body, or asks for a special kind of
/// response.
pub fn needs_full_path(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || OF_BODIES.contains(name) || UNREGISTERED_HOP_BY_HOP.contains(&name.as_str())
}

/// The same over HTTP/2, for a request without a body. Firefox takes trailers, and an application over HTTP/1.1 has no way
/// to send any that are passed on; and a length of 0 says once more that there is no body. [`remove_implied`] removes both.
pub fn needs_full_path_over_http2(name: &HeaderName, value: &HeaderValue) -> bool {
    let takes_trailers = *name == header::TE && value == "trailers";
    let is_without_body = *name == header::CONTENT_LENGTH && value == "0";
    !takes_trailers && !is_without_body && needs_full_path(name)
}

/// Removes the fields that [`needs_full_path_over_http2`] excepts. RFC 9110 §8.6: a GET without a body has no length.
pub fn remove_implied(headers: &mut HeaderMap) {
    headers.remove(header::TE);
    headers.remove(header::CONTENT_LENGTH);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_belongs_to_a_connection_needs_the_full_path() {
        for name in [
            "content-length",
            "expect",
            "http2-settings",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(needs_full_path(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!needs_full_path(&header::COOKIE) && !needs_full_path(&header::HOST));
    }

    #[test]
    fn over_http2_two_fields_say_nothing_that_an_application_has_to_know() {
        let needs = |name: HeaderName, value| needs_full_path_over_http2(&name, &HeaderValue::from_static(value));
        assert!(!needs(header::TE, "trailers") && needs(header::TE, "gzip"));
        assert!(!needs(header::CONTENT_LENGTH, "0") && needs(header::CONTENT_LENGTH, "00"));
        assert!(needs(header::EXPECT, "100-continue"));
    }

    #[test]
    fn close_is_found_in_any_field_and_in_any_place() {
        for (values, expected) in [
            (&["close"][..], true),
            (&["keep-alive", "x, CLOSE "], true),
            (&["keep-alive"], false),
            (&["closed"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONNECTION, HeaderValue::from_static(value));
            }
            assert_eq!(says_close(&headers), expected, "{values:?}");
        }
    }
}
