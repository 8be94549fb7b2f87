//! WebSocket handshakes: whole ones, from our own pages (RFC 6455 §4.2.1, OWASP ASVS 4.4.2).
//!
//! Pingora takes any request with `Upgrade: websocket` for a handshake and completes it towards the application, so
//! what is none is refused here. Upgrades to anything else it strips. A page of a sibling host is same-site, so
//! the token cookie travels with its handshake: only the Origin tells it from the application's own page.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::Malformed;
use crate::host::Origin;

/// Whether a request is a WebSocket handshake, and an error where it says so and is none.
pub fn is_websocket(method: &Method, headers: &HeaderMap) -> Result<bool, Malformed> {
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Ok(false);
    }
    // Base64 of 16 bytes.
    let key = alone(headers, &header::SEC_WEBSOCKET_KEY).is_ok_and(|key| key.is_some_and(|key| key.len() == 24));
    let version = alone(headers, &header::SEC_WEBSOCKET_VERSION);
    let version = version.is_ok_and(|version| version.is_some_and(|version| version == "13"));
    // A body before the conversation would be one more way to find its beginning elsewhere.
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let body = length || headers.contains_key(header::TRANSFER_ENCODING);
    let whole = method == Method::GET && !body && has_token(headers, &header::CONNECTION, "upgrade") && version && key;
    if whole { Ok(true) } else { Err(Malformed::Upgrade) }
}

/// Whether the page that opens a WebSocket may: `may` judges its origin, which is scheme, host and port (RFC 6454 §4), as
/// another port of a host may serve another site. Browsers always say where a handshake comes from; a client that does
/// not is no browser, and has no page.
pub fn page_may_open(headers: &HeaderMap, may: impl FnOnce(&Origin) -> bool) -> bool {
    let origin = match alone(headers, &header::ORIGIN) {
        Ok(None) => return true,
        Ok(Some(origin)) => origin,
        Err(Several) => return false,
    };
    let origin = origin.to_str().ok().and_then(|origin| Origin::parse(origin).ok());
    origin.is_some_and(|origin| may(&origin))
}

/// By bytes: a field with one that is no ASCII is there all the same.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// More than one field of a name that may stand once.
struct Several;

fn alone<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Several> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next();
    if fields.next().is_some() { Err(Several) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Authority;

    const WHOLE: [(&str, &str); 5] = [
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "https://iqueue.test:8443"),
    ];

    fn judge_at(authority: &str, method: &Method, fields: &[(&'static str, &[u8])]) -> Result<(), Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let Authority { host, port } = Authority::parse(authority).unwrap();
        let own = Origin::of(&host, port);
        let is_ours = || page_may_open(&headers, |origin| *origin == own);
        if !is_websocket(method, &headers)? || is_ours() { Ok(()) } else { Err(Malformed::Upgrade) }
    }

    fn judge(method: &Method, fields: &[(&'static str, &'static str)]) -> Result<(), Malformed> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        judge_at("iqueue.test:8443", method, &fields)
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

    #[test]
    fn an_origin_is_this_host_on_this_port_and_stands_once() {
        const OWN: Result<(), Malformed> = Ok(());
        const FOREIGN: Result<(), Malformed> = Err(Malformed::Upgrade);
        for (authority, origins, expected) in [
            ("iqueue.test", &["https://iqueue.test"][..], OWN),
            ("iqueue.test", &["https://iqueue.test:443"], OWN),
            ("iqueue.test:443", &["https://iqueue.test"], OWN),
            ("IQUEUE.test.", &["https://iqueue.test"], OWN),
            ("iqueue.test", &["https://IQUEUE.test"], OWN),
            ("iqueue.test:8443", &["https://iqueue.test:8443"], OWN),
            ("iqueue.test", &["https://iqueue.test:1"], FOREIGN),
            ("iqueue.test", &["https://IQUEUE.test:8443"], FOREIGN),
            ("iqueue.test:8443", &["https://iqueue.test"], FOREIGN),
            ("iqueue.test:8443", &["https://iqueue.test:443"], FOREIGN),
            ("iqueue.test", &["http://iqueue.test:443"], FOREIGN),
            ("iqueue.test", &["wss://iqueue.test"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test:0"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test:65536"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test/"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test."], OWN),
            ("iqueue.test", &["iqueue.test"], FOREIGN),
            ("iqueue.test", &[""], FOREIGN),
            ("iqueue.test", &["https://iqueue.test", "https://iqueue.test"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test", "https://evil.test"], FOREIGN),
            ("iqueue.test", &["https://evil.test", "https://iqueue.test"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test, https://evil.test"], FOREIGN),
            ("iqueue.test", &["https://iqueue.test https://evil.test"], FOREIGN),
        ] {
            let mut fields: Vec<_> = WHOLE[..4].iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            fields.extend(origins.iter().map(|origin| ("origin", origin.as_bytes())));
            assert_eq!(judge_at(authority, &Method::GET, &fields), expected, "{authority} {origins:?}");
        }
    }

    #[test]
    fn a_byte_that_is_no_text_makes_no_field_absent() {
        let whole: Vec<_> = WHOLE.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let with = |at: usize, value: &'static [u8]| {
            let mut fields = whole.clone();
            fields[at].1 = value;
            judge_at("iqueue.test:8443", &Method::GET, &fields)
        };
        assert_eq!(with(4, b"https://\xe9"), Err(Malformed::Upgrade), "an origin");
        for upgrade in [&b"websocket,\xe9"[..], b"\xe9, websocket", b"h2c, websocket ,\xff"] {
            let fields = [("upgrade", upgrade), ("origin", b"https://evil.test")];
            assert_eq!(judge_at("iqueue.test", &Method::GET, &fields), Err(Malformed::Upgrade), "{upgrade:?}");
        }
    }

    #[test]
    fn what_may_stand_once_stands_once() {
        for field in
            [("sec-websocket-version", "12"), ("sec-websocket-version", "13"), ("sec-websocket-key", WHOLE[3].1)]
        {
            let twice: Vec<_> = WHOLE.into_iter().chain([field]).collect();
            assert_eq!(judge(&Method::GET, &twice), Err(Malformed::Upgrade), "{field:?}");
        }
    }
}
