//! What the session store holds, and what becomes of it: tables that anybody can fill, values that other programs read
//! or write, and expiries that move for good requests alone.

use std::time::Duration;

use sentry_edge::sessions::{CounterKey, SessionId, TicketId};
use sentry_edge::users::{Grants, UserName};
use serde_json::Value;

use crate::harness::client::Asking;
use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::process::{sentry_edge, text};
use crate::harness::{Client, Edge, Memcached, Origin, Response, client, edge, eventually, memcached, origin};

const TOKEN: &str = "an-admin-token-of-more-than-32-bytes";

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

// Tables that anybody can fill.

/// One form, sent again and again as a program would, from an address that a trusted proxy names.
struct Guesser {
    client: Client,
    csrf: String,
    url: String,
}

impl Guesser {
    fn at(edge: &Edge) -> Self {
        let mut client = edge.client();
        let form = client.open(&edge.url("sentry", "/login"));
        Self { client, csrf: form.form_field("csrf"), url: edge.url("sentry", "/login") }
    }

    fn guess(&mut self, address: &str, user: &str, password: &str) -> Response {
        let fields = [("csrf", self.csrf.as_str()), ("username", user), ("password", password)];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let asking: Asking<'_> = self.client.ask("POST", &self.url).accept("text/html");
        let asking = asking.field("content-type", "application/x-www-form-urlencoded");
        asking.field("x-forwarded-for", address).body(body).send()
    }
}

#[test]
fn guesses_of_every_kind_fill_no_table_that_others_need() {
    const CAPACITY: usize = 12;
    // Who guesses, and at what: each row fills another counter.
    type Guess = fn(usize) -> (String, String);
    let kinds: [(&str, Guess); 3] = [
        ("one address, ever new names", |n| ("192.0.2.1".into(), format!("name-{n}"))),
        ("ever new addresses, one name", |n| (format!("198.51.100.{n}"), "bob".into())),
        ("ever new addresses, ever new names", |n| (format!("2001:db8:{n:x}::1"), format!("name-{n}"))),
    ];
    for (kind, guess) in kinds {
        let origin = origin("app");
        let edge = edge()
            .service("iqueue", &origin)
            .service("dextor", &origin)
            .user("bob", &["iqueue"], &[])
            .sessions(&format!("{{store: memory, memory: {{capacity: {CAPACITY}}}}}"))
            .server("trusted_proxies: [127.0.0.1/32]")
            .sentry("login: {failures_per_address: 1000 per 15m}")
            .start();
        let mut guesser = Guesser::at(&edge);
        for number in 0..3 * CAPACITY {
            let (address, user) = guess(number);
            let status = guesser.guess(&address, &user, "wrong-password").status;
            assert!([401, 429].contains(&status), "{kind}, guess {number}: {status}");
        }
        let signed_in = guesser.guess("203.0.113.9", "ada", PASSWORD);
        assert_eq!(signed_in.status, 303, "{kind}: the right password: {}", signed_in.body);
        let mut browser = edge.signed_in();
        let page = browser.follow(&edge.url("dextor", "/")).pop().unwrap();
        assert_eq!(page.status, 200, "{kind}: another service: {}", page.body);
    }
}

#[test]
fn a_login_that_finds_every_worker_busy_leaves_no_count() {
    let origin = origin("app");
    let edge = edge()
        .service("iqueue", &origin)
        .sentry("login: {failures_per_account: 5 per 15m, workers: 1, queue: 1}")
        .start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..60)
            .map(|_| {
                let mut guesser = Guesser::at(&edge);
                scope.spawn(move || guesser.guess("127.0.0.1", "nobody-of-that-name", "wrong-password").status)
            })
            .collect();
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert!(count(503) > 0, "some found no place: {statuses:?}");
    let counted = count(401);
    let more = (0..8).map(|_| Guesser::at(&edge).guess("127.0.0.1", "nobody-of-that-name", "wrong-password").status);
    let refused = more.filter(|status| *status == 401).count();
    assert_eq!(counted + refused, 5, "as many guesses as the limit has, busy ones apart: {statuses:?}");
}

// What a reader of memcached learns.

/// All values under keys of a kind.
fn values(memcached: &Memcached, prefix: &str) -> Vec<String> {
    memcached.keys(prefix).iter().map(|key| memcached.value(key)).collect()
}

