//! Request validation: whether a request has one meaning only, for the edge and for the application behind it.
//!
//! Pure. Over HTTP/1 [`head`] and [`chunks`] are called by `listener` on the bytes as received, before Pingora has them,
//! because Pingora mends some things and refuses others by itself (see docs/design/pingora-notes.md). [`inspect`] takes the head that
//! was parsed, and is called by `proxy`, before anything else.

mod byte_set;
pub mod chunks;
pub mod head;
mod query;
pub mod upgrade;

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::config::rules::NEVER_SERVED;
use crate::config::{Limits, METHODS};
use crate::host::Authority;
use crate::path::CanonicalPath;

/// The target of a request that can be read in one way only: its authority and its path.
#[derive(Debug)]
pub struct RequestTarget {
    pub authority: Authority,
    pub path: CanonicalPath,
    /// Whether it is a WebSocket handshake, whose Origin has still to be looked at.
    pub is_websocket: bool,
}

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    Host,
    Path,
    Target,
    /// Content-Length beside Transfer-Encoding, or a coding other than `chunked` (RFC 9112 §6.3).
    Framing,
    Method,
    HeaderTooLarge,
    /// A name like `X_Forwarded_User`: some servers read it as the one that only we may set.
    HeaderName,
    BodyTooLarge,
    /// An `Expect` that we do not know (RFC 9110 §10.1.1).
    Expectation,
    /// A WebSocket handshake that is none, or from another site's page.
    Upgrade,
    /// Bytes that are no head of HTTP/1.1, or one that servers read differently (RFC 9112 §2.2).
    Syntax,
}

impl Malformed {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether a configured limit (`server.limits`) was reached. Any other request is malformed whatever the limits are.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::HeaderTooLarge | Self::BodyTooLarge)
    }

    /// Returns what the access log has as `reason`, and the metrics as `reason` or `limit`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Target => "target",
            Self::Framing => "framing",
            Self::Method => "method",
            Self::HeaderTooLarge => "header_too_large",
            Self::HeaderName => "header_name",
            Self::BodyTooLarge => "body_too_large",
            Self::Expectation => "expectation",
            Self::Upgrade => "upgrade",
            Self::Syntax => "syntax",
        }
    }
}

/// What is looked at. `raw` is the head as it came over HTTP/1; HTTP/2 has none.
#[derive(Clone, Copy)]
pub struct UncheckedRequest<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub raw: Option<&'a [u8]>,
}

/// All checks that need no route, cheapest first.
pub fn inspect(request: UncheckedRequest<'_>, limits: &Limits) -> Result<RequestTarget, Malformed> {
    if NEVER_SERVED.contains(&request.method.as_str()) {
        return Err(Malformed::Method);
    }
    check_size(&request, limits)?;
    check_framing(&request)?;
    // An HTTP/2 client's `?a` has no path, and would become a target that servers read in two ways.
    let has_path = |uri: &Uri| uri.path_and_query().is_none_or(|target| target.as_str().starts_with('/'));
    let is_odd = |uri: &Uri| {
        !has_path(uri) || uri.query().is_some_and(|query| !query::QUERY_BYTES.contains_all(query.as_bytes()))
    };
    if request.raw.map_or_else(|| is_odd(request.uri), has_ambiguous_target) || !has_our_scheme(request.uri) {
        return Err(Malformed::Target);
    }
    let authority = authority(&request)?;
    check_expectation(request.headers)?;
    let is_websocket = upgrade::is_websocket(request.method, request.headers)?;
    let path = CanonicalPath::of(request.uri.path()).map_err(|_| Malformed::Path)?;
    Ok(RequestTarget { authority, path, is_websocket })
}

/// What is not known is not forwarded (RFC 9110 §9.1), but where `has_methods` says that the route has a list of methods,
/// which decides then.
pub fn check_method(method: &Method, has_methods: impl FnOnce() -> bool) -> Result<(), Malformed> {
    if METHODS.contains(method) || has_methods() { Ok(()) } else { Err(Malformed::Method) }
}

