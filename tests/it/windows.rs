//! Clients that ask for much and take nothing, and others that send what no application takes: what they make the edge
//! hold has a bound for each client, whatever it is that waits, and is given back when they go.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;

use crate::harness::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, Wire, frame};
use crate::harness::{Daemon, Origin, Raw, edge, eventually, raw};

/// Streams of a connection.
const STREAMS: u32 = 100;
/// What the process may grow by: what one client may hold, and half of that again, and what its connections take by
/// themselves. Each kind took several times as much before there was a bound.
const PER_ADDRESS: u64 = 8 << 20;
const PER_CONNECTION: u64 = 128 << 10;
/// What comes at once on a few connections before it is looked at: it does not grow with their number.
const MOST_OVER: u64 = 44 << 20;

/// What a client does on each of its connections.
struct Kind {
    name: &'static str,
    connections: u32,
    /// The window of each stream; a client that leaves it open does not read its socket. `None` is HTTP/1.1.
    window: Option<u32>,
    host: &'static str,
    /// What it sends at once.
    sends: fn(host: &str) -> Vec<u8>,
    /// Whether it sends bodies as far as the edge lets it.
    uploads: bool,
}

/// The same request on every stream of a connection.
fn asked(host: &str, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..STREAMS {
        let stream = 2 * at + 1;
        let mut block = request(host, method, path);
        block.extend(literals(fields));
        let end = if body.is_some() { 0 } else { END_STREAM };
        bytes.extend(frame(HEADERS, END_HEADERS | end, stream, &block));
        if let Some(body) = body.filter(|body| !body.is_empty()) {
            bytes.extend(frame(DATA, END_STREAM, stream, body));
        }
    }
    bytes
}

fn request(host: &str, method: &str, path: &str) -> Vec<u8> {
    let mut block = literals(&[(":method", method), (":scheme", "https"), (":path", path)]);
    block.extend(literals(&[(":authority", host)]));
    block
}

fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A field that goes into the table once and is meant many times, in a byte each (RFC 7541 §6.1).
fn repeated(host: &str, path: &str, name: &str, value: &str, times: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..STREAMS {
        let mut block = request(host, "GET", path);
        block.push(0x40);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
        block.extend(vec![0xbe; times]);
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block));
    }
    bytes
}

const OPEN: u32 = (1 << 31) - 1;
const ONE: &[u8] = b"x";
const UNREAD: &[(&str, &str)] = &[("content-length", "10000000")];

fn kinds() -> Vec<Kind> {
    let kind = |name, connections, window, sends| Kind {
        name,
        connections,
        window,
        host: "iqueue.test",
        sends,
        uploads: false,
    };
    vec![
        kind("refused heads", 24, Some(0), |host| repeated(host, "/", "a", "", 1900)),
        kind("heads with too many fields", 24, Some(0), |host| repeated(host, "/", "a", "", 800)),
        kind("cookie crumbs", 24, Some(0), |host| repeated(host, "/", "cookie", "a", 700)),
        kind("error pages", 40, Some(0), |host| asked(host, "GET", "/", &[("expect", "x")], None)),
        kind("answers", 64, Some(0), |host| asked(host, "GET", "/", &[], None)),
        kind("answers to a request that says its body is empty", 24, Some(0), |host| {
            asked(host, "GET", "/", &[("content-length", "0")], None)
        }),
        kind("answers to a request with a body", 16, Some(0), |host| asked(host, "POST", "/", &[], Some(ONE))),
        Kind {
            host: "sentry.test",
            ..kind("sign-on pages", 40, Some(0), |host| asked(host, "GET", "/login", &[], None))
        },
        Kind {
            host: "dextor.test",
            ..kind("compressed answers", 8, Some(0), |host| asked(host, "GET", "/", &[("accept-encoding", "br")], None))
        },
        kind("sockets that are not read", 12, Some(OPEN), |host| asked(host, "GET", "/", &[], None)),
        kind("sockets that are not read, full path", 12, Some(OPEN), |host| asked(host, "POST", "/", &[], Some(ONE))),
        Kind {
            uploads: true,
            ..kind("uploads", 24, Some(0), |host| asked(host, "POST", "/unread", UNREAD, Some(b"")))
        },
        kind("readers of HTTP/1.1 that stop", 250, None, |host| {
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
        }),
        kind("readers of HTTP/1.1 that stop, full path", 130, None, |host| {
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx").into_bytes()
        }),
        kind("uploads over HTTP/1.1", 150, None, |host| {
            let head = format!("POST /unread HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10000000\r\n\r\n");
            [head.into_bytes(), vec![b'x'; 1 << 20]].concat()
        }),
    ]
}

