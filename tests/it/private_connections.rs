//! Applications that authenticate connections and not requests (NTLM, Negotiate): whoever signed in on an upstream
//! connection is alone on it, on both request paths and over HTTP/1.1 and HTTP/2.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::client::connect;
use crate::harness::edge::PASSWORD;
use crate::harness::raw::Raw;
use crate::harness::recorder::field;
use crate::harness::{Edge, edge, origin, raw, runtime};

/// What an application of this kind knows of one connection.
#[derive(Default)]
struct State {
    user: Option<String>,
    /// The first step of NTLM was done.
    begun: bool,
}

/// How it asks who is there.
#[derive(Clone, Copy)]
struct Asks {
    status: &'static str,
    /// Whole lines.
    fields: &'static str,
}

const NTLM: Asks = Asks { status: "401 Unauthorized", fields: "WWW-Authenticate: NTLM\r\n" };
/// Never: whoever comes with credentials is taken for who they are, and everybody else for a guest.
const NEVER: Asks = Asks { status: "200 OK", fields: "" };

/// An application over HTTP/1.1. Its answers are `CONNECTION USER`, with the number of the connection.
fn application(asks: Asks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            // The edge may close while it is being answered.
            std::thread::spawn(move || serve(&socket.unwrap(), number, asks).ok());
        }
    });
    address
}

fn serve(mut socket: &TcpStream, number: usize, asks: Asks) -> std::io::Result<()> {
    let mut state = State::default();
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = field(&head, "content-length").unwrap_or("0").parse().unwrap();
        socket.read_exact(&mut vec![0; length])?;
        let credentials = field(&head, "authorization").unwrap_or_default();
        let (status, fields) = judge(&mut state, credentials, asks);
        let body = format!("{number} {}", state.user.as_deref().unwrap_or("nobody"));
        write!(socket, "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())?;
    }
}

/// `NTLM 1` begins, and `NTLM USER` ends where it was begun; `Negotiate USER` is one step.
fn judge(state: &mut State, credentials: &str, asks: Asks) -> (&'static str, &'static str) {
    match credentials.split_once(' ') {
        Some((scheme, "1")) if scheme.eq_ignore_ascii_case("ntlm") => {
            state.begun = true;
            return ("401 Unauthorized", "WWW-Authenticate: NTLM TlRMTVNTUAAC\r\n");
        }
        Some((scheme, user)) if scheme.eq_ignore_ascii_case("ntlm") && state.begun => state.user = Some(user.into()),
        Some((scheme, user)) if scheme.eq_ignore_ascii_case("negotiate") => state.user = Some(user.into()),
        _ => {}
    }
    if state.user.is_some() { ("200 OK", "") } else { (asks.status, asks.fields) }
}

/// An edge with one public service.
fn edge_before(servers: &[SocketAddr], pool: &str, more: &str) -> Edge {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let pool = format!("{{servers: [{}]{pool}}}", servers.join(", "));
    let spare = origin("spare");
    edge().service_with("iqueue", &spare, "access: public").pool("iqueue", &pool).server(more).start()
}

/// The fast path takes requests without a body, and the full path all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Fast,
    Full,
}

const PATHS: [Path; 2] = [Path::Fast, Path::Full];

/// A client's connection, over either protocol.
enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    fn open(edge: &Edge, http2: bool) -> Self {
        runtime().block_on(async {
            let alpn: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
            let io = TokioIo::new(connect(edge.address(), "iqueue.test", &[alpn]).await.unwrap());
            if http2 {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                return Self::Http2(sender);
            }
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        })
    }

    /// Status and body.
    fn ask(&mut self, path: Path, fields: &[(&str, &str)]) -> (u16, String) {
        let body = if path == Path::Full { "abc" } else { "" };
        let method = if path == Path::Full { "POST" } else { "GET" };
        let target = if matches!(self, Self::Http1(_)) { "/" } else { "https://iqueue.test/" };
        let mut request = Request::builder().method(method).uri(target).header("user-agent", "test/1");
        if matches!(self, Self::Http1(_)) {
            request = request.header("host", "iqueue.test");
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        runtime().block_on(async {
            let response = match self {
                Self::Http1(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await.unwrap()
                }
                Self::Http2(sender) => sender.send_request(request).await.unwrap(),
            };
            let status = response.status().as_u16();
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        })
    }
}

