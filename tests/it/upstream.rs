//! Behind the edge: which server gets a request, and what clients learn when none can answer it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use hyper::Response as HttpResponse;
use socket2::{Domain, Socket, Type};

use crate::harness::edge::TOKEN_COOKIE;
use crate::harness::{Edge, Origin, comes_to, edge, eventually, free_address, origin, raw};

const PUBLIC: &str = "access: public";

/// An address where nobody listens, so that connecting is refused at once.
fn nobody() -> SocketAddr {
    free_address()
}

/// One service, iqueue, for anybody, with a pool of these servers and further keys.
fn edge_with_pool(servers: &[String], more: &str) -> Edge {
    let spare = origin("spare");
    let pool = format!("{{servers: [{}]{more}}}", servers.join(", "));
    edge().service_with("iqueue", &spare, PUBLIC).pool("iqueue", &pool).start()
}

fn server(address: SocketAddr) -> String {
    format!("\"{address}\"")
}

#[test]
fn servers_take_turns_by_weight() {
    let (one, two, three) = (origin("one"), origin("two"), origin("three"));
    let weighted = |origin: &Origin, weight: u16| format!("{{address: \"{}\", weight: {weight}}}", origin.address);
    let edge = edge_with_pool(&[server(one.address), weighted(&two, 2), weighted(&three, 3)], "");
    let mut client = edge.client();
    for _ in 0..12 {
        assert_eq!(client.get(&edge.url("iqueue", "/")).status, 200);
    }
    assert_eq!([one.count(), two.count(), three.count()], [2, 4, 6]);
    let answered = |origin: &Origin| {
        let labels = format!("pool=\"iqueue\",result=\"answered\",server=\"{}\"", origin.address);
        edge.metric("sentry_edge_upstream_requests_total", &labels)
    };
    // The last one is counted once its answer is out.
    eventually("the answers are counted", || [answered(&one), answered(&two), answered(&three)] == [2.0, 4.0, 6.0]);
}

#[test]
fn requests_under_way_count_at_their_server_until_they_end_or_are_cut() {
    let (held, dead) = (Origin::held(), nobody());
    let edge = edge_with_pool(&[server(dead), server(held.address)], "");
    let under_way = |address: SocketAddr| {
        let labels = format!("pool=\"iqueue\",server=\"{address}\"");
        edge.metric("sentry_edge_upstream_in_flight", &labels)
    };
    let host = edge.host("iqueue");
    let send = |method: &str, fields: &str, body: &str| {
        let mut client = raw(edge.address(), &host);
        client.send(format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}"));
        client
    };
    // The second one is on the full path. Each finds the dead server first, or has the other one at once.
    let cut = [send("GET", "", ""), send("POST", "Content-Length: 1\r\n", "x"), send("GET", "", "")];
    eventually("three are under way", || [under_way(held.address), under_way(dead)] == [3.0, 0.0]);
    drop(cut);
    eventually("none is", || under_way(held.address) == 0.0);
    let mut whole = [send("GET", "", ""), send("POST", "Content-Length: 1\r\n", "x")];
    eventually("two are under way", || under_way(held.address) == 2.0);
    held.release();
    assert!(whole.iter_mut().all(|client| client.status() == 200));
    eventually("none is any more", || [under_way(held.address), under_way(dead)] == [0.0, 0.0]);
}

#[test]
fn a_dead_server_is_passed_over_whatever_the_method() {
    let alive = origin("alive");
    let edge = edge_with_pool(&[server(nobody()), server(alive.address), server(nobody())], "");
    let mut client = edge.client();
    for round in 0..4 {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let body = if method == "GET" || method == "HEAD" { "" } else { "a body" };
            let response = client.ask(method, &edge.url("iqueue", "/")).body(body).send();
            assert_eq!(response.status, 200, "{method}, round {round}: nothing was sent yet, so it may be sent again");
            assert_eq!(alive.last().method, method);
            assert_eq!(alive.last().body, body.as_bytes(), "{method}: with its whole body");
        }
    }
    assert_eq!(alive.count(), 24, "and no request arrived twice");
}

