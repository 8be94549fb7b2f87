//! What applications answer, in order and out of it, and what clients get of that: each row for every method, every
//! version of HTTP that a client speaks, both request paths, requests with and without a body.

use sentry_edge::server::FastPathMode;

use crate::express::{PATHS, builder_before};
use crate::harness::observer::{Asking, End, Observed, Observer, PROTOCOLS, Protocol};
use crate::harness::scripted::{Script, Scripted, scripted};
use crate::harness::{Edge, runtime};

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
const HOST: &str = "iqueue.test";

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It is passed on, mended where need be, with this body where there is one.
    Passed(u16, &'static str),
    /// It is none: 502.
    Refused,
    /// Its head is passed on, its body is cut off. To HEAD it is passed on.
    Cut(u16),
}
use Becomes::{Cut, Passed, Refused};

struct Row {
    said: Vec<u8>,
    late: &'static str,
    closes: bool,
    becomes: Becomes,
}

fn row(said: &str, becomes: Becomes) -> Row {
    Row { said: said.replace('|', "\r\n").into_bytes(), late: "", closes: false, becomes }
}

impl Row {
    fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    fn late(mut self, late: &'static str) -> Self {
        self.late = late;
        self
    }
}

const OK: &str = "HTTP/1.1 200 OK|";
const HELLO: Becomes = Passed(200, "hello");

/// RFC 9112 §6.3, one way after the other to say where a body ends.
fn framing() -> Vec<Row> {
    let chunks = "5|hello|0||";
    let with = |fields: &str, body: &str, becomes| row(&format!("{OK}{fields}|{body}"), becomes);
    let mut rows = vec![
        with("Content-Length: 5|", "hello", HELLO),
        with("Content-Length: 0|", "", Passed(200, "")),
        with("Transfer-Encoding: chunked|", chunks, HELLO),
        with("transfer-encoding: CHUNKED|", "5;x=y|hello|0||", HELLO),
        with("Transfer-Encoding: chunked|", "2|he|3|llo|0||", HELLO),
        with("Transfer-Encoding: chunked|Trailer: X-Sum|", "5|hello|0|X-Sum: 1||", HELLO),
        // Said twice and done once.
        with("Transfer-Encoding: chunked|Transfer-Encoding: chunked|", chunks, HELLO),
        with("Transfer-Encoding: chunked, chunked|", chunks, HELLO),
        with("Transfer-Encoding: chunked|Content-Length: 3|", chunks, HELLO),
        with("Content-Length: 3|Transfer-Encoding: chunked|Content-Length: 9|", chunks, HELLO),
        with("Content-Length: 5|Content-Length: 5|", "hello", HELLO),
        with("Content-Length: 5, 5|", "hello", HELLO),
        with("Content-Length: 05|", "hello", HELLO),
        with("Content-Length:\t5 |", "hello", HELLO),
        with("", "hello", HELLO).closing(),
        row("HTTP/1.0 200 OK||hello", HELLO).closing(),
        row("HTTP/1.0 200 OK|Content-Length: 5||hello", HELLO).closing(),
        row("HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: 5||hello", HELLO),
        row(&format!("HTTP/1.0 200 OK|Transfer-Encoding: chunked||{chunks}"), Refused),
        row(&format!("HTTP/1.0 200 OK|Transfer-Encoding: chunked|Content-Length: 5||{chunks}"), Refused),
        // Broken off.
        with("Content-Length: 9|", "hello", Cut(200)).closing(),
        with("Transfer-Encoding: chunked|", "5|hello|", Cut(200)).closing(),
        with("Transfer-Encoding: chunked|", "9|hello", Cut(200)).closing(),
    ];
    for lengths in ["-5", "+5", "0x5", "5 5", "", "5;5", "99999999999999999999", "5, 6", "5,", "5|Content-Length: 6"] {
        rows.push(with(&format!("Content-Length: {lengths}|"), "hello", Refused));
    }
    for coding in ["gzip, chunked", "chunked, gzip", "identity", "gzip", "", "xchunked", "chunked;q=1", "chunked,"] {
        rows.push(with(&format!("Transfer-Encoding: {coding}|"), chunks, Refused));
    }
    for size in ["zz", "-5", "+5", "0x5", "5 5", "ffffffffffffffff5", "fffffffffffffffff"] {
        rows.push(with("Transfer-Encoding: chunked|", &format!("{size}|hello|0||"), Cut(200)));
    }
    rows.push(with("Transfer-Encoding: chunked|", "5|helloXX0||", Cut(200)));
    // Pingora's parser takes no digits for a zero, and so for the last chunk; what follows is in nobody's response.
    for size in ["", " "] {
        rows.push(with("Transfer-Encoding: chunked|", &format!("{size}|hello|0||"), Passed(200, "")));
    }
    rows
}