/// An application that takes connections and reads nothing.
struct Unread {
    address: SocketAddr,
    _taken: Arc<Mutex<Vec<TcpStream>>>,
}

fn unread() -> Unread {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // So that the kernel takes little in its place.
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let keeps = Arc::downgrade(&taken);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Some(taken) = keeps.upgrade() else { return };
            taken.lock().unwrap().push(stream);
        }
    });
    Unread { address, _taken: taken }
}

fn large() -> Origin {
    Origin::answering(|_| {
        let mut response = hyper::Response::new(Full::new(Bytes::from(vec![b'x'; 1 << 20])));
        response.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        response
    })
}

fn daemon(large: &Origin, unread: &Unread, per_address: u64) -> Daemon {
    let limits =
        format!("limits: {{connections_per_address: 1000, buffer_bytes_per_address: {}MiB}}", per_address >> 20);
    let routes = "access: public, routes: [{path: /unread, access: public, pool: unread}]";
    edge()
        .service_with("iqueue", large, routes)
        .service_with("dextor", large, "access: public, compression: [br]")
        .pool("unread", &format!("{{servers: [\"{}\"]}}", unread.address))
        .server(&limits)
        .run()
}

/// What a client holds open: a connection over HTTP/2, or one over HTTP/1.1.
type Open = (Option<Wire>, Option<Raw>);

fn open(edge: SocketAddr, kind: &Kind) -> Open {
    let bytes = (kind.sends)(kind.host);
    let Some(window) = kind.window else {
        let mut raw = raw(edge, kind.host);
        raw.send_within(&bytes, Duration::from_millis(200));
        return (None, Some(raw));
    };
    let mut wire = if window == OPEN { Wire::deaf(edge, kind.host) } else { Wire::silent(edge, kind.host) };
    wire.begin(&[(4, window)]);
    if window == OPEN {
        wire.send(frame(WINDOW_UPDATE, 0, 0, &(OPEN - 65_535).to_be_bytes()));
    }
    // The edge may have had enough.
    wire.send(bytes);
    if kind.uploads {
        upload(&mut wire);
    }
    (Some(wire), None)
}

/// Sends bodies on all streams, as far as windows go, until nothing moves.
fn upload(wire: &mut Wire) {
    let (mut sent, mut sent_in_all) = (vec![0_u32; STREAMS as usize], 0_u32);
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_millis(300) {
        let heard = wire.heard();
        let granted = |stream: u32| {
            let updates = heard.all(WINDOW_UPDATE).filter(|(of, _)| *of == stream);
            65_535 + updates.map(|(_, by)| u32::from_be_bytes(by.try_into().unwrap())).sum::<u32>()
        };
        let mut left = granted(0) - sent_in_all;
        let mut bytes = Vec::new();
        for at in 0..STREAMS {
            let room = (granted(2 * at + 1) - sent[at as usize]).min(left).min(16_384);
            if room > 0 && !heard.was_reset(2 * at + 1) {
                bytes.extend(frame(DATA, 0, 2 * at + 1, &vec![b'x'; room as usize]));
                sent[at as usize] += room;
                left -= room;
                sent_in_all += room;
            }
        }
        if bytes.is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        } else if wire.send(bytes) {
            quiet_since = Instant::now();
        } else {
            return;
        }
    }
}