#[test]
fn when_all_servers_are_dead_the_answer_is_503_after_as_many_attempts_as_are_allowed() {
    let servers = [nobody(), nobody(), nobody(), nobody()];
    let edge = edge_with_pool(&servers.map(server), ", retries: 2, eject: false");
    let mut client = edge.client();
    for method in ["GET", "POST"] {
        let response = client.ask(method, &edge.url("iqueue", "/")).send();
        assert_eq!(response.status, 503, "{method}: {}", response.body);
        for address in servers {
            assert!(!response.body.contains(&address.port().to_string()), "no address of the house: {}", response.body);
        }
    }
    let labels = servers.map(|server| format!("pool=\"iqueue\",result=\"failed\",server=\"{server}\""));
    let failed = || labels.iter().map(|labels| edge.metric("sentry_edge_upstream_requests_total", labels)).sum();
    comes_to("one attempt and two more, for each request", 6.0, failed);
}

#[test]
fn a_server_that_closes_without_an_answer_is_a_502_and_a_post_is_not_sent_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = std::thread::spawn(move || {
        use std::io::Read;
        let (mut socket, _) = listener.accept().unwrap();
        let read = socket.read(&mut [0; 1024]).unwrap();
        drop(socket);
        listener.set_nonblocking(true).unwrap();
        (read, listener)
    });
    let alive = origin("alive");
    let edge = edge_with_pool(&[server(address), server(alive.address)], "");
    let response = edge.client().ask("POST", &edge.url("iqueue", "/")).body("pay").send();
    assert_eq!(response.status, 502);
    let (read, listener) = accepted.join().unwrap();
    assert!(read > 0, "the server had it");
    assert_eq!(alive.count(), 0, "so nobody else gets it");
    assert!(listener.accept().is_err(), "nor the same server again");
}

#[test]
fn a_server_that_does_not_answer_in_time_is_a_504() {
    // It never answers, so it is the configured time that ends this.
    let held = Origin::held();
    let edge = edge_with_pool(&[server(held.address)], ", timeouts: {read: 200ms}");
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).status, 504);
}

#[test]
fn a_route_may_wait_longer_than_its_pool() {
    let slow = Origin::slow(Duration::from_millis(600));
    let routes = "access: public, routes: [{path: /slow, read_timeout: 30s}]";
    let pool = format!("{{servers: [\"{}\"], timeouts: {{read: 100ms}}}}", slow.address);
    let edge = edge().service_with("iqueue", &slow, routes).pool("iqueue", &pool).start();
    assert_eq!(edge.client().get(&edge.url("iqueue", "/slow")).status, 200);
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).status, 504);
}

/// A listener that takes no connection any more: its queue is full, and the kernel leaves the next one unanswered.
fn deaf() -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Some of these stay unanswered themselves, which is the point.
        socket.connect(&address).ok();
        socket
    });
    let waiting = waiting.collect();
    (listener, waiting)
}

#[test]
fn a_server_that_cannot_be_connected_to_in_time_is_a_503_or_passed_over() {
    let (listener, _waiting) = deaf();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let edge = edge_with_pool(&[server(address)], ", timeouts: {connect: 200ms}, retries: 0");
    assert_eq!(edge.client().get(&edge.url("iqueue", "/")).status, 503);
    let alive = origin("alive");
    let edge = edge_with_pool(&[server(address), server(alive.address)], ", timeouts: {connect: 200ms}");
    assert_eq!(edge.client().ask("POST", &edge.url("iqueue", "/")).body("x").send().status, 200);
    assert_eq!(alive.count(), 1);
}

