//! Services in maintenance: switched on by a file or by an administrator, who gets through, and what the others get.

use std::path::PathBuf;

use sentry_edge::maintenance::MaintenanceState;

use crate::harness::edge::{Builder, PASSWORD};
use crate::harness::{Edge, Origin, Response, edge, eventually, origin, raw};

const FILE: &str = "away";

fn maintained(app: &Origin, except: &str) -> Builder {
    let keys = format!("maintenance: {{file: {FILE}{except}}}, routes: [{{path: /open, access: public}}]");
    edge()
        .service_with("iqueue", app, &keys)
        .service("dextor", app)
        .user("bob", &["iqueue", "dextor"], &["clerk"])
        .server("trusted_proxies: [127.0.0.1]")
}

fn file(edge: &Edge) -> PathBuf {
    edge.folder.path().join(FILE)
}

/// Waits until the edge has seen it.
fn switch_on(edge: &Edge) {
    std::fs::write(file(edge), "").unwrap();
    eventually("maintenance is on", || edge.metric("sentry_edge_maintenance", "service=\"iqueue\"") == 1.0);
}

fn switch_off(edge: &Edge) {
    std::fs::remove_file(file(edge)).unwrap();
    eventually("maintenance is off", || edge.metric("sentry_edge_maintenance", "service=\"iqueue\"") == 0.0);
}

#[track_caller]
fn is_away(response: &Response, html: bool) {
    assert_eq!((response.status, response.header("retry-after")), (503, Some("60")), "{}", response.body);
    assert_eq!(response.header("cache-control"), Some("no-store"));
    if html {
        assert!(response.body.contains("Down for maintenance"), "{}", response.body);
        return;
    }
    let json = response.json();
    assert_eq!(json["error"], "maintenance", "{json}");
    assert_eq!(json["request_id"], response.header("x-request-id").unwrap());
}

#[test]
fn while_the_file_exists_every_request_gets_a_503_and_the_other_services_are_served() {
    let app = origin("app");
    let edge = maintained(&app, "").start();
    let mut ada = edge.signed_in();
    ada.follow(&edge.url("dextor", "/"));
    let before = app.count();
    switch_on(&edge);
    for http2 in [false, true] {
        let mut ada = if http2 { ada.clone().http2() } else { ada.clone() };
        for path in ["/", "/open", "/open/x?y=1", "/none"] {
            is_away(&ada.get(&edge.url("iqueue", path)), false);
            let page = ada.open(&edge.url("iqueue", path));
            is_away(&page, true);
            assert_eq!(page.header("refresh"), Some("60"));
        }
        let form = ada.ask("POST", &edge.url("iqueue", "/save")).accept("text/html").body("x".repeat(100_000)).send();
        is_away(&form, true);
        assert_eq!(form.header("refresh"), None, "a form is never sent again by itself");
        let head = ada.ask("HEAD", &edge.url("iqueue", "/")).send();
        assert_eq!((head.status, head.header("retry-after")), (503, Some("60")));
        assert_eq!(ada.ask("OPTIONS", &edge.url("iqueue", "/")).send().status, 503);
        is_away(&edge.client().get(&edge.url("iqueue", "/")), false);
        is_away(&edge.client().open(&edge.url("iqueue", "/")), true);
        assert_eq!(ada.get(&edge.url("dextor", "/")).status, 200);
    }
    assert_eq!(app.count(), before + 2, "the application in maintenance has seen nothing");
    let refused = edge.metric(
        "sentry_edge_auth_decisions_total",
        "outcome=\"unavailable\",reason=\"maintenance\",service=\"iqueue\"",
    );
    assert_eq!(refused, 26.0);
    let lines = edge.access_log(20);
    let line = lines.iter().find(|line| line["reason"] == "maintenance").unwrap();
    assert_eq!(
        (&line["status"], &line["outcome"], &line["service"]),
        (&503.into(), &"unavailable".into(), &"iqueue".into())
    );
    switch_off(&edge);
    assert_eq!(ada.get(&edge.url("iqueue", "/")).status, 200);
}

#[test]
fn the_sign_on_goes_on() {
    let app = origin("app");
    let edge = maintained(&app, ", except: {roles: [admin]}").start();
    switch_on(&edge);
    let mut ada = edge.client();
    // At the sign-on host, where an application in maintenance is no reason to refuse anything.
    ada.sign_in(&edge.url("sentry", "/"), "ada", PASSWORD);
    assert_eq!(ada.get(&edge.url("sentry", "/currentUser")).json()["currentUser"]["name"], "ada");
    assert_eq!(ada.get(&edge.url("iqueue", "/.sentry/currentUser")).status, 200);
    assert_eq!(ada.get(&edge.url("iqueue", "/.sentry/jwks.json")).status, 200);
    is_away(&ada.open(&edge.url("iqueue", "/")), true);
    // A flow that had begun before ends, as its ticket is redeemed.
    switch_off(&edge);
    let mut hops = ada.clone();
    let mut next = edge.url("iqueue", "/page");
    while !next.contains("requestID=") {
        next = hops.open(&next).location().unwrap();
    }
    switch_on(&edge);
    let redeemed = hops.open(&next);
    assert_eq!((redeemed.status, redeemed.location()), (302, Some(edge.url("iqueue", "/page"))));
    assert_eq!(hops.open(&edge.url("iqueue", "/page")).status, 200, "and her role lets her through");
    assert_eq!(hops.open(&edge.url("iqueue", "/.sentry/logout")).status, 302);
    is_away(&hops.open(&edge.url("iqueue", "/page")), true);
}

