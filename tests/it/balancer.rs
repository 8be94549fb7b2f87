//! Behind a balancer that speaks the PROXY protocol: whom the edge takes a connection to be from.

use std::net::TcpStream;

use crate::harness::raw::raw_plain;
use crate::harness::{Edge, Origin, Raw, edge, eventually, origin, raw};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family, 0, u8::try_from(rest.len()).unwrap()], rest].concat()
}

fn behind(origin: &Origin, trusted: &str, more: &str) -> Edge {
    edge()
        .service_with("iqueue", origin, "access: public")
        .listeners("proxy_protocol: true")
        .server(&format!("trusted_proxies: [\"{trusted}\"]{more}"))
        .start()
}

fn ask(connection: &mut Raw, fields: &str) -> u16 {
    connection.send(format!("GET / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n")).status()
}

fn refused(edge: &Edge, listener: &str, reason: &str) -> f64 {
    let labels = format!("listener=\"{listener}\",reason=\"{reason}\"");
    edge.metric("sentry_edge_connections_refused_total", &labels)
}

#[test]
fn the_client_is_whom_a_trusted_balancer_names() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "127.0.0.1", "");
    let inet6 = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0; 16], &[1, 2, 3, 4]].concat();
    let inet = [&[192, 0, 2, 8, 10, 0, 0, 1, 1, 2, 3, 4][..], &[1, 0, 2, b'h', b'2']].concat();
    for (header, client) in
        [(V1.to_vec(), "192.0.2.7"), (v2(0x21, 0x11, &inet), "192.0.2.8"), (v2(0x21, 0x21, &inet6), "2001:db8::7")]
    {
        let mut connection = Raw::announced(&header, edge.address(), "iqueue.test").unwrap();
        // What the client itself says counts no more than without a balancer; on every request of the connection.
        for _ in 0..2 {
            assert_eq!(ask(&mut connection, "X-Forwarded-For: 6.6.6.6\r\n"), 200);
            let seen = iqueue.last();
            assert_eq!(seen.one("x-forwarded-for").unwrap(), client);
            assert_eq!(seen.one("x-real-ip").unwrap(), client);
        }
    }
    let lines = crate::harness::edge::log_lines(&edge.folder.path().join("access.log"), 6);
    assert_eq!(lines[0]["client"], "192.0.2.7");
    let mut plain = raw_plain(edge.http_address());
    plain.send(V1);
    assert_eq!(ask(&mut plain, ""), 308, "on plain HTTP as well");
}

#[test]
fn a_balancer_that_names_nobody_does_not_make_clients_believable() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "127.0.0.1", "");
    for header in [UNKNOWN.to_vec(), v2(0x20, 0, b""), v2(0x21, 0, b"")] {
        let mut connection = Raw::announced(&header, edge.address(), "iqueue.test").unwrap();
        assert_eq!(ask(&mut connection, "X-Forwarded-For: 6.6.6.6\r\nX-Request-ID: mine\r\n"), 200);
        let seen = iqueue.last();
        assert_eq!(seen.one("x-forwarded-for").unwrap(), "127.0.0.1");
        assert_eq!(seen.one("x-real-ip").unwrap(), "127.0.0.1");
        assert_ne!(seen.one("x-request-id").unwrap(), "mine");
    }
}

#[test]
fn nobody_else_may_say_for_whom_they_stand() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "10.0.0.0/8", "");
    assert!(Raw::announced(V1, edge.address(), "iqueue.test").is_err());
    eventually("counted", || refused(&edge, "https", "untrusted_proxy") == 1.0);
    // And where it is not spoken, it is no TLS.
    let edge = crate::harness::edge().service_with("iqueue", &iqueue, "access: public").start();
    assert!(Raw::announced(V1, edge.address(), "iqueue.test").is_err());
    assert_eq!(iqueue.seen().len(), 0);
}

#[test]
fn a_connection_without_a_header_or_with_a_bad_one_is_closed() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "127.0.0.1", "");
    for header in [&b""[..], b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\n"] {
        assert!(Raw::announced(header, edge.address(), "iqueue.test").is_err());
    }
    eventually("counted", || refused(&edge, "https", "proxy_header") == 3.0);
    let mut plain = raw_plain(edge.http_address());
    plain.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    assert_eq!(plain.rest(), b"");
    assert_eq!(refused(&edge, "http", "proxy_header"), 1.0);
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "127.0.0.1", ", timeouts: {tls_handshake: 300ms}");
    let silent = TcpStream::connect(edge.address()).unwrap();
    let mut half = raw_plain(edge.http_address());
    half.send(&V1[..20]);
    assert_eq!(half.rest(), b"");
    eventually("both are closed", || {
        refused(&edge, "https", "proxy_header") + refused(&edge, "http", "proxy_header") == 2.0
    });
    drop(silent);
}

