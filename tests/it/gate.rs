//! What is let in: heads that take their time, and what they may not do to others.

use std::time::{Duration, Instant};

use crate::harness::raw::raw_plain;
use crate::harness::{Connection, Edge, Origin, Raw, edge, eventually, origin, raw};

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
    let stop = begun + Duration::from_secs(15);
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
    assert_eq!(limits_reached(&edge, "header_timeout"), 1.0);
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
    assert_eq!(limits_reached(&edge, "header_timeout"), 2.0);
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
    assert_eq!(limits_reached(&edge, "header_timeout"), 2.0);
}

#[test]
fn an_idle_connection_may_be_idle_longer_than_a_head_may_take() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 200ms}, timeouts: {keepalive: 60s}").start();
    let mut kept = raw(edge.address(), "iqueue.test");
    assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
    assert!(!kept.has_ended(Duration::from_millis(600)), "the connection is idle, and kept");
    assert_eq!(kept.send(get("iqueue.test", "/")).status(), 200);
    assert_eq!(limits_reached(&edge, "header_timeout"), 0.0);
}

#[test]
fn a_body_may_take_longer_than_a_head() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 200ms}").start();
    let mut upload = raw(edge.address(), "iqueue.test");
    upload.send("POST / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 20\r\n\r\n");
    for _ in 0..20 {
        upload.send("x");
        assert!(!upload.has_ended(Duration::from_millis(30)));
    }
    assert_eq!(upload.status(), 200);
    assert_eq!(iqueue.seen().last().unwrap().body.len(), 20);
}

#[test]
fn requests_sent_in_one_piece_are_answered_in_order() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {header_timeout: 400ms}").start();
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
