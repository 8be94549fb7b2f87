//! The fast path to an application and the full one: a client and an application cannot tell which of them a request
//! took. Where both are compared, each has an edge of its own, whatever the rest of the run does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sentry_edge::server::FastPathMode;

use crate::harness::edge::Builder;
use crate::harness::origin::Seen;
use crate::harness::raw::{Answer, Raw};
use crate::harness::{Edge, Origin, edge, eventually, origin, raw};

pub const PATHS: [FastPathMode; 2] = [FastPathMode::On, FastPathMode::Off];

/// An application that says these bytes, as they are, in answer to any request.
pub struct Saying {
    pub address: SocketAddr,
    /// Connections that were made to it.
    connections: Arc<AtomicUsize>,
}

pub fn saying(bytes: &'static [u8]) -> Saying {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                let (mut asked, mut chunk) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = socket.read(&mut chunk) {
                    asked.extend_from_slice(&chunk[..read]);
                    if asked.ends_with(b"\r\n\r\n") {
                        asked.clear();
                        socket.write_all(bytes).unwrap();
                        if bytes.starts_with(b"HTTP/1.0") {
                            return;
                        }
                    }
                }
            });
        }
    });
    Saying { address, connections }
}

/// An application whose answer ends half-way, with its connection.
pub fn breaking_off() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
        }
    });
    address
}

/// One service for anybody, iqueue, with this application.
pub fn builder_before(application: SocketAddr) -> Builder {
    let spare = origin("spare");
    let pool = format!("{{servers: [\"{application}\"], timeouts: {{read: 2s}}}}");
    edge().service_with("iqueue", &spare, "access: public").pool("iqueue", &pool)
}

pub fn edge_before(application: SocketAddr) -> Edge {
    builder_before(application).start()
}

fn ask(connection: &mut Raw, method: &str, path: &str, fields: &str) -> Answer {
    connection.send(format!("{method} {path} HTTP/1.1\r\nHost: iqueue.test\r\n{fields}\r\n")).answer().unwrap()
}

/// All but what differs from one request to the next.
pub fn fields(seen: &Seen) -> Vec<(String, String)> {
    let fields = seen.headers.iter().filter(|(name, _)| *name != "x-request-id");
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    fields.sort();
    fields
}

/// What applications may say, and what is no answer.
pub const SAID: [&[u8]; 18] = [
    b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-From-Origin: 1\r\nX-From-Origin: 2\r\nDate: then\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: __Host-JWTCookie=x\r\nSet-Cookie: a=1\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVary: a\r\n b\r\n\r\nhello",
    // None of these is an answer.
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

#[test]
fn an_application_receives_the_same_either_way() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public");
    let sent = "Cookie: a=1\r\nCOOKIE: b=2\r\nX-Forwarded-For: 6.6.6.6\r\nX_Odd: 1\r\nX-Sentry-User: eve\r\nAccept: */*\r\n\
                X-Two: 1\r\nX-Two: 2\r\nAuthorization: Basic eDp5\r\nX-Empty:\r\n";
    let mut heard = Vec::new();
    for path in PATHS {
        let edge = edge.clone().fast_path(path).start();
        let mut connection = raw(edge.address(), "iqueue.test");
        // Fields that belong to the connection go no further.
        for more in ["", "Connection: keep-alive\r\n", "Connection: x-unheard\r\n", "Keep-Alive: 5\r\n"] {
            let answer = ask(&mut connection, "GET", "/a/b?c=%64&e", &format!("{sent}{more}"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello from iqueue"));
            let seen = iqueue.last();
            heard.push((seen.method.clone(), seen.target.clone(), fields(&seen)));
        }
    }
    assert!(heard.iter().all(|one| *one == heard[0]), "{heard:#?}");
    assert!(heard[0].2.iter().any(|(name, value)| name == "x-forwarded-for" && value == "127.0.0.1"), "{heard:#?}");
}

#[test]
fn a_client_hears_the_same_either_way_whatever_the_application_says() {
    for said in SAID {
        let text = said.escape_ascii().to_string();
        let application = saying(said);
        let builder = builder_before(application.address);
        let heard = PATHS.map(|path| {
            let edge = builder.clone().fast_path(path).start();
            let mut connection = raw(edge.address(), "iqueue.test");
            let mut answer = ask(&mut connection, "GET", "/", "");
            if answer.status == 103 {
                answer = connection.answer().unwrap();
            }
            let differs = ["date:", "x-request-id:", "{\"error"];
            let lower = answer.head.to_ascii_lowercase();
            let mut head: Vec<String> = lower
                .lines()
                .filter(|line| !differs.iter().any(|name| line.starts_with(name)))
                .map(Into::into)
                .collect();
            // What it is spoken in is each speaker's own.
            head[0] = head[0].replace("http/1.0", "http/1.1");
            head.sort();
            // Said twice, `chunked` says no more.
            head.dedup();
            assert!(answer.header("date").is_some(), "{text}: {path:?} {}", answer.head);
            let body = if answer.status == 502 { String::new() } else { answer.text() };
            (answer.status, head, body)
        });
        assert_eq!(heard[0], heard[1], "{text}");
    }
}

#[test]
fn a_body_ends_where_its_length_says_and_what_comes_behind_it_reaches_nobody() {
    let application =
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    let edge = edge_before(application.address);
    let mut connection = raw(edge.address(), "iqueue.test");
    for times in 1..4 {
        let answer = ask(&mut connection, "GET", "/", "");
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(application.connections.load(Ordering::Relaxed), times, "it is not used again");
    }
    assert!(!connection.has_ended(Duration::from_millis(50)), "nothing follows, and the connection is kept");
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let edge = edge_before(breaking_off());
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    let heard = String::from_utf8(connection.rest()).unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("\r\n\r\nhello"), "{heard}");
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["bytes"], &line["error"]), (&200.into(), &5.into(), &"upstream_failed".into()));
}

#[test]
fn the_log_has_the_bytes_of_every_body_ours_too() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut connection = raw(edge.address(), "iqueue.test");
    let refused = ask(&mut connection, "GET", "/", "Accept: application/json\r\n");
    assert_eq!(refused.status, 401);
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["bytes"]), (&401.into(), &refused.body.len().into()));
}

#[test]
fn more_fields_than_are_allowed_are_refused_those_of_the_connection_too() {
    let iqueue = origin("iqueue");
    let edge = edge().service_with("iqueue", &iqueue, "access: public").server("limits: {header_count: 5}").start();
    let status = |fields: &str| ask(&mut raw(edge.address(), "iqueue.test"), "GET", "/", fields).status;
    assert_eq!(status(&"Connection: close\r\n".repeat(3)), 200);
    assert_eq!(status(&"Connection: close\r\n".repeat(5)), 431);
    assert_eq!(iqueue.count(), 1);
}

#[test]
fn a_client_that_leaves_while_the_application_thinks_is_noticed() {
    let held = Origin::held();
    let edge = edge().service_with("iqueue", &held, "access: public").start();
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    eventually("the application has it", || held.count() == 1);
    drop(connection);
    let line = edge.access_log(1).remove(0);
    assert_eq!((&line["status"], &line["error"]), (&499.into(), &"client_gone".into()));
}