/// Responses that end with their head, whatever it says, and heads before the response.
fn bodiless() -> Vec<Row> {
    let mut rows = Vec::new();
    for status in [204, 304] {
        let said = |fields: &str| row(&format!("HTTP/1.1 {status} S|{fields}|"), Passed(status, ""));
        let with_body =
            |fields: &str, body: &str| row(&format!("HTTP/1.1 {status} S|{fields}|{body}"), Passed(status, ""));
        rows.extend([
            said(""),
            said("Content-Length: 0|"),
            said("Content-Length: 5|"),
            said("Transfer-Encoding: chunked|"),
            with_body("Transfer-Encoding: chunked|", "0||"),
            with_body("Transfer-Encoding: chunked|", "5|hello|0||"),
            with_body("Content-Length: 5|", "hello"),
            with_body("", "hello"),
            with_body("Transfer-Encoding: chunked|Content-Length: 5|Trailer: x|", "0||"),
            said("Transfer-Encoding: gzip|").refused(),
            said("Content-Length: 5, 6|").refused(),
        ]);
    }
    // The body comes when the head has been passed on, and is a response to nothing.
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    rows.push(row("HTTP/1.1 204 S|Content-Length: 42||", Passed(204, "")).late(evil));
    rows.push(row("HTTP/1.1 204 S|Transfer-Encoding: chunked||", Passed(204, "")).late(evil));
    rows.push(row(&format!("{OK}Content-Length: 5||hello{}", evil.replace("\r\n", "|")), HELLO));
    rows.push(row(&format!("{OK}Transfer-Encoding: chunked||5|hello|0||{}", evil.replace("\r\n", "|")), HELLO));
    for interim in [
        "HTTP/1.1 103 Early Hints|Link: </a>||",
        "HTTP/1.1 100 Continue||HTTP/1.1 102 Processing||HTTP/1.1 103 Early Hints|Link: </a>||",
        "HTTP/1.1 103 Early Hints|Transfer-Encoding: chunked|Content-Length: 5|Connection: x-hop|X-Hop: 1|Upgrade: h2c||",
    ] {
        rows.push(row(&format!("{interim}{OK}Content-Length: 5||hello"), HELLO));
        rows.push(row(&format!("{interim}{OK}Transfer-Encoding: chunked||5|hello|0||"), HELLO));
        rows.push(row(&format!("{interim}HTTP/1.1 204 S||"), Passed(204, "")));
    }
    rows.push(row("HTTP/1.1 101 Switching Protocols|Upgrade: x|Connection: upgrade||", Refused));
    rows
}

impl Row {
    fn refused(mut self) -> Self {
        self.becomes = Refused;
        self
    }
}