fn check_size(request: &UncheckedRequest<'_>, limits: &Limits) -> Result<(), Malformed> {
    let is_too_large = match request.raw {
        Some(raw) => raw.len() > limits.header_bytes || has_too_many(request.headers, limits),
        None => bytes(request.headers) > limits.header_bytes || has_too_many(request.headers, limits),
    };
    if is_too_large { Err(Malformed::HeaderTooLarge) } else { Ok(()) }
}

/// What header fields take, as HTTP/2 counts them (RFC 9113 §6.5.2).
pub fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// Whether there are more fields than there may be.
pub fn has_too_many(headers: &HeaderMap, limits: &Limits) -> bool {
    if headers.len() <= limits.header_count {
        return false;
    }
    // HTTP/2 browsers send a field for each cookie; they count as the one that they stand for (RFC 9113 §8.2.3).
    let crumbs = headers.get_all(header::COOKIE).iter().count();
    headers.len() - crumbs.saturating_sub(1) > limits.header_count
}

/// Pingora drops Content-Length beside Transfer-Encoding before we see the map, so the raw bytes decide.
fn check_framing(request: &UncheckedRequest<'_>) -> Result<(), Malformed> {
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let chunked_alone = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    let with_length = request.raw.is_some_and(|raw| has_field(raw, b"content-length"));
    if !chunked_alone || with_length { Err(Malformed::Framing) } else { Ok(()) }
}

fn has_field(raw: &[u8], name: &[u8]) -> bool {
    // Pingora has refused a blank before the colon.
    let is_named = |line: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    raw.split(|b| *b == b'\n').any(|line| is_named(line) && line.get(name.len()) == Some(&b':'))
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Malformed> {
    match headers.get(header::EXPECT) {
        Some(expect) if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Malformed::Expectation),
        _ => Ok(()),
    }
}

/// Whether a body may have so many bytes at most. One with a Content-Length is refused before it is read; others are
/// counted as they arrive.
pub fn check_body(headers: &HeaderMap, most: usize) -> Result<(), Malformed> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) { Err(Malformed::BodyTooLarge) } else { Ok(()) }
}

/// Whether the request line is other than three parts separated by single spaces (RFC 9112 §3), or has what Pingora would
/// cut off (a fragment) or mend, by escaping it or by putting a slash before it.
fn has_ambiguous_target(raw: &[u8]) -> bool {
    let begins_blank = |rest: &[u8]| rest.first() == Some(&b' ');
    let (_, rest) = byte_set::REQUEST_LINE_BYTES.split_prefix(raw);
    if !begins_blank(rest) {
        return true;
    }
    let (path, mut rest) = byte_set::PATH_BYTES.split_prefix(&rest[1..]);
    if rest.first() == Some(&b'?') {
        (_, rest) = query::QUERY_BYTES.split_prefix(rest);
    }
    if !begins_blank(rest) {
        return true;
    }
    let (_, end) = byte_set::REQUEST_LINE_BYTES.split_prefix(&rest[1..]);
    !has_form(path) || !matches!(end, [] | [b'\r'] | [b'\n', ..] | [b'\r', b'\n', ..])
}

/// HTTP/2 clients name a scheme, and may name any (RFC 9113 §8.3.1); an HTTP/1 target has none, or these.
fn has_our_scheme(uri: &Uri) -> bool {
    uri.scheme_str().is_none_or(|scheme| ["https", "http"].iter().any(|ours| scheme.eq_ignore_ascii_case(ours)))
}

/// Whether a target, less its query, is in origin form or absolute form (RFC 9112 §3.2): the others are for proxies, or for
/// no resource of ours.
fn has_form(target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    target.starts_with(b"/") || begins(b"http://") || begins(b"https://")
}

/// `:authority`, or the one Host field. Two of them, and two that differ, were refused before: by [`head`], or by Pingora.
fn authority(request: &UncheckedRequest<'_>) -> Result<Authority, Malformed> {
    let text = match (request.uri.authority(), request.headers.get(header::HOST)) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| Malformed::Host)?,
        (None, None) => return Err(Malformed::Host),
    };
    Authority::parse(text).map_err(|_| Malformed::Host)
}