#[test]
fn a_failure_is_told_as_a_page_to_browsers_and_as_json_to_others() {
    let dead = edge_with_pool(&[server(nobody())], "");
    let slow_origin = Origin::slow(Duration::from_secs(60));
    let slow = edge_with_pool(&[server(slow_origin.address)], ", timeouts: {read: 100ms}");
    for (edge, status) in [(&dead, 503), (&slow, 504)] {
        let page = edge.client().open(&edge.url("iqueue", "/"));
        assert_eq!(page.status, status);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.body.contains(page.header("x-request-id").unwrap()), "the reference stands on the page");
        let told = edge.client().ask("GET", &edge.url("iqueue", "/")).accept("application/json").send();
        assert_eq!(told.status, status);
        assert_eq!(told.header("content-type"), Some("application/json"));
        let json = told.json();
        assert!(json["error"].is_string() && json["message"].is_string(), "{json}");
        assert_eq!(json["request_id"].as_str(), told.header("x-request-id"));
        for response in [page, told] {
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
}

#[test]
fn an_error_of_the_application_is_passed_on_as_it_is() {
    for status in [400, 401, 403, 404, 500, 502, 503, 504] {
        let iqueue = Origin::answering(move |_| {
            HttpResponse::builder().status(status).header("x-from-origin", "1").body("its own words".into()).unwrap()
        });
        let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
        let response = edge.client().open(&edge.url("iqueue", "/"));
        assert_eq!((response.status, response.body.as_str()), (status, "its own words"));
        assert_eq!(response.header("x-from-origin"), Some("1"));
        assert_eq!(iqueue.count(), 1, "{status} is an answer and no reason to ask again");
    }
}

#[test]
fn a_connection_is_kept_after_a_reply_of_ours_that_leaves_nothing_in_doubt() {
    let iqueue = origin("iqueue");
    let service = "routes: [{path: /public, access: public}, {path: /admin, access: {roles: [nobody]}}]";
    let edge = edge().service_with("iqueue", &iqueue, service).start();
    let browser = edge.signed_in();
    let cookie = format!("Cookie: {TOKEN_COOKIE}={}\r\n", browser.cookie("iqueue.test", TOKEN_COOKIE).unwrap());
    let ask = |method: &str, path: &str, fields: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n{fields}\r\n")
    };
    let mut connection = raw(edge.address(), "iqueue.test");
    for (method, path, fields, status) in [
        ("GET", "/", "", 401),
        ("GET", "/", "Accept: text/html\r\n", 302),
        ("POST", "/", "Content-Length: 0\r\n", 401),
        ("GET", "/admin", cookie.as_str(), 403),
        ("GET", "/.sentry/nothing", "", 404),
        ("GET", "/.sentry/currentUser", "", 200),
        ("GET", "/public", "", 200),
        ("GET", "/", cookie.as_str(), 200),
    ] {
        let answer = connection.send(ask(method, path, fields)).answer();
        let answer = answer.unwrap_or_else(|| panic!("the connection ended before {method} {path}"));
        assert_eq!(answer.status, status, "{method} {path}");
        assert_ne!(answer.header("connection"), Some("close"), "{method} {path}");
    }
    let wrong_host = "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n";
    assert_eq!(connection.send(wrong_host).status(), 421);
    assert_eq!(connection.send(ask("GET", "/public", "")).status(), 200, "even 421 is about one request alone");
    connection.send("TRACE / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    assert_eq!(connection.status(), 405);
    assert!(connection.rest().is_empty(), "a malformed request ends it");
}

#[test]
fn a_client_that_wants_the_connection_closed_has_it_closed() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "routes: [{path: /public, access: public}]").start();
    for (path, status) in [("/public", 200), ("/", 401), ("/.sentry/currentUser", 200)] {
        for head in [
            format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nConnection: Close\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\nHost: iqueue.test\r\n\r\n"),
        ] {
            let mut connection = raw(edge.address(), "iqueue.test");
            let answer = connection.send(&head).answer().unwrap();
            assert_eq!(answer.status, status, "{head}");
            assert_ne!(answer.header("connection"), Some("keep-alive"), "{head}");
            assert!(connection.rest().is_empty(), "{head}");
        }
    }
}