#[test]
fn a_living_session_of_a_role_that_is_excepted_gets_through() {
    let app = origin("app");
    let edge = maintained(&app, ", except: {roles: [ops, admin]}").start();
    let (mut ada, mut bob) = (edge.client(), edge.client());
    edge.sign_in(&mut ada, "iqueue", "ada");
    edge.sign_in(&mut bob, "iqueue", "bob");
    switch_on(&edge);
    for http2 in [false, true] {
        let mut ada = if http2 { ada.clone().http2() } else { ada.clone() };
        let mut bob = if http2 { bob.clone().http2() } else { bob.clone() };
        for path in ["/", "/open"] {
            assert_eq!(ada.get(&edge.url("iqueue", path)).status, 200, "{path}");
            assert_eq!(ada.ask("POST", &edge.url("iqueue", path)).body("x").send().status, 200, "{path}");
            is_away(&bob.get(&edge.url("iqueue", path)), false);
            is_away(&edge.client().get(&edge.url("iqueue", path)), false);
        }
    }
    let forged = ada.cookie_field("iqueue.test").replace("JWTCookie=e", "JWTCookie=f");
    let request = format!("GET / HTTP/1.1\r\nHost: iqueue.test\r\nUser-Agent: test/1\r\nCookie: {forged}\r\n\r\n");
    assert_eq!(raw(edge.address(), "iqueue.test").send(request).status(), 503, "a token that is not good is none");
    // The session ends, and with it the exception.
    let mut elsewhere = ada.clone();
    elsewhere.follow(&edge.url("iqueue", "/.sentry/logout"));
    is_away(&ada.get(&edge.url("iqueue", "/")), false);
}

#[test]
fn clients_of_an_address_that_is_excepted_get_through_to_the_sign_on() {
    let app = origin("app");
    let edge = maintained(&app, ", except: {addresses: [192.0.2.0/24, \"2001:db8::1\"]}").start();
    let mut ada = edge.signed_in();
    switch_on(&edge);
    let mut anonymous = edge.client();
    for (forwarded, passes) in [
        ("192.0.2.7", true),
        ("2001:db8::1", true),
        ("::ffff:192.0.2.9", true),
        ("198.51.100.1, 192.0.2.7", true),
        ("192.0.2.7, 198.51.100.1", false),
        ("198.51.100.1", false),
        ("2001:db8::2", false),
    ] {
        let ask = |client: &mut crate::harness::Client, path: &str| {
            client.ask("GET", &edge.url("iqueue", path)).field("x-forwarded-for", forwarded).send().status
        };
        assert_eq!(ask(&mut ada, "/"), if passes { 200 } else { 503 }, "{forwarded}");
        assert_eq!(ask(&mut anonymous, "/"), if passes { 401 } else { 503 }, "{forwarded}: not signed in");
        assert_eq!(ask(&mut anonymous, "/open"), if passes { 200 } else { 503 }, "{forwarded}: public");
    }
    is_away(&ada.get(&edge.url("iqueue", "/")), false);
}

#[test]
fn an_administrators_switch_is_kept_over_a_reload_and_not_over_a_restart() {
    let app = origin("app");
    let mut edge = maintained(&app, "").start();
    let mut ada = edge.signed_in();
    ada.follow(&edge.url("dextor", "/"));
    let state = |by_file, by_api| Some(MaintenanceState { by_file, by_api });
    let switches = |edge: &Edge| std::sync::Arc::clone(edge.inner.maintenance());
    assert_eq!(switches(&edge).set("none", true), None);
    // One without a configured file, too.
    assert_eq!(switches(&edge).set("dextor", true), state(false, true));
    is_away(&ada.get(&edge.url("dextor", "/")), false);
    assert_eq!(ada.get(&edge.url("iqueue", "/")).status, 200);
    edge.reload_with(|yaml| yaml.replace("path: /open", "path: /opened"));
    is_away(&ada.get(&edge.url("dextor", "/")), false);
    assert_eq!(switches(&edge).set("dextor", false), state(false, false));
    assert_eq!(ada.get(&edge.url("dextor", "/")).status, 200);
    // Each of the two is enough.
    switch_on(&edge);
    assert_eq!(switches(&edge).set("iqueue", true), state(true, true));
    assert_eq!(switches(&edge).set("iqueue", false), state(true, false));
    is_away(&ada.get(&edge.url("iqueue", "/")), false);
    switches(&edge).set("dextor", true);
    edge.restart();
    assert_eq!(switches(&edge).state("dextor"), state(false, false));
    // The file is seen before the first request.
    assert_eq!(switches(&edge).state("iqueue"), state(true, false));
    let gone = edge.metric_sum("sentry_edge_maintenance");
    assert_eq!(gone, 1.0);
    edge.reload_with(|yaml| {
        yaml.lines().filter(|line| !line.starts_with("  iqueue: {hosts")).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(edge.metric_sum("sentry_edge_maintenance"), 0.0, "the series went with the service");
    assert_eq!(switches(&edge).state("iqueue"), None);
}
