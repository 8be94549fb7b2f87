//! What refusals say: to scripts as JSON of one shape, and to the audit log with the name of the user, where it is known.

use std::time::Duration;

use sentry_edge::server::FastPathMode;
use sentry_edge::users::{Grants, UserName};
use serde_json::Value;

use crate::harness::edge::{PASSWORD, TOKEN_COOKIE};
use crate::harness::{Client, Edge, Origin, edge, eventually, free_address, memcached, origin};

const BOTH: [FastPathMode; 2] = [FastPathMode::On, FastPathMode::Off];

const ROUTES: &str = "routes: [{path: /admin, access: {roles: [admin]}}, {path: /api, credentials: [cookie, bearer]}, \
                      {path: /program, credentials: [bearer]}]";

/// One request, its fields and body, and the status that it gets.
type Case<'a> = (&'a str, &'static str, String, &'a [(&'a str, &'a str)], &'a str, u16);

/// Holds an error's body against the contract.
fn assert_is_an_error(what: &str, response: &crate::harness::Response, status: u16) {
    assert_eq!(response.status, status, "{what}: {}", response.body);
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}: {}", response.body);
    let body = response.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let mut keys: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    if text("error") == "login_required" {
        assert_eq!(keys, ["error", "login_url", "message", "reason", "request_id"], "{what}");
    } else {
        assert_eq!(keys, ["error", "message", "request_id"], "{what}: {body}");
    }
    let code = text("error");
    assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{what}: {body}");
    assert!(text("message").ends_with('.') && text("message").contains(' '), "{what}: a sentence: {body}");
    assert_eq!(Some(text("request_id").as_str()), response.header("x-request-id"), "{what}");
}

