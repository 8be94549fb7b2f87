//! What is let in: heads that take their time, and what they may not do to others.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;

use crate::harness::raw::raw_plain;
use crate::harness::{Connection, DEADLINE, Edge, Origin, Raw, comes_to, edge, eventually, origin, raw};

/// A public service, so that nobody has to sign in.
fn open_service(origin: &Origin) -> crate::harness::edge::Builder {
    edge().service_with("iqueue", origin, "access: public")
}

fn limits_reached(edge: &Edge, limit: &str) -> f64 {
    edge.metric("sentry_edge_limits_reached_total", &format!("limit=\"{limit}\""))
}

/// Sends bytes one by one, each after a while, until the edge has had enough; answers what it said.
fn drip(connection: &mut Raw, bytes: &[u8]) -> (u16, Duration) {
    let begun = Instant::now();
    let stop = begun + DEADLINE;
    for byte in bytes.iter().cycle() {
        connection.send([*byte]);
        if connection.has_ended(Duration::from_millis(40)) {
            break;
        }
        assert!(Instant::now() < stop, "it may drip for ever");
    }
    (connection.status(), begun.elapsed())
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

// Heads.

#[test]
fn a_head_that_drips_is_refused_in_time_and_bystanders_are_served() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 400ms}").start();
    let mut bystander = Connection::open(edge.address(), "iqueue.test").unwrap();
    assert_eq!(bystander.get("iqueue.test", "/").unwrap().0, 200);
    let mut slow = raw(edge.address(), "iqueue.test");
    slow.send("GET / HTTP/1.1\r\nX-Slow: ");
    let (status, took) = drip(&mut slow, b"a");
    assert_eq!(status, 408, "after {took:?}");
    assert_eq!(bystander.get("iqueue.test", "/").unwrap().0, 200);
    comes_to("header_timeout", 1.0, || limits_reached(&edge, "header_timeout"));
}

#[test]
fn a_later_head_of_a_connection_has_the_same_deadline() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 400ms}").start();
    let mut slow = raw(edge.address(), "iqueue.test");
    assert_eq!(slow.send(get("iqueue.test", "/")).status(), 200);
    slow.send("GET / HTTP/1.1\r\nX-Slow: ");
    assert_eq!(drip(&mut slow, b"a").0, 408);
    // On plain HTTP as well.
    let mut slow = raw_plain(edge.http_address());
    assert_eq!(slow.send(get("iqueue.test", "/")).status(), 308);
    assert_eq!(drip(&mut slow, b"GET / HTTP/1.1\r\nX-Slow: abcdefghijklmnopqrstuvwxyz0123456789").0, 408);
    comes_to("header_timeout", 2.0, || limits_reached(&edge, "header_timeout"));
}

#[test]
fn half_a_later_head_and_then_silence_is_refused_in_time() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 400ms}, timeouts: {keepalive: 60s}").start();
    let mut silent = raw(edge.address(), "iqueue.test");
    assert_eq!(silent.send(get("iqueue.test", "/")).status(), 200);
    assert_eq!(silent.send("GET / HTTP/1.1\r\nX: ").status(), 408);
    // Its first half came with the request before it: its time begins when that is answered.
    let mut piped = raw(edge.address(), "iqueue.test");
    let (first, second) = (get("iqueue.test", "/"), get("iqueue.test", "/second"));
    assert_eq!(piped.send(first + &second[..20]).status(), 200);
    assert_eq!(piped.status(), 408);
    comes_to("header_timeout", 2.0, || limits_reached(&edge, "header_timeout"));
}

#[test]
fn a_client_that_asks_and_asks_and_never_reads_is_closed() {
    let iqueue = Origin::answering(|_| {
        let head = hyper::Response::builder().header("x-large", "x".repeat(30_000));
        head.body(Full::new(Bytes::new())).unwrap()
    });
    let edge = open_service(&iqueue).server("timeouts: {write: 500ms, keepalive: 60s}").start();
    let mut deaf = raw(edge.address(), "iqueue.test");
    // Answers without a body: Pingora bounds how long a body may take to write, and a head not.
    let many = "HEAD / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n".repeat(2000);
    let closed = || edge.metric("sentry_edge_connections", "listener=\"https\"") == 0.0;
    let sending = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            // Ends when the edge closes.
            (0..2000).take_while(|_| deaf.try_send(&many)).count()
        });
        eventually("the connection is closed", closed);
        sender.join().unwrap()
    });
    assert!(sending < 2000, "it was never held up");
}