/// Fields of the connection, and heads that are out of order.
fn heads() -> Vec<Row> {
    let with = |fields: &str, becomes| row(&format!("{OK}Content-Length: 5|{fields}|hello"), becomes);
    let mut rows = vec![
        with("Connection: X-Hop|X-Hop: 1|", HELLO),
        with("Connection: keep-alive, x-hop ,, close|X-HOP: 1|X-Hop: 2|", HELLO),
        with("Connection: x-hop|Connection: Content-Length, Transfer-Encoding, Date|X-Hop: 1|", HELLO),
        with("Connection: close|", HELLO).closing(),
        with("Keep-Alive: timeout=5|Proxy-Connection: keep-alive|TE: trailers|Trailer: X-Sum|", HELLO),
        with("Upgrade: h2,h2c|Connection: Upgrade|", HELLO),
        with("Upgrade: websocket|", HELLO),
        with("Proxy-Authenticate: Basic|Proxy-Authentication-Info: x|", HELLO),
        with("X-Folded: a| b|", HELLO),
        with("X-Latin: caf\u{e9}|", HELLO),
        row("HTTP/1.1 200|Content-Length: 5||hello", HELLO),
        row("HTTP/1.1 999 So|Content-Length: 5||hello", Passed(999, "hello")),
        with(&format!("X-Large: {}|", "x".repeat(60 << 10)), HELLO),
        with(&"X-Many: y|".repeat(200), HELLO),
        with(&format!("X-Large: {}|", "x".repeat(129 << 10)), Refused),
        with(&format!("X-Large: {}|", "x".repeat(1 << 10)).repeat(130), Refused),
        with(&"X-Many: y|".repeat(257), Refused),
        with("X-Nul: a\0b|", Refused),
        with("X-Cr: a\rb|", Refused),
        with("X-Del: a\u{7f}b|", Refused),
        with("No-Colon|", Refused),
        with(": no name|", Refused),
        with("X Name: 1|", Refused),
        with("X-Name : 1|", HELLO),
        row("nonsense||", Refused),
        row("HTTP/2.0 200 OK|Content-Length: 5||hello", Refused),
        row("HTTP/1.1 20 OK|Content-Length: 5||hello", Refused),
        row("HTTP/1.1 0200 OK|Content-Length: 5||hello", Refused),
        row("HTTP/1.1 099 OK|Content-Length: 5||hello", Refused),
        row("", Refused).closing(),
        row("HTTP/1.1 200 OK|Content-Le", Refused).closing(),
    ];
    rows.push(row(&format!("{OK}Content-Length: 5|Set-Cookie: __Host-JWTCookie=x|Set-Cookie: a=1||hello"), HELLO));
    rows
}

/// What is wrong with a response to this, whichever it is.
fn faults(observed: &Observed, row: &Row, protocol: Protocol, method: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let (status, body, end) = match row.becomes {
        Passed(status, body) => (status, body, End::Whole),
        Refused => (502, "", End::Whole),
        Cut(status) => (status, "", if method == "HEAD" { End::Whole } else { End::Cut }),
    };
    must(observed.status == status, &format!("status {} for {status}", observed.status));
    must(observed.end == end, &format!("{:?} for {end:?}", observed.end));
    if matches!(row.becomes, Passed(..)) {
        let body = if method == "HEAD" { "" } else { body };
        must(observed.text() == body, &format!("body {:?}", observed.text()));
    }
    must(observed.version == if protocol == Protocol::Http2 { "HTTP/2" } else { "HTTP/1.1" }, &observed.version);
    let heads = [&observed.fields].into_iter().chain(observed.interim.iter().map(|(_, fields)| fields));
    for name in heads.flatten().filter_map(|field| field.split_once(": ")).map(|(name, _)| name) {
        let ends_here = [
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
            "proxy-authenticate",
            "proxy-authentication-info",
            "x-hop",
        ];
        must(!ends_here.contains(&name), &format!("field {name}"));
    }
    for name in ["transfer-encoding", "content-length"] {
        let values = observed.all(name);
        let (interim, bodiless) = (&observed.interim, [204, 304].contains(&observed.status));
        must(values.len() <= usize::from(!bodiless), &format!("{name}: {values:?}"));
        let is_said = interim.iter().any(|(_, fields)| fields.iter().any(|field| field.starts_with(name)));
        must(!is_said, &format!("{name} in an interim response"));
    }
    let (coding, length) = (observed.all("transfer-encoding"), observed.all("content-length"));
    must(coding.is_empty() || (coding == ["chunked"] && length.is_empty()), &format!("{coding:?} {length:?}"));
    must(length.iter().all(|length| length.bytes().all(|b| b.is_ascii_digit())), &format!("length {length:?}"));
    if protocol != Protocol::Http11 {
        must(coding.is_empty(), "chunks for a client that knows none");
    }
    let (said, is_passed) = (interim_said(&row.said), row.becomes != Refused);
    // HTTP/1.0 knows none (RFC 9110 §15.2).
    let expected = if protocol == Protocol::Http10 { Vec::new() } else { said };
    let interim: Vec<u16> = observed.interim.iter().map(|(status, _)| *status).collect();
    must(!is_passed || interim == expected, &format!("interim {interim:?} for {expected:?}"));
    faults
}