#[test]
fn every_error_is_json_of_one_shape_for_a_script() {
    let (iqueue, slow) = (origin("iqueue"), Origin::slow(Duration::from_secs(60)));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let foreign = ("sec-fetch-site", "cross-site");
    let large = "x".repeat(20_000);
    for fast_path in BOTH {
        let edge = edge()
            .service_with("iqueue", &iqueue, ROUTES)
            .service_with("dextor", &iqueue, "access: public, hosts: [dextor.test]")
            .service_with("slow", &slow, "access: public, hosts: [slow.test]")
            .pool("slow", &format!("{{servers: [\"{}\"], timeouts: {{read: 200ms}}}}", slow.address))
            .service_with("down", &slow, "access: public, hosts: [down.test]")
            .pool("down", &format!("{{servers: [\"{}\"]}}", free_address()))
            .service_with("busy", &iqueue, "access: public, hosts: [busy.test], requests_per_second: 1")
            .certificate(&["slow.test", "down.test", "busy.test", "nobody.test"])
            .user("bob", &["iqueue"], &[])
            .server("limits: {body_bytes: 16KiB}")
            .fast_path(fast_path)
            .start();
        let mut bob = edge.client();
        edge.sign_in(&mut bob, "iqueue", "bob");
        let url = |name: &str, path: &str| edge.url(name, path);
        let foreign_return = "/copyCookie?redirectURL=https%3A%2F%2Fevil.example%2F";
        let cases: [Case<'_>; 23] = [
            ("a malformed path", "GET", url("iqueue", "/%zz"), &[], "", 400),
            ("an expectation", "GET", url("dextor", "/"), &[("expect", "wonders")], "", 417),
            ("a return URL elsewhere", "GET", url("sentry", foreign_return), &[], "", 400),
            ("no session", "GET", url("dextor", "/.sentry/none"), &[], "", 404),
            ("a bad bearer token", "GET", url("iqueue", "/program"), &[("authorization", "Bearer x.y.z")], "", 401),
            ("no bearer token", "GET", url("iqueue", "/program"), &[], "", 401),
            ("no role", "GET", url("iqueue", "/admin/x"), &[], "", 403),
            ("no role, by POST", "POST", url("iqueue", "/admin/x"), &[], "x", 403),
            ("a foreign logout", "POST", url("iqueue", "/.sentry/logout"), &[foreign], "", 403),
            ("no page of the sign-on", "GET", url("sentry", "/none"), &[], "", 404),
            ("no method of the sign-on", "DELETE", url("sentry", "/login"), &[], "", 405),
            ("no method at all", "PROPFIND", url("dextor", "/"), &[], "", 405),
            ("a large body", "POST", url("dextor", "/"), &[], &large, 413),
            ("a large form", "POST", url("sentry", "/login"), &[form], &large, 413),
            ("no form", "POST", url("sentry", "/login"), &[("content-type", "application/json")], "{}", 415),
            ("a field twice", "POST", url("sentry", "/login"), &[form], "username=a&username=b", 400),
            ("a forged form", "POST", url("sentry", "/login"), &[form, foreign], "username=a&password=b", 403),
            ("a form without a cookie", "POST", url("sentry", "/login"), &[form], "username=a&password=b", 403),
            ("another host", "GET", url("nobody", "/"), &[], "", 421),
            ("a server that is down", "GET", url("down", "/"), &[], "", 503),
            ("one that is down, by POST", "POST", url("down", "/"), &[], "x", 503),
            ("a server that is slow", "GET", url("slow", "/"), &[], "", 504),
            ("one that is slow, by POST", "POST", url("slow", "/"), &[], "x", 504),
        ];
        for (what, method, url, fields, body, status) in cases {
            for accept in ["application/json", "*/*", ""] {
                for http2 in [false, true] {
                    let mut client = if http2 { bob.clone().http2() } else { bob.clone() };
                    let asking = client.ask(method, &url).body(body);
                    let asking = if accept.is_empty() { asking } else { asking.accept(accept) };
                    let response = fields.iter().fold(asking, |asking, (name, value)| asking.field(name, value)).send();
                    assert_is_an_error(&format!("{what}, {fast_path:?}, h2 {http2}, {accept:?}"), &response, status);
                }
            }
        }
        let answers: Vec<_> = (0..4).map(|_| bob.get(&url("busy", "/"))).collect();
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(!refused.is_empty(), "one request a second is allowed");
        refused.iter().for_each(|answer| assert_is_an_error("too many requests", answer, 429));
        let many: Vec<(String, String)> = (0..200).map(|at| (format!("x-{at}"), "1".into())).collect();
        let asking = bob.ask("GET", &edge.url("dextor", "/"));
        let answer = many.iter().fold(asking, |asking, (name, value)| asking.field(name, value)).send();
        assert_is_an_error("too many fields", &answer, 431);
    }
}

#[test]
fn a_program_that_signs_in_is_answered_in_json() {
    let iqueue = origin("iqueue");
    let edge = edge().service("iqueue", &iqueue).start();
    let mut client = edge.client();
    let form = client.open(&edge.url("sentry", "/login"));
    let csrf = form.form_field("csrf");
    for (username, password, status, code) in [
        ("ada", "wrong", 401, "wrong_credentials"),
        ("nobody", "wrong", 401, "wrong_credentials"),
        ("ada", "", 400, "missing_fields"),
        ("", PASSWORD, 400, "missing_fields"),
    ] {
        let pairs = [("csrf", csrf.as_str()), ("username", username), ("password", password)];
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let asking = client.ask("POST", &edge.url("sentry", "/login")).accept("application/json");
        let asking = asking.field("content-type", "application/x-www-form-urlencoded").body(body);
        let answer = asking.send();
        assert_is_an_error(code, &answer, status);
        assert_eq!(answer.json()["error"], code);
    }
}

#[test]
fn a_session_that_cannot_be_checked_is_json_for_a_script() {
    let iqueue = origin("iqueue");
    for fast_path in BOTH {
        let mut memcached = memcached();
        let edge = edge().service("iqueue", &iqueue).memcached(&memcached.address()).fast_path(fast_path).start();
        let mut ada = edge.signed_in();
        memcached.kill();
        // What this process saw a moment ago may be let in by the policy.
        edge.let_pass(Duration::from_secs(120));
        for (service, path) in [("iqueue", "/"), ("iqueue", "/.sentry/currentUser"), ("sentry", "/currentUser")] {
            assert_is_an_error(path, &ada.get(&edge.url(service, path)), 503);
        }
    }
}

