//! An application's response on the fast path: what is passed on was read as an obvious reading has it, says where its
//! body ends, and has nothing in its head that must not reach the client. The full path would make the same of it.
//!
//! The first byte is the request's method: `H` for HEAD, anything else for GET.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::ResponseHeader;
use sentry_edge::auth::cookie::{self, Lookup};
use sentry_edge::proxy::headers::location::Scope;
use sentry_edge::proxy::headers::response_rules::{RequestFacts, UpstreamSync, sanitize};
use sentry_edge::proxy::upstream::parse::{self, FixedLengthResponse, HeadRules};

use super::reader::{self, Head, Values};

const OURS: [&str; 2] = ["__Host-JWTCookie", "__Host-SSOState"];

/// Fields that end at the edge in an ordinary response, or that the edge says itself.
const NOT_PASSED: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "transfer-encoding",
    "proxy-authenticate",
    "proxy-authentication-info",
    "x-request-id",
];

pub fn check(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let method = if *first == b'H' { Method::HEAD } else { Method::GET };
    let bytes = Bytes::copy_from_slice(data);
    let ours = OURS.map(str::to_owned);
    let rules = HeadRules { our_cookies: &ours, fields: None, scope: Scope::Off };
    let for_http1 = parse::parse::<Vec<u8>>(&bytes, &method, rules);
    let for_http2 = parse::parse::<Box<ResponseHeader>>(&bytes, &method, rules);
    assert_eq!(for_http1.is_some(), for_http2.is_some(), "{}", data.escape_ascii());
    let (Some(for_http1), Some(for_http2)) = (for_http1, for_http2) else {
        assert!(!is_ordinary(data, &method), "an ordinary response is left: {}", data.escape_ascii());
        return;
    };
    let read = reader::read(data).expect("what is no head is accepted");
    let expected = Expected::of(&read, &method);
    expected.check(&for_http1, data);
    expected.check(&for_http2, data);

    // As it is written: another head of the same fields, but for those that end here.
    let written = reader::read(&[&for_http1.head[..], b"\r\n"].concat()).expect("what is written is a head");
    assert!(written.is_strict && written.length == for_http1.head.len() + 2, "{}", for_http1.head.escape_ascii());
    let (status, reason) = status_line(&written.first);
    assert_eq!(status, expected.status);
    // A reason that is no ASCII is left out.
    assert!(reason.is_empty() || reason == status_line(&read.first).1, "{}", data.escape_ascii());
    let written = reader::values(written.fields);
    assert_eq!(written, expected.passed, "{}", data.escape_ascii());
    assert_eq!(reader::values(for_http2.head.headers.iter()), expected.passed, "{}", data.escape_ascii());
    assert_eq!(for_http2.head.status, expected.status);
    check_cookies(&written);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = RequestFacts { method: &method, version, takes_trailers: false };
        check_full_path(&read, &expected, request);
    }
}

/// What an obvious reading makes of a response.
struct Expected {
    status: StatusCode,
    passed: Values,
    length: usize,
    body: usize,
    is_dated: bool,
    is_reusable: bool,
}

impl Expected {
    fn of(read: &Head, method: &Method) -> Self {
        let (status, _) = status_line(&read.first);
        assert!(!status.is_informational(), "another head follows");
        let is_bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let mut passed = reader::values(read.fields.iter().map(|(name, value)| (name, value)));
        assert!(!passed.contains_key("transfer-encoding"), "the body is coded");
        assert!(!passed.get("content-type").into_iter().flatten().any(|value| is_event_stream(value)));
        let challenges = ["www-authenticate", "proxy-authenticate"].into_iter().flat_map(|name| list(passed.get(name)));
        let mut schemes = challenges.map(|challenge| challenge.split(' ').next().unwrap_or_default().to_owned());
        assert!(
            !schemes.any(|scheme| ["ntlm", "negotiate"].contains(&scheme.as_str())),
            "the connection is one client's"
        );
        let length = passed.get("content-length").map(|said| {
            assert_eq!(said.len(), 1, "two lengths");
            number(&said[0]).expect("a length is a number")
        });
        let connection: Vec<String> = list(passed.get("connection"));
        assert!(connection.iter().all(|said| ["close", "keep-alive"].contains(&said.as_str())), "{connection:?}");
        for name in NOT_PASSED.into_iter().chain(is_bodiless.then_some("content-length")) {
            passed.remove(name);
        }
        Self {
            status,
            is_dated: passed.contains_key("date"),
            passed,
            length: if is_bodiless || *method == Method::HEAD { 0 } else { length.expect("a body has an end") },
            body: read.length,
            is_reusable: !connection.contains(&"close".to_owned()),
        }
    }