/// The interim responses that the bytes begin with.
fn interim_said(said: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(said);
    let heads = text.split("\r\n\r\n").filter_map(|head| head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    heads.take_while(|status| (100..200).contains(status) && *status != 101).collect()
}

/// Asks for every row, and afterwards on the same connection and on another for something else. Answers what was wrong.
async fn ask_for_all(edge: &Edge, application: &Scripted, rows: &[Row], protocol: Protocol) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in rows {
        let path = application.script(Script {
            said: row.said.clone(),
            late: row.late.into(),
            closes: row.closes,
            early: false,
        });
        for method in METHODS {
            for body in [None, Some("body")] {
                let asking = Asking { method, path: &path, body, fields: &[] };
                let mut client = Observer::connect(edge.address(), HOST, protocol).await;
                let observed = client.ask(HOST, &asking).await;
                let mut faults = match &observed {
                    Some(observed) => faults(observed, row, protocol, method),
                    None => vec!["no response".into()],
                };
                let probe = Asking { path: "/probe", ..asking };
                let expected = if method == "HEAD" { "" } else { "probe" };
                // The connection may be closed; what comes on it must be true.
                let next = client.ask(HOST, &probe).await.filter(|next| next.status != 0);
                if protocol == Protocol::Http2 && next.is_none() {
                    faults.push("the connection went with the stream".into());
                }
                let other = Observer::connect(edge.address(), HOST, protocol).await.ask(HOST, &probe).await;
                if other.is_none() {
                    faults.push("another client got nothing".into());
                }
                for next in [next, other].into_iter().flatten() {
                    if (next.status, next.text().as_str()) != (200, expected) {
                        faults.push(format!("the next one got {} {:?}", next.status, next.text()));
                    }
                }
                if !faults.is_empty() {
                    let said: String = row.said.escape_ascii().to_string().chars().take(150).collect();
                    let body = if body.is_some() { " with a body" } else { "" };
                    wrong.push(format!("{method}{body} {said}: {}", faults.join(", ")));
                }
            }
        }
    }
    wrong
}

