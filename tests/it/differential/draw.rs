//! Cases, drawn: ordinary ones mostly, and each oddity often enough to meet the others.

use std::fmt::Write as _;

use fastrand::Rng;

use crate::harness::observer::Protocol;
use crate::harness::scripted::Script;

pub struct Case {
    pub protocol: Protocol,
    pub method: &'static str,
    pub query: &'static str,
    pub fields: Vec<(String, String)>,
    pub body: Option<&'static str>,
    pub script: Script,
    /// Whether its connection to the application was used before.
    pub is_warm: bool,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { protocol, method, query, fields, body, script, is_warm } = self;
        let mut said = script.said.escape_ascii().to_string();
        if said.len() > 400 {
            said.truncate(400);
            said.push('…');
        }
        let (late, closes) = (script.late.escape_ascii().to_string(), script.closes);
        write!(
            f,
            "{protocol:?} {method} {query:?} {fields:?} {body:?}, said {said:?}, late {late:?}, closes {closes}, warm {is_warm}"
        )
    }
}

pub fn draw(seed: u64) -> Case {
    let mut rng = Rng::with_seed(seed);
    let protocol =
        pick(&mut rng, &[Protocol::Http11, Protocol::Http11, Protocol::Http2, Protocol::Http2, Protocol::Http10]);
    let method = pick(&mut rng, &["GET", "GET", "GET", "HEAD", "POST", "DELETE"]);
    let body = match method {
        "POST" => pick(&mut rng, &[Some("body"), Some("a=1&b=2"), None]),
        _ => pick(&mut rng, &[None, None, None, None, None, Some("body")]),
    };
    Case {
        protocol,
        method,
        query: pick(&mut rng, &["", "", "?a=1", "?a=%20b&c", "?"]),
        fields: request_fields(&mut rng, protocol),
        body,
        script: response(&mut rng, method),
        is_warm: rng.usize(..3) == 0,
    }
}

fn pick<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())].clone()
}