/// The number of the connection in an answer, and the user.
fn parts(answer: &(u16, String)) -> (usize, String) {
    let (number, user) = answer.1.split_once(' ').unwrap_or_else(|| panic!("{answer:?}"));
    (number.parse().unwrap(), user.to_owned())
}

/// Ben, on each path and with each protocol, is never who was there before and never on one of these connections.
fn ben_is_nobody(edge: &Edge, used: &[usize], what: &str) {
    for http2 in [false, true] {
        let mut ben = Client::open(edge, http2);
        for path in [Path::Fast, Path::Full, Path::Fast, Path::Full] {
            let (number, user) = parts(&ben.ask(path, &[]));
            assert_eq!(user, "nobody", "{what}: ben over {path:?}, HTTP/2: {http2}");
            assert!(
                !used.contains(&number),
                "{what}: ben over {path:?}, HTTP/2: {http2}, has connection {number} of {used:?}"
            );
        }
    }
}

#[test]
fn whoever_an_application_authenticates_on_a_connection_is_alone_on_it() {
    for credentials in ["Negotiate ana", "negotiate ana", "NEGOTIATE ana"] {
        for (path, http2) in PATHS.into_iter().flat_map(|path| [(path, false), (path, true)]) {
            // It never asks: all that the edge has is the request.
            let edge = edge_before(&[application(NEVER)], "", "");
            let mut ana = Client::open(&edge, http2);
            let (number, user) = parts(&ana.ask(path, &[("authorization", credentials)]));
            let what = format!("{credentials} over {path:?}, HTTP/2: {http2}");
            assert_eq!(user, "ana", "{what}");
            ben_is_nobody(&edge, &[number], &what);
        }
    }
}

#[test]
fn a_connection_on_which_an_application_has_asked_goes_to_nobody_else() {
    for asks in [
        NTLM,
        Asks { status: "401 Unauthorized", fields: "www-authenticate: nTlM\r\n" },
        Asks { status: "401 Unauthorized", fields: "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n" },
        Asks { status: "401 Unauthorized", fields: "WWW-Authenticate: Basic realm=\"a, b\", Negotiate\r\n" },
        Asks { status: "401 Unauthorized", fields: "WWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate:NTLM\r\n" },
        Asks { status: "407 Proxy Authentication Required", fields: "Proxy-Authenticate: NTLM\r\n" },
        Asks {
            status: "407 Proxy Authentication Required",
            fields: "Proxy-Authenticate: Digest a=b, negotiate x==\r\n",
        },
        // Kerberos ends with an answer to the client, and that is no refusal.
        Asks { status: "200 OK", fields: "WWW-Authenticate: Negotiate oRQwEqADCgEAoQsGCSqGSIb3EgECAg==\r\n" },
        Asks { status: "403 Forbidden", fields: "WWW-Authenticate: Negotiate\r\n" },
    ] {
        for (path, http2) in PATHS.into_iter().flat_map(|path| [(path, false), (path, true)]) {
            let edge = edge_before(&[application(asks)], "", "");
            let mut ana = Client::open(&edge, http2);
            let (number, _) = parts(&ana.ask(path, &[]));
            ben_is_nobody(
                &edge,
                &[number],
                &format!("{} {:?} over {path:?}, HTTP/2: {http2}", asks.status, asks.fields),
            );
        }
    }
}

#[test]
fn connections_of_an_application_that_asks_for_anything_else_are_shared() {
    for fields in [
        "",
        "WWW-Authenticate: Basic realm=\"a\"\r\n",
        "WWW-Authenticate: Bearer\r\n",
        "Proxy-Authenticate: Digest a=b\r\n",
    ] {
        let edge = edge_before(&[application(Asks { status: "401 Unauthorized", fields })], "", "");
        let mut lines = 0;
        for path in PATHS {
            // They stay, so that none of them breaks off what it has asked.
            let mut clients = Vec::new();
            let numbers: BTreeSet<usize> = (0..6)
                .map(|turn| {
                    let mut client = Client::open(&edge, turn % 2 == 1);
                    let (number, _) = parts(&client.ask(path, &[("authorization", "Basic YTpi")]));
                    clients.push(client);
                    // The line is written when the connection has gone back.
                    lines += 1;
                    edge.access_log(lines);
                    number
                })
                .collect();
            assert!(numbers.len() < 3, "{fields:?}: six requests over {path:?} had {numbers:?}");
        }
    }
}

