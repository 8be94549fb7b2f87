//! Requests that last while the configuration changes: what was decided once is decided again, and what no reload
//! changes goes on.

use std::time::{Duration, SystemTime};

use crate::harness::certificates::Ca;
use crate::harness::edge::HMAC_KEY;
use crate::harness::http2::Arriving;
use crate::harness::{Client, Edge, Http2, Raw, Streaming, Visitor, edge, eventually, origin, raw, streaming, visitor};

/// Two services of one application. Ada is signed in at both.
struct Scene {
    app: Streaming,
    edge: Edge,
    browser: Client,
}

/// Sessions are looked at so seldom that the store has no say in what a test sees.
const ROUTES: &str =
    "idle_timeout: 5m, routes: [{path: /public, access: public}, {path: /admin, access: {roles: [admin]}}]";

fn scene() -> Scene {
    let app = streaming();
    let elsewhere = origin("elsewhere");
    let pool = format!("{{servers: [\"{}\"]}}", app.address);
    let edge = edge()
        .service_with("iqueue", &elsewhere, ROUTES)
        .service("dextor", &elsewhere)
        .pool("iqueue", &pool)
        .pool("dextor", &pool)
        .sessions("{store: memory, session_recheck_interval: 1h}")
        .file("clients.pem", &Ca::new().pem)
        .balanced()
        .start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    Scene { app, edge, browser }
}

fn websocket_fields() -> &'static str {
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
}

impl Scene {
    fn head(&self, service: &str, path: &str, more: &str) -> String {
        let host = format!("{service}.test");
        let cookie = self.browser.cookie_field(&host);
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test/1\r\nCookie: {cookie}\r\n{more}\r\n")
    }

    fn websocket(&self, service: &str, path: &str) -> Raw {
        let mut connection = raw(self.edge.address(), &format!("{service}.test"));
        assert_eq!(connection.send(self.head(service, path, websocket_fields())).status(), 101);
        connection
    }

    fn events(&self, path: &str) -> Raw {
        let mut connection = raw(self.edge.address(), "iqueue.test");
        connection.send(self.head("iqueue", path, "")).hear("HTTP/1.1 200 OK\r\n");
        connection.hear("\r\n\r\n");
        connection
    }

    fn http2_events(&self, path: &str) -> (Http2, Arriving) {
        let mut connection = Http2::open(self.edge.address(), "iqueue.test");
        let events = connection.get(path, &self.browser.cookie_field("iqueue.test"));
        assert_eq!(events.status, 200);
        (connection, events)
    }

    fn upload(&self, path: &str) -> Raw {
        let mut connection = raw(self.edge.address(), "iqueue.test");
        let head = self.head("iqueue", path, "Content-Length: 100000\r\n").replacen("GET", "POST", 1);
        connection.send(head).send("begun");
        connection
    }

    /// Errors and reasons of the access log's lines below a path, once there are so many.
    fn told(&self, path: &str, lines: usize) -> Vec<(String, String)> {
        let of_path = || {
            let lines = self.edge.access_log(1).into_iter();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let is_cut = |line: &serde_json::Value| line["error"].is_string() && text(&line["path"]).starts_with(path);
            lines.filter(is_cut).map(|line| (text(&line["error"]), text(&line["reason"]))).collect::<Vec<_>>()
        };
        eventually("the streams have their lines", || of_path().len() >= lines);
        of_path()
    }

    fn closed(&self) -> f64 {
        self.edge.metric_sum("sentry_edge_streams_closed_total")
    }
}

fn echo(websocket: &mut Raw, text: &str) {
    websocket.send(text).hear(text);
}

/// A reload: its name, the text that it replaces, what by, and why a new request would be refused.
type Change = (&'static str, &'static str, &'static str, &'static str);

/// What takes away access that a signed-in user had.
const WITHDRAWN: [Change; 10] = [
    ("a role is asked for", "idle_timeout: 5m", "idle_timeout: 5m, access: {roles: [chief]}", "missing_role"),
    ("another credential is asked for", "idle_timeout: 5m", "idle_timeout: 5m, credentials: [bearer]", "no_token"),
    ("the service is gone", "  iqueue: {hosts: [iqueue.test]", "  other: {hosts: [other.test]", "rerouted"),
    ("the host is another service's", "  iqueue: {hosts: [iqueue.test]", "  other: {hosts: [iqueue.test]", "rerouted"),
    ("another application", "pool: iqueue, idle_timeout", "pool: dextor, idle_timeout", "rerouted"),
    ("another signing key", HMAC_KEY, "fedcba9876543210fedcba9876543210", "bad_signature"),
    ("the key has another name", "{id: main,", "{id: next,", "unknown_key"),
    ("another issuer", "sentry: {", "sentry: {token: {issuer: \"https://other.test\"}, ", "wrong_issuer"),
    ("another audience", "sentry: {", "sentry: {token: {audience: shared}, ", "wrong_audience"),
    ("certificates are asked for", "idle_timeout: 5m", "idle_timeout: 5m, tls: {client_ca: clients.pem}", "tls_policy"),
];

