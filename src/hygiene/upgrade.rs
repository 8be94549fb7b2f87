//! WebSocket handshakes: whole ones, from our own pages (RFC 6455 §4.2.1, OWASP ASVS 4.4.2).
//!
//! Pingora takes any request with `Upgrade: websocket` for a handshake and completes it towards the application, so
//! what is none is refused here. Upgrades to anything else it strips. A page of a sibling host is same-site, so
//! the token cookie travels with its handshake: only the Origin tells it from the application's own page.

use http::{HeaderMap, Method, header};
use url::Url;

use super::Malformed;
use crate::host::Host;

pub fn check(method: &Method, headers: &HeaderMap, host: &Host) -> Result<(), Malformed> {
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Ok(());
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(0, |key| key.len());
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    // Base64 of 16 bytes.
    // A body before the conversation would be one more way to find its beginning elsewhere.
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let body = length || headers.contains_key(header::TRANSFER_ENCODING);
    let whole =
        method == Method::GET && !body && has_token(headers, &header::CONNECTION, "upgrade") && version && key == 24;
    if whole && is_own_page(headers, host) { Ok(()) } else { Err(Malformed::Upgrade) }
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Browsers always say where a handshake comes from; a client that does not is no browser, and nobody's page.
fn is_own_page(headers: &HeaderMap, host: &Host) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let url = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    url.is_some_and(|url| url.scheme() == "https" && url.host_str() == Some(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 5] = [
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "https://iqueue.test:8443"),
    ];

    fn judge(method: &Method, fields: &[(&'static str, &'static str)]) -> Result<(), Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, header::HeaderValue::from_static(value));
        }
        check(method, &headers, &Host::parse("iqueue.test").unwrap())
    }

    #[test]
    fn a_whole_handshake_from_our_own_page_passes_and_so_does_one_without_a_page() {
        assert_eq!(judge(&Method::GET, &WHOLE), Ok(()));
        assert_eq!(judge(&Method::GET, &WHOLE[..4]), Ok(()));
        assert_eq!(judge(&Method::POST, &[("upgrade", "h2c")]), Ok(()), "not ours to judge: it is stripped");
    }

    #[test]
    fn half_a_handshake_or_one_from_another_page_is_refused() {
        assert_eq!(judge(&Method::POST, &WHOLE), Err(Malformed::Upgrade));
        for missing in ["connection", "sec-websocket-version", "sec-websocket-key"] {
            let fields: Vec<_> = WHOLE.into_iter().filter(|(name, _)| *name != missing).collect();
            assert_eq!(judge(&Method::GET, &fields), Err(Malformed::Upgrade), "without {missing}");
        }
        for origin in ["https://dextor.test", "http://iqueue.test", "null", "https://iqueue.test.evil.com"] {
            let mut fields = WHOLE.to_vec();
            fields[4] = ("origin", origin);
            assert_eq!(judge(&Method::GET, &fields), Err(Malformed::Upgrade), "{origin}");
        }
        for body in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            let fields: Vec<_> = WHOLE.into_iter().chain([body]).collect();
            assert_eq!(judge(&Method::GET, &fields), Err(Malformed::Upgrade), "{body:?}");
        }
        let mut old = WHOLE.to_vec();
        old[2] = ("sec-websocket-version", "12");
        assert_eq!(judge(&Method::GET, &old), Err(Malformed::Upgrade));
    }
}