/// Whether a name has a byte that nginx drops by default.
pub fn is_ambiguous_name(name: &HeaderName) -> bool {
    !byte_set::NAME_BYTES.contains_all(name.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::header_names;
    use http::HeaderValue;

    const LIMITS: Limits = Limits { header_bytes: 1000, header_count: 10, ..Limits::DEFAULT };

    #[test]
    fn every_reason_has_a_series_in_one_metric() {
        use Malformed::*;
        let all = [
            Host,
            Path,
            Target,
            Framing,
            Method,
            HeaderTooLarge,
            HeaderName,
            BodyTooLarge,
            Expectation,
            Upgrade,
            Syntax,
        ];
        for malformed in all {
            assert_ne!(malformed.is_limit(), crate::metrics::REJECTIONS.contains(&malformed.label()), "{malformed:?}");
        }
        assert_eq!(all.iter().filter(|malformed| !malformed.is_limit()).count(), crate::metrics::REJECTIONS.len());
    }

    fn inspect_raw(raw: &str) -> Result<RequestTarget, Malformed> {
        let mut lines = raw.split("\r\n");
        let mut line = lines.next().unwrap().split(' ');
        let method: Method = line.next().unwrap().parse().unwrap();
        let target = line.next().unwrap_or("/").split('#').next().unwrap();
        let uri: Uri = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        for field in lines.filter(|line| !line.is_empty()) {
            let (name, value) = field.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        inspect(UncheckedRequest { method: &method, uri: &uri, headers: &headers, raw: Some(raw.as_bytes()) }, &LIMITS)
    }

    fn refusal(raw: &str) -> Option<Malformed> {
        inspect_raw(raw).err()
    }

    #[test]
    fn a_plain_request_is_read() {
        let target = inspect_raw("GET /a?b HTTP/1.1\r\nHost: IQueue.LeanTaaS.com:443\r\n\r\n").unwrap();
        assert_eq!(target.authority.host.as_str(), "iqueue.leantaas.com");
        assert_eq!(target.path.as_str(), "/a");
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways_is_refused() {
        for (raw, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: a.com, b.com\r\n\r\n", Malformed::Host),
            ("GET / HTTP/1.1\r\nHost: user@a.com\r\n\r\n", Malformed::Host),
            ("GET /pub#/../admin HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Target),
            ("GET /a b HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Target),
            ("GET a HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Target),
            ("GET /a/../.. HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Path),
            ("TRACE / HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Method),
            ("TRACK / HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Method),
            ("CONNECT / HTTP/1.1\r\nHost: a.com\r\n\r\n", Malformed::Method),
            ("POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed::Framing),
            (
                "POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
                Malformed::Framing,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                Malformed::Framing,
            ),
        ] {
            assert_eq!(refusal(raw), Some(expected), "{raw}");
        }
    }

    /// Word by word, as the rule is said.
    fn is_odd_by_words(raw: &[u8]) -> bool {
        let line = raw.split(|byte| *byte == b'\n').next().unwrap();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [method, target, version] = words[..] else { return true };
        let mut parts = target.splitn(2, |byte| *byte == b'?');
        let (path, query) = (parts.next().unwrap(), parts.next().unwrap_or_default());
        let is_plain = |word: &[u8]| word.iter().all(|byte| byte.is_ascii_graphic() && !b"#\\".contains(byte));
        let may_stand = query.iter().all(|byte| byte.is_ascii_graphic() && !b"\"#<>".contains(byte));
        let begins =
            |form: &str| target.len() >= form.len() && target[..form.len()].eq_ignore_ascii_case(form.as_bytes());
        let has_form = ["/", "http://", "https://"].iter().any(|form| begins(form));
        !has_form || !may_stand || ![method, path, version].into_iter().all(is_plain)
    }

    /// Each byte in each place of a request line, in the stead of what stands there and beside it, and less each one.
    #[test]
    fn a_request_line_is_read_in_one_pass_as_word_by_word() {
        let mut odd = 0;
        let mut judge = |raw: &[u8]| {
            let expected = is_odd_by_words(raw);
            assert_eq!(has_ambiguous_target(raw), expected, "{}", raw.escape_ascii());
            odd += usize::from(expected);
        };
        for line in
            ["GET /a?b=\\?c HTTP/1.1\r\nHost: a b\r\n\r\n", "GET HTTPS://a/?b HTTP/1.1\n", "GET /a HTTP/1.1\r", "", " "]
        {
            judge(line.as_bytes());
            for place in 0..line.len() {
                let (before, after) = line.as_bytes().split_at(place);
                judge(&[before, &after[1..]].concat());
                judge(before);
                for byte in 0..=u8::MAX {
                    judge(&[before, &[byte], &after[1..]].concat());
                    judge(&[before, &[byte], after].concat());
                }
            }
        }
        assert!(odd > 10_000, "{odd}");
    }

    #[test]
    fn a_scheme_is_http_or_https() {
        let inspect_uri = |uri: &str| {
            let (uri, headers) = (uri.parse().unwrap(), HeaderMap::new());
            inspect(UncheckedRequest { method: &Method::GET, uri: &uri, headers: &headers, raw: None }, &LIMITS).err()
        };
        assert_eq!((inspect_uri("https://a.com/"), inspect_uri("http://a.com/")), (None, None));
        assert_eq!(inspect_uri("ftp://a.com/"), Some(Malformed::Target));
    }

    #[test]
    fn headers_are_bounded_in_size_and_number() {
        let many: String = (0..11).map(|n| format!("A{n}: b\r\n")).collect();
        assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nHost: a.com\r\n{many}\r\n")), Some(Malformed::HeaderTooLarge));
        let long = "x".repeat(1000);
        assert_eq!(
            refusal(&format!("GET / HTTP/1.1\r\nHost: a.com\r\nA: {long}\r\n\r\n")),
            Some(Malformed::HeaderTooLarge)
        );
    }

    #[test]
    fn cookie_crumbs_count_as_one_field() {
        let crumbs = |number: usize, others: usize| {
            let mut headers = HeaderMap::new();
            for _ in 0..number {
                headers.append(header::COOKIE, HeaderValue::from_static("a"));
            }
            for at in 0..others {
                headers.append(format!("x{at}").parse::<HeaderName>().unwrap(), HeaderValue::from_static("b"));
            }
            let uri: Uri = "https://a.com/".parse().unwrap();
            inspect(UncheckedRequest { method: &Method::GET, uri: &uri, headers: &headers, raw: None }, &LIMITS).err()
        };
        assert_eq!(crumbs(12, 9), None);
        assert_eq!(crumbs(0, 10), None);
        assert_eq!(crumbs(2, 10), Some(Malformed::HeaderTooLarge));
        assert_eq!(crumbs(0, 11), Some(Malformed::HeaderTooLarge));
        assert_eq!(crumbs(30, 0), Some(Malformed::HeaderTooLarge), "their bytes count all the same");
    }

    #[test]
    fn a_body_may_be_as_long_as_its_limit() {
        for (length, refused) in [("99", false), ("100", false), ("101", true), ("18446744073709551615", true)] {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static(length))]);
            assert_eq!(
                check_body(&headers, 100),
                if refused { Err(Malformed::BodyTooLarge) } else { Ok(()) },
                "{length}"
            );
        }
        assert_eq!(check_body(&HeaderMap::new(), 1), Ok(()));
    }

    #[test]
    fn a_method_that_is_not_known_is_left_to_a_route_that_has_a_list() {
        for (method, has_methods, served) in
            [("GET", false, true), ("FOO", false, false), ("FOO", true, true), ("get", false, false)]
        {
            let method: Method = method.parse().unwrap();
            assert_eq!(check_method(&method, || has_methods).is_ok(), served, "{method}");
        }
    }

    #[test]
    fn a_name_is_folded_as_an_application_might() {
        let name = HeaderName::from_static("x_forwarded.user");
        assert!(is_ambiguous_name(&name));
        assert_eq!(header_names::normalize(name.as_str()), "x-forwarded-user");
    }
}