#[test]
fn what_a_reload_takes_away_is_taken_from_what_is_open() {
    for (name, from, to, reason) in WITHDRAWN {
        let mut scene = scene();
        let mut websocket = scene.websocket("iqueue", "/lasts/ws");
        let mut events = scene.events("/lasts/events");
        let (_connection, mut over_http2) = scene.http2_events("/lasts/events");
        let (mut download, mut upload) = (scene.events("/lasts/download"), scene.upload("/lasts/upload"));
        eventually("all are open", || scene.app.open() == 5);
        echo(&mut websocket, "hello");
        scene.app.say("data: 1");
        events.hear("data: 1");
        over_http2.hear("data: 1");
        download.hear("data: 1");
        scene.edge.reload_with(|yaml| {
            assert!(yaml.contains(from), "{name}: {yaml}");
            yaml.replacen(from, to, 1)
        });
        websocket.rest();
        events.rest();
        assert!(over_http2.end().is_err(), "{name}: it has not come to its end");
        // Bodies of a length are no streams yet, until bytes of them pass.
        eventually("bodies are cut once bytes of them pass", || {
            scene.app.say("data: 2");
            upload.send("more");
            scene.app.open() == 0
        });
        download.rest();
        upload.rest();
        let told = scene.told("/lasts", 5);
        assert_eq!(told, vec![("session_ended".to_owned(), reason.to_owned()); 5], "{name}");
        assert_eq!(scene.closed(), 5.0, "{name}");
    }
}

#[test]
fn a_public_stream_ends_when_its_route_is_public_no_more_or_is_gone() {
    for (name, from, to, reason) in [
        ("a sign-on is asked for", "{path: /public, access: public}", "{path: /public, access: required}", "no_token"),
        ("the service is gone", "  iqueue: {hosts: [iqueue.test]", "  other: {hosts: [other.test]", "rerouted"),
        ("another application", "pool: iqueue, idle_timeout", "pool: dextor, idle_timeout", "rerouted"),
        ("certificates", "idle_timeout: 5m", "idle_timeout: 5m, tls: {client_ca: clients.pem}", "tls_policy"),
        ("addresses", "idle_timeout: 5m", "idle_timeout: 5m, addresses: {deny: [127.0.0.1]}", "address"),
        ("methods", "path: /public", "path: /public, methods: [PUT]", "method"),
    ] {
        let mut scene = scene();
        let websocket = scene.websocket("iqueue", "/public/ws");
        let events = scene.events("/public/events");
        let (_connection, over_http2) = scene.http2_events("/public/events");
        let (download, mut upload) = (scene.events("/public/download"), scene.upload("/public/upload"));
        eventually("all are open", || scene.app.open() == 5);
        scene.edge.reload_with(|yaml| {
            assert!(yaml.contains(from), "{name}: {yaml}");
            yaml.replacen(from, to, 1)
        });
        websocket.rest();
        events.rest();
        assert!(over_http2.end().is_err(), "{name}: it has not come to its end");
        eventually("bodies are cut once bytes of them pass", || {
            scene.app.say("data: 2");
            upload.send("more");
            scene.app.open() == 0
        });
        download.rest();
        upload.rest();
        let told = scene.told("/public", 5);
        assert_eq!(told, vec![("access_ended".to_owned(), reason.to_owned()); 5], "{name}");
    }
}

#[test]
fn what_no_reload_changes_goes_on() {
    let mut scene = scene();
    let mut websockets = ["/ws", "/admin/ws", "/public/ws"].map(|path| scene.websocket("iqueue", path));
    let mut of_dextor = scene.websocket("dextor", "/ws");
    let mut events = scene.events("/events");
    let (_connection, mut over_http2) = scene.http2_events("/events");
    let changes = [
        ("idle_timeout: 5m", "idle_timeout: 6m"),
        ("server: {", "server: {limits: {streams: 50000}, "),
        ("{path: /admin, access: {roles: [admin]}}", "{path: /admin, access: {roles: [chief, admin]}}"),
        ("idle_timeout: 6m", "idle_timeout: 6m, read_timeout: 2m"),
        ("keys: [", "keys: [{id: next, algorithm: HS256, secret: {value: fedcba9876543210fedcba9876543210}}, "),
        ("sentry: {", "sentry: {token: {sign_with: next}, "),
        ("  dextor: {hosts: [dextor.test]", "  dextor: {hosts: [dextor.test, other.test]"),
        ("idle_timeout: 6m", "idle_timeout: 6m, tls: {min_version: \"1.3\"}"),
    ];
    let reloads = changes.into_iter().chain([("", ""); 2]).enumerate();
    for (round, (from, to)) in reloads {
        scene.edge.reload_with(|yaml| {
            assert!(yaml.contains(from), "{yaml}");
            yaml.replacen(from, to, 1)
        });
        // A stream that was opened after the reload is cut by no look that is still to come; those before it were then looked at.
        std::thread::sleep(Duration::from_millis(1200));
        let text = format!("round {round}");
        websockets.iter_mut().chain([&mut of_dextor]).for_each(|websocket| echo(websocket, &text));
        scene.app.say(&text);
        events.hear(&text);
        over_http2.hear(&text);
    }
    assert_eq!(scene.closed(), 0.0);
}

