//! A response of fixed length: a single complete head that says how long its body is, and that
//! the client may have line by line.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_http::ResponseHeader;

use super::connection_auth;
use crate::config::header_names::sets_cookie;
use crate::framing::{ends_with_head, is_bodiless};
use crate::proxy::headers::location::Scope;
use crate::proxy::headers::response_kind::is_event_stream;
use crate::proxy::headers::response_rules::{self, Field};
use crate::routes::rules::ResponseFields;

/// Fields of one, at most.
const MOST_FIELDS: usize = 64;
/// For what the edge adds to a head, and beside it for a short body.
const ROOM: usize = 160;
const SHORT: usize = 2048;

/// A head as it is put together for a client.
pub trait Head: Sized + Send {
    /// So many fields follow, in so many bytes, and some of a body is there.
    fn begin(status: StatusCode, reason: &str, fields: usize, bytes: usize, body: usize) -> Option<Self>;

    /// A field of the bytes that came.
    fn add(&mut self, name: &str, value: &[u8], came: &Bytes) -> Option<()>;

    /// A field that the configuration has.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) -> Option<()>;
}

/// What becomes of an application's head beside the rules for all.
#[derive(Clone, Copy)]
pub struct HeadRules<'a> {
    /// The names of cookies that an application must not set.
    pub our_cookies: &'a [String],
    /// What the route changes.
    pub fields: Option<&'a ResponseFields>,
    /// Which locations may have to be repaired.
    pub scope: Scope,
}

/// Lines of HTTP/1.1, without the blank one.
impl Head for Vec<u8> {
    fn begin(status: StatusCode, reason: &str, _fields: usize, bytes: usize, body: usize) -> Option<Self> {
        let mut lines = Self::with_capacity(bytes + ROOM + body.min(SHORT));
        for part in [b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
        Some(lines)
    }

    fn add(&mut self, name: &str, value: &[u8], _came: &Bytes) -> Option<()> {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.extend_from_slice(part);
        }
        Some(())
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) -> Option<()> {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.extend_from_slice(part);
        }
        Some(())
    }
}

/// For HTTP/2, which has no reasons.
impl Head for Box<ResponseHeader> {
    fn begin(status: StatusCode, _reason: &str, fields: usize, _bytes: usize, _body: usize) -> Option<Self> {
        ResponseHeader::build_no_case(status, Some(fields + 2)).ok().map(Self::new)
    }

    fn add(&mut self, name: &str, value: &[u8], came: &Bytes) -> Option<()> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(came.slice_ref(value)).ok()?;
        self.append_header(name, value).is_ok().then_some(())
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) -> Option<()> {
        self.append_header(name.clone(), value.clone()).is_ok().then_some(())
    }
}

pub struct FixedLengthResponse<H> {
    pub status: StatusCode,
    /// Its head for the client, as it came but for what belongs to the connection. The edge has a few fields to add.
    pub head: H,
    pub is_dated: bool,
    /// Of the body.
    pub length: usize,
    /// Where the body begins.
    pub body: usize,
    /// Whether the application reuses the connection.
    pub is_reusable: bool,
}

