//! Requests that last: what keeps their session alive, and what ends them, whoever else is quiet.

use std::time::Duration;

use sentry_edge::users::{Grants, UserName};

use crate::harness::edge::Builder;
use crate::harness::{
    Client, Edge, Http2, Memcached, Raw, Streaming, edge, eventually, memcached, origin, raw, streaming,
};

/// Looked at on every tick, so that a test need not wait for more than that.
const EAGER: &str = "{store: memory, session_recheck_interval: 100ms}";
/// Looked at so seldom that the store has no say in what a test sees.
const LAZY: &str = "{store: memory, session_recheck_interval: 1h}";

const MINUTE: Duration = Duration::from_secs(60);

/// Two services of one application. Ada is signed in at both.
struct Scene {
    app: Streaming,
    edge: Edge,
    browser: Client,
}

const ROUTES: &str = "idle_timeout: 5m, routes: [{path: /public, access: public}, {path: /admin, access: {roles: [admin]}}, \
                      {path: /poll, extends_session: false}]";

fn builder(app: &Streaming, sessions: &str) -> Builder {
    // Where requests go is said by the pools alone.
    let nobody = origin("nobody");
    let pool = format!("{{servers: [\"{}\"]}}", app.address);
    edge()
        .service_with("iqueue", &nobody, ROUTES)
        .service("dextor", &nobody)
        .pool("iqueue", &pool)
        .pool("dextor", &pool)
        .sessions(sessions)
        .balanced()
}

fn scene(sessions: &str) -> Scene {
    scene_with(|app| builder(app, sessions))
}

fn scene_with(build: impl FnOnce(&Streaming) -> Builder) -> Scene {
    let app = streaming();
    let edge = build(&app).start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    Scene { app, edge, browser }
}

impl Scene {
    fn head(&self, path: &str, more: &str) -> String {
        let cookie = self.browser.cookie_field("iqueue.test");
        format!("GET {path} HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nCookie: {cookie}\r\n{more}\r\n")
    }

    fn websocket_head(&self, path: &str) -> String {
        let handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.head(path, handshake)
    }

    fn websocket(&self, path: &str) -> Raw {
        let mut connection = raw(self.edge.address(), "iqueue.test");
        assert_eq!(connection.send(self.websocket_head(path)).status(), 101);
        connection
    }

    /// The connection with its response begun.
    fn get(&self, path: &str) -> Raw {
        let mut connection = raw(self.edge.address(), "iqueue.test");
        connection.send(self.head(path, "")).hear("HTTP/1.1 200 OK\r\n");
        connection.hear("\r\n\r\n");
        connection
    }

    fn watched(&self) -> f64 {
        self.edge.metric("sentry_edge_streams", "")
    }

    fn closed(&self, reason: &str) -> f64 {
        self.edge.metric("sentry_edge_streams_closed_total", &format!("reason=\"{reason}\""))
    }

    /// How often the store has told of a session that lives.
    fn looks(&self) -> f64 {
        finds(&self.edge, "memory", "ok")
    }

    /// Waits until everything that has happened so far was taken into account.
    fn looked_at(&self) {
        // The next look may have begun before; the one after it has not.
        let enough = self.looks() + 2.0;
        eventually("the stream was looked at", || self.looks() >= enough);
    }

    /// Waits until nothing is asked of the store any more for a stream that was just opened.
    fn first_look(&self, before: f64) {
        eventually("the stream was looked at once", || self.looks() > before);
    }

    fn is_signed_in(&mut self) -> bool {
        self.browser.open(&self.edge.url("iqueue", "/")).status == 200
    }

    fn ends_at_logout(&mut self) {
        assert_eq!(self.browser.sign_out(&self.edge.url("dextor", "/.sentry/logout")).status, 200);
    }

    /// The access log's lines of a path, once there is one.
    fn lines(&self, path: &str) -> Vec<serde_json::Value> {
        let lines = || self.edge.access_log(1).into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
        eventually("there is a line of it", || !lines().is_empty());
        lines()
    }
}

/// Look-ups of sessions by what came of them.
fn finds(edge: &Edge, server: &str, result: &str) -> f64 {
    let labels = format!("operation=\"find\",result=\"{result}\",server=\"{server}\"");
    edge.metric("sentry_edge_session_store_operations_total", &labels)
}