fn request_fields(rng: &mut Rng, protocol: Protocol) -> Vec<(String, String)> {
    const ANY: [(&str, &str); 17] = [
        ("user-agent", "test/1"),
        ("accept", "text/html"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("cookie", "a=1; b=2"),
        ("cookie", "__Host-JWTCookie=x; c=3"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-user", "eve"),
        ("x_odd", "1"),
        ("x-two", "1"),
        ("x-two", "2"),
        ("x-empty", ""),
        ("if-none-match", "\"a\""),
        ("range", "bytes=0-1"),
        ("authorization", "Basic eDp5"),
        ("x-request-id", "mine"),
        ("x-latin", "caf\u{e9}"),
    ];
    const HTTP1: [(&str, &str); 8] = [
        ("Connection", "close"),
        ("Connection", "keep-alive"),
        ("Connection", "x-two"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "x-sum"),
        ("Proxy-Authorization", "Basic eDp5"),
    ];
    const HTTP2: [(&str, &str); 3] = [("te", "trailers"), ("trailer", "x-sum"), ("proxy-authorization", "Basic eDp5")];
    let mut fields = Vec::new();
    let own: &[(&str, &str)] = if protocol == Protocol::Http2 { &HTTP2 } else { &HTTP1 };
    for (pool, most) in [(&ANY[..], 5), (own, if rng.bool() { 0 } else { 2 })] {
        for _ in 0..rng.usize(..=most) {
            let (name, value) = pick(rng, pool);
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields
}

/// Bytes of a response, and whether they may be all that the application has to say.
fn response(rng: &mut Rng, method: &str) -> Script {
    let mut said = String::new();
    for _ in 0..rng.usize(..8).saturating_sub(6) {
        said.push_str(pick(
            rng,
            &[
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 102 Processing\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
            ],
        ));
    }
    let status = pick(rng, &[200, 200, 200, 200, 200, 201, 204, 204, 206, 301, 304, 304, 404, 500, 503, 999]);
    let is_old = rng.usize(..10) == 0;
    let reason = pick(rng, &["OK", "Fine", ""]);
    write!(said, "HTTP/1.{} {status} {reason}\r\n", u8::from(!is_old)).unwrap();
    let length = pick(rng, &[0, 1, 5, 5, 100, 2000, 5000, 40_000, 70_000]);
    let body = "b".repeat(length);
    let (framing, body, mut closes) = framed(rng, &body);
    let mut lines: Vec<String> = framing;
    for _ in 0..rng.usize(..6) {
        lines.push(response_field(rng));
    }
    let is_one_off = closes || rng.usize(..8) == 0;
    if is_one_off {
        lines.push("Connection: close".into());
    }
    rng.shuffle(&mut lines);
    lines.iter().for_each(|line| {
        said.push_str(line);
        said.push_str("\r\n");
    });
    said.push_str("\r\n");
    let is_bodiless = method == "HEAD" || [204, 304].contains(&status);
    // Bodies that must not be come whole with the head, or not at all: when they come later is a matter of time.
    if !is_bodiless || rng.usize(..4) == 0 {
        said.push_str(&body);
    } else {
        closes = false;
    }
    let mut said = said.into_bytes();
    if rng.usize(..12) == 0 {
        said.truncate(rng.usize(..said.len()));
        closes = true;
    } else if rng.usize(..12) == 0 {
        let head = said.len().min(300);
        for _ in 0..=rng.usize(..3) {
            said[rng.usize(..head)] = rng.u8(..);
        }
        closes = true;
    }
    Script { said, late: Vec::new(), closes }
}

/// Fields that say where a body ends, the body as it is sent, and whether its connection has to end with it.
fn framed(rng: &mut Rng, body: &str) -> (Vec<String>, String, bool) {
    let length = body.len();
    let own = |lines: &[String]| lines.to_vec();
    let said = format!("Content-Length: {length}");
    let chunked = "Transfer-Encoding: chunked".to_owned();
    match rng.usize(..22) {
        0..7 => (own(&[said]), body.into(), false),
        7..11 => (own(&[chunked]), in_chunks(rng, body), false),
        11 => (own(&[chunked.clone(), chunked]), in_chunks(rng, body), false),
        12 => (own(&["transfer-encoding: Chunked , chunked".into()]), in_chunks(rng, body), false),
        13 => (own(&[chunked, said]), in_chunks(rng, body), false),
        14 => (own(&[said.clone(), said]), body.into(), false),
        15 => (own(&[format!("content-length: {length}, {length}")]), body.into(), false),
        16 => (own(&[said, format!("Content-Length: {}", length + 1)]), body.into(), true),
        17 => (own(&[format!("Content-Length: {}{length}", pick(rng, &["-", "+", "0x", "0"]))]), body.into(), true),
        18 => {
            let coding = pick(rng, &["gzip", "gzip, chunked", "identity", "chunked, gzip"]);
            (own(&[format!("Transfer-Encoding: {coding}")]), in_chunks(rng, body), true)
        }
        19 => {
            let size = pick(rng, &["zz", "-5", "0x5", "5 5", "", "fffffffffffffffff"]);
            (own(&[chunked]), format!("{size}\r\nhello\r\n0\r\n\r\n"), true)
        }
        _ => (Vec::new(), body.into(), true),
    }
}

fn in_chunks(rng: &mut Rng, body: &str) -> String {
    let (mut left, mut said) = (body, String::new());
    while !left.is_empty() {
        let size = if rng.bool() { left.len() } else { 1 + rng.usize(..left.len()) };
        let extension = pick(rng, &["", "", "", ";a=b"]);
        write!(said, "{size:x}{extension}\r\n{}\r\n", &left[..size]).unwrap();
        left = &left[size..];
    }
    said.push_str("0\r\n");
    said.push_str(pick(rng, &["", "", "", "X-Sum: 1\r\n"]));
    said.push_str("\r\n");
    said
}

fn response_field(rng: &mut Rng) -> String {
    if rng.usize(..30) == 0 {
        return pick(
            rng,
            &[
                vec!["X-Many: y"; 80].join("\r\n"),
                vec!["X-Many: y"; 260].join("\r\n"),
                format!("X-Long: {}", "x".repeat(3000)),
                format!("X-Long: {}", "x".repeat(30_000)),
                format!("X-Long: {}", "x".repeat(140_000)),
            ],
        );
    }
    pick(
        rng,
        &[
            "Content-Type: text/html; charset=utf-8",
            "content-type: text/event-stream",
            "Server: x",
            "Date: Thu, 01 Jan 1970 00:00:00 GMT",
            "ETag: \"a\"",
            "Vary: Accept",
            "Set-Cookie: a=1; Path=/",
            "set-cookie: b=2",
            "Set-Cookie: __Host-JWTCookie=x",
            "X-Request-Id: theirs",
            "X-Two: 1",
            "x-two:2",
            "X-Empty:",
            "X-Spaces: \t a  b \t",
            "X-Latin: caf\u{e9}",
            "X-Folded: a\r\n b",
            "X-Space : 1",
            "Cache-Control: no-store",
            "Location: /elsewhere",
            "Connection: keep-alive",
            "Connection: x-two, X-Hop",
            "Connection: Upgrade",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: close",
            "Proxy-Authenticate: Basic",
            "Upgrade: h2,h2c",
            "TE: trailers",
            "Trailer: X-Sum",
            "WWW-Authenticate: Basic realm=x",
        ],
    )
    .to_string()
}
