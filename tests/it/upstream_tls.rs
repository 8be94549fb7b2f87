//! TLS to applications: whose servers are believed, what becomes of requests to others, and what is said of it.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use crate::harness::certificates::{Ca, Certificate, ca};
use crate::harness::daemon::Daemon;
use crate::harness::edge::Builder;
use crate::harness::front::Front;
use crate::harness::process::{sentry_edge, text};
use crate::harness::{Edge, Origin, edge, eventually, front, origin, raw, streaming};

/// The name that servers are issued certificates for; nobody resolves it.
const NAME: &str = "app.internal";
const TRUSTED: &str = "tls: {ca: ca.pem, server_name: app.internal}";

fn issued() -> Certificate {
    ca().issue(&[NAME])
}

/// iqueue for anybody, from a pool of these servers with further keys.
fn builder(servers: &[&Front], more: &str) -> Builder {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    edge()
        .service_with("iqueue", &origin("nobody"), "access: public")
        .pool("iqueue", &format!("{{servers: [{}], {more}}}", servers.join(", ")))
}

fn get(edge: &Edge) -> u16 {
    edge.client().get(&edge.url("iqueue", "/")).status
}

/// An application behind a server that shows this certificate, and an edge that wants `NAME` from the tests' CA.
fn scene(certificate: &Certificate) -> (Origin, Front, Edge) {
    let app = origin("app");
    let server = front(app.address, certificate);
    let edge = builder(&[&server], TRUSTED).start();
    (app, server, edge)
}

#[test]
fn a_server_that_proves_its_name_gets_requests_over_a_connection_that_is_kept() {
    let (app, server, edge) = scene(&issued());
    for _ in 0..3 {
        let response = edge.client().get(&edge.url("iqueue", "/path?query"));
        assert_eq!((response.status, response.body.as_str()), (200, "hello from app"));
    }
    let seen = app.last();
    assert_eq!((seen.target.as_str(), seen.one("x-forwarded-proto").unwrap().as_str()), ("/path?query", "https"));
    let shaken = server.shaken();
    assert_eq!(shaken.len(), 1, "{shaken:?}");
    assert_eq!(shaken[0].server_name.as_deref(), Some(NAME));
    assert_eq!(shaken[0].protocol.as_deref(), Some("http/1.1"));
    assert!(!shaken[0].knew_who);
}

#[test]
fn without_a_server_name_it_is_the_host_of_the_address() {
    let app = origin("app");
    let server = front(app.address, &ca().issue(&["localhost", "127.0.0.1"]));
    let port = server.address.port();
    for (host, named) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let pool = format!("{{servers: [\"{host}:{port}\"], tls: {{ca: ca.pem}}}}");
        let edge = edge().service_with("iqueue", &app, "access: public").pool("iqueue", &pool).start();
        assert_eq!(get(&edge), 200, "{host}");
        assert_eq!(server.shaken().last().unwrap().server_name.as_deref(), named, "{host}");
    }
}

#[test]
fn a_server_that_does_not_prove_its_name_gets_nothing_and_the_client_learns_no_more_than_that() {
    let hour = Duration::from_secs(3600);
    for (what, certificate) in [
        ("another name", ca().issue(&["other.internal"])),
        ("another CA", Ca::new().issue(&[NAME])),
        ("an end that is past", ca().issue_until(&[NAME], SystemTime::now() - hour)),
        ("a client's certificate", ca().issue_client(NAME)),
    ] {
        let (app, _server, edge) = scene(&certificate);
        let response = edge.client().get(&edge.url("iqueue", "/"));
        assert_eq!(response.status, 503, "{what}");
        let text = response.body.to_lowercase();
        for hint in ["tls", "certificate", "internal", "127.0.0.1"] {
            assert!(!text.contains(hint), "{what}: the answer speaks of {hint}: {text}");
        }
        assert_eq!(app.count(), 0, "{what}");
        let line = &edge.access_log(1)[0];
        assert_eq!((line["status"].as_u64(), line["error"].as_str()), (Some(503), Some("upstream_tls")), "{what}");
    }
}

fn told(daemon: &Daemon, what: &str) -> usize {
    daemon.process.stderr().lines().filter(|line| line.contains(what)).count()
}