fn echo(websocket: &mut Raw, text: &str) {
    websocket.send(text).hear(text);
}

fn ada() -> UserName {
    UserName::parse("ada").unwrap()
}

fn grants(services: &[&str], roles: &[&str]) -> Grants {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    Grants::parse(owned(services), owned(roles)).unwrap()
}

#[test]
fn every_websocket_opens_though_the_application_answers_at_once() {
    let scene = scene(LAZY);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| echo(&mut scene.websocket("/ws"), "hello")));
        }
    });
}

#[test]
fn a_websocket_is_opened_for_pages_of_this_host_and_port_alone() {
    let scene = scene(LAZY);
    let port = scene.edge.address().port();
    let own = format!("iqueue.test:{port}");
    for (host, origins, opens) in [
        ("iqueue.test", &["https://iqueue.test"][..], true),
        (own.as_str(), &[&*format!("https://iqueue.test:{port}")], true),
        ("iqueue.test", &["https://iqueue.test:1"], false),
        ("iqueue.test", &["https://IQUEUE.test:8443"], false),
        (&own, &["https://iqueue.test"], false),
        ("iqueue.test", &["https://iqueue.test", "https://dextor.test"], false),
        ("iqueue.test", &["https://dextor.test", "https://iqueue.test"], false),
    ] {
        let origins_sent: String = origins.iter().map(|origin| format!("Origin: {origin}\r\n")).collect();
        let head =
            scene.websocket_head("/ws").replace("Host: iqueue.test\r\n", &format!("Host: {host}\r\n{origins_sent}"));
        let status = raw(scene.edge.address(), "iqueue.test").send(head).status();
        assert_eq!(status, if opens { 101 } else { 400 }, "{host} {origins:?}");
    }
}

// What keeps a session.

#[test]
fn a_websocket_that_talks_keeps_its_session_from_idling_out() {
    let mut scene = scene(EAGER);
    let mut websocket = scene.websocket("/ws");
    for minute in 0..3 {
        scene.edge.let_pass(4 * MINUTE);
        echo(&mut websocket, &format!("still here {minute}"));
        scene.looked_at();
    }
    assert!(scene.is_signed_in(), "after twelve minutes in which nothing else was heard");
    assert_eq!(scene.watched(), 1.0);
}

#[test]
fn a_websocket_that_is_quiet_does_not_and_ends_with_its_session() {
    let mut scene = scene(EAGER);
    let websocket = scene.websocket("/ws");
    scene.edge.let_pass(4 * MINUTE);
    scene.looked_at();
    scene.edge.let_pass(2 * MINUTE);
    assert!(websocket.rest().is_empty());
    eventually("it is counted", || scene.closed("session_ended") == 1.0);
    assert!(!scene.is_signed_in());
}

#[test]
fn a_route_that_is_no_activity_is_none_however_much_is_said() {
    let scene = scene(EAGER);
    let mut websocket = scene.websocket("/poll/ws");
    scene.edge.let_pass(4 * MINUTE);
    echo(&mut websocket, "still here");
    scene.looked_at();
    echo(&mut websocket, "and here");
    scene.edge.let_pass(2 * MINUTE);
    websocket.rest();
    eventually("it is counted", || scene.closed("session_ended") == 1.0);
}

#[test]
fn events_that_arrive_keep_a_session_too() {
    let mut scene = scene(EAGER);
    let mut events = scene.get("/events");
    for minute in 0..2 {
        scene.edge.let_pass(4 * MINUTE);
        scene.app.say(&format!("data: {minute}"));
        events.hear(&format!("data: {minute}"));
        scene.looked_at();
    }
    assert!(scene.is_signed_in());
}

#[test]
fn a_large_download_that_lasts_counts_as_activity() {
    let mut scene = scene(EAGER);
    let mut download = scene.get("/download");
    assert_eq!(scene.watched(), 0.0, "its head says how long it is, so it may be over at once");
    eventually("bytes still pass after an interval", || {
        scene.app.say("more");
        download.hear("more");
        scene.watched() == 1.0
    });
    for part in 0..2 {
        scene.edge.let_pass(4 * MINUTE);
        scene.app.say(&format!("part {part}"));
        download.hear(&format!("part {part}"));
        scene.looked_at();
    }
    assert!(scene.is_signed_in());
}

