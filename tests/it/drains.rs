//! A stop without a lost request: readiness first, then the listeners, then connections with their next response; what is
//! cut in the end has its line.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sentry_edge::server::FastPathMode;
use tokio::sync::oneshot;

use crate::harness::client::Client;
use crate::harness::edge::Builder;
use crate::harness::frames::{ACK, END_STREAM, HEADERS, Heard, PING, Wire, frame};
use crate::harness::raw::Answer;
use crate::harness::{
    Connection, Edge, Origin, Raw, client, edge, eventually, memcached, origin, raw, streaming, write_private,
};

const PATHS: [FastPathMode; 2] = [FastPathMode::On, FastPathMode::Off];

const GOAWAY: u8 = 0x7;
/// The stream of a first GOAWAY: all that a client could have opened (RFC 9113 §6.8).
const ALL_STREAMS: u32 = (1 << 31) - 1;

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An edge that stops on a thread of its own, and where it was.
struct Stopping {
    https: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
    ended: JoinHandle<u64>,
    force: oneshot::Sender<()>,
    /// Its files, until it has ended.
    _folder: Arc<tempfile::TempDir>,
}

/// Begins a drain, and returns when it has begun.
fn stop(edge: Edge) -> Stopping {
    let (https, http, admin) = (edge.address(), edge.http_address(), edge.inner.admin_address());
    let Edge { inner, folder, .. } = edge;
    let (force, forced) = oneshot::channel::<()>();
    let ended = std::thread::spawn(move || inner.shutdown_gracefully(async { drop(forced.await) }));
    let stopping = Stopping { https, http, admin, ended, force, _folder: folder };
    eventually("it is not ready", || stopping.readiness() == 503);
    stopping
}

impl Stopping {
    fn readiness(&self) -> u16 {
        client(self.admin).get("http://admin.test/readyz").status
    }

    fn closes_its_listeners(&self) {
        eventually("the listeners close", || {
            TcpStream::connect(self.https).is_err() && TcpStream::connect(self.http).is_err()
        });
    }

    /// Ends it at once, and returns how many requests were cut.
    fn end_now(self) -> u64 {
        self.force.send(()).unwrap();
        self.ended.join().unwrap()
    }

    /// Returns how many requests were cut.
    fn end(self) -> u64 {
        eventually("it ends", || self.ended.is_finished());
        self.ended.join().unwrap()
    }
}

fn get(host: &str, path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\n{more}\r\n")
}

/// The last response of a connection says so, and the connection ends.
fn closes(mut connection: Raw, answer: &Answer, what: &str) {
    assert_eq!(answer.header("connection"), Some("close"), "{what}: {}", answer.head);
    assert!(connection.has_ended(Duration::from_secs(20)), "{what}");
}

fn public(origin: &Origin) -> Builder {
    edge().service_with("iqueue", origin, "access: public").balanced()
}

fn with_drain(builder: Builder, drain: &str) -> Edge {
    builder.server_drain(drain).start()
}

#[test]
fn during_the_notice_the_listeners_stay_open_and_only_the_health_checks_fail() {
    let app = origin("app");
    let mut daemon = edge()
        .service_with("iqueue", &app, "access: public")
        .server("health: {path: /.sentry/health}")
        .run_with(|yaml| yaml.replace("drain: 5s", "drain: {notice: 1h, requests: 5s}"));
    daemon.process.signal("TERM");
    eventually("it is not ready", || daemon.admin("/readyz").status == 503);
    for _ in 0..3 {
        let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
        assert_eq!(connection.get("iqueue.test", "/").unwrap().0, 200);
        let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
        assert_eq!(connection.get("iqueue.test", "/.sentry/health").unwrap().0, 503);
    }
    let mut over_http2 = daemon.client().http2();
    assert_eq!(over_http2.get(&daemon.url("iqueue", "/")).status, 200);
    assert!(!daemon.process.has_ended());
    daemon.process.signal("INT");
    assert_eq!(daemon.process.end().code(), Some(0));
}