/// Parses the response that `bytes` begin with. `None` for every other kind of response, and for one that the client must
/// not have as it is: a stream is watched, cookies of the sign-on are not the application's to set, and a `Location` may
/// have to be repaired.
pub fn parse<H: Head>(bytes: &Bytes, method: &Method, rules: HeadRules<'_>) -> Option<FixedLengthResponse<H>> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields).ok()?;
    let httparse::Status::Complete(body) = parsed else { return None };
    let status = StatusCode::from_u16(response.code?).ok()?;
    if response.version != Some(1) || status.is_informational() {
        return None;
    }
    let reason = response.reason.unwrap_or_default();
    let (more, more_bytes) = rules.fields.map_or((0, 0), |fields| (fields.set.len(), fields.bytes));
    let mut head = H::begin(status, reason, response.headers.len() + more, body + more_bytes, bytes.len() - body)?;
    let (mut length, mut is_reusable, mut is_dated) = (None, true, false);
    for field in response.headers.iter() {
        match Field::of(field.name) {
            Field::Coding => return None,
            // One, and nothing but digits that are needed.
            Field::Length if length.is_some() || field.value.starts_with(b"0") && field.value != b"0" => return None,
            Field::Length => {
                let said = response_rules::length(field.value)?;
                length = Some(said);
                if ends_with_head(status) {
                    if said > 0 && status == StatusCode::NO_CONTENT {
                        return None;
                    }
                    continue;
                }
            }
            Field::Connection => {
                let closes = field.value.eq_ignore_ascii_case(b"close");
                if !closes && !field.value.eq_ignore_ascii_case(b"keep-alive") {
                    return None;
                }
                is_reusable &= !closes;
                continue;
            }
            Field::Cookie if sets_cookie(field.value, rules.our_cookies) => return None,
            Field::Location if rules.scope.may_change(field.value) => return None,
            Field::Type if is_event_stream(field.value) => return None,
            // Its connection is not to be kept.
            Field::Challenge | Field::ProxyChallenge if connection_auth::names_scheme(field.value) => return None,
            Field::Date => is_dated = true,
            Field::NotPassed | Field::ProxyChallenge => continue,
            Field::Challenge | Field::Cookie | Field::Location | Field::Type | Field::Other => {}
        }
        if rules.fields.is_some_and(|fields| fields.leaves_out(field.name)) {
            continue;
        }
        head.add(field.name, field.value, bytes)?;
    }
    for (name, value) in rules.fields.iter().flat_map(|fields| &fields.set) {
        head.set(name, value)?;
    }
    let length = if is_bodiless(status, method) { 0 } else { length? };
    Some(FixedLengthResponse { status, head, is_dated, length, body, is_reusable })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Version};

    use super::*;

    fn parsed(text: &str, method: &Method) -> Option<FixedLengthResponse<Vec<u8>>> {
        parsed_with(text, method, None)
    }

    fn parsed_with(
        text: &str,
        method: &Method,
        fields: Option<&ResponseFields>,
    ) -> Option<FixedLengthResponse<Vec<u8>>> {
        let our_cookies = &["__Host-JWTCookie".to_owned()];
        parse(&Bytes::copy_from_slice(text.as_bytes()), method, HeadRules { our_cookies, fields, scope: Scope::Hosts })
    }

    #[test]
    fn fields_of_the_configuration_stand_in_the_place_of_the_application_s() {
        let name = HeaderName::from_static;
        let set: Box<[_]> = [("x-one", "new"), ("x-frame-options", "DENY")]
            .map(|(field, value)| (name(field), HeaderValue::from_static(value)))
            .into();
        let fields = ResponseFields { removed: [name("server")].into(), set, bytes: 40 };
        let sent = "Server: a\r\nX-One: old\r\nSERVER: b\r\nx-one: older\r\nX-Two: 2\r\nContent-Length: 0\r\n";
        let head = parsed_with(&format!("HTTP/1.1 200 OK\r\n{sent}\r\n"), &Method::GET, Some(&fields)).unwrap().head;
        let left = "X-Two: 2\r\nContent-Length: 0\r\nx-one: new\r\nx-frame-options: DENY\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), format!("HTTP/1.1 200 OK\r\n{left}"));
    }

    #[test]
    fn an_ordinary_answer_is_parsed_and_its_body_found() {
        let head = "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie:  b=2 \r\nX:\r\n";
        let text = format!("{head}\r\nhello");
        let answer = parsed(&text, &Method::GET).unwrap();
        assert_eq!((answer.length, &text[answer.body..], answer.is_reusable), (5, "hello", true));
        assert_eq!((answer.status, answer.is_dated), (StatusCode::OK, false));
        let passed = head.replace(":  b=2 ", ": b=2").replace("X:", "X: ");
        assert_eq!(String::from_utf8(answer.head).unwrap(), passed);
    }

    #[test]
    fn what_the_application_says_of_its_connection_is_heard_and_not_passed_on() {
        let twice = "close\r\nConnection: keep-alive";
        for (connection, is_reusable) in [("keep-alive", true), ("Keep-Alive", true), ("close", false), (twice, false)]
        {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: {connection}\r\n\r\n");
            let answer = parsed(&text, &Method::GET).unwrap();
            let passed = String::from_utf8(answer.head).unwrap();
            assert_eq!(
                (answer.is_reusable, passed.as_str()),
                (is_reusable, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
            );
        }
    }

    #[test]
    fn what_belongs_to_the_connection_or_is_said_by_the_edge_is_not_passed_on_and_a_date_is_seen() {
        let fields = "KEEP-Alive: 5\r\nProxy-Connection: close\r\nX-Request-ID: mine\r\nDATE: then\r\n";
        let answer = parsed(&format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"), &Method::GET).unwrap();
        let passed = String::from_utf8(answer.head).unwrap();
        assert_eq!((answer.is_dated, passed.as_str()), (true, "HTTP/1.1 204 No Content\r\nDATE: then\r\n"));
    }

    #[test]
    fn a_response_without_a_body_needs_no_length_and_says_one_to_head_alone() {
        for (status, method, length, said) in [
            ("200 OK", Method::HEAD, "Content-Length: 5\r\n", true),
            ("200 OK", Method::HEAD, "", false),
            ("204 No Content", Method::GET, "Content-Length: 0\r\n", false),
            ("304 Not Modified", Method::GET, "Content-Length: 5\r\n", false),
            ("304 Not Modified", Method::HEAD, "", false),
        ] {
            let ordinary = parsed(&format!("HTTP/1.1 {status}\r\n{length}\r\n"), &method).unwrap();
            let head = String::from_utf8(ordinary.head).unwrap();
            assert_eq!((ordinary.length, head.contains("Length")), (0, said), "{status} {method} {length}");
        }
        // The body that it announces may come late.
        assert!(parsed("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", &Method::GET).is_none());
    }

    /// What the rules leave of a head that Pingora has read.
    fn by_the_rules(text: &str, method: &Method, is_reusable: bool) -> Option<Vec<String>> {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(text.as_bytes()).ok()?;
        let mut map = HeaderMap::new();
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            map.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        let request = response_rules::RequestFacts { method, version: Version::HTTP_11, takes_trailers: false };
        let status = StatusCode::from_u16(response.code?).ok()?;
        let afterwards = response_rules::sanitize(status, Version::HTTP_11, &mut map, request).unwrap();
        assert!(afterwards == response_rules::UpstreamSync::InSync || !is_reusable, "{text}");
        map.remove("x-request-id");
        let mut lines: Vec<_> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        Some(lines)
    }

    #[test]
    fn what_is_passed_on_line_by_line_is_what_the_rules_leave() {
        const LINES: [&str; 24] = [
            "Content-Length: 5",
            "content-length: 5",
            "Content-Length: 0",
            "Content-Length: 05",
            "Content-Length: 5, 5",
            "Content-Length: x",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "CONNECTION: Keep-Alive",
            "Connection: x-hop",
            "X-Hop: 1",
            "Keep-Alive: 1",
            "Proxy-Connection: 1",
            "Proxy-Authenticate: Basic",
            "Proxy-Authentication-Info: 1",
            "TE: trailers",
            "Trailer: x-hop",
            "Upgrade: h2c",
            "X-Request-Id: 1",
            "WWW-Authenticate: Basic",
            "Date: then",
            "Set-Cookie: a=1",
            "X-Other: 1",
            "Content-Type: text/html",
        ];
        let (mut rng, mut ordinary) = (fastrand::Rng::with_seed(7), 0);
        for _ in 0..20_000 {
            let status = ["200 OK", "204 None", "304 Same", "404 Not"][rng.usize(..4)];
            let method = [Method::GET, Method::HEAD][rng.usize(..2)].clone();
            let lines: String =
                (0..rng.usize(..6)).map(|_| format!("{}\r\n", LINES[rng.usize(..LINES.len())])).collect();
            let text = format!("HTTP/1.1 {status}\r\n{lines}\r\n");
            let Some(passed) = parsed(&text, &method) else { continue };
            ordinary += 1;
            let (is_reusable, head) = (passed.is_reusable, String::from_utf8(passed.head).unwrap());
            let mut passed: Vec<_> = head
                .lines()
                .skip(1)
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
                .collect();
            passed.sort();
            assert_eq!(Some(passed), by_the_rules(&text, &method, is_reusable), "{method} {text}");
        }
        assert!(ordinary > 5000, "{ordinary}");
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_is_left_to_pingora() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/Event-Stream; charset=utf-8\r\n\r\n",
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\nWWW-Authenticate: Basic realm=\"a\", ntlm\r\n\r\n",
            "HTTP/1.1 407 Proxy\r\nContent-Length: 5\r\nproxy-authenticate: Negotiate\r\n\r\n",
            "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLOCATION: http://a.test/\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: __host-jwtcookie=x\r\n\r\n",
            "ICY 200 OK\r\nContent-Length: 5\r\n\r\n",
        ] {
            assert!(parsed(text, &Method::GET).is_none(), "{text}");
        }
    }
}
