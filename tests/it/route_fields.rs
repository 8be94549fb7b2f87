//! Header fields that the configuration sets and removes: what an application receives, and what a client gets of its
//! responses, over every version of HTTP.

use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response as HttpResponse};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::edge::{Builder, TOKEN_COOKIE};
use crate::harness::observer::{Asking, Observed, Observer, PROTOCOLS, Protocol};
use crate::harness::scripted::{Script, Scripted, scripted};
use crate::harness::{Edge, edge, eventually, origin, raw, runtime};

const HOST: &str = "iqueue.test";

/// What a client sends that the configuration has a say in.
const SENT: &[(&str, &str)] = &[
    ("x-tenant", "evil"),
    ("X-TENANT", "worse"),
    ("x_tenant", "evil"),
    ("x.tenant", "evil"),
    ("authorization", "Bearer evil"),
    ("x-debug", "1"),
    ("x-legacy", "evil"),
    ("referer", "https://elsewhere.test/"),
    ("x-kept", "kept"),
];

const REQUEST_HEADERS: &str = "request_headers: {set: {X-Tenant: or-1, Authorization: {file: pacs}, X-Number: 7, X_Legacy: ours}, \
                               remove: [X-Debug, X_Referer, Referer]}";

fn ask(edge: &Edge, protocol: Protocol, asking: &Asking<'_>) -> Observed {
    runtime()
        .block_on(async { Observer::connect(edge.address(), HOST, protocol).await.ask(HOST, asking).await.unwrap() })
}

fn get<'a>(path: &'a str, fields: &'a [(&'a str, &'a str)]) -> Asking<'a> {
    Asking { method: "GET", path, body: None, fields }
}

fn with_secret(builder: Builder) -> Builder {
    builder.file("pacs", "Basic b3J0aGFuYzpodXNo\n")
}

#[test]
fn fields_of_the_configuration_stand_in_the_place_of_what_the_client_sent() {
    let iqueue = origin("iqueue");
    let routes = "routes: [{path: /own, request_headers: {set: {X-Tenant: or-2, X-Debug: on}, remove: [X-Number]}}]";
    let edge =
        with_secret(edge().service_with("iqueue", &iqueue, &format!("access: public, {REQUEST_HEADERS}, {routes}")));
    let edge = edge.start();
    for protocol in PROTOCOLS {
        for (method, body) in [("GET", None), ("HEAD", None), ("POST", Some("body")), ("DELETE", None)] {
            for (path, tenant, number, debug) in [("/x", "or-1", Some("7"), None), ("/own/x", "or-2", None, Some("on"))]
            {
                let what = format!("{protocol:?} {method} {path}");
                let response = ask(&edge, protocol, &Asking { method, path, body, fields: SENT });
                assert_eq!(response.status, 200, "{what}");
                let seen = iqueue.last();
                assert_eq!(seen.one("x-tenant").as_deref(), Some(tenant), "{what}");
                assert_eq!(seen.one("authorization").as_deref(), Some("Basic b3J0aGFuYzpodXNo"), "{what}");
                assert_eq!(seen.one("x-number").as_deref(), number, "{what}");
                assert_eq!(seen.one("x-debug").as_deref(), debug, "{what}");
                assert_eq!(seen.one("x_legacy").as_deref(), Some("ours"), "{what}");
                assert_eq!(seen.one("x-kept").as_deref(), Some("kept"), "{what}");
                for name in ["referer", "x-legacy", "x_tenant", "x.tenant"] {
                    assert_eq!(seen.all(name), [""; 0], "{what}: {name}");
                }
                let evil = seen.headers.values().any(|value| value.as_bytes().starts_with(b"evil"));
                assert!(!evil, "{what}: {:?}", seen.headers);
            }
        }
    }
}