#[test]
fn operators_learn_once_why_a_server_is_not_believed_and_once_that_it_is_again() {
    let app = origin("app");
    let server = front(app.address, &Ca::new().issue(&[NAME]));
    let daemon = builder(&[&server], &format!("{TRUSTED}, timeouts: {{idle: 1ms}}")).run();
    let get = || daemon.client().get(&daemon.url("iqueue", "/")).status;
    assert_eq!([get(), get(), get()], [503; 3]);
    let lost = format!("upstream: TLS handshake failed, requests to the server are refused server={}", server.address);
    eventually("it is told", || told(&daemon, &lost) == 1);
    assert_eq!(told(&daemon, "invalid peer certificate"), 1, "{}", daemon.process.stderr());
    server.show(&issued());
    assert_eq!(get(), 200);
    eventually("that is told too", || told(&daemon, "TLS handshake succeeds again") == 1);
    server.show(&ca().issue(&["other.internal"]));
    eventually("kept connections have ended", || get() == 503);
    eventually("and so is the next loss", || told(&daemon, &lost) == 2);
    assert_eq!(told(&daemon, &lost), 2);
}

#[test]
fn a_request_goes_to_a_server_that_is_believed() {
    let (app, other) = (origin("app"), origin("other"));
    let good = front(app.address, &issued());
    let bad = front(other.address, &ca().issue(&["other.internal"]));
    let edge = builder(&[&bad, &good], TRUSTED).start();
    for _ in 0..4 {
        assert_eq!(edge.client().ask("POST", &edge.url("iqueue", "/")).body("pay").send().status, 200);
    }
    assert_eq!((app.count(), other.count()), (4, 0));
    assert_eq!(app.last().body, b"pay");
}

#[test]
fn a_server_that_does_not_shake_hands_in_time_is_a_503() {
    // It accepts, through the kernel, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = format!("{{servers: [\"{}\"], {TRUSTED}, timeouts: {{connect: 200ms}}}}", silent.local_addr().unwrap());
    for protocol in ["http1", "h2"] {
        let pool = pool.replace("tls:", &format!("protocol: {protocol}, tls:"));
        let edge = edge().service_with("iqueue", &origin("nobody"), "access: public").pool("iqueue", &pool).start();
        assert_eq!(get(&edge), 503, "{protocol}");
        let websocket = raw(edge.address(), "iqueue.test").send(websocket_head()).status();
        assert_eq!(websocket, 503, "{protocol}");
    }
}

#[test]
fn a_server_without_tls_is_a_503() {
    let app = origin("app");
    let pool = format!("{{servers: [\"{}\"], {TRUSTED}}}", app.address);
    let edge = edge().service_with("iqueue", &app, "access: public").pool("iqueue", &pool).start();
    assert_eq!(get(&edge), 503);
    assert_eq!(app.count(), 0);
}

#[test]
fn a_server_that_asks_who_the_edge_is_gets_an_answer() {
    let (app, clients) = (origin("app"), Ca::new());
    let server = Front::asking(app.address, &issued(), &clients);
    let Certificate { pem, key } = clients.issue_client("sentry-edge");
    let shows = TRUSTED.replace('}', ", client_certificate: client.pem, client_key: client.key}");
    let with = |tls: &str| builder(&[&server], tls).file("client.pem", &pem).file("client.key", &key).start();
    assert_eq!(get(&with(&shows)), 200);
    assert!(server.shaken()[0].knew_who);
    // With TLS 1.3 the server says so once the handshake is over for the edge, and the request written.
    assert_eq!(get(&with(TRUSTED)), 502);
    assert_eq!(app.count(), 1);
}

fn websocket_head() -> String {
    "GET /ws HTTP/1.1\r\nHost: iqueue.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .into()
}

#[test]
fn websockets_open_and_stay_open_over_tls_whatever_the_pool_speaks_otherwise() {
    let app = streaming();
    let server = front(app.address, &issued());
    for protocol in ["http1", "h2"] {
        let edge = builder(&[&server], &format!("protocol: {protocol}, {TRUSTED}")).start();
        for _ in 0..50 {
            let mut websocket = raw(edge.address(), "iqueue.test");
            assert_eq!(websocket.send(websocket_head()).status(), 101);
            websocket.send("hello").hear("hello");
            websocket.send("again").hear("again");
        }
        assert_eq!(server.shaken().last().unwrap().protocol.as_deref(), Some("http/1.1"));
    }
}