/// A signed-in browser that is refused, and what the audit log says of it.
struct Refusal {
    edge: Edge,
    ada: Client,
}

fn refusal(fast_path: FastPathMode, origin: &Origin) -> Refusal {
    let edge = edge()
        .service_with("iqueue", origin, &format!("idle_timeout: 5m, {ROUTES}"))
        .service("dextor", origin)
        .user("bob", &["iqueue"], &[])
        .fast_path(fast_path)
        .start();
    let mut ada = edge.signed_in();
    ada.follow(&edge.url("dextor", "/"));
    Refusal { edge, ada }
}

impl Refusal {
    /// The refusals in the audit log for a reason, at a host: their users.
    fn users(&self, reason: &str, host: &str) -> Vec<Value> {
        let of_this =
            |line: &Value| line["event"] == "access_refused" && line["reason"] == reason && line["host"] == host;
        self.edge.audit(0).into_iter().filter(of_this).map(|line| line["user"].clone()).collect()
    }

    /// Waits for the line, and holds it against the user's name.
    fn assert_named(&self, what: &str, reason: &str, host: &str) {
        eventually(&format!("{what}: the audit log has {reason} at {host}"), || !self.users(reason, host).is_empty());
        let users = self.users(reason, host);
        assert!(users.iter().all(|user| user == "ada"), "{what}, {reason} at {host}: {users:?}");
    }

    /// Every way that a session is looked at, by cookie and as a bearer token.
    fn knock(&mut self) {
        let token = self.ada.cookie("iqueue.test", TOKEN_COOKIE).unwrap().to_owned();
        let [open, api, post, current, hand_off, own] = [
            ("iqueue", "/"),
            ("iqueue", "/api/x"),
            ("dextor", "/form"),
            ("dextor", "/.sentry/currentUser"),
            ("sentry", "/copyCookie"),
            ("sentry", "/currentUser"),
        ]
        .map(|(service, path)| self.edge.url(service, path));
        // Each with the cookies as they are now: a refusal may clear one.
        self.ada.clone().open(&open);
        self.ada.clone().get(&current);
        self.ada.clone().open(&hand_off);
        self.ada.clone().get(&own);
        self.ada.clone().ask("POST", &post).body("x").send();
        let mut program = self.ada.clone();
        program.forget_cookies();
        program.ask("GET", &api).field("authorization", &format!("Bearer {token}")).send();
    }
}

const HOSTS: [&str; 3] = ["iqueue.test", "dextor.test", "sentry.test"];

#[test]
fn a_refusal_of_a_session_names_its_user_on_every_way() {
    let origin = origin("app");
    let name = UserName::parse("ada").unwrap();
    for fast_path in BOTH {
        let mut ended = refusal(fast_path, &origin);
        ended.edge.let_pass(Duration::from_secs(301));
        ended.knock();
        HOSTS.iter().for_each(|host| ended.assert_named("idled out", "no_session", host));

        let mut expired = refusal(fast_path, &origin);
        expired.edge.let_pass(Duration::from_secs(13 * 3600));
        expired.knock();
        HOSTS.iter().for_each(|host| expired.assert_named("expired", "expired", host));

        let mut revoked = refusal(fast_path, &origin);
        revoked.edge.directory().set_disabled(&name, true).unwrap();
        let own = revoked.edge.url("iqueue", "/");
        let mut browser = revoked.ada.clone();
        eventually("the edge has heard", || browser.clone().open(&own).status == 302);
        browser.open(&own);
        revoked.knock();
        HOSTS.iter().for_each(|host| revoked.assert_named("disabled", "revoked", host));

        let mut copied = refusal(fast_path, &origin);
        copied.ada = copied.ada.clone().user_agent("curl/8.0");
        copied.knock();
        HOSTS.iter().for_each(|host| copied.assert_named("another browser", "fingerprint", host));
        copied.knock();
    }
}