/// The steps of NTLM on one connection of a client; answers the upstream connections that it had.
fn sign_in(ana: &mut Client, path: Path, between: impl Fn()) -> Vec<usize> {
    let mut used = Vec::new();
    for (credentials, status) in [("", 401), ("NTLM 1", 401), ("NTLM ana", 200)] {
        let fields = [("authorization", credentials)];
        let fields = if credentials.is_empty() { &[][..] } else { &fields[..] };
        let answer = ana.ask(path, fields);
        assert_eq!(answer.0, status, "{credentials:?}: {answer:?}");
        used.push(parts(&answer).0);
        between();
    }
    used
}

#[test]
fn ntlm_works_through_the_edge_and_its_connection_is_its_clients_own() {
    // Two servers: each of them knows the connections to itself alone.
    for servers in [1, 2] {
        for (path, http2) in PATHS.into_iter().flat_map(|path| [(path, false), (path, true)]) {
            let servers: Vec<_> = (0..servers).map(|_| application(NTLM)).collect();
            let edge = edge_before(&servers, "", "");
            let mut ana = Client::open(&edge, http2);
            sign_in(&mut ana, path, || ben_is_nobody(&edge, &[], "between two steps"));
            for path in [Path::Fast, Path::Full, Path::Fast, Path::Full] {
                let answer = ana.ask(path, &[]);
                assert_eq!((answer.0, parts(&answer).1.as_str()), (200, "ana"), "she stays signed in, over {path:?}");
                ben_is_nobody(&edge, &[], "while she is signed in");
            }
            drop(ana);
            ben_is_nobody(&edge, &[], "after she has left");
        }
    }
}

#[test]
fn what_is_known_of_a_server_outlives_a_reload_and_holds_in_every_pool() {
    for path in PATHS {
        let application = application(NTLM);
        let spare = origin("spare");
        let pool = format!("{{servers: [\"{application}\"]}}");
        let mut edge = edge()
            .service_with("iqueue", &spare, "access: public")
            .service_with("dextor", &spare, "access: public")
            .pool("iqueue", &pool)
            .pool("dextor", &pool)
            .start();
        let (number, _) = parts(&Client::open(&edge, false).ask(path, &[]));
        let mut other = raw(edge.address(), "dextor.test");
        assert_ne!(ask_raw(&mut other, "dextor.test", path, "").0, number, "another pool");
        edge.reload_with(|yaml| yaml);
        ben_is_nobody(&edge, &[number], "after a reload");
    }
}

/// Number and user.
fn ask_raw(connection: &mut Raw, host: &str, path: Path, fields: &str) -> (usize, String) {
    let (method, body) = if path == Path::Full { ("POST", "Content-Length: 3\r\n\r\nabc") } else { ("GET", "\r\n") };
    let agent = "User-Agent: test/1\r\n";
    let answer =
        connection.send(format!("{method} / HTTP/1.1\r\nHost: {host}\r\n{agent}{fields}{body}")).answer().unwrap();
    parts(&(answer.status, answer.text()))
}

#[test]
fn clients_of_one_proxy_that_is_trusted_do_not_share_what_one_of_them_has_signed_in_on() {
    for path in PATHS {
        let edge = edge_before(&[application(NEVER)], "", "trusted_proxies: [\"127.0.0.0/8\"]");
        // The proxy has one connection to the edge for all of them.
        let mut proxy = raw(edge.address(), "iqueue.test");
        let mut ask = |client: &str, more: &str| {
            ask_raw(&mut proxy, "iqueue.test", path, &format!("X-Forwarded-For: {client}\r\n{more}"))
        };
        let (number, user) = ask("192.0.2.1", "Authorization: Negotiate ana\r\n");
        assert_eq!(user, "ana");
        for _ in 0..3 {
            let ben = ask("192.0.2.2", "");
            assert!(ben.1 == "nobody" && ben.0 != number, "{path:?}: ben is {ben:?}");
        }
    }
}

