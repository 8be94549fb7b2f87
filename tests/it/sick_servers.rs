//! Servers that fail: dead, frozen, deaf or talking nonsense. Each is noticed and left out after a few requests, those after
//! them notice nothing, and it is back when it is well again. What clients get and the access log says meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::application::Application;
use crate::harness::edge::Builder;
use crate::harness::{Edge, Origin, Stop, comes_to, edge, eventually, eventually_or, free_address, origin};

/// One service for anybody with a pool of these servers and further keys.
fn builder(servers: &[SocketAddr], more: &str) -> Builder {
    let spare = origin("spare");
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let pool = format!("{{servers: [{}]{more}}}", servers.join(", "));
    edge().service_with("iqueue", &spare, "access: public").pool("iqueue", &pool)
}

fn of(edge: &Edge, metric: &str, server: SocketAddr, more: &str) -> f64 {
    edge.metric(&format!("sentry_edge_upstream_{metric}"), &format!("pool=\"iqueue\"{more},server=\"{server}\""))
}

fn attempts(edge: &Edge, server: SocketAddr) -> f64 {
    ["answered", "failed"]
        .iter()
        .map(|result| of(edge, "requests_total", server, &format!(",result=\"{result}\"")))
        .sum()
}

fn ejections(edge: &Edge, server: SocketAddr, reason: &str) -> f64 {
    let labels = format!("pool=\"iqueue\",reason=\"{reason}\",server=\"{server}\"");
    edge.metric("sentry_edge_upstream_ejections_total", &labels)
}

fn is_up(edge: &Edge, server: SocketAddr) -> bool {
    of(edge, "up", server, "") == 1.0
}

fn statuses(edge: &Edge, method: &'static str, requests: usize) -> Vec<u16> {
    let mut client = edge.client();
    (0..requests).map(|_| client.ask(method, &edge.url("iqueue", "/")).send().status).collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|other| **other == status).count()
}

/// A listener that takes no connection any more: its queue is full, and the kernel leaves the next one unanswered, as a
/// host does whose packets vanish.
fn deaf() -> (SocketAddr, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    for _ in 0..4 {
        let waiting = socket();
        waiting.set_nonblocking(true).unwrap();
        waiting.connect(&address).ok();
        held.push(waiting);
    }
    (address.as_socket().unwrap(), held)
}

#[test]
fn a_host_whose_packets_vanish_slows_two_requests_and_then_none() {
    for method in ["GET", "POST"] {
        let ((dead, _held), alive) = (deaf(), origin("alive"));
        let more = ", timeouts: {connect: 300ms}, eject: {for: 300ms, at_most: 600ms}";
        let edge = builder(&[dead, alive.address], more).start();
        assert!(is_up(&edge, dead) && is_up(&edge, alive.address), "until they have shown otherwise");
        assert_eq!(statuses(&edge, method, 20), [200; 20]);
        assert_eq!(attempts(&edge, dead), 2.0, "{method}: each of these has waited");
        assert_eq!((is_up(&edge, dead), ejections(&edge, dead, "connect")), (false, 1.0));
        // Longer than it is ejected: it is connected to again, and no request waits for that.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            assert_eq!(statuses(&edge, method, 5), [200; 5]);
        }
        assert_eq!(attempts(&edge, dead), 2.0, "{method}: and no other one");
        assert_eq!(ejections(&edge, dead, "connect"), 1.0);
        assert_eq!(edge.metric("sentry_edge_upstream_retries_total", "pool=\"iqueue\",result=\"answered\""), 2.0);
    }
}

#[test]
fn a_frozen_application_fails_three_requests_and_then_none_until_it_thaws() {
    let (frozen, alive) = (Application::start(), Application::start());
    let more = ", timeouts: {read: 2s}, eject: {for: 300ms, at_most: 600ms}";
    let edge = builder(&[frozen.address, alive.address], more).start();
    assert_eq!(statuses(&edge, "GET", 6), [200; 6]);
    frozen.freeze();
    let failures = statuses(&edge, "GET", 20);
    assert_eq!((count(&failures, 504), count(&failures, 200)), (3, 17), "{failures:?}");
    assert_eq!((is_up(&edge, frozen.address), ejections(&edge, frozen.address, "timeout")), (false, 1.0));
    let before = attempts(&edge, frozen.address);
    eventually("a request has tried it again", || {
        assert_eq!(statuses(&edge, "GET", 5), [200; 5], "and was answered by the other one");
        attempts(&edge, frozen.address) > before
    });
    assert!(!is_up(&edge, frozen.address));
    frozen.thaw();
    eventually("it is back", || {
        assert_eq!(statuses(&edge, "GET", 4), [200; 4]);
        is_up(&edge, frozen.address)
    });
    let before = attempts(&edge, frozen.address);
    assert_eq!(statuses(&edge, "GET", 10), [200; 10]);
    eventually("it has its turns", || attempts(&edge, frozen.address) >= before + 5.0);
}