#[test]
fn the_last_access_in_the_record_is_that_of_the_stream() {
    let memcached = memcached();
    let scene = scene_with(|app| builder(app, &shared(&memcached)));
    let mut websocket = scene.websocket("/ws");
    // A record that is just being written may not be in the dump.
    let last_access = || {
        let record = memcached.session_records().pop()?;
        record.split(' ').nth(2)?.parse::<u64>().ok()
    };
    let before = last_access();
    // A minute is more than `last_access_interval`.
    scene.edge.let_pass(MINUTE);
    let begun = scene.edge.clock.now().millis();
    echo(&mut websocket, "still here");
    assert!(before.is_none_or(|before| before < begun));
    eventually("the record tells of it", || last_access().is_some_and(|last| last >= begun));
}

// What ends a stream.

/// Sessions of several edges.
fn shared(memcached: &Memcached) -> String {
    format!(
        "{{store: memcached, memcached: {{servers: [\"{}\"], timeout: 300ms}}, session_recheck_interval: 100ms}}",
        memcached.address()
    )
}

#[test]
fn a_logout_on_another_host_ends_every_stream_of_the_session_at_once_and_no_other() {
    let mut scene = scene_with(|app| builder(app, LAZY).user("bob", &["iqueue"], &[]));
    let mut others = scene.edge.client();
    scene.edge.sign_in(&mut others, "iqueue", "bob");
    let before = scene.looks();
    let (websocket, events) = (scene.websocket("/ws"), scene.get("/events"));
    std::mem::swap(&mut scene.browser, &mut others);
    let mut bystander = scene.websocket("/ws");
    std::mem::swap(&mut scene.browser, &mut others);
    eventually("each was looked at once", || scene.looks() >= before + 3.0);
    scene.ends_at_logout();
    websocket.rest();
    events.rest();
    echo(&mut bystander, "I am somebody else");
    eventually("both are counted", || scene.closed("session_ended") == 2.0);
    eventually("the application's connections went with them", || scene.app.open() == 1);
    assert_eq!(scene.watched(), 1.0);
}

#[test]
fn a_logout_at_another_edge_ends_a_stream_within_the_interval() {
    let (app, memcached) = (streaming(), memcached());
    let builder = builder(&app, &shared(&memcached));
    let (edge, other) = (builder.clone().start(), builder.start());
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    let mut scene = Scene { app, edge, browser };
    let mut websocket = scene.websocket("/ws");
    echo(&mut websocket, "hello");
    let logout = scene.edge.url("dextor", "/.sentry/logout");
    assert_eq!(scene.browser.through(other.address()).sign_out(&logout).status, 200);
    websocket.rest();
    eventually("it is counted", || scene.closed("session_ended") == 1.0);
}

/// Opens a stream, has `change` done to Ada, and waits for the stream's end.
fn revoked(path: &str, change: impl FnOnce(&Edge)) -> Scene {
    let scene = scene(LAZY);
    let (websocket, mut public) = (scene.websocket(path), scene.websocket("/public/ws"));
    change(&scene.edge);
    websocket.rest();
    eventually("it is counted", || scene.closed("revoked") == 1.0);
    echo(&mut public, "nobody was asked for here");
    scene
}

#[test]
fn a_stream_ends_when_its_user_is_disabled() {
    let scene = revoked("/ws", |edge| edge.directory().set_disabled(&ada(), true).unwrap());
    assert_eq!(scene.lines("/ws")[0]["reason"], "revoked");
}

#[test]
fn a_stream_ends_when_the_sessions_of_its_user_are_ended() {
    let scene = revoked("/ws", |edge| edge.directory().end_sessions(&ada()).unwrap());
    assert_eq!(scene.lines("/ws")[0]["reason"], "revoked");
}

#[test]
fn a_stream_ends_when_its_service_is_revoked() {
    let scene = revoked("/ws", |edge| {
        edge.directory().revoke(&ada(), &grants(&["iqueue"], &[])).unwrap();
    });
    assert_eq!(scene.lines("/ws")[0]["reason"], "not_registered");
}

#[test]
fn a_stream_ends_when_the_role_that_its_route_wants_is_taken_away() {
    let scene = revoked("/admin/ws", |edge| {
        edge.directory().revoke(&ada(), &grants(&[], &["admin"])).unwrap();
    });
    assert_eq!(scene.lines("/admin/ws")[0]["reason"], "missing_role");
}