#[test]
fn an_h2_pool_wants_servers_that_speak_it() {
    let app = origin("app");
    let server = Front::offering(app.address, &issued(), &["http/1.1"]);
    let edge = builder(&[&server], &format!("protocol: h2, {TRUSTED}")).start();
    assert_eq!(get(&edge), 503);
    assert_eq!(app.count(), 0);
}

#[test]
fn a_reload_with_another_ca_does_not_use_connections_from_before_it() {
    let (app, server, mut edge) = scene(&issued());
    assert_eq!(get(&edge), 200);
    std::fs::write(edge.folder.path().join("other.pem"), Ca::new().pem).unwrap();
    edge.reload_with(|yaml| yaml.replace("{ca: ca.pem", "{ca: other.pem"));
    assert_eq!(get(&edge), 503);
    edge.reload_with(|yaml| yaml.replace("{ca: other.pem", "{ca: ca.pem"));
    assert_eq!(get(&edge), 200);
    assert_eq!((app.count(), server.shaken().len()), (2, 1), "that of the first is good again");
}

#[test]
fn without_a_ca_those_of_the_system_count() {
    let app = origin("app");
    let server = front(app.address, &issued());
    let builder = builder(&[&server], &TRUSTED.replace("ca: ca.pem, ", ""));
    let status = |daemon: &Daemon| daemon.client().get(&daemon.url("iqueue", "/")).status;
    assert_eq!(status(&builder.clone().run()), 503, "the tests' CA is none of the system's");
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), &ca().pem).unwrap();
    let variable = ("SSL_CERT_FILE", trusted.path().to_str().unwrap());
    assert_eq!(status(&builder.run_with_variable(variable)), 200);
}

#[test]
fn a_check_that_connects_shakes_hands() {
    let app = origin("app");
    let (good, bad) = (front(app.address, &issued()), front(app.address, &ca().issue(&["other.internal"])));
    let (_folder, file) = builder(&[&good, &bad], TRUSTED).write();
    let checked = sentry_edge(&["check", "-c", file.to_str().unwrap(), "--connect"]);
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!("pools.iqueue: {} cannot be reached: ", bad.address)), "{said}");
    assert!(said.contains("certificate not valid for name \"app.internal\""), "{said}");
    assert_eq!(good.shaken().len(), 1);
}

#[test]
fn what_is_wrong_with_it_is_said_with_what_to_write() {
    let builder = |pool: &str| {
        let other = ca().issue_client("other");
        let ended = ca().issue_client_until("ended", SystemTime::now() - Duration::from_secs(60));
        edge()
            .service("iqueue", &origin("nobody"))
            .pool("iqueue", &format!("{{servers: [\"127.0.0.1:1\"], {pool}}}"))
            .file("other.pem", &other.pem)
            .file("other.key", &other.key)
            .file("ended.pem", &ended.pem)
            .file("ended.key", &ended.key)
    };
    for (pool, expected) in [
        (
            "protocol: h2c, tls: {}",
            "pools.iqueue.tls: `h2c` is HTTP/2 without TLS; write `protocol: h2`, or remove this",
        ),
        ("tls: {ca: nowhere.pem}", "pools.iqueue.tls.ca: cannot read "),
        ("tls: {ca: other.key}", "holds no certificate, or something else; name a PEM file with certificates"),
        (
            "tls: {server_name: \"a:1\"}",
            "pools.iqueue.tls.server_name: `a:1` is no name that a certificate could be for",
        ),
        ("tls: {client_certificate: ended.pem, client_key: ended.key}", "ended.pem has ended; renew it"),
        ("tls: {client_key: other.key}", "pools.iqueue.tls.client_certificate: missing; name the PEM file"),
        ("tls: {client_certificate: other.pem}", "pools.iqueue.tls.client_key: missing; name a PEM file"),
        (
            "tls: {client_certificate: other.pem, client_key: edge.key}",
            "pools.iqueue.tls.client_key: the key does not belong to the certificate",
        ),
        (
            "tls: {client_certificate: other.pem, client_key: other.pem}",
            "pools.iqueue.tls.client_key: cannot read a private key",
        ),
    ] {
        let (_folder, file) = builder(pool).write();
        let faults = sentry_edge::server::check(&file, &Default::default()).err().unwrap().to_string();
        assert!(faults.contains(expected), "{expected}: {faults}");
    }
}