/// One client, so that each server has one connection, and that is kept. What has a new connection when its server dies is
/// not sent again: it may be what the server died of.
#[test]
fn kill_9_of_one_of_three_fails_no_get_on_a_kept_connection() {
    let mut applications = [Application::start(), Application::start(), Application::start()];
    let addresses = applications.each_ref().map(|application| application.address);
    let edge = builder(&addresses, ", eject: {for: 300ms, at_most: 600ms}").start();
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = std::thread::scope(|scope| {
        let stop = Stop(&done);
        let client = scope.spawn(|| {
            let mut failed = Vec::new();
            let mut client = edge.client();
            while !done.load(Ordering::Relaxed) {
                match client.get(&edge.url("iqueue", "/")).status {
                    200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                    status => failed.push(status),
                }
            }
            failed
        });
        eventually("it is served", || served.load(Ordering::Relaxed) > 100);
        applications[1].kill();
        eventually("the server is out", || !is_up(&edge, addresses[1]));
        let before = served.load(Ordering::Relaxed);
        eventually("it is served", || served.load(Ordering::Relaxed) > before + 100);
        applications[1].restart();
        eventually("the server is back", || is_up(&edge, addresses[1]));
        drop(stop);
        client.join().unwrap()
    });
    assert_eq!(failed, [0; 0]);
    assert_eq!(ejections(&edge, addresses[1], "connect") + ejections(&edge, addresses[1], "closed"), 1.0);
}

#[test]
fn where_every_server_is_dead_a_request_has_one_attempt_and_the_first_to_return_is_noticed() {
    for servers in 1..=4 {
        let dead: Vec<SocketAddr> = (0..servers).map(|_| free_address()).collect();
        let edge = builder(&dead, ", eject: {for: 20s}").start();
        let all_attempts = || dead.iter().map(|server| attempts(&edge, *server)).sum::<f64>();
        let mut client = edge.client();
        eventually("all are out", || {
            client.get(&edge.url("iqueue", "/"));
            dead.iter().all(|server| !is_up(&edge, *server))
        });
        let before = all_attempts();
        for method in ["GET", "POST", "GET", "HEAD"] {
            let response = client.ask(method, &edge.url("iqueue", "/")).send();
            assert_eq!((response.status, response.header("retry-after")), (503, Some("10")), "{method}");
        }
        comes_to(&format!("{servers} servers: one attempt each"), before + 4.0, all_attempts);
        let all: f64 = dead.iter().map(|server| ejections(&edge, *server, "connect")).sum();
        let most = [0.0, 1.0, 1.0, 2.0][servers - 1];
        assert_eq!(all, most, "{servers} servers: no more than half, and never the last one");
        let back = TcpListener::bind(dead[0]).unwrap();
        std::thread::spawn(move || serve(&back, &|socket| socket.write_all(FINE).unwrap()));
        eventually("the one that is back is found", || client.get(&edge.url("iqueue", "/")).status == 200);
        assert_eq!(statuses(&edge, "GET", 10), [200; 10], "and then all requests go there");
    }
}