#[test]
fn a_stream_ends_at_the_absolute_end_of_its_token_however_much_is_said() {
    let scene = scene_with(|app| builder(app, LAZY).sentry("token: {lifetime: 1h}"));
    let before = scene.looks();
    let mut websocket = scene.websocket("/ws");
    scene.first_look(before);
    echo(&mut websocket, "hello");
    scene.edge.let_pass(60 * MINUTE);
    websocket.rest();
    eventually("it is counted", || scene.closed("expired") == 1.0);
}

#[test]
fn an_upload_that_goes_on_ends_too() {
    let scene = scene(EAGER);
    let mut upload = raw(scene.edge.address(), "iqueue.test");
    upload.send(scene.head("/upload", "Content-Length: 100000\r\n").replacen("GET", "POST", 1));
    eventually("bytes still pass after an interval", || {
        upload.send("more");
        scene.watched() == 1.0
    });
    scene.edge.directory().set_disabled(&ada(), true).unwrap();
    upload.rest();
    eventually("the application's connection is closed", || scene.app.open() == 0);
    let lines = scene.lines("/upload");
    assert_eq!((lines.len(), &lines[0]["error"]), (1, &"session_ended".into()));
}

#[test]
fn over_http_2_one_stream_is_reset_and_the_others_of_its_connection_go_on() {
    let mut scene = scene(LAZY);
    let cookie = scene.browser.cookie_field("iqueue.test");
    let mut connection = Http2::open(scene.edge.address(), "iqueue.test");
    let mut public = connection.get("/public/events", &cookie);
    let mut events = connection.get("/events", &cookie);
    assert_eq!((public.status, events.status), (200, 200));
    scene.app.say("data: 1");
    public.hear("data: 1");
    events.hear("data: 1");
    scene.ends_at_logout();
    assert!(events.end().is_err(), "it has not come to its end, and is not told as if it had");
    scene.app.say("data: 2");
    public.hear("data: 2");
    assert_eq!(connection.get("/public/page", "").end().unwrap(), "hello");
    assert_eq!(connection.get("/page", &cookie).status, 401);
    eventually("the application's connection went with it", || scene.app.open() == 1);
    assert_eq!(scene.lines("/events").len(), 1);
}

#[test]
fn without_a_store_a_logout_ends_the_streams_of_this_edge_and_a_disabled_user_has_none() {
    let mut scene = scene("{store: none}");
    let websocket = scene.websocket("/ws");
    scene.ends_at_logout();
    websocket.rest();
    let websocket = scene.websocket("/ws");
    scene.edge.directory().set_disabled(&ada(), true).unwrap();
    websocket.rest();
    eventually("both are counted", || (scene.closed("session_ended"), scene.closed("revoked")) == (1.0, 1.0));
}

// What does not.

#[test]
fn a_store_that_is_away_ends_no_stream_and_an_administrator_still_does() {
    let mut memcached = memcached();
    let scene = scene_with(|app| builder(app, &shared(&memcached)));
    let mut websocket = scene.websocket("/ws");
    let failed =
        |edge: &Edge| ["timeout", "away"].iter().map(|result| finds(edge, &memcached.address(), result)).sum::<f64>();
    memcached.freeze();
    eventually("the store was asked in vain, several times", || failed(&scene.edge) >= 3.0);
    echo(&mut websocket, "still here");
    memcached.thaw();
    let before = finds(&scene.edge, &memcached.address(), "ok");
    eventually("the store answers again", || finds(&scene.edge, &memcached.address(), "ok") >= before + 2.0);
    echo(&mut websocket, "and still here");
    let silent = scene.websocket("/ws");
    memcached.kill();
    scene.edge.directory().set_disabled(&ada(), true).unwrap();
    websocket.rest();
    silent.rest();
    eventually("both are counted", || scene.closed("revoked") == 2.0);
}

#[test]
fn a_later_request_of_the_same_connection_is_not_hit() {
    let mut scene = scene(LAZY);
    let mut connection = raw(scene.edge.address(), "iqueue.test");
    let answer = connection.send(scene.head("/finite", "")).answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"), "a stream, and over at once");
    assert_eq!(connection.send(scene.websocket_head("/public/ws")).status(), 101);
    let other = scene.websocket("/ws");
    scene.ends_at_logout();
    other.rest();
    echo(&mut connection, "nobody has to be signed in here");
    eventually("the other is counted", || (scene.closed("session_ended"), scene.watched()) == (1.0, 0.0));
}