#[test]
fn a_connection_that_asks_for_nothing_is_closed_and_is_nobodys_fault() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 300ms}").start();
    assert_eq!(raw(edge.address(), "iqueue.test").rest(), b"");
    assert_eq!(raw_plain(edge.http_address()).rest(), b"");
    assert_eq!(limits_reached(&edge, "header_timeout"), 0.0);
}

#[test]
fn an_http2_connection_that_sends_no_request_is_closed() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 400ms}").start();
    // Nothing at all; a preface that drips; a preface and settings, and no request.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let open = || Raw::http2(edge.address(), "iqueue.test");
    open().rest();
    drip(&mut open(), preface);
    let mut settled = open();
    settled.send([&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    settled.rest();
    eventually("none is open", || edge.metric("sentry_edge_connections", "listener=\"https\"") == 0.0);
    comes_to("header_timeout", 2.0, || limits_reached(&edge, "header_timeout"));
}

#[test]
fn an_idle_connection_may_be_idle_longer_than_a_head_may_take() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 1s}, timeouts: {keepalive: 60s}").start();
    let mut kept = raw(edge.address(), "iqueue.test");
    assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
    assert!(!kept.has_ended(Duration::from_millis(1500)), "the connection is idle, and kept");
    assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
    assert_eq!(limits_reached(&edge, "header_timeout"), 0.0);
}

#[test]
fn a_body_may_take_longer_than_a_head() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 1s}").start();
    let mut upload = raw(edge.address(), "iqueue.test");
    upload.send("POST / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 20\r\n\r\n");
    for _ in 0..20 {
        upload.send("x");
        assert!(!upload.has_ended(Duration::from_millis(75)));
    }
    assert_eq!(upload.status(), 200);
    assert_eq!(iqueue.seen().last().unwrap().body.len(), 20);
}

#[test]
fn requests_sent_in_one_piece_are_answered_in_order() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut piped = raw(edge.address(), "iqueue.test");
    let three: String = ["/1", "/2", "/3"].iter().map(|path| get("iqueue.test", path)).collect();
    // The fourth is cut in two, the second half follows in time.
    let fourth = get("iqueue.test", "/4");
    piped.send(three + &fourth[..20]);
    assert_eq!([piped.status(), piped.status(), piped.status()], [200; 3]);
    assert_eq!(piped.send(&fourth[20..]).status(), 200);
    let seen: Vec<String> = iqueue.seen().iter().map(|request| request.target.clone()).collect();
    assert_eq!(seen, ["/1", "/2", "/3", "/4"]);
}

#[test]
fn a_connection_goes_on_after_bodies_of_any_kind_and_what_came_with_them() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).start();
    let mut kept = raw(edge.address(), "iqueue.test");
    let sized = "POST /sized HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 5\r\n\r\nhello";
    let chunked =
        "POST /chunked HTTP/1.1\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    // One after the other, with a pause each; then with the next one in the same piece.
    for request in [sized, &get("iqueue.test", "/get"), chunked, &get("iqueue.test", "/get"), sized] {
        assert!(!kept.send(request).has_ended(Duration::from_millis(50)));
        assert_eq!(kept.status(), 200);
    }
    for request in [sized, chunked] {
        kept.send(format!("{request}{}", get("iqueue.test", "/last")));
        assert_eq!([kept.status(), kept.status()], [200; 2]);
        let targets: Vec<String> = iqueue.seen().iter().map(|request| request.target.clone()).collect();
        assert_eq!(targets.last().unwrap(), "/last");
    }
    assert_eq!(iqueue.seen().len(), 9);
}

#[test]
fn a_connection_that_rests_for_too_long_is_closed_and_its_client_may_rest_again_after_each_request() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("timeouts: {keepalive: 3s}").start();
    let mut kept = raw(edge.address(), "iqueue.test");
    let mut plain = raw_plain(edge.http_address());
    for _ in 0..3 {
        assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
        assert_eq!(plain.send(get("iqueue.test", "/")).status(), 308);
        assert!(!kept.has_ended(Duration::from_millis(300)));
        assert!(!plain.has_ended(Duration::from_millis(300)));
    }
    assert_eq!((kept.rest(), plain.rest()), (vec![], vec![]));
    eventually("none is open", || edge.metric("sentry_edge_connections", "listener=\"https\"") == 0.0);
}

#[test]
fn a_client_that_leaves_while_it_rests_leaves_nothing_behind() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("timeouts: {keepalive: 60s}").start();
    for _ in 0..3 {
        let mut kept = raw(edge.address(), "iqueue.test");
        assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
    }
    eventually("none is open", || edge.metric("sentry_edge_connections", "listener=\"https\"") == 0.0);
}

// Bodies.

