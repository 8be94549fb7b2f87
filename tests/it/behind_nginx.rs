//! Behind a real nginx with the usual configuration: who the client is, whatever it says of itself.

use crate::harness::raw::raw_plain_from;
use crate::harness::{Nginx, Origin, edge, origin, raw};

/// What most configurations of nginx have.
const USUAL: &str = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";

/// Where the client calls from: not the address of the proxy, which is trusted.
const CLIENT: [u8; 4] = [127, 0, 0, 9];

fn trusting(origin: &Origin, more: &str) -> crate::harness::Edge {
    edge()
        .service_with("iqueue", origin, "access: public")
        .server(&format!("trusted_proxies: [\"127.0.0.1/32\"]{more}"))
        .start()
}

/// GET goes through the fast path, POST through the full one.
fn requests(fields: &[u8]) -> [Vec<u8>; 2] {
    ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 0\r\n"]
        .map(|line| [line.as_bytes(), b"Host: iqueue.test\r\nConnection: close\r\n", fields, b"\r\n"].concat())
}

fn field(value: &[u8]) -> Vec<u8> {
    [b"X-Forwarded-For: ", value, b"\r\n"].concat()
}

/// Values of `X-Forwarded-For` that a client may send so that the whole cannot be read.
const SAID: [&[u8]; 12] = [
    b"\xe9",
    b"\xff\xfe, \x80",
    "é".as_bytes(),
    b"6.6.6.6, \xe9",
    b"\xe9, 6.6.6.6",
    b"6.6.6.6\xe9",
    b"unknown",
    b",",
    b"",
    b"6.6.6.6",
    b"127.0.0.1",
    b"\"6.6.6.6\"",
];

#[test]
fn a_client_is_its_address_whatever_bytes_it_sends() {
    let iqueue = origin("iqueue");
    let edge = trusting(&iqueue, "");
    let nginx = Nginx::before(edge.address(), USUAL);
    for said in SAID {
        for request in requests(&field(said)) {
            let told = String::from_utf8_lossy(&request).into_owned();
            assert_eq!(raw_plain_from(CLIENT, nginx.address).send(&request).status(), 200, "{told}");
            let seen = iqueue.last();
            assert_eq!(seen.one("x-real-ip").as_deref(), Some("127.0.0.9"), "{told}");
            let chain = seen.one("x-forwarded-for").unwrap();
            assert!(chain.ends_with("127.0.0.9, 127.0.0.1") && chain.is_ascii(), "{told}: {chain:?}");
        }
    }
    let lines = edge.access_log(2 * SAID.len());
    assert!(lines.iter().all(|line| line["client"] == "127.0.0.9"), "{lines:#?}");
}

#[test]
fn a_client_has_its_limit_whatever_bytes_it_sends() {
    let iqueue = origin("iqueue");
    for said in SAID {
        let edge = trusting(&iqueue, ", limits: {requests_per_second: 3}");
        let nginx = Nginx::before(edge.address(), USUAL);
        let [get, post] = requests(&field(said));
        let ask = |at: usize| raw_plain_from(CLIENT, nginx.address).send([&get, &post][at % 2]).status();
        let statuses: Vec<u16> = (0..30).map(ask).collect();
        assert!(statuses.contains(&429), "{:?}: {statuses:?}", String::from_utf8_lossy(said));
    }
}

/// A peer that is trusted, and names a client that cannot be made out.
#[test]
fn a_proxy_behind_which_no_client_can_be_made_out_counts_itself() {
    let iqueue = origin("iqueue");
    for (said, exempt) in [
        (field(b"\xe9"), false),
        (field(b"unknown"), false),
        (field(b"6.6.6.6, \xe9"), false),
        ([field(b"6.6.6.6"), field(b"\xe9")].concat(), false),
        (field(b""), false),
        // An address that is trusted, but a client's.
        (field(b"127.0.0.1"), false),
        // What the proxy asks itself, such as its health checks.
        (Vec::new(), true),
    ] {
        let edge = trusting(&iqueue, ", limits: {requests_per_second: 3}");
        let ask = |at: usize| raw(edge.address(), "iqueue.test").send(&requests(&said)[at % 2]).status();
        let statuses: Vec<u16> = (0..30).map(ask).collect();
        assert_eq!(!statuses.contains(&429), exempt, "{:?}: {statuses:?}", String::from_utf8_lossy(&said));
        assert_eq!(iqueue.last().one("x-real-ip").as_deref(), Some("127.0.0.1"));
    }
}

#[test]
fn a_request_id_that_cannot_be_read_or_stands_twice_is_replaced() {
    let iqueue = origin("iqueue");
    let edge = trusting(&iqueue, "");
    for fields in [&b"X-Request-ID: \xe9\r\n"[..], b"X-Request-ID: \r\n", b"X-Request-ID: a\r\nX-Request-ID: b\r\n"] {
        for request in requests(fields) {
            let told = String::from_utf8_lossy(&request).into_owned();
            let answer = raw(edge.address(), "iqueue.test").send(&request).answer().unwrap();
            assert_eq!(answer.status, 200, "{told}");
            let id = iqueue.last().one("x-request-id").unwrap();
            assert_eq!(id.len(), 36, "{told}: {id:?}");
            assert_eq!(answer.header("x-request-id"), Some(id.as_str()), "{told}");
        }
    }
}