#[test]
fn an_ejection_is_kept_over_a_reload_and_the_series_of_what_was_removed_go() {
    let (dead, alive) = (free_address(), origin("alive"));
    let mut edge =
        builder(&[dead, alive.address], ", eject: {for: 60s, at_most: 60s}").service("dextor", &alive).start();
    assert_eq!(statuses(&edge, "GET", 6), [200; 6]);
    assert_eq!((attempts(&edge, dead), is_up(&edge, dead)), (2.0, false));
    edge.reload_with(|yaml| yaml.replace("for: 60s", "for: 59s"));
    assert_eq!(statuses(&edge, "GET", 6), [200; 6]);
    assert_eq!((attempts(&edge, dead), is_up(&edge, dead)), (2.0, false));
    let series = |what: &str| edge.admin("/metrics").body.lines().filter(|line| line.contains(what)).count();
    let dead_label = format!("server=\"{dead}\"");
    assert!(series(&dead_label) > 10 && series("service=\"dextor\"") > 5 && series("pool=\"dextor\"") > 10);
    edge.reload_with(|yaml| {
        let lines = yaml.lines().filter(|line| !line.trim_start().starts_with("dextor:"));
        lines.collect::<Vec<_>>().join("\n").replace(&format!("\"{dead}\", "), "")
    });
    let series = |what: &str| edge.admin("/metrics").body.lines().filter(|line| line.contains(what)).count();
    assert_eq!([series(&dead_label), series("service=\"dextor\""), series("pool=\"dextor\"")], [0; 3]);
    assert!(series("pool=\"iqueue\"") > 10 && series("service=\"iqueue\"") > 5);
    assert_eq!(statuses(&edge, "GET", 3), [200; 3]);
}

#[test]
fn an_ejection_and_a_return_are_one_line_each_for_operators() {
    let (mut application, alive) = (Application::start(), origin("alive"));
    let address = application.address;
    let daemon = builder(&[address, alive.address], ", eject: {for: 300ms, at_most: 600ms}").run();
    let mut client = daemon.client();
    let mut get = || client.get(&daemon.url("iqueue", "/")).status;
    let lines = |what: &str| {
        let what = format!("upstream: server {what} pool=iqueue server={address} address={address} reason=");
        let text = daemon.process.stderr();
        text.lines().filter(|line| line.contains(&what)).map(str::to_owned).collect::<Vec<_>>()
    };
    application.kill();
    for _ in 0..30 {
        assert_eq!(get(), 200);
    }
    eventually_or(|| lines("ejected").len() == 1, || daemon.process.stderr());
    assert!(lines("ejected")[0].contains("reason=connect"), "{:?}", lines("ejected"));
    assert_eq!(lines("is back").len(), 0);
    application.restart();
    eventually_or(|| get() == 200 && lines("is back").len() == 1, || daemon.process.stderr());
    assert_eq!(lines("ejected").len(), 1);
}

#[test]
fn without_ejection_a_dead_server_has_its_turns() {
    let (dead, alive) = (free_address(), origin("alive"));
    let edge = builder(&[dead, alive.address], ", eject: false, retry: {budget_percent: 100}").start();
    assert_eq!(statuses(&edge, "GET", 20), [200; 20]);
    assert_eq!((attempts(&edge, dead), is_up(&edge, dead)), (10.0, true));
}

#[test]
fn statuses_eject_only_where_they_are_written() {
    for (more, ejected) in
        [("", false), (", eject: {statuses: [500, 503]}", true), (", eject: {statuses: [503]}", false)]
    {
        let (ill, alive) = (failing_application(), origin("alive"));
        let edge = builder(&[ill.address, alive.address], more).start();
        let seen = statuses(&edge, "GET", 20);
        assert_eq!(count(&seen, 500), if ejected { 3 } else { 10 }, "{more}: {seen:?}");
        assert_eq!((!is_up(&edge, ill.address), ejections(&edge, ill.address, "status") == 1.0), (ejected, ejected));
        let labels = format!("class=\"5xx\",pool=\"iqueue\",server=\"{}\"", ill.address);
        assert_eq!(edge.metric("sentry_edge_upstream_responses_total", &labels), if ejected { 3.0 } else { 10.0 });
    }
}

/// Answers everything with a failure of its own.
fn failing_application() -> Origin {
    Origin::answering(|_| hyper::Response::builder().status(500).body("broken".into()).unwrap())
}

const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Calls `answer` with each connection, once a request's head has come; again and again as long as the client sends.
fn serve(listener: &TcpListener, answer: &(dyn Fn(&mut TcpStream) + Sync)) {
    std::thread::scope(|scope| {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            scope.spawn(move || {
                let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = socket.read(&mut chunk) {
                    request.extend_from_slice(&chunk[..read]);
                    if request.windows(4).any(|window| window == b"\r\n\r\n") {
                        request.clear();
                        answer(&mut socket);
                    }
                }
            });
        }
    });
}