#[test]
fn what_a_client_makes_the_edge_hold_has_a_bound_of_whatever_kind_it_is() {
    let mut failed = Vec::new();
    for kind in kinds() {
        let (large, unread) = (large(), unread());
        let daemon = daemon(&large, &unread, PER_ADDRESS);
        let before = daemon.process.memory("VmRSS");
        let crowd: Vec<_> = (0..kind.connections).map(|_| open(daemon.address, &kind)).collect();
        // Whatever comes in answer has come, and waits.
        std::thread::sleep(Duration::from_secs(1));
        let grown = daemon.process.memory("VmHWM").saturating_sub(before);
        let most = PER_ADDRESS / 2 * 3 + u64::from(kind.connections) * PER_CONNECTION + MOST_OVER;
        println!("{}: grew by {} of at most {} MiB", kind.name, grown >> 20, most >> 20);
        if grown > most {
            failed.push(format!("{}: {} MiB", kind.name, grown >> 20));
        }
        drop(crowd);
        eventually("all of it is given back", || daemon.metric("sentry_edge_buffer_bytes", "") == 0.0);
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_memory_goes_back_to_the_system_when_the_clients_have_gone() {
    let (large, unread) = (large(), unread());
    let daemon = daemon(&large, &unread, 128 << 20);
    let before = daemon.process.memory("VmRSS");
    let grown = || daemon.process.memory("VmRSS").saturating_sub(before);
    let kinds = kinds();
    let kind = kinds.iter().find(|kind| kind.name == "heads with too many fields").unwrap();
    let clients: Vec<_> = (0..4 * kind.connections).map(|_| open(daemon.address, kind)).collect();
    eventually("much is held", || grown() > 80 << 20);
    drop(clients);
    eventually("nearly all of it is given back", || grown() < 24 << 20);
}

/// Opens a window as slowly as it reads.
const A_LITTLE: u32 = 16 << 10;
const NOW_AND_THEN: Duration = Duration::from_millis(100);

#[test]
fn a_client_that_reads_slowly_but_steadily_is_not_cut_while_its_neighbours_hold_all_there_is() {
    let (large, unread) = (large(), unread());
    let daemon = daemon(&large, &unread, PER_ADDRESS);
    let mut slow = Wire::open(daemon.address, "iqueue.test", &[(4, A_LITTLE)]);
    assert!(slow.ask(1, END_STREAM, "GET", &[]));
    let mut uploading = Wire::open(daemon.address, "iqueue.test", &[]);
    assert!(uploading.ask(1, 0, "POST", &[]));
    let mut by_http1 = raw(daemon.address, "iqueue.test");
    by_http1.send("GET / HTTP/1.1\r\nHost: iqueue.test\r\n\r\n");
    eventually("they are being answered", || slow.heard().data_bytes > 0);
    let kinds = kinds();
    let neighbour = kinds.iter().find(|kind| kind.name == "answers to a request with a body").unwrap();
    let mut neighbours = Vec::new();
    let mut read = 0;
    for turn in 0.. {
        // The same address: none is spared for where it comes from.
        if turn % 4 == 0 {
            neighbours.push(open(daemon.address, neighbour));
            neighbours.truncate(12);
        }
        let opened: u32 = A_LITTLE;
        for stream in [0, 1] {
            assert!(slow.send(frame(WINDOW_UPDATE, 0, stream, &opened.to_be_bytes())));
        }
        assert!(uploading.send(frame(DATA, 0, 1, &[b'x'; 1000])));
        read += by_http1.read_some(A_LITTLE as usize);
        if slow.heard().is_over(1) || turn == 120 {
            break;
        }
        std::thread::sleep(NOW_AND_THEN);
    }
    assert!(!slow.heard().was_reset(1), "after {} bytes", slow.heard().data_bytes);
    assert_eq!(slow.heard().data_bytes, 1 << 20);
    assert!(read > 100_000, "{read} bytes over HTTP/1.1");
    assert!(uploading.send(frame(DATA, END_STREAM, 1, b"")));
    eventually("the upload is answered", || uploading.heard().is_answered(1));
    let ended = daemon.metric("sentry_edge_limits_reached_total", "limit=\"buffers\"");
    assert!(ended > 0.0, "the neighbours held all there is");
}