#[test]
fn a_refusal_for_want_of_a_role_or_a_service_names_the_user() {
    let origin = origin("app");
    let grants = |services: &[&str]| {
        Grants::parse(services.iter().map(|service| (*service).to_owned()).collect(), Vec::new()).unwrap()
    };
    for fast_path in BOTH {
        let scene = refusal(fast_path, &origin);
        scene.edge.directory().revoke(&UserName::parse("ada").unwrap(), &grants(&["dextor"])).unwrap();
        let role = Grants::parse(Vec::new(), vec!["admin".into()]).unwrap();
        scene.edge.directory().revoke(&UserName::parse("ada").unwrap(), &role).unwrap();
        let (dextor, admin) = (scene.edge.url("dextor", "/"), scene.edge.url("iqueue", "/admin/"));
        for url in [dextor, admin] {
            eventually("the edge has heard", || scene.ada.clone().open(&url).status == 403);
            assert_eq!(scene.ada.clone().ask("POST", &url).body("x").send().status, 403);
        }
        scene.assert_named("dextor", "not_registered", "dextor.test");
        scene.assert_named("the administrators' route", "missing_role", "iqueue.test");
    }
}

#[test]
fn a_token_of_another_service_names_the_user() {
    let origin = origin("app");
    for fast_path in BOTH {
        let mut scene = refusal(fast_path, &origin);
        let token = scene.ada.cookie("iqueue.test", TOKEN_COOKIE).unwrap().to_owned();
        scene.ada.set_cookie("dextor.test", TOKEN_COOKIE, &token);
        scene.ada.clone().open(&scene.edge.url("dextor", "/"));
        scene.assert_named("another service's cookie", "wrong_audience", "dextor.test");
    }
}

#[test]
fn a_ticket_that_is_refused_names_the_user_whose_it_was() {
    let origin = origin("app");
    let scene = refusal(FastPathMode::On, &origin);
    let url = scene.edge.url("iqueue", "/report");
    let mut browser = scene.ada.clone();
    browser.forget_cookie("iqueue.test", TOKEN_COOKIE);
    let mut location = browser.open(&url).location().unwrap();
    while !location.contains("requestID=") {
        location = browser.open(&location).location().unwrap();
    }
    browser.user_agent("curl/8.0").open(&location);
    let refused = || scene.edge.audit(0).into_iter().find(|line| line["event"] == "ticket_refused");
    eventually("the audit log has it", || refused().is_some());
    let line = refused().unwrap();
    assert_eq!((&line["reason"], &line["user"]), (&"fingerprint".into(), &"ada".into()), "{line}");
}

#[test]
fn a_login_names_the_host_that_it_leads_to() {
    let origin = origin("app");
    let edge = edge().service("iqueue", &origin).service("dextor", &origin).start();
    let starts = [
        (edge.url("iqueue", "/a"), "iqueue.test"),
        (edge.url("dextor", "/"), "dextor.test"),
        (edge.url("sentry", "/login"), "none"),
    ];
    for (url, _) in &starts {
        for (name, password) in [("ada", "wrong"), ("no such name", PASSWORD), ("ada", PASSWORD)] {
            let mut browser = edge.client();
            let form = browser.follow(url).pop().unwrap();
            edge.send_login(&mut browser, &form, name, password);
        }
    }
    let of = |event: &str| -> Vec<Value> {
        edge.audit(0).into_iter().filter(|line| line["event"] == event).map(|line| line["host"].clone()).collect()
    };
    eventually("all are written", || of("login").len() == 3 && of("login_refused").len() == 6);
    let expected: Vec<&str> = starts.iter().map(|(_, host)| *host).collect();
    assert_eq!(of("login"), expected);
    assert_eq!(of("login_refused"), expected.iter().flat_map(|host| [*host, *host]).collect::<Vec<_>>());
}