/// What a server does with a request, and what comes of it: status, `error` in the access log, reason of its ejection.
struct Case {
    what: &'static str,
    answer: fn(&mut TcpStream),
    expected: (u16, Option<&'static str>, Option<&'static str>),
}

fn say(socket: &mut TcpStream, bytes: &[u8]) {
    // The edge may have closed it already.
    socket.write_all(bytes).ok();
}

fn close(socket: &mut TcpStream) {
    socket.shutdown(std::net::Shutdown::Both).ok();
}

fn reset(socket: &mut TcpStream) {
    let linger = socket2::SockRef::from(&*socket);
    linger.set_linger(Some(Duration::ZERO)).unwrap();
    // A descriptor of its own stays open in the thread that reads, which ends with the next read.
    close(socket);
}

const FAILED: Option<&str> = Some("upstream_failed");
const CLOSED: Option<&str> = Some("closed");
const MALFORMED: Option<&str> = Some("malformed");
const TIMEOUT: Option<&str> = Some("timeout");

const CASES: &[Case] = &[
    Case { what: "a response", answer: |socket| say(socket, FINE), expected: (200, None, None) },
    Case { what: "closes", answer: close, expected: (502, FAILED, CLOSED) },
    Case { what: "resets", answer: reset, expected: (502, FAILED, CLOSED) },
    Case {
        what: "half a head, and closes",
        answer: |socket| {
            say(socket, b"HTTP/1.1 200 OK\r\nContent-Len");
            close(socket);
        },
        expected: (502, FAILED, CLOSED),
    },
    Case {
        what: "half a head, and silence",
        answer: |socket| say(socket, b"HTTP/1.1 200 OK\r\nContent-Len"),
        expected: (504, Some("upstream_timeout"), TIMEOUT),
    },
    Case { what: "silence", answer: |_| {}, expected: (504, Some("upstream_timeout"), TIMEOUT) },
    Case { what: "garbage", answer: |socket| say(socket, b"nonsense\r\n\r\n"), expected: (502, FAILED, MALFORMED) },
    Case {
        what: "bytes of another protocol",
        answer: |socket| say(socket, &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x16, b'\r', b'\n', b'\r', b'\n']),
        expected: (502, FAILED, MALFORMED),
    },
    Case {
        what: "lengths that disagree",
        answer: |socket| say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        expected: (502, FAILED, MALFORMED),
    },
    Case {
        what: "an upgrade that was not requested",
        answer: |socket| say(socket, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        expected: (502, FAILED, MALFORMED),
    },
    Case {
        what: "a head that is too large",
        answer: |socket| {
            say(socket, b"HTTP/1.1 200 OK\r\nX-Large: ");
            (0..2048).for_each(|_| say(socket, &[b'x'; 1024]));
        },
        expected: (502, FAILED, MALFORMED),
    },
    Case {
        what: "a flood of interim responses",
        answer: |socket| (0..100).for_each(|_| say(socket, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
        expected: (502, FAILED, MALFORMED),
    },
    Case {
        what: "some interim responses",
        answer: |socket| {
            (0..9).for_each(|_| say(socket, b"HTTP/1.1 103 Early Hints\r\n\r\n"));
            say(socket, FINE);
        },
        expected: (200, None, None),
    },
    Case {
        what: "a body that ends early",
        answer: |socket| {
            say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            close(socket);
        },
        expected: (200, FAILED, CLOSED),
    },
    Case {
        what: "chunks that end early",
        answer: |socket| {
            say(socket, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
            close(socket);
        },
        expected: (200, FAILED, CLOSED),
    },
    Case {
        what: "a body that stops",
        answer: |socket| say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        expected: (200, Some("upstream_timeout"), TIMEOUT),
    },
    Case {
        what: "bytes behind the body",
        answer: |socket| say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more"),
        expected: (200, None, None),
    },
    Case {
        what: "a response that drips",
        answer: |socket| {
            for byte in FINE {
                say(socket, &[*byte]);
                std::thread::sleep(Duration::from_millis(5));
            }
        },
        expected: (200, None, None),
    },
];

#[test]
fn each_failure_has_its_status_its_error_in_the_log_and_its_reason() {
    std::thread::scope(|scope| {
        for Case { what, answer, expected } in CASES {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || serve(&listener, answer));
            scope.spawn(move || check_case(what, &[address], *expected));
        }
        let nobody = free_address();
        let refused = (503, Some("no_server"), Some("connect"));
        scope.spawn(move || check_case("a refused connection", &[nobody], refused));
        scope.spawn(move || {
            let (address, _held) = deaf();
            check_case("a connection that is not answered", &[address], refused);
        });
        scope.spawn(|| check_case("no server", &[], (503, Some("no_server"), None)));
    });
}

/// The server is ejected with its first failure, as there is another one, which never has its turn.
fn check_case(what: &str, servers: &[SocketAddr], expected: (u16, Option<&str>, Option<&str>)) {
    let alive = origin("alive");
    let pool = match servers.first() {
        Some(server) => format!("[{{address: \"{server}\", weight: 256}}, \"{}\"]", alive.address),
        None => "[\"absent.invalid:80\"]".into(),
    };
    let (status, error, reason) = expected;
    // Short for what does not come at all, and long enough for everything else on a busy machine.
    let connect = if reason == Some("connect") { "500ms" } else { "20s" };
    let read = if reason == TIMEOUT { "500ms" } else { "20s" };
    let timeouts = format!("timeouts: {{connect: {connect}, read: {read}}}");
    let pool = format!("{{servers: {pool}, {timeouts}, eject: {{failures: 1}}, retry: {{attempts: 0}}}}");
    let spare = origin("spare");
    let edge = edge()
        .service_with("iqueue", &spare, "access: public")
        .pool("iqueue", &pool)
        .lookup(|_| Err(std::io::Error::other("no such name")))
        .start();
    let mut client = crate::harness::raw(edge.address(), "iqueue.test");
    client.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n");
    let received = String::from_utf8_lossy(&client.rest()).into_owned();
    let received: Vec<&str> = received.split("HTTP/1.1 ").filter(|head| !head.starts_with("103")).collect();
    assert_eq!(
        received.get(1).and_then(|head| head.get(..3)),
        Some(status.to_string().as_str()),
        "{what}: {received:?}"
    );
    let line = edge.access_log(1).pop().unwrap();
    assert_eq!((line["status"].as_u64(), line["error"].as_str()), (Some(u64::from(status)), error), "{what}: {line}");
    let Some(server) = servers.first() else { return };
    let reasons = ["connect", "tls", "timeout", "closed", "malformed", "status"];
    let ejected = || reasons.into_iter().filter(|reason| ejections(&edge, *server, reason) == 1.0).collect::<Vec<_>>();
    let expected: Vec<&str> = reason.into_iter().collect();
    eventually_or(|| ejected() == expected, || format!("{what}: {:?}", ejected()));
    assert_eq!(is_up(&edge, *server), reason.is_none(), "{what}");
    assert_eq!(alive.count(), 0, "{what}: and no request was sent again");
}

/// A server that answers each request by its number, from 0.
fn by_number(answer: impl Fn(usize, &mut TcpStream) + Sync + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let number = AtomicUsize::new(0);
    std::thread::spawn(move || {
        serve(&listener, &|socket| answer(number.fetch_add(1, Ordering::SeqCst), socket));
    });
    address
}

/// A pool in which this server gets nearly all first attempts, and another one is well.
fn mostly(server: SocketAddr, alive: &Origin, more: &str) -> Edge {
    let pool = format!("{{servers: [{{address: \"{server}\", weight: 256}}, \"{}\"]{more}}}", alive.address);
    edge().service_with("iqueue", alive, "access: public").pool("iqueue", &pool).start()
}

fn all_ejections(edge: &Edge, server: SocketAddr) -> f64 {
    ["connect", "tls", "timeout", "closed", "malformed", "status"].iter().map(|why| ejections(edge, server, why)).sum()
}

#[test]
fn a_stream_that_is_silent_for_too_long_says_nothing_of_its_server() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (what, fields, answer) in [
        (
            "a WebSocket",
            upgrade,
            &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"[..],
        ),
        ("events", "", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"),
        (
            "events in chunks",
            "",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n:\r\n",
        ),
        ("a body of unknown length", "", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ] {
        let (server, alive) = (by_number(|_, socket| say(socket, answer)), origin("alive"));
        let edge = mostly(server, &alive, ", timeouts: {read: 2s}, eject: {failures: 1, for: 60s}");
        let mut client = crate::harness::raw(edge.address(), "iqueue.test");
        client.send(format!("GET / HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n"));
        let line = edge.access_log(1).pop().unwrap();
        assert_eq!(line["error"].as_str(), Some("upstream_timeout"), "{what}: {line}");
        assert_eq!((all_ejections(&edge, server), is_up(&edge, server)), (0.0, true), "{what}");
        if fields.is_empty() {
            let request = [(":method", "GET"), (":scheme", "https"), (":authority", "iqueue.test"), (":path", "/")];
            let mut client = crate::harness::Raw::http2(edge.address(), "iqueue.test");
            client.http2_request(&request);
            let line = edge.access_log(2).pop().unwrap();
            assert_eq!(line["error"].as_str(), Some("upstream_timeout"), "{what}: {line}");
            assert_eq!((all_ejections(&edge, server), is_up(&edge, server)), (0.0, true), "{what} over HTTP/2");
        }
    }
}

#[test]
fn a_response_to_a_request_from_before_the_ejection_does_not_end_it() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let arrived = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&arrived);
    let server = by_number(move |number, socket| {
        counted.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            released.lock().unwrap().recv().unwrap();
            say(socket, FINE);
        } else {
            close(socket);
        }
    });
    let alive = origin("alive");
    let edge = mostly(server, &alive, ", eject: {failures: 1, for: 60s, at_most: 60s}, retry: {attempts: 0}");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| statuses(&edge, "GET", 1));
        eventually("it is under way", || arrived.load(Ordering::SeqCst) == 1);
        assert_eq!(statuses(&edge, "GET", 1), [502]);
        assert_eq!((ejections(&edge, server, "closed"), is_up(&edge, server)), (1.0, false));
        release.send(()).unwrap();
        assert_eq!(slow.join().unwrap(), [200]);
    });
    assert!(!is_up(&edge, server), "it is still ejected");
    assert_eq!(statuses(&edge, "GET", 6), [200; 6]);
    assert_eq!(arrived.load(Ordering::SeqCst), 2, "and gets no request");
}