#[test]
fn connections_are_counted_by_the_client_and_not_by_the_balancer() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, "127.0.0.1", ", limits: {connections_per_address: 1}");
    let other = String::from_utf8_lossy(V1).replace("192.0.2.7", "192.0.2.9");
    let open = |header: &[u8]| Raw::announced(header, edge.address(), "iqueue.test");
    let (first, second) = (open(V1), open(other.as_bytes()));
    assert!(first.is_ok() && second.is_ok());
    assert!(open(V1).is_err());
    eventually("counted", || refused(&edge, "https", "address") == 1.0);
}

/// What a balancer may say of a client whose address is trusted: itself, or somebody in its network.
fn within_trusted() -> Vec<(Vec<u8>, &'static str)> {
    let mapped = |last: [u8; 4]| {
        let address = [&[0; 10][..], &[0xff, 0xff], &last].concat();
        v2(0x21, 0x21, &[&address[..], &[0; 16], &[1, 2, 3, 4]].concat())
    };
    let inet = [&[10, 1, 2, 3, 10, 0, 0, 1][..], &[1, 2, 3, 4]].concat();
    vec![
        (b"PROXY TCP4 10.1.2.3 10.0.0.1 51234 443\r\n".to_vec(), "10.1.2.3"),
        (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 51234 443\r\n".to_vec(), "10.1.2.3"),
        (b"PROXY TCP4 127.0.0.1 10.0.0.1 51234 443\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &inet), "10.1.2.3"),
        (mapped([10, 1, 2, 3]), "10.1.2.3"),
        (mapped([127, 0, 0, 1]), "127.0.0.1"),
        (UNKNOWN.to_vec(), "127.0.0.1"),
        (v2(0x20, 0, b""), "127.0.0.1"),
        (v2(0x21, 0, b""), "127.0.0.1"),
    ]
}

const WITHIN: &str = "127.0.0.1\", \"10.0.0.0/8";

#[test]
fn nobody_behind_a_balancer_is_believed_however_trusted_the_address() {
    let iqueue = origin("iqueue");
    let edge = behind(&iqueue, WITHIN, "");
    for (header, client) in within_trusted() {
        let told = String::from_utf8_lossy(&header).into_owned();
        let mut connection = Raw::announced(&header, edge.address(), "iqueue.test").unwrap();
        // By the fast path, and by the full one.
        for method in ["GET", "POST"] {
            let fields =
                "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-ID: mine\r\nContent-Length: 0\r\n";
            connection.send(format!("{method} / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n"));
            assert_eq!(connection.status(), 200, "{told}");
            let seen = iqueue.last();
            assert_eq!(seen.one("x-forwarded-for").unwrap(), client, "{told}");
            assert_eq!(seen.one("x-real-ip").unwrap(), client, "{told}");
            assert_ne!(seen.one("x-request-id").unwrap(), "mine", "{told}");
        }
    }
}

#[test]
fn everybody_behind_a_balancer_has_limits_however_trusted_the_address() {
    let iqueue = origin("iqueue");
    for (header, _) in within_trusted() {
        let told = String::from_utf8_lossy(&header).into_owned();
        let edge = behind(&iqueue, WITHIN, ", limits: {connections_per_address: 2, requests_per_second: 3}");
        let open = || Raw::announced(&header, edge.address(), "iqueue.test");
        let (mut first, second) = (open().unwrap(), open());
        assert!(second.is_ok() && open().is_err(), "{told}");
        let fields = |at: usize| format!("X-Forwarded-For: 203.0.113.{at}\r\n");
        let statuses: Vec<u16> = (0..30).map(|at| ask(&mut first, &fields(at))).collect();
        assert!(statuses.contains(&429), "{told}: {statuses:?}");
    }
}

#[test]
fn a_listener_that_nobody_may_speak_to_is_a_fault() {
    let iqueue = origin("iqueue");
    let (_folder, file) = edge().service("iqueue", &iqueue).listeners("proxy_protocol: true").write();
    let faults = sentry_edge::server::check(&file, &Default::default()).err().unwrap().to_string();
    assert!(faults.contains("server.listeners[0].proxy_protocol: no proxy is trusted to send it; name"), "{faults}");
}

#[test]
fn a_listener_that_does_not_speak_it_serves_as_ever() {
    let iqueue = origin("iqueue");
    let edge =
        edge().service_with("iqueue", &iqueue, "access: public").server("trusted_proxies: [\"127.0.0.1\"]").start();
    assert_eq!(ask(&mut raw(edge.address(), "iqueue.test"), "X-Forwarded-For: 192.0.2.7\r\n"), 200);
    assert_eq!(iqueue.last().one("x-real-ip").unwrap(), "192.0.2.7");
}
