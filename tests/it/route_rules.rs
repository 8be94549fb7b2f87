//! What routes refuse, whether a user has signed in or not: by its method, by the client's address, by the size of its body; and
//! the health path, which refuses nobody while the edge takes requests.

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::observer::{Asking, Observed, Observer, PROTOCOLS, Protocol};
use crate::harness::raw::raw_plain;
use crate::harness::{Client, Edge, Origin, edge, eventually, origin, raw, runtime};

const HOST: &str = "iqueue.test";

struct Scene {
    edge: Edge,
    iqueue: Origin,
    browser: Client,
}

fn scene(service: &str, server: &str) -> Scene {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, service);
    let edge = if server.is_empty() { builder } else { builder.server(server) }.start();
    let browser = edge.client();
    Scene { edge, iqueue, browser }
}

impl Scene {
    fn signed_in(mut self) -> Self {
        self.browser = self.edge.signed_in();
        self
    }

    fn ask(&self, protocol: Protocol, method: &str, path: &str, fields: &[(&str, &str)]) -> Observed {
        let asking = Asking { method, path, body: None, fields };
        runtime().block_on(async {
            Observer::connect(self.edge.address(), HOST, protocol).await.ask(HOST, &asking).await.unwrap()
        })
    }

    /// The same with the cookie of who is signed in.
    fn ask_as_ada(&self, protocol: Protocol, method: &str, path: &str) -> Observed {
        let cookie = format!("{TOKEN_COOKIE}={}", self.browser.cookie(HOST, TOKEN_COOKIE).unwrap());
        self.ask(protocol, method, path, &[("user-agent", "test/1"), ("cookie", &cookie)])
    }
}

// Methods.

const EVERYWHERE: &str = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";