#[test]
fn a_retry_whose_connection_fails_has_failed() {
    let (dead, more) = ([free_address(), free_address()], ", eject: false, retry: {attempts: 1}");
    let edge = builder(&dead, more).start();
    let retries = |result: &str| {
        edge.metric("sentry_edge_upstream_retries_total", &format!("pool=\"iqueue\",result=\"{result}\""))
    };
    for (number, method) in ["GET", "POST"].into_iter().enumerate() {
        assert_eq!(statuses(&edge, method, 1), [503]);
        assert_eq!([retries("answered"), retries("failed")], [0.0, (number + 1) as f64], "{method}");
    }
    // One of them, and a server that breaks off what it has begun: the retry was answered, and counts once.
    let breaking = by_number(|_, socket| {
        say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        close(socket);
    });
    let edge = builder(&[dead[0], breaking], more).start();
    let mut client = crate::harness::raw(edge.address(), "iqueue.test");
    client.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n");
    assert!(String::from_utf8_lossy(&client.rest()).ends_with("hello"));
    edge.access_log(1);
    let retries = |result: &str| {
        edge.metric("sentry_edge_upstream_retries_total", &format!("pool=\"iqueue\",result=\"{result}\""))
    };
    assert_eq!([retries("answered"), retries("failed")], [1.0, 0.0]);
}

#[test]
fn a_client_that_leaves_in_the_midst_of_a_body_does_not_make_good_those_that_broke_off() {
    let server = by_number(|number, socket| {
        say(socket, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        if number != 1 {
            close(socket);
        }
    });
    let alive = origin("alive");
    let edge = mostly(server, &alive, ", eject: {failures: 2, for: 60s}, retry: {attempts: 0}");
    for number in 0..3 {
        let mut client = crate::harness::raw(edge.address(), "iqueue.test");
        client.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
        client.hear("hello");
        drop(client);
        let line = edge.access_log(number + 1).pop().unwrap();
        let expected = if number == 1 { "client_gone" } else { "upstream_failed" };
        assert_eq!(line["error"].as_str(), Some(expected), "{number}: {line}");
    }
    assert_eq!((ejections(&edge, server, "closed"), is_up(&edge, server)), (1.0, false));
}