#[test]
fn fields_of_the_configuration_stand_beside_the_identity() {
    let iqueue = origin("iqueue");
    let service =
        format!("{REQUEST_HEADERS}, credentials: [cookie, bearer], routes: [{{path: /api, preflight: forward}}]");
    let edge = with_secret(edge().service_with("iqueue", &iqueue, &service)).start();
    let browser = edge.signed_in();
    let token = browser.cookie(HOST, TOKEN_COOKIE).unwrap();
    let (cookie, bearer) = (format!("mine=1; {TOKEN_COOKIE}={token}"), format!("Bearer {token}"));
    for protocol in PROTOCOLS {
        for credential in [("cookie", cookie.as_str()), ("authorization", bearer.as_str())] {
            let fields = [("user-agent", "test/1"), ("x-forwarded-user", "root"), ("x-tenant", "evil"), credential];
            assert_eq!(ask(&edge, protocol, &get("/x", &fields)).status, 200, "{protocol:?} {credential:?}");
            let seen = iqueue.last();
            assert_eq!(seen.one("x-forwarded-user").as_deref(), Some("ada"));
            assert_eq!(seen.one("x-tenant").as_deref(), Some("or-1"));
            assert_eq!(seen.one("authorization").as_deref(), Some("Basic b3J0aGFuYzpodXNo"), "{protocol:?}");
        }
        // A preflight has no identity, and what the configuration says of every request.
        let fields =
            [("origin", "https://portal.test"), ("access-control-request-method", "PUT"), ("authorization", &bearer)];
        let preflight = Asking { method: "OPTIONS", path: "/api", body: None, fields: &fields };
        assert_eq!(ask(&edge, protocol, &preflight).status, 200);
        let seen = iqueue.last();
        assert_eq!(seen.one("authorization").as_deref(), Some("Basic b3J0aGFuYzpodXNo"));
        assert_eq!((seen.one("x-tenant").as_deref(), seen.one("x-forwarded-user")), (Some("or-1"), None));
    }
}

/// An application that speaks HTTP/2 without TLS, and the fields of the last request to it.
fn h2c() -> (std::net::SocketAddr, Arc<Mutex<HeaderMap>>) {
    let seen = Arc::<Mutex<HeaderMap>>::default();
    let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (address, noted) = (listener.local_addr().unwrap(), Arc::clone(&seen));
    runtime().spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let noted = Arc::clone(&noted);
            let service = service_fn(move |request: Request<Incoming>| {
                let noted = Arc::clone(&noted);
                async move {
                    *noted.lock().unwrap() = request.headers().clone();
                    request.into_body().collect().await.ok();
                    let response = HttpResponse::builder().header("server", "h2").header("x-policy", "theirs");
                    Ok::<_, std::convert::Infallible>(response.body(Full::new(Bytes::from_static(b"hello"))).unwrap())
                }
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(socket), service));
        }
    });
    (address, seen)
}

#[test]
fn fields_are_changed_for_applications_over_http2_as_well() {
    let (spare, (address, seen)) = (origin("spare"), h2c());
    let response = "response_headers: {set: {X-Policy: ours}, remove: [Server]}";
    let edge = edge()
        .service_with("iqueue", &spare, &format!("access: public, {REQUEST_HEADERS}, {response}"))
        .pool("iqueue", &format!("{{servers: [\"{address}\"], protocol: h2c}}"));
    let edge = with_secret(edge).start();
    for protocol in PROTOCOLS {
        for (method, body) in [("GET", None), ("POST", Some("body"))] {
            let response = ask(&edge, protocol, &Asking { method, path: "/", body, fields: SENT });
            assert_eq!((response.status, response.text().as_str()), (200, "hello"));
            assert_eq!((response.all("x-policy"), response.all("server")), (vec!["ours"], vec![]));
            let seen = seen.lock().unwrap();
            let all =
                |name: &str| -> Vec<_> { seen.get_all(name).iter().map(|value| value.to_str().unwrap()).collect() };
            assert_eq!(all("x-tenant"), ["or-1"], "{protocol:?} {method}");
            assert_eq!(all("authorization"), ["Basic b3J0aGFuYzpodXNo"]);
            assert_eq!((all("x-debug"), all("x-number")), (vec![], vec!["7"]));
        }
    }
}