    fn check<H>(&self, ordinary: &FixedLengthResponse<H>, data: &[u8]) {
        let FixedLengthResponse { status, is_dated, length, body, is_reusable, .. } = ordinary;
        assert_eq!(
            (*status, *is_dated, *length, *body, *is_reusable),
            (self.status, self.is_dated, self.length, self.body, self.is_reusable),
            "{}",
            data.escape_ascii()
        );
    }
}

/// `HTTP/1.1 200 Fine`, or without a reason.
fn status_line(line: &[u8]) -> (StatusCode, Vec<u8>) {
    let rest = line.strip_prefix(b"HTTP/1.1 ").expect("the version is the one that is known");
    assert!(rest.get(3).is_none_or(|byte| *byte == b' '), "{}", line.escape_ascii());
    let status = StatusCode::from_bytes(rest.get(..3).unwrap_or_default()).expect("a status has three digits");
    (status, rest.get(4..).unwrap_or_default().to_vec())
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// The elements of a list (RFC 9110 §5.6.1), in lower case.
fn list(fields: Option<&Vec<Vec<u8>>>) -> Vec<String> {
    let fields = fields.into_iter().flatten().map(|field| String::from_utf8_lossy(field).to_ascii_lowercase());
    fields.flat_map(|field| field.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>()).collect()
}

fn is_event_stream(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    text.split(';').next().unwrap_or_default().trim() == "text/event-stream"
}

/// A browser takes these cookies as RFC 6265bis §5.6 says, and sends them back, those without a name too, as older ones
/// do. Among them is none that the guard would take for one of its own.
fn check_cookies(written: &Values) {
    for field in written.get("set-cookie").into_iter().flatten() {
        let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
            None => (&b""[..], pair.trim_ascii()),
        };
        let sent = if name.is_empty() { value.to_vec() } else { [name, b"=", value].concat() };
        // The prefix of a name counts in any case (RFC 6265bis §4.1.3).
        let Ok(sent) = HeaderValue::from_bytes(&sent.to_ascii_lowercase()) else { continue };
        let headers = HeaderMap::from_iter([(header::COOKIE, sent)]);
        for ours in OURS {
            assert_eq!(cookie::find(&headers, &ours.to_ascii_lowercase()), Lookup::Absent, "{}", field.escape_ascii());
        }
    }
}

/// The rules of the full path take out nothing more, find nothing to refuse, and keep the same connections.
fn check_full_path(read: &Head, expected: &Expected, request: RequestFacts<'_>) {
    let mut fields = HeaderMap::new();
    for (name, value) in &read.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        fields.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    let afterwards = sanitize(expected.status, Version::HTTP_11, &mut fields, request).expect("nothing to refuse");
    assert!(afterwards == UpstreamSync::InSync || !expected.is_reusable, "{fields:?}");
    fields.remove("x-request-id");
    assert_eq!(reader::values(fields.iter()), expected.passed);
}

/// Whether a response is plainly one for the fast path, so that nothing but speed is lost where it is not taken.
fn is_ordinary(data: &[u8], method: &Method) -> bool {
    let Some(head) = reader::read(data) else { return false };
    let Some((b"HTTP/1.1 ", rest)) = head.first.split_at_checked(9) else { return false };
    let plain: &[&[u8]] = &[b"200 OK", b"204 No Content", b"304 Not Modified", b"404 Not Found", b"500 "];
    let values = reader::values(head.fields);
    let is_bodiless = *method == Method::HEAD || rest.starts_with(b"304");
    let has_length = match values.get("content-length").map(Vec::as_slice) {
        Some([one]) => number(one)
            .is_some_and(|length| one == length.to_string().as_bytes() && (length == 0 || !rest.starts_with(b"204"))),
        Some(_) => false,
        None => is_bodiless || rest.starts_with(b"204"),
    };
    let odd =
        ["transfer-encoding", "set-cookie", "content-type", "connection", "www-authenticate", "proxy-authenticate"];
    plain.contains(&rest)
        && head.is_strict
        && values.values().map(Vec::len).sum::<usize>() <= 64
        && has_length
        && !odd.iter().any(|name| values.contains_key(*name))
}