#[test]
fn a_ticket_in_memcached_tells_nothing_that_opens_anything() {
    let (origin, memcached) = (origin("app"), memcached());
    for audience in ["per_service", "shared"] {
        memcached.tell("flush_all");
        let edge = edge()
            .service("iqueue", &origin)
            .service("dextor", &origin)
            .sentry(&format!("token: {{audience: {audience}}}"))
            .memcached(&memcached.address())
            .start();
        let mut browser = edge.signed_in();
        let mut with_ticket = edge.url("dextor", "/page?q=1");
        for _ in 0..3 {
            with_ticket = browser.open(&with_ticket).location().unwrap();
        }
        let raw = memcached.raw_values("t:");
        let unused: Vec<&Vec<u8>> = raw.iter().filter(|value| value.as_slice() != b"used").collect();
        assert_eq!(unused.len(), 1, "{audience}: the one that was not redeemed");
        let shown = String::from_utf8_lossy(unused[0]).into_owned();
        let token = browser.cookie(&edge.host("sentry"), TOKEN_COOKIE).unwrap().to_owned();
        for secret in [token.as_str(), token.split('.').nth(1).unwrap(), "eyJ", "dextor"] {
            assert!(!shown.contains(secret), "{audience}: it holds {secret:?}: {shown:?}");
        }
        assert_eq!(browser.follow(&with_ticket).pop().unwrap().status, 200, "{audience}: and its owner redeems it");
    }
}

#[test]
fn no_value_in_memcached_holds_a_token_a_password_or_a_session_id() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    browser.follow(&edge.url("dextor", "/"));
    Guesser::at(&edge).guess("127.0.0.1", "ada", "wrong-password");
    let token = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap().to_owned();
    let keys = memcached.keys("");
    assert!(["s:", "t:", "c:"].iter().all(|kind| keys.iter().any(|key| key.starts_with(kind))), "{keys:?}");
    let claims = claims(&token);
    let sid = claims["sid"].as_str().unwrap();
    for (key, value) in keys.iter().zip(values(&memcached, "")) {
        for secret in [sid, "eyJ", "wrong-password", PASSWORD] {
            assert!(!value.contains(secret) && !key.contains(secret), "{key}: {value}");
        }
    }
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_ticket_that_cannot_be_read_sends_its_browser_round_once_more() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).memcached(&memcached.address()).start();
    for stored in ["1 1 dextor.test STATE FINGERPRINT eyJ", "1 2 short", "1 ", "", "hello", "2", "1 1 1 1 1 1"] {
        let mut browser = edge.signed_in();
        let mut with_ticket = edge.url("dextor", "/page?q=1");
        for _ in 0..3 {
            with_ticket = browser.open(&with_ticket).location().unwrap();
        }
        let id = with_ticket.split("requestID=").nth(1).unwrap();
        let key = TicketId::parse(id).unwrap().key();
        memcached.tell(&format!("set {} 0 30 {}\r\n{stored}", key.as_str(), stored.len()));
        let hops = browser.follow(&with_ticket);
        let last = hops.last().unwrap();
        assert_eq!((last.status, last.url.as_str()), (200, edge.url("dextor", "/page?q=1").as_str()), "{stored:?}");
        assert!(hops.len() < 8, "{stored:?}: {} hops", hops.len());
    }
}

// Values that cannot be read.

fn with_token(origin: &Origin, memcached: &Memcached) -> Edge {
    edge()
        .admin(&format!("token: {{value: {TOKEN}}}"))
        .service("iqueue", origin)
        .service("dextor", origin)
        .user("bob", &["iqueue"], &[])
        .memcached(&memcached.address())
        .start()
}

fn api(edge: &Edge, method: &'static str, path: &str) -> Response {
    let mut client = client(edge.inner.admin_address());
    let asking = client.ask(method, &format!("http://admin.test{path}"));
    asking.field("authorization", &format!("Bearer {TOKEN}")).send()
}