#[test]
fn a_public_route_serves_the_methods_of_its_list_and_no_other() {
    let routes = "routes: [{path: /get, methods: [GET]}, {path: /post, methods: [POST]}, \
                  {path: /dav, methods: [GET, OPTIONS, PROPFIND, REPORT, VERSION-CONTROL]}]";
    let scene = scene(&format!("access: public, {routes}"), "");
    let all = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "PROPFIND",
        "REPORT",
        "VERSION-CONTROL",
        "FOO",
        "get",
    ];
    for protocol in PROTOCOLS {
        for (path, served, allow) in [
            ("/get", &["GET", "HEAD"][..], "GET, HEAD"),
            ("/post/x", &["POST"], "POST"),
            (
                "/dav/x",
                &["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "VERSION-CONTROL"],
                "GET, HEAD, OPTIONS, PROPFIND, REPORT, VERSION-CONTROL",
            ),
            ("/x", &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"], EVERYWHERE),
        ] {
            for method in all {
                let before = scene.iqueue.count();
                let response = scene.ask(protocol, method, path, &[]);
                let what = format!("{protocol:?} {method} {path}");
                if served.contains(&method) {
                    assert_eq!((response.status, scene.iqueue.count()), (200, before + 1), "{what}");
                    assert_eq!(scene.iqueue.last().method, method);
                } else {
                    assert_eq!((response.status, scene.iqueue.count()), (405, before), "{what}");
                    assert_eq!(response.all("allow"), [allow], "{what}");
                }
            }
        }
    }
}

#[test]
fn methods_that_echo_or_tunnel_are_served_nowhere() {
    let scene = scene("access: public, methods: [GET, PROPFIND]", "");
    for method in ["TRACE", "TRACK", "CONNECT", "PRI"] {
        let mut client = raw(scene.edge.address(), HOST);
        assert_eq!(client.send(format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).status(), 405, "{method}");
    }
    assert_eq!(scene.ask(Protocol::Http2, "TRACE", "/", &[]).status, 405);
    assert_eq!(scene.iqueue.count(), 0);
}

#[test]
fn a_method_is_refused_after_the_sign_on_where_there_is_one() {
    let routes = "routes: [{path: /dav, methods: [GET, PROPFIND]}, {path: /admin, methods: [GET], access: {roles: [nobody]}}, \
                  {path: /api, methods: [GET], preflight: forward}]";
    let scene = scene(routes, "").signed_in();
    for protocol in PROTOCOLS {
        for (method, path, anonymous, signed_in) in [
            ("GET", "/dav", 401, 200),
            ("PROPFIND", "/dav", 401, 200),
            ("POST", "/dav", 401, 405),
            ("FOO", "/dav", 401, 405),
            ("POST", "/admin", 401, 403),
            // No route but that of a list opens a method, so it is refused before anything else.
            ("PROPFIND", "/x", 405, 405),
            ("PROPFIND", "/.sentry/currentUser", 405, 405),
            ("GET", "/.sentry/currentUser", 200, 200),
        ] {
            let what = format!("{protocol:?} {method} {path}");
            assert_eq!(scene.ask(protocol, method, path, &[]).status, anonymous, "{what}");
            let response = scene.ask_as_ada(protocol, method, path);
            assert_eq!(response.status, signed_in, "{what}");
            if (signed_in, path) == (405, "/dav") {
                assert_eq!(response.all("allow"), ["GET, HEAD, PROPFIND"], "{what}");
            }
        }
        let fields = [("origin", "https://portal.test"), ("access-control-request-method", "PUT")];
        assert_eq!(scene.ask(protocol, "OPTIONS", "/api", &fields).status, 200, "a preflight is the application's");
        assert_eq!(scene.ask(protocol, "OPTIONS", "/dav", &fields).status, 401, "and elsewhere a request like others");
    }
    eventually("the log has them", || {
        let lines = scene.edge.access_log(1);
        let is_it = |line: &serde_json::Value| {
            line["status"] == 405 && line["reason"] == "method" && line["user"] == "ada" && line["service"] == "iqueue"
        };
        lines.iter().any(is_it)
    });
}

#[test]
fn a_list_of_methods_holds_for_every_reading_of_a_path() {
    let scene = scene("access: public, routes: [{path: /dav, methods: [GET, PROPFIND]}]", "");
    for protocol in PROTOCOLS {
        for path in ["/DAV/x", "/%64av/x", "//dav", "/x/../dav", "/dav;a=1", "/dav%2fx"] {
            for method in ["GET", "POST"] {
                assert_eq!(scene.ask(protocol, method, path, &[]).status, 400, "{protocol:?} {method} {path}");
            }
            // Where no route is found no list opens a method.
            assert_eq!(scene.ask(protocol, "PROPFIND", path, &[]).status, 405, "{protocol:?} {path}");
        }
    }
    assert_eq!(scene.iqueue.count(), 0);
}

#[test]
fn replies_and_redirects_of_routes_are_held_against_methods_and_addresses_too() {
    let routes = "routes: [{path: /ok, respond: {body: ok}, methods: [GET]}, {path: /old, redirect: {to: /new}, methods: [GET]}, \
                  {path: /off, respond: {body: ok}, addresses: {deny: [127.0.0.1]}}, {path: /no, access: deny, methods: [GET]}]";
    let scene = scene(&format!("access: public, {routes}"), "");
    for protocol in PROTOCOLS {
        for (method, path, status) in [
            ("GET", "/ok", 200),
            ("HEAD", "/ok", 200),
            ("POST", "/ok", 405),
            ("GET", "/old", 302),
            ("POST", "/old", 405),
            ("GET", "/off", 403),
            ("POST", "/no", 403),
        ] {
            assert_eq!(scene.ask(protocol, method, path, &[]).status, status, "{protocol:?} {method} {path}");
        }
    }
    assert_eq!(scene.iqueue.count(), 0);
}

// Addresses.

#[test]
fn a_client_is_admitted_by_its_address_before_the_sign_on() {
    let routes = "routes: [{path: /none, addresses: {deny: [127.0.0.1]}}, {path: /ten, addresses: {allow: [10.0.0.0/8]}}, \
                  {path: /both, addresses: {allow: [127.0.0.0/8], deny: [127.0.0.0/16]}}, \
                  {path: /mapped, addresses: {allow: [\"::ffff:127.0.0.0/104\"]}}, \
                  {path: /six, addresses: {allow: [\"::/0\"]}}, \
                  {path: /open, access: public, addresses: {deny: [127.0.0.1]}}, \
                  {path: /api, preflight: forward, addresses: {deny: [127.0.0.1]}}]";
    let scene = scene(&format!("addresses: {{allow: [127.0.0.1/32, 192.0.2.0/24]}}, {routes}"), "").signed_in();
    let before = scene.iqueue.count();
    for protocol in PROTOCOLS {
        for method in ["GET", "HEAD", "POST"] {
            for (path, refused) in [
                ("/", false),
                ("/none", true),
                ("/ten/x", true),
                ("/both", true),
                ("/mapped", false),
                ("/six", true),
                ("/open", true),
                ("/api", true),
            ] {
                let what = format!("{protocol:?} {method} {path}");
                let (anonymous, signed_in) = if refused { (403, 403) } else { (401, 200) };
                assert_eq!(scene.ask(protocol, method, path, &[]).status, anonymous, "{what}");
                assert_eq!(scene.ask_as_ada(protocol, method, path).status, signed_in, "{what}");
            }
        }
        let fields = [("origin", "https://portal.test"), ("access-control-request-method", "PUT")];
        assert_eq!(scene.ask(protocol, "OPTIONS", "/api", &fields).status, 403);
    }
    assert_eq!(scene.iqueue.count(), before + 18, "two paths, three methods, three versions");
    let labels = "outcome=\"forbidden\",reason=\"address\",service=\"iqueue\"";
    assert!(scene.edge.metric("sentry_edge_auth_decisions_total", labels) >= 100.0);
    eventually("the log has them", || {
        let lines = scene.edge.access_log(1);
        lines.iter().any(|line| line["status"] == 403 && line["reason"] == "address" && line["outcome"] == "forbidden")
    });
}

#[test]
fn the_client_is_the_one_that_trusted_proxies_name() {
    let service = "access: public, addresses: {allow: [10.0.0.0/8, \"2001:db8::/32\"], deny: [10.9.0.0/16]}";
    let behind = scene(service, "trusted_proxies: [127.0.0.1]");
    let direct = scene(service, "");
    for protocol in PROTOCOLS {
        for (forwarded, admitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::7", true),
            ("10.9.1.1", false),
            ("::ffff:10.9.1.1", false),
            ("192.0.2.1", false),
            // The first was said by the client.
            ("10.1.2.3, 192.0.2.1", false),
            ("192.0.2.1, 10.1.2.3", true),
            ("nonsense", false),
        ] {
            let fields = [("x-forwarded-for", forwarded)];
            let status = behind.ask(protocol, "GET", "/", &fields).status;
            assert_eq!(status, if admitted { 200 } else { 403 }, "{protocol:?} {forwarded}");
            assert_eq!(direct.ask(protocol, "GET", "/", &fields).status, 403, "no proxy of ours has said that");
        }
    }
}

#[test]
fn a_websocket_is_refused_by_its_address() {
    let scene = scene("access: public, routes: [{path: /off, addresses: {deny: [127.0.0.1]}}]", "");
    for (path, status) in [("/off/ws", 403), ("/ws", 200)] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(raw(scene.edge.address(), HOST).send(head).status(), status, "{path}");
    }
}