#[test]
fn a_handshake_of_a_websocket_has_the_fields_too() {
    let (spare, application) = (origin("spare"), scripted());
    let said = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nServer: x\r\nX-Policy: theirs\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let path = application.script(Script { said: said.into(), ..Script::default() });
    let response = "response_headers: {set: {X-Policy: ours}, remove: [Server]}";
    let edge = with_secret(edge())
        .service_with("iqueue", &spare, &format!("access: public, {REQUEST_HEADERS}, {response}"))
        .pool("iqueue", &format!("{{servers: [\"{}\"]}}", application.address))
        .start();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Tenant: evil\r\n\r\n"
    );
    let mut client = raw(edge.address(), HOST);
    let answer = client.send(head).answer().unwrap();
    assert_eq!((answer.status, answer.header("x-policy"), answer.header("server")), (101, Some("ours"), None));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let head = application.take_asked().pop().unwrap().head.to_ascii_lowercase();
    assert!(head.contains("\r\nx-tenant: or-1\r\n") && !head.contains("evil"), "{head}");
    assert!(head.contains("\r\nauthorization: basic "), "{head}");
}

/// A service whose responses lose two fields and gain two.
const RESPONSE_HEADERS: &str = "hsts: {max_age: 10d, include_subdomains: true, preload: true}, \
                                response_headers: {set: {X-Policy: ours, Cache-Control: no-store}, remove: [Server, x-powered-BY]}";

const APPLICATION: &str = "Server: theirs\r\nX-Powered-By: PHP\r\nx-powered-by: ASP\r\nX-Policy: theirs\r\nx-policy: others\r\n\
                           Strict-Transport-Security: max-age=1\r\nCache-Control: public\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                           X-Kept: kept\r\n";

fn scripted_edge(service: &str) -> (Edge, Scripted) {
    let (spare, application) = (origin("spare"), scripted());
    let pool = format!("{{servers: [\"{}\"]}}", application.address);
    let edge =
        edge().service_with("iqueue", &spare, &format!("access: public, {service}")).pool("iqueue", &pool).start();
    (edge, application)
}

fn assert_changed(response: &Observed, what: &str) {
    assert_eq!(response.all("x-policy"), ["ours"], "{what}");
    assert_eq!(response.all("cache-control"), ["no-store"], "{what}");
    let hsts = "max-age=864000; includeSubDomains; preload";
    assert_eq!(response.all("strict-transport-security"), [hsts], "{what}");
    assert_eq!((response.all("server"), response.all("x-powered-by")), (vec![], vec![]), "{what}");
    assert_eq!(response.all("set-cookie"), ["a=1", "b=2"], "{what}");
    assert_eq!(response.all("x-kept"), ["kept"], "{what}");
}