/// Both paths, and all versions of HTTP, each before an application of its own.
fn hold(rows: &[Row]) {
    let combinations = PATHS.into_iter().flat_map(|path| PROTOCOLS.map(|protocol| (path, protocol)));
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let ask = |(path, protocol): (FastPathMode, Protocol)| {
            scope.spawn(move || {
                let application = scripted();
                let edge = builder_before(application.address).fast_path(path).start();
                let wrong = runtime().block_on(ask_for_all(&edge, &application, rows, protocol));
                wrong.into_iter().map(|wrong| format!("{path:?} {protocol:?} {wrong}")).collect::<Vec<_>>()
            })
        };
        let asked: Vec<_> = combinations.map(ask).collect();
        asked.into_iter().flat_map(|wrong| wrong.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_body_ends_for_every_client_where_the_application_said_or_not_at_all() {
    hold(&framing());
}

#[test]
fn a_response_without_a_body_says_nothing_of_one_and_interim_ones_go_to_those_that_know_them() {
    hold(&bodiless());
}

#[test]
fn what_belongs_to_a_connection_ends_with_it_and_a_head_out_of_order_is_no_response() {
    hold(&heads());
}

/// Browsers take hints over HTTP/2 alone; nothing holds an application back that sends them without end.
#[test]
fn hints_reach_a_client_over_http2_whole_and_in_a_number_that_is_bounded() {
    let application = scripted();
    let hint =
        |value: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: {value}\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n");
    let rest = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for (hints, value, passed) in [(1, "</a.css>; rel=preload", 1), (40, "</a>", 16), (6, &*"x".repeat(8000), 4)] {
        let said = (hint(value).repeat(hints) + rest).into_bytes();
        let path = application.script(Script { said, ..Script::default() });
        for request_path in PATHS {
            let edge = builder_before(application.address).fast_path(request_path).start();
            let asking = Asking { method: "GET", path: &path, body: None, fields: &[] };
            let observed = runtime().block_on(async {
                Observer::connect(edge.address(), HOST, Protocol::Http2).await.ask(HOST, &asking).await.unwrap()
            });
            assert_eq!((observed.status, observed.text().as_str()), (200, "hello"), "{request_path:?}");
            assert_eq!(observed.interim.len(), passed, "{hints} of {} bytes, {request_path:?}", value.len());
            for (status, fields) in &observed.interim {
                assert_eq!(*status, 103);
                assert!(fields.contains(&format!("link: {value}")), "{fields:?}");
                assert!(!fields.iter().any(|field| field.starts_with("x-hop") || field.starts_with("connection")));
            }
            let curl = std::process::Command::new("curl")
                .args(["-sk", "--http2", "-D", "-", "-o", "/dev/null", "--resolve"])
                .arg(format!("{HOST}:{0}:127.0.0.1", edge.address().port()))
                .arg(format!("https://{HOST}:{}{path}", edge.address().port()))
                .output()
                .unwrap();
            let heads = String::from_utf8_lossy(&curl.stdout).into_owned();
            assert_eq!(
                (heads.matches("HTTP/2 103").count(), heads.matches("HTTP/2 200").count()),
                (passed, 1),
                "{heads:.300}"
            );
        }
    }
}

/// RFC 9110 §6.6.1. Over HTTP/1.1 Pingora writes a Date of its own on the full path, and has no switch for it.
#[test]
fn a_date_of_the_application_stays_and_a_missing_one_is_added() {
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let application = scripted();
    let said = |date: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{date}\r\nhello").into_bytes();
    let dated = application.script(Script { said: said(&format!("Date: {THEN}\r\n")), ..Script::default() });
    let undated = application.script(Script { said: said(""), ..Script::default() });
    for request_path in PATHS {
        let edge = builder_before(application.address).fast_path(request_path).start();
        for protocol in [Protocol::Http11, Protocol::Http2] {
            let ask = |path: &str| {
                let asking = Asking { method: "GET", path, body: None, fields: &[] };
                runtime().block_on(async {
                    Observer::connect(edge.address(), HOST, protocol).await.ask(HOST, &asking).await.unwrap()
                })
            };
            let (kept, added) = (ask(&dated), ask(&undated));
            assert_eq!((kept.all("date").len(), added.all("date").len()), (1, 1), "{protocol:?} {request_path:?}");
            assert_ne!(added.all("date"), [THEN], "{protocol:?} {request_path:?}");
            if (protocol, request_path) != (Protocol::Http11, FastPathMode::Off) {
                assert_eq!(kept.all("date"), [THEN], "{protocol:?} {request_path:?}");
            }
        }
    }
}

/// RFC 9110 §10.1.1: nobody could tell such a client to continue, so its expectation is ignored, and goes no further.
#[test]
fn an_expectation_of_http_1_0_is_ignored() {
    let application = scripted();
    let said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let path = application.script(Script { said, ..Script::default() });
    for request_path in PATHS {
        let edge = builder_before(application.address).fast_path(request_path).start();
        let fields = [("Expect", "100-continue")];
        let asking = Asking { method: "POST", path: &path, body: Some("body"), fields: &fields };
        let observed = runtime().block_on(async {
            Observer::connect(edge.address(), HOST, Protocol::Http10).await.ask(HOST, &asking).await.unwrap()
        });
        assert_eq!((observed.status, observed.text().as_str(), observed.interim.len()), (200, "hello", 0));
        let heard = application.take_asked().pop().unwrap().head.to_ascii_lowercase();
        assert!(!heard.contains("expect") && heard.ends_with("body"), "{heard}");
    }
}

#[test]
fn a_script_in_python_does_not_wait_for_the_body_of_a_204() {
    let script = "
import http.client, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
connection = http.client.HTTPConnection('iqueue.test')
plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=20)
connection.sock = context.wrap_socket(plain, server_hostname='iqueue.test')
for path in ('/0', '/probe'):
    connection.request('GET', path)
    response = connection.getresponse()
    print(response.status, response.read().decode())
";
    let application = scripted();
    let said = b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    application.script(Script { said, ..Script::default() });
    for path in PATHS {
        let edge = builder_before(application.address).fast_path(path).start();
        let output = std::process::Command::new("python3")
            .args(["-c", script, &edge.address().port().to_string()])
            .arg(edge.folder.path().join("ca.pem"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "204 \n200 probe\n", "{path:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}