// Bodies.

const LIMITS: &str =
    "access: public, body_bytes: 8KiB, routes: [{path: /large, body_bytes: 64KiB}, {path: /small, body_bytes: 10B}]";

/// A body over HTTP/1.1, in one of both framings; answers the status.
fn upload(edge: &Edge, path: &str, bytes: usize, chunked: bool) -> u16 {
    let body = "x".repeat(bytes);
    let (framing, body) = match chunked {
        true => ("Transfer-Encoding: chunked".to_owned(), format!("{bytes:x}\r\n{body}\r\n0\r\n\r\n")),
        false => (format!("Content-Length: {bytes}"), body),
    };
    let head = format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n");
    raw(edge.address(), HOST).send(head + &body).status()
}

/// The same over HTTP/2, with a length or without.
fn upload_over_http2(edge: &Edge, path: &str, bytes: usize, with_length: bool) -> u16 {
    runtime().block_on(async {
        let stream = crate::harness::client::connect(edge.address(), HOST, &[b"h2"]).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::builder().method("POST").uri(format!("https://{HOST}{path}"));
        if with_length {
            request = request.header("content-length", bytes);
        }
        let mut ready = sender.ready().await.unwrap();
        let (response, mut body) = ready.send_request(request.body(()).unwrap(), false).unwrap();
        // It may have been refused before its end.
        body.send_data(vec![b'x'; bytes].into(), true).ok();
        response.await.unwrap().status().as_u16()
    })
}

#[test]
fn a_body_has_the_limit_of_its_route() {
    let scene = scene(LIMITS, "limits: {body_bytes: 16KiB}");
    for (path, bytes, status) in [
        ("/x", 8 << 10, 200),
        ("/x", (8 << 10) + 1, 413),
        ("/large/x", 64 << 10, 200),
        ("/large/x", (64 << 10) + 1, 413),
        ("/small", 10, 200),
        ("/small", 11, 413),
    ] {
        for chunked in [false, true] {
            let before = scene.iqueue.seen().iter().filter(|seen| seen.whole).count();
            assert_eq!(upload(&scene.edge, path, bytes, chunked), status, "{path} {bytes} chunked: {chunked}");
            let got = upload_over_http2(&scene.edge, path, bytes, !chunked);
            assert_eq!(got, status, "HTTP/2 {path} {bytes} with a length: {}", !chunked);
            let after = scene.iqueue.seen().iter().filter(|seen| seen.whole).count();
            assert_eq!(after - before, if status == 200 { 2 } else { 0 }, "{path} {bytes}");
        }
    }
    // The sign-on has the server's limit, and a path that is not one route's too.
    assert_eq!(upload(&scene.edge, "/.sentry/logout", 17 << 10, false), 413);
    assert_eq!(upload(&scene.edge, "//large", 17 << 10, false), 413);
    assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", "limit=\"body_too_large\""), 14.0);
    eventually("each is in the log with its service", || {
        let lines = scene.edge.access_log(1);
        let large: Vec<_> = lines.iter().filter(|line| line["status"] == 413 && line["service"] == "iqueue").collect();
        large.len() == 14
    });
}