#[test]
fn requests_that_anybody_may_make_and_ordinary_ones_are_not_watched() {
    let mut scene = scene(EAGER);
    let mut websocket = scene.websocket("/public/ws");
    let mut events = scene.get("/public/events");
    assert!(scene.is_signed_in());
    scene.app.say("data");
    events.hear("data");
    echo(&mut websocket, "hello");
    assert_eq!(scene.watched(), 0.0);
    scene.ends_at_logout();
    scene.app.say("more");
    events.hear("more");
    echo(&mut websocket, "hello again");
}

// What is told of it.

#[test]
fn a_stream_that_was_cut_is_counted_logged_and_audited_once() {
    let mut scene = scene(LAZY);
    let requests = || scene.edge.metric("sentry_edge_requests_total", "service=\"iqueue\",status=\"1xx\"");
    let mut websocket = scene.websocket("/ws?requestID=secret");
    echo(&mut websocket, "hello");
    assert_eq!(requests(), 0.0);
    let logout = scene.edge.url("dextor", "/.sentry/logout");
    assert_eq!(scene.browser.sign_out(&logout).status, 200);
    websocket.rest();
    eventually("it is settled", || scene.watched() == 0.0);
    assert_eq!(requests(), 1.0);
    let lines = scene.lines("/ws");
    assert_eq!(lines.len(), 1);
    let expected = serde_json::json!({
        "method": "GET", "host": "iqueue.test", "path": "/ws", "query": "requestID=…", "protocol": "HTTP/1.1",
        "status": 101, "bytes": 5, "service": "iqueue", "outcome": "allowed", "reason": "no_session", "user": "ada",
        "server": scene.app.address.to_string(), "error": "session_ended", "client": "127.0.0.1",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&lines[0][field], value, "{field}");
    }
    let audited = scene.edge.events("stream_closed", 1);
    assert_eq!(audited.len(), 1);
    for (field, value) in [("user", "ada"), ("host", "iqueue.test"), ("reason", "no_session"), ("client", "127.0.0.1")]
    {
        assert_eq!(audited[0][field], value, "{field}");
    }
    assert_eq!(audited[0]["request_id"], lines[0]["request_id"]);
}

#[test]
fn a_stream_that_ends_by_itself_is_told_as_any_request() {
    let scene = scene(LAZY);
    let mut websocket = scene.websocket("/ws");
    echo(&mut websocket, "hello");
    drop(websocket);
    eventually("it is watched no more", || scene.watched() == 0.0);
    assert_eq!(scene.lines("/ws")[0]["error"], "client_gone", "without a farewell");
    assert_eq!(scene.edge.metric_sum("sentry_edge_streams_closed_total"), 0.0);
}

#[test]
fn more_streams_than_can_be_watched_are_refused() {
    let scene = scene_with(|app| builder(app, LAZY).server("limits: {streams: 1}"));
    let first = scene.websocket("/ws");
    let mut second = raw(scene.edge.address(), "iqueue.test");
    assert_eq!(second.send(scene.websocket_head("/ws")).status(), 503);
    assert_eq!(scene.edge.metric("sentry_edge_limits_reached_total", "limit=\"streams\""), 1.0);
    let mut public = scene.websocket("/public/ws");
    echo(&mut public, "what is not watched is not counted");
    drop(first);
    eventually("there is room again", || scene.watched() == 0.0);
    scene.websocket("/ws");
    eventually("the refusal is told", || scene.lines("/ws").iter().any(|line| line["error"] == "too_many_streams"));
}

#[test]
fn a_stream_that_a_stop_cuts_off_has_its_line() {
    let scene = scene(LAZY);
    let websocket = scene.websocket("/ws");
    let Scene { edge, app: _app, .. } = scene;
    let Edge { inner, folder, .. } = edge;
    inner.shutdown_gracefully(std::future::ready(()));
    websocket.rest();
    let lines = crate::harness::edge::log_lines(&folder.path().join("access.log"), 1);
    let cut: Vec<_> = lines.iter().filter(|line| line["path"] == "/ws").collect();
    assert_eq!((cut.len(), &cut[0]["error"]), (1, &"cut_off".into()));
}