#[test]
fn a_body_that_drips_is_refused_and_bystanders_are_served() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue)
        .server("limits: {min_body_rate: 100KiB}, timeouts: {read: 400ms, keepalive: 60s}")
        .start();
    let mut bystander = raw(edge.address(), "iqueue.test");
    assert_eq!(bystander.send(get("iqueue.test", "/")).status(), 200);
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut slow = raw(edge.address(), "iqueue.test");
        slow.send(format!("POST / HTTP/1.1\r\nHost: iqueue.test\r\n{framing}\r\n\r\n"));
        let (status, took) = drip(&mut slow, b"1\r\nx\r\n");
        assert_eq!(status, 408, "{framing}: after {took:?}");
    }
    assert_eq!(bystander.send(get("iqueue.test", "/")).status(), 200);
    comes_to("body_rate", 2.0, || limits_reached(&edge, "body_rate"));
    let whole = |request: &crate::harness::origin::Seen| !request.body.is_empty();
    assert!(!iqueue.seen().iter().any(whole), "no application got a part for the whole");
}

#[test]
fn who_waits_for_whom_decides_who_is_late() {
    // An application that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = format!("{{servers: [\"{}\"], timeouts: {{read: 300ms}}}}", silent.local_addr().unwrap());
    let edge = open_service(&origin("iqueue")).pool("iqueue", &pool).start();
    let post = "POST / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 4\r\n";
    for (rest, expected) in [("\r\nha", 408), ("\r\nhalf", 504), ("Expect: 100-continue\r\n\r\n", 504)] {
        let mut client = raw(edge.address(), "iqueue.test");
        assert_eq!(client.send(format!("{post}{rest}")).status(), expected, "{rest:?}");
    }
    eventually("a server is to blame for what it did get", || {
        edge.metric_sum("sentry_edge_upstream_requests_total") >= 2.0
    });
    assert_eq!(edge.metric_sum("sentry_edge_upstream_requests_total"), 2.0, "and for nothing else");
}

#[test]
fn a_client_that_does_not_take_its_response_is_cut_off() {
    let large = Origin::answering(|_| hyper::Response::new(Full::new(Bytes::from(vec![b'x'; 32 << 20]))));
    let edge = open_service(&large).server("timeouts: {write: 500ms}").start();
    let mut slow = raw(edge.address(), "iqueue.test");
    slow.send(get("iqueue.test", "/"));
    eventually("it is served", || edge.metric_sum("sentry_edge_requests_total") == 1.0);
    eventually("it is cut off", || edge.metric("sentry_edge_connections", "listener=\"https\"") == 0.0);
    assert!(slow.rest().len() < 32 << 20);
}

#[test]
fn a_client_that_takes_its_response_a_little_at_a_time_is_cut_off() {
    let large = Origin::answering(|_| hyper::Response::new(Full::new(Bytes::from(vec![b'x'; 32 << 20]))));
    let edge = open_service(&large).server("timeouts: {write: 200ms}").start();
    let mut slow = raw(edge.address(), "iqueue.test");
    slow.send(get("iqueue.test", "/"));
    let stop = Instant::now() + DEADLINE;
    // Some bytes are always taken; a piece of the response takes longer than a write may, all the same.
    while edge.metric("sentry_edge_connections", "listener=\"https\"") > 0.0 {
        assert!(Instant::now() < stop, "it may take it for ever");
        slow.has_ended(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(slow.rest().len() < 32 << 20);
}

// Connections.

#[test]
fn one_address_takes_no_more_than_its_share() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {connections_per_address: 3}").start();
    let mut open: Vec<Connection> = (0..3).map(|_| Connection::open(edge.address(), "iqueue.test").unwrap()).collect();
    assert!(Connection::open(edge.address(), "iqueue.test").is_err(), "the fourth is closed unserved");
    assert_eq!(raw_plain(edge.http_address()).rest(), b"", "on any listener");
    let refused = |listener: &str| {
        let labels = format!("listener=\"{listener}\",reason=\"address\"");
        edge.metric("sentry_edge_connections_refused_total", &labels)
    };
    assert_eq!((refused("https"), refused("http")), (1.0, 1.0));
    assert_eq!(open[0].get("iqueue.test", "/").unwrap().0, 200, "those who are in are served");
    open.pop();
    eventually("a place is free again", || Connection::open(edge.address(), "iqueue.test").is_ok());
}

/// The 2,049th browser of a hospital behind one address: its people see a connection that breaks, so the log says why.
#[test]
fn an_address_with_too_many_connections_is_named_in_the_log_once_in_a_while() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).server("limits: {connections_per_address: 2}").run();
    let _open: Vec<Connection> = (0..2).map(|_| Connection::open(daemon.address, "iqueue.test").unwrap()).collect();
    for _ in 0..5 {
        assert!(Connection::open(daemon.address, "iqueue.test").is_err());
    }
    let said = "connection refused reason=address client=127.0.0.1 open=2";
    eventually("it is said", || daemon.process.stderr().contains(said));
    assert_eq!(daemon.process.stderr().matches(said).count(), 1, "{}", daemon.process.stderr());
}