#[test]
fn a_body_that_says_its_length_is_refused_before_it_is_sent() {
    let scene = scene(&format!("forward_token: none, {}", LIMITS.replace("access: public, ", "")), "");
    let head = "POST /small HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(raw(scene.edge.address(), HOST).send(head).status(), 413, "before the sign-on");
}

// Health.

const HEALTH: &str = "health: {path: /.sentry/health}";

#[test]
fn a_load_balancer_is_answered_on_every_listener_whatever_host_it_names() {
    let scene = scene("access: public", HEALTH);
    for head in [
        "GET /.sentry/health HTTP/1.0\r\n\r\n",
        "HEAD /.sentry/health HTTP/1.0\r\n\r\n",
        "GET /.sentry/health HTTP/1.0\r\nHost: 10.0.0.7:8443\r\n\r\n",
        "GET /.sentry/health HTTP/1.1\r\nHost: iqueue.test\r\n\r\n",
        "GET /.sentry/health HTTP/1.1\r\nHost: sentry.test\r\n\r\n",
        "GET /.sentry/health HTTP/1.1\r\nHost: unknown.test\r\n\r\n",
        "GET /.sentry/health?probe=1 HTTP/1.1\r\nHost: 10.0.0.7:8443\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n",
        "GET /.sentry/health HTTP/1.1\r\nHost: \r\n\r\n",
    ] {
        let over_tls = raw(scene.edge.address(), HOST).send(head).answer().unwrap();
        let plain = raw_plain(scene.edge.http_address()).send(head).answer().unwrap();
        for answer in [over_tls, plain] {
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{head:?}");
            assert_eq!((answer.header("location"), answer.header("cache-control")), (None, Some("no-store")));
        }
    }
    assert_eq!(scene.ask(Protocol::Http2, "GET", "/.sentry/health", &[]).status, 200);
    assert_eq!(scene.iqueue.count(), 0);
}

#[test]
fn what_is_no_health_check_is_decided_as_ever() {
    let scene = scene("access: public", HEALTH);
    for (head, status) in [
        // RFC 9112 §3.2: HTTP/1.1 demands a Host.
        ("GET /.sentry/health HTTP/1.1\r\n\r\n", 400),
        ("GET /.sentry/health/ HTTP/1.1\r\nHost: unknown.test\r\n\r\n", 421),
        ("GET /.sentry/Health HTTP/1.1\r\nHost: unknown.test\r\n\r\n", 421),
        ("GET /x HTTP/1.1\r\nHost: unknown.test\r\n\r\n", 421),
        ("POST /.sentry/health HTTP/1.1\r\nHost: unknown.test\r\nContent-Length: 0\r\n\r\n", 405),
        ("GET /.sentry/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /.sentry/health HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
    ] {
        assert_eq!(raw(scene.edge.address(), HOST).send(head).status(), status, "{head:?}");
    }
    let without = self::scene("access: public", "");
    assert_eq!(without.ask(Protocol::Http11, "GET", "/.sentry/health", &[]).status, 404, "off by default");
    let probe = "GET /.sentry/health HTTP/1.1\r\nHost: unknown.test\r\n\r\n";
    assert_eq!(raw(without.edge.address(), HOST).send(probe).status(), 421);
}

#[test]
fn a_health_path_of_any_name_is_no_application_s() {
    let scene = scene("access: public", "health: {path: /lb/ok}");
    for protocol in PROTOCOLS {
        assert_eq!(scene.ask(protocol, "GET", "/lb/ok", &[]).status, 200);
        assert_eq!(scene.iqueue.count(), 0, "{protocol:?}");
    }
    assert_eq!(scene.ask(Protocol::Http11, "GET", "/lb/okay", &[]).status, 200);
    assert_eq!(scene.iqueue.count(), 1);
}