#[test]
fn one_bad_record_stops_neither_the_list_nor_the_command() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_token(&origin, &memcached);
    let user = edge.directory().show(&name("ada")).unwrap().id.as_str().to_owned();
    let mark = "AAECAwQFBgcICQoLDA0ODw";
    let late = u64::MAX;
    let records = [
        format!("1 9999999999999999999 1700000000123 1800000 1700043200123 {mark} {user}\n"),
        format!("1 1700000000123 9999999999999999999 1800000 1700043200123 {mark} {user}\n"),
        format!("1 1700000000123 1700000000123 9999999999999999999 1700043200123 {mark} {user}\n"),
        format!("1 1700000000123 1700000000123 1800000 9999999999999999999 {mark} {user}\n"),
        format!("1 253402300800000 1700000000123 1800000 253402300800000 {mark} {user}\n"),
        format!("1 1700000000123 1700000000123 1800000 {late} {mark} {user}\n"),
        format!("1 1700000000123 1700000000123 1800000 1700043200123 {mark} \n"),
        format!("2 1700000000123 1700000000123 1800000 1700043200123 {mark} {user}\n"),
        format!("1 ended {late}\n"),
        "1 ended x\n".to_owned(),
        "hello".to_owned(),
        String::new(),
    ];
    for record in &records {
        // Who is never seen again, and who is: a record without an end lists as one that ends far away.
        for expiry in [0, 1800] {
            memcached.tell("flush_all");
            let mut ada = edge.signed_in();
            let key = SessionId::random().unwrap().key();
            memcached.tell(&format!("set {} 0 {expiry} {}\r\n{record}", key.as_str(), record.len()));
            let answer = api(&edge, "GET", "/api/sessions");
            assert_eq!(answer.status, 200, "{record:?}: {}", answer.body);
            let sessions = answer.json()["sessions"].as_array().unwrap().clone();
            assert!(sessions.iter().any(|session| session["user"] == "ada"), "{record:?}: {sessions:?}");
            let (listed, unreadable) = (sessions.len(), answer.json()["unreadable"].as_u64().unwrap());
            assert!(listed as u64 + unreadable <= 2, "{record:?}: {}", answer.body);

            let file = edge.folder.path().join("edge.yaml");
            let output = sentry_edge(&["session", "list", "-c", file.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(0), "{record:?}: {}", text(&output.stderr));
            assert!(text(&output.stdout).contains("ada\n"), "{record:?}: {}", text(&output.stdout));
            assert_eq!(text(&output.stderr).contains("could not be read"), unreadable > 0, "{record:?}");

            let ended = api(&edge, "DELETE", "/api/sessions?user=ada");
            assert_eq!(ended.status, 200, "{record:?}: {}", ended.body);
            assert_ne!(ada.open(&edge.url("iqueue", "/")).status, 200, "{record:?}");
        }
    }
}

#[test]
fn a_counter_that_another_program_overwrote_keeps_nobody_out() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = with_token(&origin, &memcached);
    for (space, subject) in [("account", "ada"), ("address", "127.0.0.1/32")] {
        for odd in ["hello", "", "-1", "99999999999999999999999999", "1 2", "0x10"] {
            let key = CounterKey::new(space, subject);
            memcached.tell(&format!("set {} 0 900 {}\r\n{odd}", key.as_str(), odd.len()));
            let mut guesser = Guesser::at(&edge);
            let answer = guesser.guess("127.0.0.1", "ada", PASSWORD);
            assert_eq!(answer.status, 303, "{space} {odd:?}: {}", answer.body);
        }
    }
}

// Expiries.

/// The one session of these tests, by the name that memcached has for it.
fn session_key(edge: &Edge, browser: &Client) -> String {
    let token = browser.cookie(&edge.host("iqueue"), TOKEN_COOKIE).unwrap();
    SessionId::parse(claims(token)["sid"].as_str().unwrap()).unwrap().key().as_str().to_owned()
}