#[test]
fn after_the_notice_the_listeners_close_and_what_is_in_flight_goes_on() {
    let held = Origin::held();
    let edge = with_drain(public(&held), "{notice: 200ms, requests: 1h}");
    let mut connection = raw(edge.address(), "iqueue.test");
    connection.send(get("iqueue.test", "/", ""));
    eventually("it is at the application", || held.count() == 1);
    let stopping = stop(edge);
    stopping.closes_its_listeners();
    assert_eq!(stopping.readiness(), 503, "the admin listener tells to the end");
    held.release();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    closes(connection, &answer, "in flight");
    assert_eq!(stopping.end(), 0);
}

#[test]
fn an_idle_connection_is_kept_for_its_next_request() {
    for fast_path in PATHS {
        let app = origin("app");
        let builder = public(&app)
            .service_with("files", &app, "routes: [{path: /, access: public, files: {root: site}}]")
            .service_with("fixed", &app, "routes: [{path: /, access: public, respond: {status: 200, body: ok}}]")
            .file("site/index.html", "a page")
            .fast_path(fast_path);
        let edge = with_drain(builder, "1h");
        // What is answered by whom, over TLS and without.
        let kinds = [
            (true, "iqueue.test", "/", 200),
            (true, "files.test", "/", 200),
            (true, "files.test", "/nowhere", 404),
            (true, "fixed.test", "/", 200),
            (true, "sentry.test", "/.well-known/jwks.json", 200),
            (true, "unknown.test", "/", 421),
            (true, "iqueue.test", "/a/%zz", 400),
            (false, "iqueue.test", "/", 308),
        ];
        let open: Vec<_> = kinds
            .iter()
            .map(|&(is_tls, host, ..)| {
                let (name, warm_up) = if is_tls { ("iqueue.test", "iqueue.test") } else { (host, host) };
                let address = if is_tls { edge.address() } else { edge.http_address() };
                let mut connection = if is_tls { raw(address, name) } else { crate::harness::raw::raw_plain(address) };
                let answer = connection.send(get(warm_up, "/", "")).answer().unwrap();
                assert_eq!(answer.header("connection"), Some("keep-alive"), "{}", answer.head);
                connection
            })
            .collect();
        let fresh = raw(edge.address(), "iqueue.test");
        let stopping = stop(edge);
        stopping.closes_its_listeners();
        for (mut connection, (_, host, path, status)) in open.into_iter().zip(kinds) {
            let answer = connection.send(get(host, path, "")).answer();
            let what = format!("{host}{path} {fast_path:?}");
            let answer = answer.unwrap_or_else(|| panic!("no answer: {what}"));
            assert_eq!(answer.status, status, "{what}: {}", answer.head);
            closes(connection, &answer, &what);
        }
        assert!(!stopping.ended.is_finished(), "one connection has had no request");
        let mut fresh = fresh;
        let answer = fresh.send(get("iqueue.test", "/", "")).answer().unwrap();
        closes(fresh, &answer, "its first request");
        assert_eq!(stopping.end(), 0, "and then there is nothing to wait for");
    }
}