#[test]
fn responses_of_every_kind_lose_and_gain_the_fields() {
    let (edge, application) = scripted_edge(RESPONSE_HEADERS);
    for (line, framing, body, closes, methods) in [
        ("200 OK", "Content-Length: 5\r\n", "hello", false, &["GET", "POST"][..]),
        ("200 OK", "Content-Length: 0\r\n", "", false, &["GET", "POST"]),
        ("200 OK", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", false, &["GET", "POST"]),
        ("200 OK", "", "hello", true, &["GET", "POST"]),
        ("200 OK", "Content-Length: 5\r\n", "", false, &["HEAD"]),
        ("204 No Content", "", "", false, &["GET", "DELETE"]),
        ("206 Partial Content", "Content-Length: 5\r\nContent-Range: bytes 0-4/9\r\n", "hello", false, &["GET"]),
        ("304 Not Modified", "ETag: \"a\"\r\n", "", false, &["GET", "HEAD"]),
        ("302 Found", "Location: /x\r\nContent-Length: 0\r\n", "", false, &["GET", "POST"]),
        ("404 Not Found", "Content-Length: 5\r\n", "hello", false, &["GET", "POST"]),
        ("500 Internal Server Error", "Content-Length: 5\r\n", "hello", false, &["GET", "POST"]),
    ] {
        let said = format!("HTTP/1.1 {line}\r\n{framing}{APPLICATION}\r\n{body}");
        let path = application.script(Script { said: said.into(), closes, ..Script::default() });
        for protocol in PROTOCOLS {
            for method in methods {
                let what = format!("{line} {framing:?} {protocol:?} {method}");
                let response = ask(&edge, protocol, &Asking { method, path: &path, body: None, fields: &[] });
                assert_eq!(response.status.to_string(), line[..3], "{what}");
                assert_changed(&response, &what);
                let is_whole = response.text() == if body.is_empty() { "" } else { "hello" };
                assert!(is_whole, "{what}: {:?}", response.text());
            }
        }
    }
}

#[test]
fn an_interim_response_is_left_alone() {
    let (edge, application) = scripted_edge(RESPONSE_HEADERS);
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nServer: theirs\r\nX-Policy: theirs\r\n\r\n";
    let said = format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{APPLICATION}\r\nhello");
    let path = application.script(Script { said: said.into(), ..Script::default() });
    for protocol in [Protocol::Http11, Protocol::Http2] {
        let response = ask(&edge, protocol, &get(&path, &[]));
        assert_changed(&response, &format!("{protocol:?}"));
        let (status, fields) = &response.interim[0];
        assert_eq!(*status, 103);
        assert!(fields.contains(&"x-policy: theirs".to_owned()) && fields.contains(&"server: theirs".to_owned()));
        assert!(!fields.iter().any(|field| field.contains("max-age=864000")), "{fields:?}");
    }
}

#[test]
fn compressed_responses_lose_and_gain_the_fields() {
    let body = "text ".repeat(1000);
    let (edge, application) = scripted_edge(&format!("compression: [gzip], {RESPONSE_HEADERS}"));
    let said =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n{APPLICATION}\r\n{body}");
    let path = application.script(Script { said: said.into(), ..Script::default() });
    for protocol in [Protocol::Http11, Protocol::Http2] {
        let response = ask(&edge, protocol, &get(&path, &[("accept-encoding", "gzip")]));
        assert_changed(&response, &format!("{protocol:?}"));
        assert_eq!((response.all("content-encoding"), response.all("vary")), (vec!["gzip"], vec!["Accept-Encoding"]));
    }
}

#[test]
fn an_event_stream_is_one_whatever_its_type_becomes() {
    let (edge, application) = scripted_edge("response_headers: {set: {Content-Type: text/plain}}");
    let said = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n";
    let path = application.script(Script { said: said.into(), closes: true, ..Script::default() });
    let response = ask(&edge, Protocol::Http11, &get(&path, &[]));
    assert_eq!((response.all("content-type"), response.text().as_str()), (vec!["text/plain"], "data: x\n\n"));
}

#[test]
fn pages_of_the_edge_have_none_of_the_fields() {
    let dead = crate::harness::free_address();
    let iqueue = origin("iqueue");
    let routes = "routes: [{path: /private, access: {roles: [x]}}, {path: /get, methods: [GET]}, {path: /off, addresses: {deny: [127.0.0.0/8]}}, \
                  {path: /small, body_bytes: 1}, {path: /dead, pool: dead}]";
    let edge = edge()
        .service_with("iqueue", &iqueue, &format!("access: public, {RESPONSE_HEADERS}, {routes}"))
        .pool("dead", &format!("{{servers: [\"{dead}\"]}}"))
        .start();
    for protocol in [Protocol::Http11, Protocol::Http2] {
        for (method, path, body, status) in [
            ("GET", "/private", None, 401),
            ("POST", "/get", None, 405),
            ("GET", "/off", None, 403),
            ("POST", "/small", Some("body"), 413),
            ("GET", "/dead", None, 503),
            ("GET", "/.sentry/currentUser", None, 200),
        ] {
            let response = ask(&edge, protocol, &Asking { method, path, body, fields: &[] });
            assert_eq!(response.status, status, "{protocol:?} {path}");
            assert_eq!(response.all("x-policy"), [""; 0], "{protocol:?} {path}");
            let hsts = "max-age=864000; includeSubDomains; preload";
            assert_eq!(response.all("strict-transport-security"), [hsts], "{protocol:?} {path}: one for the host");
        }
    }
}

/// A browser keeps the last one that it gets from a host.
#[test]
fn all_that_a_host_says_of_hsts_is_the_same() {
    let (iqueue, other) = (origin("iqueue"), origin("dextor"));
    for (service, expected) in [
        ("hsts: {max_age: 10d}", "max-age=864000"),
        ("response_headers: {set: {Strict-Transport-Security: max-age=0}}", "max-age=0"),
    ] {
        let routes = "routes: [{path: /open, access: public}, {path: /files, access: public, files: {root: site}}, \
                      {path: /ok, access: public, respond: {body: ok}}, {path: /to, access: public, redirect: {to: /x}}, \
                      {path: /off, addresses: {deny: [127.0.0.0/8]}}, {path: /get, access: public, methods: [GET]}]";
        let edge = edge()
            .service_with("iqueue", &iqueue, &format!("{service}, {routes}"))
            .service_with("dextor", &other, "access: public, hsts: off")
            .file("site/index.html", "index")
            .start();
        for protocol in PROTOCOLS {
            for (method, path, status) in [
                ("GET", "/open", 200),
                ("GET", "/files/", 200),
                ("GET", "/files/none", 404),
                ("POST", "/files/", 405),
                ("GET", "/ok", 200),
                ("GET", "/to", 302),
                ("GET", "/off", 403),
                ("POST", "/get", 405),
                ("GET", "/x", 401),
                // Refused before the service is looked for.
                ("GET", "/OPEN", 400),
                ("GET", "/x%00", 400),
                ("GET", "/.sentry/currentUser", 200),
                ("GET", "/.sentry/none", 404),
            ] {
                let response = ask(&edge, protocol, &Asking { method, path, body: None, fields: &[] });
                assert_eq!(response.status, status, "{protocol:?} {method} {path}");
                assert_eq!(response.all("strict-transport-security"), [expected], "{protocol:?} {method} {path}");
            }
            for (host, path) in [("sentry.test", "/login"), ("dextor.test", "/.sentry/currentUser")] {
                let response = runtime().block_on(async {
                    Observer::connect(edge.address(), host, protocol).await.ask(host, &get(path, &[])).await.unwrap()
                });
                assert_eq!(response.all("strict-transport-security"), ["max-age=31536000"], "{protocol:?} {host}");
            }
        }
    }
}

#[test]
fn without_hsts_of_its_service_an_application_has_its_own() {
    for off in ["", ", hsts: off", ", hsts: false"] {
        let (edge, application) = scripted_edge(&format!("forward_token: none{off}"));
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{APPLICATION}\r\nhello");
        let path = application.script(Script { said: said.into(), ..Script::default() });
        for protocol in PROTOCOLS {
            let response = ask(&edge, protocol, &get(&path, &[]));
            assert_eq!(response.all("strict-transport-security"), ["max-age=1"], "{protocol:?} {off:?}");
        }
    }
}

#[test]
fn fixed_replies_have_the_fields_and_redirects_of_routes_have_not() {
    let iqueue = origin("iqueue");
    let headers = "hsts: {max_age: 10d}, response_headers: {set: {X-Policy: ours, Cache-Control: max-age=60}, remove: [X-Content-Type-Options]}";
    let routes = "routes: [{path: /ok, respond: {status: 200, body: ok}}, {path: /gone, respond: {status: 410}}, \
                  {path: /old, redirect: {to: /new}}, {path: /own, respond: {body: own}, response_headers: {remove: [X-Policy]}}]";
    let edge = edge().service_with("iqueue", &iqueue, &format!("access: public, {headers}, {routes}")).start();
    for protocol in PROTOCOLS {
        for (method, path, status) in
            [("GET", "/ok", 200), ("HEAD", "/ok", 200), ("POST", "/ok", 200), ("GET", "/gone", 410)]
        {
            let response = ask(&edge, protocol, &Asking { method, path, body: None, fields: &[] });
            assert_eq!(response.status, status, "{protocol:?} {method} {path}");
            assert_eq!(response.all("x-policy"), ["ours"]);
            assert_eq!(
                (response.all("cache-control"), response.all("x-content-type-options")),
                (vec!["max-age=60"], vec![])
            );
            assert_eq!(response.all("strict-transport-security"), ["max-age=864000"]);
        }
        assert_eq!(ask(&edge, protocol, &get("/own", &[])).all("x-policy"), [""; 0]);
        let redirect = ask(&edge, protocol, &get("/old", &[]));
        assert_eq!((redirect.status, redirect.all("x-policy")), (302, vec![]));
        assert_eq!(redirect.all("strict-transport-security"), ["max-age=864000"], "one for the host");
    }
    assert_eq!(iqueue.count(), 0);
}

#[test]
fn files_have_the_fields_and_what_is_no_file_has_not() {
    let iqueue = origin("iqueue");
    let headers =
        "response_headers: {set: {X-Policy: ours, Cache-Control: max-age=60}, remove: [ETag, X-Content-Type-Options]}";
    let routes = "routes: [{path: /app, files: {root: site}}, {exact: /one, files: {root: site}, response_headers: {remove: [X-Policy]}}]";
    let edge = edge()
        .service_with("iqueue", &iqueue, &format!("access: public, {headers}, {routes}"))
        .file("site/index.html", "index")
        .file("site/deep/index.html", "deep")
        .start();
    for protocol in PROTOCOLS {
        for (method, path, fields, status) in [
            ("GET", "/app/", &[][..], 200),
            ("HEAD", "/app/index.html", &[], 200),
            ("GET", "/app/index.html", &[("range", "bytes=1-2")], 206),
            ("GET", "/app/index.html", &[("if-none-match", "*")], 304),
        ] {
            let response = ask(&edge, protocol, &Asking { method, path, body: None, fields });
            let what = format!("{protocol:?} {method} {path} {fields:?}");
            assert_eq!(response.status, status, "{what}");
            assert_eq!((response.all("x-policy"), response.all("cache-control")), (vec!["ours"], vec!["max-age=60"]));
            assert_eq!((response.all("etag"), response.all("x-content-type-options")), (vec![], vec![]), "{what}");
            assert_eq!(response.all("x-request-id").len(), 1, "{what}");
        }
        assert_eq!(ask(&edge, protocol, &get("/one", &[])).all("x-policy"), [""; 0], "{protocol:?}");
        for (path, status) in [("/app/none", 404), ("/app/deep", 301)] {
            let response = ask(&edge, protocol, &get(path, &[]));
            assert_eq!((response.status, response.all("x-policy")), (status, vec![]), "{protocol:?} {path}");
        }
    }
    assert_eq!(iqueue.count(), 0);
}

#[test]
fn a_reload_reads_secrets_again_and_refuses_a_bad_one() {
    let iqueue = origin("iqueue");
    let mut edge =
        with_secret(edge().service_with("iqueue", &iqueue, &format!("access: public, {REQUEST_HEADERS}"))).start();
    let file = edge.folder.path().join("pacs");
    let authorization = |edge: &Edge| {
        assert_eq!(ask(edge, Protocol::Http11, &get("/", &[])).status, 200);
        iqueue.last().one("authorization")
    };
    assert_eq!(authorization(&edge).as_deref(), Some("Basic b3J0aGFuYzpodXNo"));
    std::fs::write(&file, "Basic bmV3\r\n").unwrap();
    edge.reload_with(|yaml| yaml);
    assert_eq!(authorization(&edge).as_deref(), Some("Basic bmV3"));
    for bad in ["", "\n", "Basic a\nb", "Basic a\n\n", "Basic \0"] {
        std::fs::write(&file, bad).unwrap();
        let faults = edge.inner.reload().unwrap_err().to_string();
        assert!(faults.contains("services.iqueue.request_headers.set.Authorization: "), "{faults}");
        assert!(!faults.contains("Basic"), "{faults}");
    }
    assert_eq!(authorization(&edge).as_deref(), Some("Basic bmV3"), "the one before stays");
    eventually("the log has a line", || !edge.access_log(1).is_empty());
}