#[test]
fn what_a_reload_changes_holds_later_as_well() {
    let mut scene = scene();
    let websocket = scene.websocket("iqueue", "/ws");
    scene.edge.reload_with(|yaml| yaml.replacen("idle_timeout: 5m", "idle_timeout: 5m, access: {roles: [admin]}", 1));
    let mut bystander = scene.websocket("dextor", "/ws");
    std::thread::sleep(Duration::from_millis(1200));
    let name = sentry_edge::users::UserName::parse("ada").unwrap();
    let grants = sentry_edge::users::Grants::parse(Vec::new(), vec!["admin".into()]).unwrap();
    scene.edge.directory().revoke(&name, &grants).unwrap();
    websocket.rest();
    assert_eq!(scene.told("/ws", 1), [("session_ended".to_owned(), "missing_role".to_owned())]);
    echo(&mut bystander, "nothing is asked for here");
}

// What was agreed on for the connection.

/// A public service of an application that goes on, asking this of connections.
fn open_service(app: &Streaming, tls: &str, ca: &Ca) -> Edge {
    edge()
        .service_with("iqueue", &origin("elsewhere"), &format!("access: public{tls}"))
        .pool("iqueue", &format!("{{servers: [\"{}\"]}}", app.address))
        .file("clients.pem", &ca.pem)
        .start()
}

const ASKS: &str = ", tls: {client_ca: clients.pem}";

fn websocket_of(visitor: &Visitor, edge: &Edge) -> Raw {
    let mut connection = visitor.visit(edge.address(), "iqueue.test");
    let port = edge.address().port();
    connection.send(format!("GET /ws HTTP/1.1\r\nHost: iqueue.test:{port}\r\n{}\r\n", websocket_fields()));
    assert_eq!(connection.status(), 101);
    connection
}

#[test]
fn whom_another_issuer_vouches_for_is_cut() {
    let (app, ca) = (streaming(), Ca::new());
    let mut edge = open_service(&app, ASKS, &ca);
    let mut websocket = websocket_of(&Visitor::showing(&ca.issue_client("ada")), &edge);
    edge.reload_with(|yaml| yaml);
    std::thread::sleep(Duration::from_millis(1200));
    echo(&mut websocket, "the same issuer");
    std::fs::write(edge.folder.path().join("clients.pem"), Ca::new().pem).unwrap();
    edge.reload_with(|yaml| yaml);
    websocket.rest();
    eventually("its line is there", || edge.access_log(1)[0]["reason"] == "tls_policy");
}

#[test]
fn a_connection_of_an_older_version_than_the_host_asks_for_by_now_is_cut() {
    let (app, ca) = (streaming(), Ca::new());
    let mut edge = open_service(&app, "", &ca);
    let older = websocket_of(&Visitor::of(&rustls::version::TLS12), &edge);
    let mut newer = websocket_of(&visitor(), &edge);
    edge.reload_with(|yaml| yaml.replacen("access: public", "access: public, tls: {min_version: \"1.3\"}", 1));
    older.rest();
    echo(&mut newer, "over 1.3");
}

#[test]
fn a_stream_ends_with_the_certificate_of_its_client() {
    let (app, ca) = (streaming(), Ca::new());
    let edge = open_service(&app, ASKS, &ca);
    let ends = ca.issue_client_until("ada", SystemTime::now() + Duration::from_secs(8));
    let (ended, mut lasts) = (
        websocket_of(&Visitor::showing(&ends), &edge),
        websocket_of(&Visitor::showing(&ca.issue_client("bob")), &edge),
    );
    ended.rest();
    echo(&mut lasts, "for another day");
    eventually("its line is there", || edge.access_log(1)[0]["reason"] == "certificate_ended");
    assert_eq!(edge.metric("sentry_edge_streams_closed_total", "reason=\"expired\""), 1.0);
}