#[test]
fn a_trusted_proxy_stands_for_many() {
    let iqueue = origin("iqueue");
    let settings = "trusted_proxies: [\"127.0.0.1\"], limits: {connections_per_address: 1}";
    let edge = open_service(&iqueue).server(settings).start();
    let open: Vec<_> = (0..5).map(|_| Connection::open(edge.address(), "iqueue.test")).collect();
    assert!(open.iter().all(Result::is_ok));
}

#[test]
fn a_process_without_descriptors_serves_those_who_are_in_and_others_later() {
    let iqueue = origin("iqueue");
    let daemon = open_service(&iqueue).run_with_descriptors(48);
    let mut first = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert_eq!(first.get("iqueue.test", "/").unwrap().0, 200);
    let crowd: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    eventually("there are none left", || daemon.process.stderr().contains("cannot accept"));
    assert_eq!(first.get("iqueue.test", "/").unwrap().0, 200, "on its connection and the application's");
    drop(crowd);
    eventually("others are served again", || {
        Connection::open(daemon.address, "iqueue.test").is_ok_and(|mut other| other.get("iqueue.test", "/").is_ok())
    });
    let told = daemon.process.stderr().matches("cannot accept").count();
    assert!(told < 5, "told once in a while, not {told} times");
    let accept = "listener=\"https\",reason=\"accept\"";
    assert!(daemon.metric("sentry_edge_connections_refused_total", accept) > 0.0);
}

// Requests.

#[test]
fn a_client_that_asks_too_fast_is_told_to_wait_and_others_are_served() {
    let iqueue = origin("iqueue");
    let settings = "trusted_proxies: [\"127.0.0.1\"], limits: {requests_per_second: 3}";
    let edge = open_service(&iqueue).server(settings).start();
    let url = edge.url("iqueue", "/");
    let ask = |client: &str| edge.client().ask("GET", &url).field("x-forwarded-for", client).send();
    // So many that the real clock does not come in between.
    let answers: Vec<u16> = (0..30).map(|_| ask("2001:db8::1").status).collect();
    assert_eq!(answers[..3], [200; 3], "a second's worth at once");
    assert!(answers.contains(&429), "{answers:?}");
    let one_too_many = (0..10).map(|_| ask("2001:db8::2")).find(|answer| answer.status == 429).expect("one /64");
    assert_eq!(one_too_many.header("retry-after"), Some("1"));
    assert_eq!(one_too_many.json()["error"], "too_many_requests");
    assert_eq!(ask("192.0.2.7").status, 200);
    assert!(limits_reached(&edge, "requests_per_second") > 0.0);
    edge.let_pass(Duration::from_secs(1));
    assert_eq!(ask("2001:db8::1").status, 200, "later");
    assert!((0..20).all(|_| edge.client().get(&url).status == 200), "the proxy itself is not counted");
}

#[test]
fn a_service_may_have_a_rate_of_its_own() {
    let (iqueue, dextor) = (origin("iqueue"), origin("dextor"));
    let edge = edge()
        .service_with("iqueue", &iqueue, "access: public, requests_per_second: 1")
        .service_with("dextor", &dextor, "access: public")
        .start();
    let ask = |service: &str| edge.client().get(&edge.url(service, "/")).status;
    let answers: Vec<u16> = (0..10).map(|_| ask("iqueue")).collect();
    assert!(answers[0] == 200 && answers.contains(&429), "{answers:?}");
    assert!((0..10).all(|_| ask("dextor") == 200));
    assert_eq!(iqueue.seen().len(), answers.iter().filter(|status| **status == 200).count());
}

#[test]
fn a_rate_of_nothing_is_a_fault() {
    let iqueue = origin("iqueue");
    let builder = edge().service_with("iqueue", &iqueue, "requests_per_second: 0");
    let (_folder, file) = builder.server("limits: {requests_per_second: 1000001}").write();
    let faults = sentry_edge::server::check(&file, &Default::default()).err().unwrap().to_string();
    for key in ["server.limits", "services.iqueue"] {
        assert!(faults.contains(&format!("{key}.requests_per_second: out of bounds; write 1 to")), "{faults}");
    }
}
