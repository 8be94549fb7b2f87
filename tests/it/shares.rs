//! Shares: what one client, one session or one user can take of what there is for all, and who has to go first where there
//! is no more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::edge::Builder;
use crate::harness::raw::raw_plain_from;
use crate::harness::{
    Client, Connection, DEADLINE, Edge, Http2, Origin, Raw, Streaming, edge, eventually, origin, raw, streaming,
};

// The admin listener.

/// What takes a place on the admin listener and gives none back.
const TAKERS: [(&str, &str); 6] = [
    ("silent", ""),
    ("a byte", "G"),
    ("a head that drips", "GET /metrics HTTP/1.1\r\nX: "),
    ("a body that drips", "POST /api/sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"),
    ("idle", "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
];

fn connect_from(source: u8, address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, source], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn admin_is_there(edge: &Edge, what: &str) {
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(edge.admin(path).status, 200, "{path} beside {what}");
    }
}

#[test]
fn nobody_takes_the_admin_listener_away_with_connections() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let address = edge.inner.admin_address();
    for (what, begin) in TAKERS {
        // From one address, the prober's own, and from so many that their shares are all places there are.
        for sources in [1..=1, 2..=6] {
            let mut takers: Vec<TcpStream> = Vec::new();
            for source in sources.clone() {
                for _ in 0..64 {
                    let mut taker = connect_from(source, address);
                    taker.write_all(begin.as_bytes()).unwrap();
                    takers.push(taker);
                }
            }
            for _ in 0..5 {
                admin_is_there(&edge, &format!("{what} from {sources:?}"));
                // Those that are closed already may say so.
                takers.iter_mut().for_each(|taker| drop(taker.write_all(b"x")));
            }
        }
    }
}

#[test]
fn the_admin_listener_waits_for_nobody_for_long() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let takers: Vec<_> = TAKERS
        .iter()
        .map(|(what, begin)| {
            let mut taker = connect_from(1, edge.inner.admin_address());
            taker.write_all(begin.as_bytes()).unwrap();
            taker.set_read_timeout(Some(DEADLINE)).unwrap();
            (what, taker)
        })
        .collect();
    for (what, mut taker) in takers {
        let mut heard = Vec::new();
        let ended = taker.read_to_end(&mut heard);
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.as_ref().map_or_else(is_reset, |_| true), "{what}: {ended:?}");
    }
}

#[test]
fn an_operator_is_served_again_on_the_same_connection() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut operator = raw_plain_from([127, 0, 0, 1], edge.inner.admin_address());
    for path in ["/livez", "/metrics", "/readyz", "/livez"] {
        let answer = operator.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).answer().unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    // What is no request gets its answer, and is the last on its connection.
    let answer = operator.send("GET /livez HTTP/1.1\r\nHost: a\nX: y\r\n\r\n").answer().unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(operator.rest(), b"");
}

// Connections.

fn open_service(iqueue: &Origin) -> Builder {
    edge().service_with("iqueue", iqueue, "access: public")
}

fn gave_up(edge: &Edge) -> f64 {
    edge.metric("sentry_edge_idle_connections_closed_total", "listener=\"https\"")
}

fn served(edge: &Edge) -> std::io::Result<Connection> {
    let mut connection = Connection::open(edge.address(), "iqueue.test")?;
    connection.get("iqueue.test", "/").map_err(std::io::Error::other)?;
    Ok(connection)
}

#[test]
fn where_there_is_no_place_the_connection_that_is_idle_for_the_longest_goes() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {connections: 3}").start();
    let mut open: Vec<Connection> = Vec::new();
    for _ in 0..3 {
        open.push(served(&edge).unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    // The first one is the last to be idle.
    open[0].get("iqueue.test", "/").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let newcomer = served(&edge).expect("there is a place for a new one");
    assert_eq!(gave_up(&edge), 1.0);
    assert!(open[1].get("iqueue.test", "/").is_err(), "the longest idle");
    assert_eq!(open[0].get("iqueue.test", "/").unwrap().0, 200);
    assert_eq!(open[2].get("iqueue.test", "/").unwrap().0, 200);
    assert_eq!(edge.metric_sum("sentry_edge_connections_refused_total"), 0.0);
    drop(newcomer);
}

#[test]
fn a_crowd_of_idle_connections_keeps_nobody_out() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {connections: 30}").start();
    let idle: Vec<_> = (0..30).map(|_| served(&edge).unwrap()).collect();
    for _ in 0..60 {
        let mut client = served(&edge).expect("a place");
        assert_eq!(client.get("iqueue.test", "/").unwrap().0, 200);
    }
    drop(idle);
}

#[test]
fn connections_that_never_ask_for_anything_go_as_well_once_they_had_their_time() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {connections: 3, header_timeout: 60s}").start();
    let silent: Vec<_> = [&b"http/1.1"[..], b"h2", b"http/1.1"]
        .into_iter()
        .map(|protocol| match protocol {
            b"h2" => Raw::http2(edge.address(), "iqueue.test"),
            _ => raw(edge.address(), "iqueue.test"),
        })
        .collect();
    eventually("one of them goes", || served(&edge).is_ok());
    assert!(gave_up(&edge) >= 1.0);
    drop(silent);
}

