//! Several requests on one connection, when it ends, and bodies that are asked for first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use hyper::Response as HttpResponse;

use crate::harness::{Edge, Origin, Raw, edge, origin, raw};

/// An application that says what it was asked, for anybody.
fn scene() -> (Edge, Origin) {
    let application = Origin::answering(|seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        HttpResponse::new(format!("{} {} {body}", seen.method, seen.target).into())
    });
    let edge = edge().service_with("iqueue", &application, "access: public").start();
    (edge, application)
}

fn connect(edge: &Edge) -> Raw {
    raw(edge.address(), "iqueue.test")
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\n\r\n")
}

#[test]
fn what_follows_a_body_is_the_next_request() {
    let (edge, _application) = scene();
    let mut connection = connect(&edge);
    let counted = "POST /counted HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /chunked HTTP/1.1\r\nHost: iqueue.test\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    connection.send([counted, &get("/one"), chunked, &get("/two")].concat());
    for expected in ["POST /counted hello", "GET /one ", "POST /chunked hello", "GET /two "] {
        assert_eq!(connection.answer().expect(expected).text(), expected);
    }
}

#[test]
fn a_reply_of_ours_keeps_the_connection_and_what_was_sent_behind_it() {
    let guarded = origin("iqueue");
    let routes = "routes: [{path: /open, access: public}]";
    let edge = edge().service_with("iqueue", &guarded, routes).start();
    let mut connection = connect(&edge);
    let navigation = "GET / HTTP/1.1\r\nHost: iqueue.test\r\nAccept: text/html\r\n\r\n";
    let form = "POST / HTTP/1.1\r\nHost: iqueue.test\r\nContent-Length: 5\r\n\r\nhello";
    connection.send([navigation, form, &get("/open")].concat());
    let statuses: Vec<u16> = (0..3).map(|_| connection.status()).collect();
    assert_eq!(statuses, [302, 401, 200]);
    assert_eq!(guarded.count(), 1);
}

#[test]
fn a_connection_ends_when_the_client_says_so() {
    let (edge, application) = scene();
    for last in [
        "GET /last HTTP/1.1\r\nHost: iqueue.test\r\nConnection: close\r\n\r\n",
        "GET /last HTTP/1.1\r\nHost: iqueue.test\r\nConnection: Keep-Alive, Close\r\n\r\n",
        "GET /last HTTP/1.0\r\nHost: iqueue.test\r\n\r\n",
    ] {
        let before = application.count();
        let mut connection = connect(&edge);
        connection.send([&get("/first"), last, &get("/never")].concat());
        assert_eq!(connection.answer().unwrap().text(), "GET /first ");
        let answer = connection.answer().unwrap();
        assert_eq!(answer.text(), "GET /last ", "{last}");
        assert_eq!(answer.header("connection"), Some("close"), "{last}");
        assert_eq!(connection.rest(), b"", "{last}");
        assert_eq!(application.count(), before + 2, "{last}");
    }
}

#[test]
fn an_old_client_that_wants_to_keep_its_connection_may() {
    let (edge, _application) = scene();
    let mut connection = connect(&edge);
    for _ in 0..2 {
        connection.send("GET /old HTTP/1.0\r\nHost: iqueue.test\r\nConnection: keep-alive\r\n\r\n");
        let answer = connection.answer().unwrap();
        assert_eq!(answer.text(), "GET /old ");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

/// An application that answers a head at once: `/refuse/STATUS` with that, anything else with `100`, and once five bytes
/// have come, with those.
fn picky() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || decide(socket.unwrap()));
        }
    });
    address
}

fn decide(mut socket: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    if let Some((_, rest)) = head.split_once("/refuse/") {
        let status = &rest[..3];
        return write!(socket, "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno").ok();
    }
    socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    let mut body = [0; 5];
    socket.read_exact(&mut body).ok()?;
    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", String::from_utf8_lossy(&body)).ok()
}

fn expecting(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: iqueue.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
}

#[test]
fn the_application_is_asked_for_a_body_and_its_answer_comes_before_the_body_is_sent() {
    let pool = format!("{{servers: [\"{}\"]}}", picky());
    let edge = edge().service_with("iqueue", &origin("spare"), "access: public").pool("iqueue", &pool).start();
    let mut connection = connect(&edge);
    connection.send(expecting("/take"));
    assert_eq!(connection.status(), 100);
    connection.send("hello");
    assert_eq!(connection.answer().unwrap().text(), "hello");
    for status in [401, 417] {
        let mut connection = connect(&edge);
        connection.send(expecting(&format!("/refuse/{status}")));
        assert_eq!(connection.status(), status);
        // Nobody could say whether what comes now is the body or the next request.
        connection.send(get("/refuse/200"));
        assert_eq!(connection.rest(), b"");
    }
}

#[test]
fn who_is_not_let_in_is_told_before_the_body_is_sent() {
    let guarded = origin("iqueue");
    let edge = edge().service("iqueue", &guarded).start();
    let mut connection = connect(&edge);
    connection.send(expecting("/"));
    assert_eq!(connection.status(), 401);
    assert_eq!(connection.rest(), b"");
    assert_eq!(guarded.count(), 0);
}
