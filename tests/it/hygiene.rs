//! Requests that could be read in two ways are refused before anybody looks at what they want, and what is
//! forwarded is what was sent.
//!
//! Numbers are those of the list of bad inputs in the threat report. The service of these tests is public wherever
//! sign-on is not the point: whatever is not refused does reach the application, and would be noticed there.

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::raw::{Raw, raw_plain};
use crate::harness::{Edge, Origin, edge, origin, raw};

struct Scene {
    edge: Edge,
    iqueue: Origin,
}

fn public() -> Scene {
    scene_with("access: public", "")
}

fn scene_with(service: &str, server: &str) -> Scene {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, service);
    let builder = if server.is_empty() { builder } else { builder.server(server) };
    Scene { edge: builder.start(), iqueue }
}

impl Scene {
    fn connect(&self) -> Raw {
        raw(self.edge.address(), "iqueue.test")
    }

    /// Sends a request and behind it another one, which must not be served: the end of the first is in doubt.
    fn is_refused(&self, number: &str, request: &[u8], statuses: &[u16]) {
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let before = self.iqueue.count();
        let mut connection = self.connect();
        let status = connection.send(request).send(SMUGGLED).status();
        assert!(statuses.contains(&status), "input {number}: {status} and not one of {statuses:?}: {shown:?}");
        let rest = connection.rest();
        assert!(rest.is_empty(), "input {number}: the connection went on: {}", String::from_utf8_lossy(&rest));
        assert_eq!(self.iqueue.count(), before, "input {number}: reached the application: {shown:?}");
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";

/// `METHOD / HTTP/1.1` with fields, each ended by CRLF, and a body.
fn request(method: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n{body}").into_bytes()
}

#[test]
fn a_message_whose_length_is_ambiguous_is_refused() {
    let scene = public();
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";
    let rows: &[(&str, &str, &str, &[u16])] = &[
        ("1", "Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", hidden, &[400]),
        ("2", "Transfer-Encoding: chunked\r\nContent-Length: 13\r\n", hidden, &[400]),
        ("2", "transfer-encoding: Chunked\r\ncontent-length: 0\r\n", hidden, &[400]),
        ("3", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello!", &[400]),
        ("5", "Content-Length: 5, 6\r\n", "hello!", &[400]),
        ("6", "Content-Length: +5\r\n", "hello", &[400]),
        ("7", "Content-Length: -1\r\n", "hello", &[400]),
        ("8", "Content-Length: 0x5\r\n", "hello", &[400]),
        ("9", "Content-Length: 5 5\r\n", "hello", &[400]),
        ("10", "Content-Length: \r\n", "hello", &[400]),
        ("11", "Content-Length: 18446744073709551621\r\n", "hello", &[400, 413]),
        ("12", "Content-Length: 5_0\r\n", "hello", &[400]),
        ("13", "Transfer-Encoding: xchunked\r\n", hidden, &[400, 501]),
        ("14", "Transfer-Encoding: chunked, chunked\r\n", hidden, &[400]),
        ("15", "Transfer-Encoding: gzip, chunked\r\n", hidden, &[400, 501]),
        ("16", "Transfer-Encoding: identity, chunked\r\n", hidden, &[400, 501]),
        ("17", "Transfer-Encoding: chunked, identity\r\n", hidden, &[400]),
        ("18", "Transfer-Encoding:\r\n chunked\r\n", hidden, &[400]),
        ("19", "Transfer-Encoding: chunked;a=b\r\n", hidden, &[400]),
        ("20", "Transfer-Encoding: \"chunked\"\r\n", hidden, &[400]),
        ("21", "Transfer-Encoding: \u{b}chunked\r\n", hidden, &[400]),
        ("22", "Transfer-Encoding: chunked\0\r\n", hidden, &[400]),
        ("23", "Transfer-Encoding : chunked\r\n", hidden, &[400]),
        ("25", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", hidden, &[400]),
        ("25", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", hidden, &[400]),
    ];
    for (number, fields, body, statuses) in rows {
        scene.is_refused(number, &request("POST", fields, body), statuses);
    }
    let old = format!("POST / HTTP/1.0\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}");
    scene.is_refused("26", old.as_bytes(), &[400]);
}

/// Inputs 4 and 5.
#[test]
fn a_length_that_is_told_twice_alike_is_forwarded_once() {
    let scene = public();
    for fields in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"] {
        let before = scene.iqueue.count();
        let status = scene.connect().send(request("POST", fields, "hello")).status();
        assert!(status == 200 || status == 400, "{fields}: {status}");
        if status == 200 {
            assert_eq!(scene.iqueue.count(), before + 1, "{fields}");
            assert_eq!(scene.iqueue.last().all("content-length"), ["5"], "{fields}");
            assert_eq!(scene.iqueue.last().body, b"hello", "{fields}");
        }
    }
}

/// Input 24.
#[test]
fn a_length_and_a_coding_with_an_odd_name_are_a_length() {
    let scene = public();
    let mut connection = scene.connect();
    connection.send(request("POST", "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"));
    assert_eq!(connection.status(), 200);
    assert_eq!(scene.iqueue.last().body, b"hello");
    assert!(!scene.iqueue.last().headers.contains_key("transfer_encoding"));
}

#[test]
fn a_field_whose_name_only_begins_like_a_length_is_none() {
    let scene = public();
    let fields = "Transfer-Encoding: chunked\r\nContent-Length-Hint: 5\r\n";
    assert_eq!(scene.connect().send(request("POST", fields, "1\r\na\r\n0\r\n\r\n")).status(), 200);
    assert_eq!(scene.iqueue.last().body, b"a");
}

/// Here the head is good, and may be on its way to the application when the body turns out not to be.
#[test]
fn a_broken_chunk_ends_the_connection_and_nothing_behind_it_is_served() {
    let scene = public();
    for (number, body) in [
        ("28", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("29", "-5\r\nhello\r\n0\r\n\r\n"),
        ("32", "5\r\nhello!!\r\n0\r\n\r\n"),
        ("33", "5\r\nhello\n0\r\n\r\n"),
        ("34", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
        ("34", "fffffffffffffffe\r\nhello\r\n0\r\n\r\n"),
        ("36", &format!("5\r\nhello\r\n0\r\nA: {}\r\n\r\n", "a".repeat(65 * 1024))),
    ] {
        let mut connection = scene.connect();
        connection.send(request("POST", "Transfer-Encoding: chunked\r\n", body)).send(SMUGGLED);
        let status = connection.status();
        assert!(status == 400 || status == 413 || status == 0, "input {number}: {status}");
        assert!(connection.rest().is_empty(), "input {number}: the connection went on");
        let served = scene.iqueue.seen().into_iter().any(|seen| seen.target == "/smuggled");
        assert!(!served, "input {number}: what stood behind the broken chunk was served");
    }
}

/// Input 30.
#[test]
fn an_oddly_written_chunk_is_one_request_with_that_body() {
    let scene = public();
    let mut connection = scene.connect();
    connection.send(request("POST", "Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"));
    assert_eq!(connection.status(), 200);
    assert_eq!(scene.iqueue.count(), 1);
    assert_eq!(scene.iqueue.last().body, b"hello");
}

/// Input 41c.
#[test]
fn nobody_upgrades_to_http_2_without_tls_through_the_edge() {
    let scene = public();
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(scene.connect().send(request("GET", fields, "")).status(), 200);
    for name in ["upgrade", "http2-settings"] {
        assert_eq!(scene.iqueue.last().one(name), None, "{name}");
    }
}

#[test]
fn a_chunked_body_is_forwarded_as_its_content_and_what_stands_in_trailers_is_no_header() {
    let scene = public();
    let body = "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nContent-Length: 50\r\nHost: evil.example\r\nAuthorization: x\r\n\
                Cookie: __Host-JWTCookie=x\r\nX-Forwarded-User: root\r\n\r\n";
    let mut connection = scene.connect();
    connection.send(request("POST", "Transfer-Encoding: chunked\r\n", body)).send(SMUGGLED);
    assert_eq!((connection.status(), connection.status()), (200, 200), "input 37, and the request behind it");
    let seen = &scene.iqueue.seen()[0];
    assert_eq!(seen.body, b"hello!");
    for name in ["content-length", "authorization", "cookie", "x-forwarded-user"] {
        assert_eq!(seen.one(name), None, "input 37: {name}");
    }
    assert_eq!(seen.one("host").as_deref(), Some("iqueue.test"));
}

/// Input 38: the body of a request that we answer ourselves is nobody's request.
#[test]
fn the_body_of_a_request_to_an_inline_route_is_never_served_as_a_request() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let hidden = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: sentry.test\r\n\r\n";
    let length = hidden.len();
    for (method, host, path) in [
        ("GET", "sentry", "/login"),
        ("GET", "sentry", "/noCookie"),
        ("GET", "sentry", "/copyCookie"),
        ("GET", "sentry", "/currentUser"),
        ("POST", "sentry", "/login"),
        ("POST", "sentry", "/noCookie"),
        ("POST", "sentry", "/logout"),
        ("POST", "sentry", "/nothing"),
        ("GET", "iqueue", "/"),
        ("POST", "iqueue", "/"),
        ("GET", "iqueue", "/.sentry/currentUser"),
        ("POST", "iqueue", "/.sentry/logout"),
        ("POST", "nobody", "/"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}.test\r\n");
        for body in [
            format!("Content-Length: {length}\r\n\r\n{hidden}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
        ] {
            let last = format!("GET /last HTTP/1.1\r\nHost: {host}.test\r\nConnection: close\r\n\r\n");
            let mut connection = raw(edge.address(), "sentry.test");
            connection.send(format!("{head}{body}")).send(last);
            let mut answers = Vec::new();
            while let Some(answer) = connection.answer() {
                answers.push(answer);
            }
            let keys = answers.iter().any(|answer| answer.text().contains("\"keys\""));
            assert!(!keys, "{method} {host} {path}: the body was served as a request");
            assert!((1..=2).contains(&answers.len()), "{method} {host} {path}: {} answers", answers.len());
        }
    }
    assert_eq!(iqueue.count(), 0);
}

/// Input 39.
#[test]
fn two_requests_of_which_the_first_expects_100_continue_get_two_answers_in_order() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let body = "username=a";
    let first = format!(
        "POST /login HTTP/1.1\r\nHost: sentry.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len(),
    );
    let second = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: sentry.test\r\nConnection: close\r\n\r\n";
    let mut connection = raw(edge.address(), "sentry.test");
    connection.send(first + second);
    let mut statuses = Vec::new();
    while let Some(answer) = connection.answer() {
        statuses.push(answer.status);
    }
    statuses.retain(|status| *status != 100);
    assert_eq!(statuses, [403, 200]);
}

/// Inputs 40 and 41b.
#[test]
fn half_a_handshake_and_an_unknown_expectation_reach_no_application() {
    let scene = public();
    let whole = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let rows = [
        ("40", "GET", "Expect: 200-maybe\r\n".to_owned(), 417),
        ("41b", "POST", format!("{whole}Content-Length: 0\r\n"), 400),
        ("41b", "GET", whole.replace("Connection: Upgrade\r\n", ""), 400),
        ("41b", "GET", whole.replace(": 13", ": 12"), 400),
        ("41b", "GET", format!("{whole}Origin: https://dextor.test\r\n"), 400),
    ];
    for (number, method, fields, expected) in rows {
        let request = format!("{method} /public/x HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n");
        assert_eq!(scene.connect().send(request).status(), expected, "input {number}: {fields}");
        assert_eq!(scene.iqueue.count(), 0, "input {number} reached the application");
    }
}

#[test]
fn a_head_that_servers_read_differently_is_refused() {
    let scene = public();
    let many: String = (0..300).map(|n| format!("A{n}: b\r\n")).collect();
    let large = format!("A: {}\r\n", "a".repeat(40 * 1024));
    let rows: &[(&str, &str, &[u16])] = &[
        ("42", "A: b\rc\r\n", &[400]),
        ("42", "A: b\r\r\n", &[400]),
        ("44", ": x\r\n", &[400]),
        ("45", "Foo bar: x\r\n", &[400]),
        ("45", "Foo\tbar: x\r\n", &[400]),
        ("45", "Foo\r\n", &[400]),
        ("18", "A: b\r\n c\r\n", &[400]),
        ("18", "A: b\r\n\tc\r\n", &[400]),
        ("119", "A: b\0c\r\n", &[400]),
        ("47", &many, &[400, 431]),
        ("48", &large, &[431]),
    ];
    for (number, fields, statuses) in rows {
        scene.is_refused(number, &request("GET", fields, ""), statuses);
    }
    scene.is_refused("46", b"GET / HTTP/1.1\r\n Host: iqueue.test\r\n\r\n", &[400]);
}

#[test]
fn a_request_line_that_servers_read_differently_is_refused() {
    let scene = public();
    let long = format!("GET /{} HTTP/1.1", "a".repeat(40 * 1024));
    let rows: &[(&str, &str, &[u16])] = &[
        ("49", &long, &[414, 431]),
        ("50", "GET  /  HTTP/1.1", &[400]),
        ("51", "GET / HTTP/1.1\t", &[400]),
        ("52", "GET / HTTP/2.0", &[400, 505]),
        ("52", "GET / HTTP/1.2", &[400, 505]),
        ("53", "GET /", &[400]),
        ("54", "PRI * HTTP/2.0", &[400]),
        ("55", "GET / http/1.1", &[400]),
        ("57", "TRACE / HTTP/1.1", &[405]),
        ("57", "TRACK / HTTP/1.1", &[405]),
        ("58", "CONNECT iqueue.test:443 HTTP/1.1", &[400, 405]),
        ("59", "FOO / HTTP/1.1", &[405, 501]),
        ("59", "get / HTTP/1.1", &[405, 501]),
        ("60", "GET * HTTP/1.1", &[400]),
        ("60", "OPTIONS * HTTP/1.1", &[400]),
        ("105", "GET /public#/../admin HTTP/1.1", &[400]),
        ("105", "GET /#a HTTP/1.1", &[400]),
        ("99", "GET /\\admin HTTP/1.1", &[400]),
        ("99", "GET \\ HTTP/1.1", &[400]),
        ("107", "GET /\u{e9} HTTP/1.1", &[400]),
        ("107", "GET /\u{1} HTTP/1.1", &[400]),
        ("60", "GET a HTTP/1.1", &[400]),
        ("60", "GET ?a HTTP/1.1", &[400]),
    ];
    for (number, line, statuses) in rows {
        scene.is_refused(number, format!("{line}\r\nHost: iqueue.test\r\n\r\n").as_bytes(), statuses);
    }
}

#[test]
fn what_is_refused_says_which_methods_are_taken_and_nothing_of_the_house() {
    let scene = public();
    let answer =
        scene.connect().send(request("TRACE", "Cookie: secret=1\r\nAccept: text/html\r\n", "")).answer().unwrap();
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(!answer.text().contains("secret"), "nothing is echoed");
    assert_eq!(answer.header("server"), None);
}

/// Input 56. The bytes are always the same, so that a failure can be had again.
#[test]
fn noise_is_refused_on_both_listeners_and_harms_nobody() {
    let scene = public();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(64 * 1024)
    .collect();
    for mut connection in [scene.connect(), raw_plain(scene.edge.http_address())] {
        let status = connection.send(&noise).status();
        assert!(status == 400 || status == 0, "{status}");
    }
    assert_eq!(scene.iqueue.count(), 0);
    assert_eq!(scene.connect().send(request("GET", "", "")).status(), 200, "the edge goes on");
}

#[test]
fn limits_of_the_configuration_hold() {
    let scene = scene_with("access: public", "limits: {header_bytes: 2KiB, header_count: 20, body_bytes: 1KiB}");
    let many = |n: usize| (0..n).map(|n| format!("A{n}: b\r\n")).collect::<String>();
    let sized = |n: usize| format!("A: {}\r\n", "a".repeat(n));
    let length = |n: usize| format!("Content-Length: {n}\r\n");
    // The Host field counts too.
    assert_eq!(scene.connect().send(request("GET", &many(19), "")).status(), 200);
    scene.is_refused("47", &request("GET", &many(20), ""), &[431]);
    assert_eq!(scene.connect().send(request("GET", &sized(1900), "")).status(), 200);
    scene.is_refused("48", &request("GET", &sized(2048), ""), &[431]);
    assert_eq!(scene.connect().send(request("POST", &length(1024), &"a".repeat(1024))).status(), 200);
    scene.is_refused("413", &request("POST", &length(1025), ""), &[413]);
}

/// What the public rule `/public` must not let through. The last column: whether such a path is refused outright,
/// so that not even somebody who is signed in has it forwarded.
const PATHS: [(&str, &str, bool); 24] = [
    ("91", "/public/../admin", false),
    ("92", "/public/%2e%2e/admin", false),
    ("92", "/public/%2E%2e/admin", false),
    ("92", "/public/.%2e/admin", false),
    ("93", "/public/..%2fadmin", false),
    ("94", "/public/%2e%2e%2fadmin", false),
    ("95", "/public/..;/admin", false),
    ("96", "/public/.%00./admin", true),
    ("97", "/public%2f..%2fadmin", false),
    ("98", "//admin", false),
    ("98", "//public/../admin", false),
    ("98", "/public//../admin", false),
    ("99", "/\\admin", true),
    ("100", "/public/..%5cadmin", true),
    ("101", "/public/%252e%252e/admin", true),
    ("102", "/PUBLIC/../admin", false),
    ("103", "/public;/../admin", false),
    ("105", "/public#/../admin", true),
    ("106", "/admin?x=/public/", false),
    ("107", "/public/%c0%ae%c0%ae/admin", true),
    ("108", "/%70ublic/../admin", false),
    ("108", "/%70ublic/x", false),
    ("96", "/public/../../admin", true),
    ("96", "/public/%", true),
];

const RULES: &str = "routes: [{path: /public, access: public}]";

#[test]
fn no_spelling_of_a_path_slips_past_the_guard_by_a_public_rule() {
    let scene = scene_with(RULES, "");
    for (number, path, refused) in PATHS {
        for accept in ["text/html", "*/*"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nAccept: {accept}\r\n\r\n");
            let status = scene.connect().send(request).status();
            let login = if accept == "text/html" { 302 } else { 401 };
            assert_eq!(status, if refused { 400 } else { login }, "input {number}: {path}");
            assert_eq!(scene.iqueue.count(), 0, "input {number}: {path} reached the application");
        }
    }
    let plain = "GET /public/x HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";
    assert_eq!(scene.connect().send(plain).status(), 200, "the rule itself holds");
}

#[test]
fn with_a_good_cookie_the_path_reaches_the_application_byte_for_byte() {
    let scene = scene_with(RULES, "");
    let browser = scene.edge.signed_in();
    let cookie = browser.cookie("iqueue.test", TOKEN_COOKIE).unwrap();
    let plain = [
        ("", "/a/b;c=d?e=f&&g=%20+h", false),
        ("", "/a%20b/%C3%A9?%zz", false),
        ("", "/public//x/", false),
        ("", "/a?b?c=/../d", false),
        ("", "/?", false),
        ("104", "/public/x?/../../admin", false),
    ];
    for (number, path, refused) in PATHS.into_iter().chain(plain) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nCookie: {TOKEN_COOKIE}={cookie}\r\n\r\n"
        );
        let before = scene.iqueue.count();
        let status = scene.connect().send(request).status();
        if refused {
            assert_eq!((status, scene.iqueue.count()), (400, before), "input {number}: {path}");
        } else {
            assert_eq!(status, 200, "input {number}: {path}");
            assert_eq!(scene.iqueue.last().target, path, "input {number}");
        }
    }
}

/// Input 104: dots in a query climb nowhere, so this is the public page with an odd query, and stays that.
#[test]
fn a_query_takes_no_part_in_the_choice_of_a_rule() {
    let scene = scene_with(RULES, "");
    for (path, status) in [("/public/x?/../../admin", 200), ("/admin?/../public/x", 401), ("/?/public", 401)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
        assert_eq!(scene.connect().send(request).status(), status, "{path}");
    }
    assert_eq!(scene.iqueue.count(), 1);
    assert_eq!(scene.iqueue.last().target, "/public/x?/../../admin");
}

/// A reserved path is ours in every spelling: no application is served below it, and no other rule applies.
#[test]
fn no_spelling_of_a_reserved_path_reaches_the_application() {
    let scene = scene_with("access: public", "");
    for path in
        ["/.sentry", "/.sentry/", "/.sentry/x", "/%2esentry/x", "/.sentry/../.sentry/x", "//.sentry/x", "/.%73entry/x"]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
        assert_eq!(scene.connect().send(request).status(), 404, "{path}");
    }
    assert_eq!(scene.iqueue.count(), 0);
    let near = "GET /.sentryx HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";
    assert_eq!(scene.connect().send(near).status(), 200, "a name that only begins like it is the application's");
}

/// What Pingora would answer by itself, or mend and serve, is refused by us: with our reply, counted, and in the log.
#[test]
fn what_is_refused_before_it_is_parsed_has_our_reply_a_metric_and_a_line_in_the_log() {
    let scene = public();
    let accept = "Host: iqueue.test\r\nX-Request-ID: x\r\nAccept: text/html";
    let rows = [
        ("GET /a b HTTP/1.1\r\nHost: iqueue.test\r\n\r\n".to_owned(), 400, "syntax", "/a%20b", "iqueue.test"),
        (format!("GET /lf HTTP/1.1\n{accept}\n\n"), 400, "syntax", "/lf", "iqueue.test"),
        ("GET /two HTTP/1.1\r\nHost: iqueue.test\r\nHost: b\r\n\r\n".to_owned(), 400, "host", "/two", "iqueue.test"),
        (
            format!("GET /length HTTP/1.1\r\n{accept}\r\nContent-Length: x\r\n\r\n"),
            400,
            "framing",
            "/length",
            "iqueue.test",
        ),
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n".to_owned(), 405, "method", "/b:443", "b:443"),
        ("\u{16}\u{3}\u{1}\u{2}\0".to_owned(), 400, "syntax", "/", ""),
        (
            "POST /chunk HTTP/1.1\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n"
                .to_owned(),
            400,
            "framing",
            "/chunk",
            "iqueue.test",
        ),
    ];
    for (at, (request, status, reason, path, host)) in rows.into_iter().enumerate() {
        let labels = format!("limit=\"{reason}\"");
        let before = scene.edge.metric("sentry_edge_limits_reached_total", &labels);
        let answer = scene.connect().send(&request).answer().unwrap_or_else(|| panic!("{request:?}"));
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:?}");
        let kind = if request.contains("html") { "text/html; charset=utf-8" } else { "application/json" };
        assert_eq!(answer.header("content-type"), Some(kind), "{request:?}");
        assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", &labels), before + 1.0, "{request:?}");
        let line = &scene.edge.access_log(at + 1)[at];
        let logged = [&line["reason"], &line["path"], &line["host"]].map(|field| field.as_str().unwrap().to_owned());
        assert_eq!(logged, [reason, path, host], "{request:?}");
        assert_eq!(line["status"], status, "{request:?}");
        assert_eq!(answer.header("x-request-id"), line["request_id"].as_str(), "{request:?}");
    }
    assert_eq!(scene.iqueue.count(), 0);
}

/// The application may have begun to read when a chunk turns out to be none. It never gets a part for the whole.
#[test]
fn a_chunk_that_breaks_under_way_is_told_apart_from_a_client_that_left() {
    let scene = public();
    let mut connection = scene.connect();
    connection.send("POST /late HTTP/1.1\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    // Both are on their way: this answer comes by another connection, after the edge has read the first.
    assert_eq!(scene.connect().send(request("GET", "", "")).status(), 200);
    assert_eq!(connection.send("5;\nhello\r\n0\r\n\r\n").send(SMUGGLED).status(), 400);
    assert!(connection.rest().is_empty());
    let lines = scene.edge.access_log(2);
    let line = lines.iter().find(|line| line["path"] == "/late").unwrap();
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(400), Some("framing")));
    assert!(scene.iqueue.seen().iter().all(|seen| seen.target == "/" || seen.body.is_empty()));
}