#[test]
fn who_signs_in_on_the_same_connection_after_somebody_else_is_somebody_else() {
    let spare = origin("spare");
    let application = application(NTLM);
    let edge = edge()
        .service_with("iqueue", &spare, "routes: [{path: /app, pool: app}]")
        .pool("app", &format!("{{servers: [\"{application}\"]}}"))
        .user("ben", &["iqueue"], &[])
        .start();
    let cookies = ["ada", "ben"].map(|user| {
        let mut client = edge.client();
        client.sign_in(&edge.url("iqueue", "/"), user, PASSWORD);
        format!("Cookie: {}\r\n", client.cookie_field("iqueue.test"))
    });
    for path in PATHS {
        let mut browser = raw(edge.address(), "iqueue.test");
        let mut ask = |cookie: &str, more: &str| {
            let (method, body) =
                if path == Path::Full { ("POST", "Content-Length: 3\r\n\r\nabc") } else { ("GET", "\r\n") };
            let head = format!("{method} /app HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\n");
            let answer = browser.send(format!("{head}{cookie}{more}{body}")).answer().unwrap();
            parts(&(answer.status, answer.text())).1
        };
        assert_eq!(ask(&cookies[0], "Authorization: Negotiate ada\r\n"), "ada");
        assert_eq!(ask(&cookies[0], ""), "ada", "her connection is kept for her");
        assert_eq!(ask(&cookies[1], ""), "nobody", "and not for him, over {path:?}");
        assert_eq!(ask(&cookies[0], ""), "ada");
    }
}

#[test]
fn a_websocket_handshake_has_a_connection_of_its_own() {
    let edge = edge_before(&[application(NTLM)], "", "");
    let handshake = "GET / HTTP/1.1\r\nHost: iqueue.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Origin: https://iqueue.test\r\n";
    for credentials in ["", "Authorization: Negotiate ana\r\n"] {
        let mut ana = raw(edge.address(), "iqueue.test");
        let answer = ana.send(format!("{handshake}{credentials}\r\n")).answer().unwrap();
        let (number, _) = parts(&(answer.status, answer.text()));
        ben_is_nobody(&edge, &[number], "after a handshake");
        let mut ben = raw(edge.address(), "iqueue.test");
        let answer = ben.send(format!("{handshake}\r\n")).answer().unwrap();
        let (other, user) = parts(&(answer.status, answer.text()));
        assert!(other != number && user == "nobody", "another handshake is {other} {user}");
    }
}

/// An HTTP/2 application that authenticates connections: `Negotiate USER`.
fn h2c(asks: Asks) -> SocketAddr {
    let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        let mut number = 0;
        while let Ok((socket, _)) = listener.accept().await {
            let (state, this) = (Arc::new(Mutex::new(State::default())), number);
            number += 1;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut state = state.lock().unwrap();
                let (head, body) = request.into_parts();
                let credentials = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
                let (status, fields) = judge(&mut state, credentials, asks);
                let text = format!("{this} {}", state.user.as_deref().unwrap_or("nobody"));
                let status: u16 = status.split(' ').next().unwrap().parse().unwrap();
                let mut response = hyper::Response::builder().status(status);
                for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
                    response = response.header(name, value);
                }
                async move {
                    http_body_util::BodyExt::collect(body).await.ok();
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
                }
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

#[test]
fn connections_to_an_http2_application_are_not_shared_either() {
    for http2 in [false, true] {
        let edge = edge_before(&[h2c(NEVER)], ", protocol: h2c", "");
        let mut ana = Client::open(&edge, http2);
        let (number, user) = parts(&ana.ask(Path::Full, &[("authorization", "Negotiate ana")]));
        assert_eq!(user, "ana");
        ben_is_nobody(&edge, &[number], "after credentials");
        let edge = edge_before(&[h2c(NTLM)], ", protocol: h2c", "");
        let (number, _) = parts(&Client::open(&edge, http2).ask(Path::Full, &[]));
        ben_is_nobody(&edge, &[number], "after a challenge");
    }
}
