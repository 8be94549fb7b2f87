//! Requests that could be read in two ways are refused before anybody looks at what they want, and what is
//! forwarded is what was sent.
//!
//! Most of them stand in the tables of `inputs`; here is what needs more than some bytes on a connection. Numbers are
//! those of the list of bad inputs in the threat report. The service of these tests is public wherever sign-on is not
//! the point: whatever is not refused does reach the application, and would be noticed there.

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
fn a_field_whose_name_only_begins_like_a_length_is_none() {
    let scene = public();
    let fields = "Transfer-Encoding: chunked\r\nContent-Length-Hint: 5\r\n";
    assert_eq!(scene.connect().send(request("POST", fields, "1\r\na\r\n0\r\n\r\n")).status(), 200);
    assert_eq!(scene.iqueue.last().body, b"a");
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
        (
            "POST /large HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 99999999999\r\n\r\n".to_owned(),
            413,
            "body_too_large",
            "/large",
            "iqueue.test",
        ),
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
        let (metric, labels) = match reason {
            "body_too_large" => ("sentry_edge_limits_reached_total", format!("limit=\"{reason}\"")),
            _ => ("sentry_edge_requests_rejected_total", format!("reason=\"{reason}\"")),
        };
        let before = scene.edge.metric(metric, &labels);
        let answer = scene.connect().send(&request).answer().unwrap_or_else(|| panic!("{request:?}"));
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:?}");
        let kind = if request.contains("html") { "text/html; charset=utf-8" } else { "application/json" };
        assert_eq!(answer.header("content-type"), Some(kind), "{request:?}");
        assert_eq!(scene.edge.metric(metric, &labels), before + 1.0, "{request:?}");
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
    assert!(scene.iqueue.seen().iter().all(|seen| seen.target == "/" || !seen.whole));
}