#[test]
fn no_connection_goes_that_is_being_used() {
    let (app, held) = (streaming(), Origin::held());
    let pool = format!("{{servers: [\"{}\"]}}", app.address);
    let edge = open_service(&origin("nobody"))
        .pool("iqueue", &pool)
        .service_with("dextor", &held, "access: public")
        .server("limits: {connections: 4}")
        .start();
    // A conversation, an event stream over each version, and a request that is not answered yet.
    let mut websocket = raw(edge.address(), "iqueue.test");
    let handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\n{more}\r\n");
    assert_eq!(websocket.send(get("/ws", handshake)).status(), 101);
    let mut events = raw(edge.address(), "iqueue.test");
    events.send(get("/events", "")).hear("\r\n\r\n");
    let mut http2 = Http2::open(edge.address(), "iqueue.test");
    let mut streams = http2.get("/events", "");
    assert_eq!(streams.status, 200);
    let mut waiting = raw(edge.address(), "dextor.test");
    waiting.send("GET / HTTP/1.1\r\nHost: dextor.test\r\n\r\n");
    eventually("it is with its application", || held.count() == 1);
    std::thread::sleep(Duration::from_millis(2100));
    assert!(served(&edge).is_err(), "there is none that could go");
    websocket.send("hello").hear("hello");
    app.say("data: 1");
    events.hear("data: 1");
    streams.hear("data: 1");
    held.release();
    assert_eq!(waiting.status(), 200);
    assert_eq!(gave_up(&edge), 0.0);
    eventually("now there is one", || served(&edge).is_ok());
    assert_eq!(gave_up(&edge), 1.0);
    websocket.send("hello").hear("hello");
}

#[test]
fn an_http2_connection_without_a_stream_is_idle() {
    let iqueue = origin("iqueue");
    let edge = open_service(&iqueue).server("limits: {connections: 1}").start();
    let mut http2 = Http2::open(edge.address(), "iqueue.test");
    assert_eq!(http2.get("/", "").end().unwrap(), "hello from iqueue");
    eventually("it makes room", || served(&edge).is_ok());
    assert!(gave_up(&edge) >= 1.0);
}

// Streams.

struct Scene {
    _app: Streaming,
    edge: Edge,
}

fn streams(limit: usize) -> Scene {
    let app = streaming();
    let pool = format!("{{servers: [\"{}\"]}}", app.address);
    let edge = edge()
        .service_with("iqueue", &origin("nobody"), "routes: [{path: /public, access: public}]")
        .pool("iqueue", &pool)
        .user("ben", &["iqueue"], &[])
        .server(&format!("limits: {{streams: {limit}}}"))
        .sessions("{store: memory, session_recheck_interval: 1h}")
        .balanced()
        .start();
    Scene { _app: app, edge }
}

impl Scene {
    fn signed_in(&self, user: &str) -> Client {
        let mut browser = self.edge.client();
        self.edge.sign_in(&mut browser, "iqueue", user);
        browser
    }
}

/// Event streams of one browser until one is refused; how many there are.
fn fill(scene: &Scene, browser: &Client) -> Vec<Raw> {
    let cookie = browser.cookie_field("iqueue.test");
    let mut open = Vec::new();
    loop {
        let mut connection = raw(scene.edge.address(), "iqueue.test");
        connection.send(format!(
            "GET /events HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nCookie: {cookie}\r\n\r\n"
        ));
        if connection.first_line() != "HTTP/1.1 200 OK" {
            return open;
        }
        open.push(connection);
        assert!(open.len() <= 1000, "none is refused");
    }
}

#[test]
fn one_session_and_one_user_leave_room_in_the_table_of_streams() {
    let scene = streams(40);
    let of_one_session = fill(&scene, &scene.signed_in("ben"));
    assert_eq!(of_one_session.len(), 10, "a quarter");
    let of_another = fill(&scene, &scene.signed_in("ben"));
    let of_a_third = fill(&scene, &scene.signed_in("ben"));
    assert_eq!((of_another.len(), of_a_third.len()), (10, 0), "a half for all sessions of a user");
    assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", "limit=\"streams_per_user\""), 3.0);
    let ada = scene.signed_in("ada");
    assert_eq!(fill(&scene, &ada).len(), 10, "others have theirs");
    assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", "limit=\"streams\""), 0.0);
}

#[test]
fn a_page_without_a_length_needs_no_place() {
    let scene = streams(1);
    let ben = scene.signed_in("ben");
    let open = fill(&scene, &ben);
    assert_eq!(open.len(), 1, "the table is full");
    let mut ada = scene.signed_in("ada");
    for _ in 0..10 {
        let page = ada.get(&scene.edge.url("iqueue", "/finite"));
        assert_eq!((page.status, page.body.as_str()), (200, "done"));
    }
    assert!(fill(&scene, &ada).is_empty(), "and an event stream does");
    drop(open);
    eventually("there is room again", || fill(&scene, &ada).len() == 1);
}