#[test]
fn requests_in_one_write_are_answered_in_order_on_one_connection() {
    let iqueue = Origin::answering(|seen| HttpResponse::new(seen.target.clone().into()));
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
    let ask = |n: usize| match n % 3 {
        0 => format!("GET /{n} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n"),
        1 => format!("POST /{n} HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 5\r\n\r\nGET /"),
        _ => {
            format!("PUT /{n} HTTP/1.1\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
        }
    };
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send((0..12).map(ask).collect::<String>());
    for n in 0..12 {
        assert_eq!(connection.answer().unwrap().text(), format!("/{n}"));
    }
    let bodies: Vec<Vec<u8>> = iqueue.seen().into_iter().map(|seen| seen.body).take(3).collect();
    assert_eq!(bodies, [b"".to_vec(), b"GET /".to_vec(), b"ab".to_vec()]);
}

#[test]
fn the_longest_path_leads_to_its_own_pool() {
    let (root, api, deep, public) = (origin("root"), origin("api"), origin("deep"), origin("public"));
    let routes = "access: public, routes: [{path: /api, pool: api}, {path: /api/deep/, pool: deep}, \
                  {path: /assets, pool: public}]";
    let pool = |origin: &Origin| format!("{{servers: [\"{}\"]}}", origin.address);
    let edge = edge()
        .service_with("iqueue", &root, routes)
        .pool("api", &pool(&api))
        .pool("deep", &pool(&deep))
        .pool("public", &pool(&public))
        .start();
    let mut client = edge.client();
    for (path, expected) in [
        ("/", "root"),
        ("/x", "root"),
        ("/apis", "root"),
        ("/ap", "root"),
        ("/x/api", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api/x?/api/deep/", "api"),
        ("/api/deeper", "api"),
        ("/api/deep", "deep"),
        ("/api/deep/x/y", "deep"),
        ("/assets/a.css", "public"),
    ] {
        assert_eq!(client.get(&edge.url("iqueue", path)).body, format!("hello from {expected}"), "{path}");
    }
    // A server that ignores case would look for it in another pool.
    assert_eq!(client.get(&edge.url("iqueue", "/API")).status, 400);
}

#[test]
fn a_body_over_the_limit_is_refused_however_its_length_is_told() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).server("limits: {body_bytes: 64KiB}").start();
    let ask = |fields: &str, body: &str| {
        let mut connection = raw(edge.address(), "iqueue.test");
        connection.send(format!("POST / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n")).send(body);
        connection.status()
    };
    let (fits, large) = ("a".repeat(64 * 1024), "a".repeat(64 * 1024 + 1));
    let chunked = |body: &str| {
        let chunks: String = body
            .as_bytes()
            .chunks(8 * 1024)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()))
            .collect();
        chunks + "0\r\n\r\n"
    };
    assert_eq!(ask(&format!("Content-Length: {}\r\n", fits.len()), &fits), 200);
    assert_eq!(iqueue.last().body.len(), fits.len());
    assert_eq!(ask("Transfer-Encoding: chunked\r\n", &chunked(&fits)), 200);
    assert_eq!(iqueue.last().body.len(), fits.len());
    assert_eq!(ask(&format!("Content-Length: {}\r\n", large.len()), &large), 413);
    assert_eq!(iqueue.count(), 2, "a length that is told is refused before the application hears of it");
    assert_eq!(ask("Transfer-Encoding: chunked\r\n", &chunked(&large)), 413);
    let whole = iqueue.seen().into_iter().skip(2).any(|seen| seen.body.len() > fits.len());
    assert!(!whole, "no application gets more than the limit");
    let mut over_http2 = edge.client().http2();
    assert_eq!(over_http2.ask("POST", &edge.url("iqueue", "/")).body(large).send().status, 413);
    assert_eq!(over_http2.ask("POST", &edge.url("iqueue", "/")).body(fits).send().status, 200);
}

/// Several MiB of text in which no two places look alike.
fn large_text() -> String {
    (0..800_000).map(|n: u32| format!("{n:09}\n")).collect()
}

#[test]
fn a_large_response_arrives_to_the_byte() {
    let iqueue = Origin::answering(|_| HttpResponse::new(large_text().into()));
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
    for mut client in [edge.client(), edge.client().http2()] {
        let response = client.get(&edge.url("iqueue", "/"));
        assert_eq!((response.status, response.body.len()), (200, 8_000_000));
        assert!(response.body == large_text(), "other bytes than the application sent");
    }
}

#[test]
fn a_large_request_arrives_to_the_byte() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
    for mut client in [edge.client(), edge.client().http2()] {
        let response = client.ask("PUT", &edge.url("iqueue", "/")).body(large_text()).send();
        assert_eq!(response.status, 200);
        assert!(iqueue.last().body == large_text().into_bytes(), "other bytes than the client sent");
    }
}

#[test]
fn head_and_bodiless_answers_leave_the_connection_in_step() {
    let iqueue = Origin::answering(|seen| {
        let status = if seen.target == "/none" { 204 } else { 200 };
        HttpResponse::builder().status(status).body(if status == 204 { "" } else { "text" }.into()).unwrap()
    });
    let edge = edge().service_with("iqueue", &iqueue, PUBLIC).start();
    let mut client = edge.client();
    let head = client.ask("HEAD", &edge.url("iqueue", "/")).send();
    assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("4")));
    let mut connection = raw(edge.address(), "iqueue.test");
    for (path, status, text) in [("/none", 204, ""), ("/", 200, "text"), ("/none", 204, ""), ("/", 200, "text")] {
        let answer = connection.send(format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n")).answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
    }
}