/// Seconds that memcached keeps it yet.
fn left(memcached: &Memcached, key: &str) -> u64 {
    let line = memcached.tell(&format!("mg {key} t"));
    line.strip_prefix("HD t").unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

fn shorten(memcached: &Memcached, key: &str, seconds: u64) {
    assert!(memcached.tell(&format!("touch {key} {seconds}")).starts_with("TOUCHED"));
}

type Refused = fn(&Edge, &mut Client) -> Client;

/// Requests that are refused though their token is good, each with its status.
fn refusals() -> Vec<(&'static str, u16, Refused, &'static str)> {
    vec![
        ("a thief's browser", 302, |_, browser| browser.clone().user_agent("Mozilla/5.0 (Windows) Firefox/140.0"), "/"),
        (
            "a disabled user",
            302,
            |edge, browser| {
                edge.directory().set_disabled(&name("ada"), true).unwrap();
                browser.clone()
            },
            "/",
        ),
        (
            "whose sessions were ended",
            302,
            |edge, browser| {
                edge.directory().end_sessions(&name("ada")).unwrap();
                browser.clone()
            },
            "/",
        ),
        ("who never had the role", 403, |_, browser| browser.clone(), "/surgeons/"),
        (
            "who lost the role",
            403,
            |edge, browser| {
                take(edge, &[], &["admin"]);
                browser.clone()
            },
            "/admin/",
        ),
        (
            "who is not registered any more",
            403,
            |edge, browser| {
                take(edge, &["iqueue"], &[]);
                browser.clone()
            },
            "/",
        ),
    ]
}

fn take(edge: &Edge, services: &[&str], roles: &[&str]) {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
    edge.directory().revoke(&name("ada"), &Grants::parse(owned(services), owned(roles)).unwrap()).unwrap();
}

const ROUTES: &str = "idle_timeout: 600s, routes: [{path: /admin/, access: {roles: [admin]}}, \
                      {path: /surgeons/, access: {roles: [surgeon]}}]";

/// A GET goes the fast path, a POST with a body the full one.
fn ask(browser: &mut Client, edge: &Edge, full_path: bool, path: &str) -> u16 {
    let url = edge.url("iqueue", path);
    if !full_path {
        return browser.open(&url).status;
    }
    let asking = browser.ask("POST", &url).accept("text/html").field("sec-fetch-mode", "navigate");
    let status = asking.field("content-type", "text/plain").body("x").send().status;
    // What a navigation is output with a redirect, a post may be output otherwise.
    if [303, 401].contains(&status) { 302 } else { status }
}

#[test]
fn refused_requests_do_not_keep_a_session_in_memcached_alive() {
    let origin = origin("app");
    for full_path in [false, true] {
        for (who, status, prepare, path) in refusals() {
            // Once by a browser that the edge has seen with this token, and once by the first that brings it.
            for seen in [true, false] {
                let memcached = memcached();
                let edge = edge().service_with("iqueue", &origin, ROUTES).memcached(&memcached.address()).start();
                let mut browser = edge.signed_in();
                if !seen {
                    let other = edge.twin();
                    browser.move_to(other.address());
                    refused(&other, &memcached, &mut browser, (who, status, prepare, path), full_path);
                } else {
                    refused(&edge, &memcached, &mut browser, (who, status, prepare, path), full_path);
                }
            }
        }
    }
}

fn refused(
    edge: &Edge,
    memcached: &Memcached,
    browser: &mut Client,
    (who, status, prepare, path): (&str, u16, Refused, &str),
    full_path: bool,
) {
    let key = session_key(edge, browser);
    let mut refused = prepare(edge, browser);
    eventually("it is refused", || ask(&mut refused, edge, full_path, path) == status);
    shorten(memcached, &key, 200);
    for _ in 0..5 {
        assert_eq!(ask(&mut refused, edge, full_path, path), status, "{who}");
    }
    let left = left(memcached, &key);
    assert!(left <= 200, "{who}, full path {full_path}: {left} s are left of 200 after refused requests");
}

#[test]
fn good_requests_keep_a_session_alive_from_the_first_on_and_in_one_round_trip() {
    let (origin, memcached) = (origin("app"), memcached());
    let edge = edge().service_with("iqueue", &origin, ROUTES).memcached(&memcached.address()).start();
    let mut browser = edge.signed_in();
    let key = session_key(&edge, &browser);
    let left = || left(&memcached, &key);
    let shorten = || shorten(&memcached, &key, 200);
    for full_path in [false, true] {
        shorten();
        assert_eq!(ask(&mut browser, &edge, full_path, "/admin/"), 200);
        assert!(left() > 500, "full path {full_path}: {} s", left());
    }
    // An edge that has not seen this token before.
    let other = edge.twin();
    browser.move_to(other.address());
    shorten();
    assert_eq!(browser.open(&other.url("iqueue", "/")).status, 200);
    assert!(left() > 500, "the first request at another edge: {} s", left());
    let before = memcached.commands_on_keys();
    for _ in 0..20 {
        assert_eq!(browser.open(&other.url("iqueue", "/")).status, 200);
    }
    let commands = memcached.commands_on_keys() - before;
    assert!(
        commands <= 40,
        "{commands} commands for 20 requests, a look-up that slides being two of memcached's counts"
    );
}

#[test]
fn refused_requests_do_not_keep_a_session_in_memory_alive() {
    let origin = origin("app");
    for full_path in [false, true] {
        for (who, status, prepare, path) in refusals() {
            let edge =
                edge().admin(&format!("token: {{value: {TOKEN}}}")).service_with("iqueue", &origin, ROUTES).start();
            let mut browser = edge.signed_in();
            let idles_out = || {
                let sessions = api(&edge, "GET", "/api/sessions").json()["sessions"].clone();
                sessions[0]["idle_expires_at"].as_str().unwrap().to_owned()
            };
            let mut refused = prepare(&edge, &mut browser);
            eventually("it is refused", || ask(&mut refused, &edge, full_path, path) == status);
            let before = idles_out();
            edge.let_pass(Duration::from_secs(60));
            for _ in 0..3 {
                assert_eq!(ask(&mut refused, &edge, full_path, path), status, "{who}");
            }
            assert_eq!(idles_out(), before, "{who}, full path {full_path}");
        }
    }
}