#[test]
fn an_upload_that_is_answered_before_its_end_is_read_while_the_edge_drains() {
    for fast_path in PATHS {
        let app = origin("app");
        let builder = public(&app)
            .service_with("fixed", &app, "routes: [{path: /, access: public, respond: {status: 200, body: ok}}]")
            .service("dextor", &app)
            .fast_path(fast_path);
        let edge = with_drain(builder, "1h");
        let open = ["fixed.test", "dextor.test"].map(|host| (host, raw(edge.address(), "iqueue.test")));
        let stopping = stop(edge);
        stopping.closes_its_listeners();
        for (host, mut connection) in open {
            let what = format!("{host}, {fast_path:?}");
            connection.send(format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", 16 << 20));
            assert!(connection.try_send(vec![b'x'; 16 << 20]), "{what}: it takes all of it");
            let answer = connection.answer().unwrap_or_else(|| panic!("no answer: {what}"));
            assert!([200, 302, 303, 401].contains(&answer.status), "{what}: {}", answer.head);
            closes(connection, &answer, &what);
        }
        assert_eq!(stopping.end(), 0);
    }
}

#[test]
fn a_client_over_http2_that_has_vanished_holds_the_drain_for_no_longer_than_the_keep_alive_timeout() {
    let app = origin("app");
    let edge = with_drain(public(&app).server("timeouts: {keepalive: 1s}"), "1h");
    let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
    assert!(wire.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
    eventually("it is answered", || wire.heard().is_over(1));
    let stopping = stop(edge);
    eventually("it has a GOAWAY", || goaways(&wire.heard()) == [ALL_STREAMS]);
    // It answers no PING.
    assert_eq!(stopping.end(), 0);
}

#[test]
fn a_reply_of_the_edge_that_is_cut_has_its_status() {
    /// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2): of 0, so that the client takes no body.
    const WINDOW: u16 = 4;
    for fast_path in PATHS {
        let app = origin("app");
        let fixed = "routes: [{path: /, access: public, respond: {status: 200, body: ok}}]";
        let edge = edge().service_with("iqueue", &app, fixed).balanced().fast_path(fast_path).start();
        let mut wire = Wire::open(edge.address(), "iqueue.test", &[(WINDOW, 0)]);
        assert!(wire.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        eventually("it has the head", || wire.heard().all(HEADERS).next().is_some());
        let Edge { inner, folder, .. } = edge;
        assert_eq!(inner.shutdown_gracefully(std::future::ready(())), 1, "{fast_path:?}");
        let line = &crate::harness::edge::log_lines(&folder.path().join("access.log"), 1)[0];
        assert_eq!((&line["error"], &line["status"]), (&"cut_off".into(), &200.into()), "{fast_path:?}: {line}");
    }
}

#[test]
fn the_end_of_the_drain_ends_idle_connections_and_cuts_nothing() {
    let app = origin("app");
    let edge = with_drain(public(&app), "400ms");
    let mut idle = raw(edge.address(), "iqueue.test");
    assert_eq!(idle.send(get("iqueue.test", "/", "")).status(), 200);
    let stopping = stop(edge);
    assert!(idle.has_ended(Duration::from_secs(20)));
    assert_eq!(stopping.end(), 0);
}

#[test]
fn whether_a_connection_is_kept_is_decided_when_the_head_is_written() {
    for fast_path in PATHS {
        // An application's response, a reply of the edge on either path, and the page of an application.
        let held = Origin::held();
        let mut store = memcached();
        let builder = edge()
            .service_with("iqueue", &held, "access: public")
            .service_with("dextor", &held, "routes: [{path: /fixed, respond: {status: 200, body: ok}}]")
            .memcached_within(&store.address(), "10s")
            .balanced()
            .fast_path(fast_path);
        let edge = with_drain(builder, "1h");
        let mut browser: Client = edge.client();
        let hops = browser.sign_in(&edge.url("dextor", "/fixed"), "ada", crate::harness::edge::PASSWORD);
        assert_eq!(hops.last().unwrap().status, 200);
        let cookie = format!("Cookie: {}\r\n", browser.cookie_field("dextor.test"));
        let mut kept: Vec<(&str, Raw)> = Vec::new();
        let mut open = |what: &'static str, host: &str, request: String| {
            let mut connection = raw(edge.address(), host);
            connection.send(request);
            kept.push((what, connection));
        };
        open("of the application", "iqueue.test", get("iqueue.test", "/", ""));
        eventually("it is at the application", || held.count() == 1);
        store.freeze();
        open("a fixed reply", "dextor.test", get("dextor.test", "/fixed", &cookie));
        open("a reply of the sign-on", "dextor.test", get("dextor.test", "/.sentry/currentUser", &cookie));
        let in_flight = || edge.inner.requests_in_flight();
        eventually("all are under way", || in_flight() == 3);
        let stopping = stop(edge);
        store.thaw();
        held.release();
        for (what, mut connection) in kept {
            let answer = connection.answer().unwrap_or_else(|| panic!("{what}: no answer, {fast_path:?}"));
            assert_eq!(answer.status, 200, "{what}, {fast_path:?}: {} {}", answer.head, answer.text());
            closes(connection, &answer, what);
        }
        assert_eq!(stopping.end(), 0);
        store.kill();
    }
}

/// The streams that the GOAWAY frames so far have named.
fn goaways(heard: &Heard) -> Vec<u32> {
    heard.all(GOAWAY).map(|(_, payload)| u32::from_be_bytes(payload[..4].try_into().unwrap())).collect()
}

/// Answers the edge's PING, which says that the client has the first GOAWAY.
fn answer_ping(wire: &mut Wire) {
    let ping = |wire: &Wire| wire.heard().all(PING).map(|(_, payload)| payload.to_vec()).next();
    eventually("there is a PING", || ping(wire).is_some());
    let payload = ping(wire).unwrap();
    assert!(wire.send(frame(PING, ACK, 0, &payload)));
}

#[test]
fn over_http2_goaway_comes_twice_and_no_stream_between_them_is_lost() {
    for fast_path in PATHS {
        let held = Origin::held();
        let app = origin("app");
        let builder = public(&held).service_with("dextor", &app, "access: public").fast_path(fast_path);
        let edge = with_drain(builder, "1h");
        let open = |host| Wire::open(edge.address(), host, &[]);
        let (mut busy, mut idle, mut fresh) = (open("iqueue.test"), open("dextor.test"), open("dextor.test"));
        assert!(busy.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        assert!(idle.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        eventually("one is answered, one is at the application", || held.count() == 1 && idle.heard().is_over(1));
        let stopping = stop(edge);
        stopping.closes_its_listeners();
        // Those that have had a request learn that there will be none, but what they have sent meanwhile is answered.
        eventually("both have a GOAWAY", || [&busy, &idle].iter().all(|wire| goaways(&wire.heard()) == [ALL_STREAMS]));
        assert!(idle.ask(3, END_STREAM, "GET", &[("user-agent", "test/1")]));
        eventually("it is answered", || idle.heard().is_over(3) && !idle.heard().was_reset(3));
        answer_ping(&mut idle);
        eventually("and then it is over", || idle.is_closed());
        let named = goaways(&idle.heard());
        assert!(named.len() >= 2 && named[1..].iter().all(|last| *last == 3), "{named:?}");
        answer_ping(&mut busy);
        eventually("the second one names what is served", || goaways(&busy.heard()) == [ALL_STREAMS, 1]);
        held.release();
        eventually("the response is whole", || busy.heard().is_over(1) && !busy.heard().was_reset(1));
        busy.is_closed_by_the_edge();
        // One that has had none may still send its first.
        assert!(goaways(&fresh.heard()).is_empty() && !stopping.ended.is_finished());
        assert!(fresh.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        eventually("it is answered", || fresh.heard().is_over(1) && !fresh.heard().was_reset(1));
        eventually("and told to go", || goaways(&fresh.heard()).first() == Some(&ALL_STREAMS));
        answer_ping(&mut fresh);
        fresh.is_closed_by_the_edge();
        assert_eq!(stopping.end(), 0, "{fast_path:?}");
    }
}

#[test]
fn a_connection_of_the_notice_over_http2_is_served_before_it_is_told_to_go() {
    let app = origin("app");
    let edge = with_drain(public(&app), "{notice: 1h, requests: 1h}");
    let address = edge.address();
    let stopping = stop(edge);
    let mut wire = Wire::open(address, "iqueue.test", &[]);
    assert!(wire.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
    eventually("it is answered", || wire.heard().is_over(1) && !wire.heard().was_reset(1));
    eventually("and told to go", || goaways(&wire.heard()) == [ALL_STREAMS]);
    answer_ping(&mut wire);
    wire.is_closed_by_the_edge();
    assert_eq!(stopping.end_now(), 0);
}

/// Requests of every kind that are in flight when the drain is over, each on a host and a path of its own.
#[test]
fn each_request_that_is_cut_has_its_line_and_is_counted() {
    for fast_path in PATHS {
        let (held, nobody, app) = (Origin::held(), origin("nobody"), streaming());
        let mut store = memcached();
        let edge = edge()
            .service_with("iqueue", &held, "access: public")
            .service_with("dextor", &nobody, "routes: [{path: /, access: public}, {path: /inner}]")
            .pool("dextor", &format!("{{servers: [\"{}\"]}}", app.address))
            .memcached_within(&store.address(), "10s")
            .balanced()
            .fast_path(fast_path)
            .start();
        let scrape = String::from_utf8(edge.inner.metrics().scrape().unwrap()).unwrap();
        assert!(scrape.lines().any(|line| line == "sentry_edge_drain_cut_total 0"), "it is there from the start");
        let mut browser = edge.signed_in_at("dextor", "/inner");
        let cookie = format!("Cookie: {}\r\n", browser.cookie_field("dextor.test"));
        let send = |host: &str, request: String| {
            let mut connection = raw(edge.address(), host);
            connection.send(request);
            connection
        };
        let waiting = send("iqueue.test", get("iqueue.test", "/waiting", ""));
        let upload = "POST /upload HTTP/1.1\r\nHost: dextor.test\r\nContent-Length: 1000\r\n\r\nsome of it";
        let upload = send("dextor.test", upload.into());
        let mut begun: Vec<Raw> = ["/events", "/download", "/ws"]
            .map(|path| {
                let more = if path == "/ws" { UPGRADE } else { "" };
                let mut connection = send("dextor.test", get("dextor.test", path, more));
                connection.hear("\r\n\r\n");
                connection
            })
            .into();
        let mut over_http2 = Wire::open(edge.address(), "iqueue.test", &[]);
        assert!(over_http2.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        assert!(over_http2.ask(3, 0, "POST", &[("user-agent", "test/1")]));
        store.freeze();
        begun.push(send("dextor.test", get("dextor.test", "/inner", &cookie)));
        begun.push(send("dextor.test", get("dextor.test", "/.sentry/currentUser", &cookie)));
        begun.extend([waiting, upload]);
        eventually("all are under way", || edge.inner.requests_in_flight() == 9);
        let idle = raw(edge.address(), "iqueue.test");
        let Edge { inner, folder, .. } = edge;
        assert_eq!(inner.shutdown_gracefully(std::future::ready(())), 9, "{fast_path:?}");
        begun.into_iter().for_each(|connection| drop(connection.rest()));
        drop((idle, &mut browser));
        let lines = crate::harness::edge::log_lines(&folder.path().join("access.log"), 9);
        let mut cut: Vec<String> = lines
            .iter()
            .filter(|line| line["error"] == "cut_off")
            .map(|line| {
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                format!("{} {} {} {}", text("method"), text("path"), text("protocol"), line["status"])
            })
            .collect();
        cut.sort();
        assert_eq!(
            cut,
            [
                "GET / HTTP/2 499",
                "GET /.sentry/currentUser HTTP/1.1 499",
                "GET /download HTTP/1.1 200",
                "GET /events HTTP/1.1 200",
                "GET /inner HTTP/1.1 499",
                "GET /waiting HTTP/1.1 499",
                "GET /ws HTTP/1.1 101",
                "POST / HTTP/2 499",
                "POST /upload HTTP/1.1 499",
            ],
            "{fast_path:?}"
        );
        store.kill();
    }
}

#[test]
fn a_stop_at_once_records_what_it_cuts_as_well() {
    let held = Origin::held();
    let mut daemon =
        edge().service_with("iqueue", &held, "access: public").run_with(|yaml| yaml.replace("drain: 5s", "drain: 1h"));
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/waits").is_ok());
    eventually("it is at the application", || held.count() == 1);
    daemon.process.signal("INT");
    assert_eq!(daemon.process.end().code(), Some(0));
    assert!(!in_flight.join().unwrap());
    let lines = daemon.log("access.log", 1);
    assert_eq!((lines.len(), &lines[0]["path"], &lines[0]["error"]), (1, &"/waits".into(), &"cut_off".into()));
    assert!(daemon.process.stderr().contains("stopped; 1 requests were cut off"), "{}", daemon.process.stderr());
}

#[test]
fn a_connection_that_ends_with_a_request_in_flight_is_no_cut() {
    for fast_path in PATHS {
        let held = Origin::held();
        let edge = public(&held).fast_path(fast_path).start();
        let mut wire = Wire::open(edge.address(), "iqueue.test", &[]);
        assert!(wire.ask(1, END_STREAM, "GET", &[("user-agent", "test/1")]));
        eventually("it is at the application", || held.count() == 1);
        wire.close();
        drop(wire);
        let line = &edge.access_log(1)[0];
        assert_eq!((&line["error"], &line["status"]), (&"client_gone".into(), &499.into()), "{line}");
        assert_eq!(edge.metric("sentry_edge_drain_cut_total", ""), 0.0);
    }
}

#[test]
fn the_service_manager_is_asked_for_time_for_as_long_as_the_drain_takes() {
    let held = Origin::held();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let builder = edge().service_with("iqueue", &held, "access: public").server_drain("1h");
    let mut daemon = builder.run_with_variable(("NOTIFY_SOCKET", path.to_str().unwrap()));
    let next = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert!(next().contains("READY=1"));
    let mut connection = Connection::open(daemon.address, "iqueue.test").unwrap();
    let in_flight = std::thread::spawn(move || connection.get("iqueue.test", "/").map(|(status, _)| status).ok());
    eventually("it is at the application", || held.count() == 1);
    daemon.process.signal("TERM");
    let first = next();
    assert!(first.contains("STOPPING=1") && first.contains("EXTEND_TIMEOUT_USEC=20000000"), "{first}");
    let second = next();
    assert!(second.contains("EXTEND_TIMEOUT_USEC=20000000"), "{second}");
    held.release();
    assert_eq!(in_flight.join().unwrap(), Some(200));
    assert_eq!(daemon.process.end().code(), Some(0));
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_and_one_that_is_too_low_is_said() {
    let app = origin("app");
    for (hard, connections, is_low) in [(900, 20_000, true), (900, 300, false)] {
        let builder = edge()
            .service_with("iqueue", &app, "access: public")
            .server(&format!("limits: {{connections: {connections}}}"));
        let daemon = builder.run_with_soft_limit(100, hard);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.process.id())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let values: Vec<&str> = files["Max open files".len()..].split_whitespace().take(2).collect();
        assert_eq!(values, [hard.to_string(), hard.to_string()]);
        let warned = daemon.process.stderr().lines().filter(|line| line.contains("open files: limit=900")).count();
        assert_eq!(warned == 1, is_low, "{}", daemon.process.stderr());
    }
}

#[test]
fn a_drain_is_written_as_a_duration_or_as_its_steps() {
    let app = origin("app");
    let (folder, file) = edge().service("iqueue", &app).write();
    let yaml = std::fs::read_to_string(&file).unwrap();
    let check = |drain: &str| {
        write_private(&file, yaml.replace("drain: 5s", &format!("drain: {drain}")));
        let checked = crate::harness::process::sentry_edge(&["check", "-c", file.to_str().unwrap()]);
        (checked.status.success(), crate::harness::process::text(&checked.stderr))
    };
    for good in ["45s", "{notice: 10s}", "{requests: 45s}", "{notice: 0s, requests: 1m}", "{}"] {
        assert!(check(good).0, "{good}: {}", check(good).1);
    }
    for (bad, key, expected) in [
        ("soon", "server.drain", "{notice: 10s, requests: 20s}"),
        ("0s", "server.drain", "{notice: 10s, requests: 20s}"),
        ("5", "server.drain", "{notice: 10s, requests: 20s}"),
        ("[5s]", "server.drain", "{notice: 10s, requests: 20s}"),
        ("{notice: soon}", "server.drain.notice", "a duration"),
        ("{requests: 0s}", "server.drain.requests", "a duration"),
        ("{notce: 1s}", "server.drain.notce", "did you mean `notice`?"),
    ] {
        let (is_good, said) = check(bad);
        assert!(!is_good && said.contains(&format!(": {key}: ")) && said.contains(expected), "{bad}: {said}");
    }
    drop(folder);
}
