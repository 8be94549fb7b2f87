//! Many at once who take their time, or who only take up room: each is ended in its time, and others notice nothing.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;

use crate::harness::frames::{DATA, Wire, frame};
use crate::harness::{Bystander, Connection, DEADLINE, Daemon, Origin, Raw, comes_to, edge, eventually, origin, raw};

/// Of each kind. The load test has thousands.
const EACH: usize = 40;

/// A public service, so that nobody has to sign in; and one with a response that no kernel keeps for a client.
fn services(iqueue: &Origin, large: &Origin) -> crate::harness::edge::Builder {
    edge().service_with("iqueue", iqueue, "access: public").service_with("dextor", large, "access: public")
}

fn large() -> Origin {
    Origin::answering(|_| hyper::Response::new(Full::new(Bytes::from(vec![b'x'; 10 << 20]))))
}

fn https_connections(daemon: &Daemon) -> f64 {
    daemon.metric("sentry_edge_connections", "listener=\"https\"")
}

fn limits_reached(daemon: &Daemon, limit: &str) -> f64 {
    daemon.metric("sentry_edge_limits_reached_total", &format!("limit=\"{limit}\""))
}

/// Many connections of one kind.
fn many<T>(open: impl Fn() -> T) -> Vec<T> {
    (0..EACH).map(|_| open()).collect()
}

#[test]
fn whoever_takes_too_long_is_ended_and_bystanders_are_served() {
    let (iqueue, large) = (origin("iqueue"), large());
    let settings = "limits: {header_timeout: 3s, min_body_rate: 100KiB, connections_per_address: 1000}, \
                    timeouts: {read: 3s, write: 3s, keepalive: 60s}";
    let daemon = services(&iqueue, &large).server(settings).run();
    let bystander = Bystander::of(daemon.address);
    let open = |begin: &str| {
        let mut slow = raw(daemon.address, "iqueue.test");
        slow.send(begin);
        slow
    };
    let get = "GET / HTTP/1.1\r\nHost: iqueue.test\r\n";
    // Heads, heads of a second request, and bodies, of which a byte comes now and then.
    let mut heads: Vec<Raw> = many(|| open(get));
    let mut later = many(|| {
        let mut slow = open(&format!("{get}\r\n"));
        assert_eq!(slow.status(), 200);
        slow.send(get);
        slow
    });
    let mut bodies = many(|| open("POST / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 1000000\r\n\r\n"));
    let mut streams = many(|| {
        let mut slow = Wire::open(daemon.address, "iqueue.test", &[]);
        assert!(slow.ask(1, 0, "POST", &[]));
        slow
    });
    // Readers who read nothing; connections that say nothing, with TLS and without.
    let _readers = many(|| {
        let mut slow = raw(daemon.address, "dextor.test");
        slow.send("GET / HTTP/1.1\r\nHost: dextor.test\r\n\r\n");
        slow
    });
    let _silent = many(|| Wire::silent(daemon.address, "iqueue.test"));
    let _mute = many(|| TcpStream::connect(daemon.address).unwrap());

    let stop = Instant::now() + DEADLINE;
    // What is left are the bystander, and HTTP/2 connections whose slow request was ended; they may ask again.
    while https_connections(&daemon) > 1.0 + EACH as f64 {
        assert!(Instant::now() < stop, "{} are left", https_connections(&daemon));
        for slow in heads.iter_mut().chain(&mut later) {
            slow.send("a");
        }
        for slow in &mut bodies {
            slow.send("x");
        }
        for slow in &mut streams {
            slow.send(frame(DATA, 0, 1, b"x"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for slow in heads.iter_mut().chain(&mut later).chain(&mut bodies) {
        assert_eq!(slow.status(), 408);
    }
    let is_over = |slow: &Wire| slow.heard().is_answered(1) || slow.heard().is_over(1);
    eventually("streams are ended as well", || streams.iter().all(is_over));
    bystander.was_served();
    comes_to("header_timeout", 2.0 * EACH as f64, || limits_reached(&daemon, "header_timeout"));
    // Where this loop is slow itself, a body may have stopped before it has dripped for long enough.
    assert!(limits_reached(&daemon, "body_rate") <= 2.0 * EACH as f64);
}

#[test]
fn connections_that_say_nothing_take_no_place_for_long() {
    let (iqueue, large) = (origin("iqueue"), large());
    let settings = "limits: {connections: 50, header_timeout: 2s}";
    let daemon = services(&iqueue, &large).server(settings).run();
    let bystander = Bystander::of(daemon.address);
    let idle: Vec<_> = (0..150).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let refused = || daemon.metric("sentry_edge_connections_refused_total", "listener=\"https\",reason=\"limit\"");
    eventually("the others are closed unserved", || refused() >= 100.0);
    assert!(https_connections(&daemon) <= 50.0);
    eventually("a new one is served", || {
        Connection::open(daemon.address, "iqueue.test").is_ok_and(|mut other| other.get("iqueue.test", "/").is_ok())
    });
    bystander.was_served();
    drop(idle);
}

#[test]
fn a_request_that_finds_no_descriptor_for_its_application_fails_alone() {
    let (iqueue, large) = (origin("iqueue"), large());
    let daemon = services(&iqueue, &large).run_with_descriptors(256);
    let mut kept = Connection::open(daemon.address, "iqueue.test").unwrap();
    assert_eq!(kept.get("iqueue.test", "/").unwrap().0, 200);
    let mut other = Connection::open(daemon.address, "dextor.test").unwrap();
    let crowd: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    eventually("there are none left", || daemon.process.stderr().contains("cannot accept"));
    assert_eq!(other.get("dextor.test", "/").unwrap().0, 503, "it would take another connection to the application");
    assert_eq!(kept.get("iqueue.test", "/").unwrap().0, 200, "there is one already");
    drop(crowd);
    eventually("all are served again", || {
        Connection::open(daemon.address, "dextor.test")
            .is_ok_and(|mut other| matches!(other.get("dextor.test", "/"), Ok((200, _))))
    });
    assert_eq!(kept.get("iqueue.test", "/").unwrap().0, 200);
}
