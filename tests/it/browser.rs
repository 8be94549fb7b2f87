//! The sign-on as a person meets it: a real Chromium that trusts our CA and ignores no error.
//!
//! The hosts are below `app.localhost`: Chromium resolves them itself, and they are one site to it, as
//! `sentry.leantaas.com` and `iqueue.leantaas.com` are.

use std::time::Duration;

use http_body_util::Full;
use serde_json::json;

use crate::harness::edge::{PASSWORD, STATE_COOKIE, TOKEN_COOKIE};
use crate::harness::{Browser, Client, Edge, Origin, browser, browser_without_scripts, edge};

struct Scene {
    edge: Edge,
    _iqueue: Origin,
    _dextor: Origin,
}

fn scene() -> Scene {
    let (iqueue, dextor) = (application("iqueue"), application("dextor"));
    let edge = edge()
        .domain("app.localhost")
        .service_with("iqueue", &iqueue, "idle_timeout: 30m")
        .service_with("dextor", &dextor, "idle_timeout: 30m")
        .user("eve", &["iqueue"], &[])
        .start();
    Scene { edge, _iqueue: iqueue, _dextor: dextor }
}

/// An application with one page, that greets whoever it is told the user is.
fn application(name: &'static str) -> Origin {
    Origin::answering(move |seen| {
        let user = seen.one("x-forwarded-user").unwrap_or_else(|| "nobody".into());
        page(&format!(
            "<title>{name}</title><h1>{name}</h1><p>hello, {user}</p><noscript>no scripts here</noscript>\
             <a href=\"/.sentry/logout\">Sign out</a>"
        ))
    })
}

fn page(html: &str) -> hyper::Response<Full<hyper::body::Bytes>> {
    let html = format!("<!doctype html><html lang=\"en\"><link rel=\"icon\" href=\"data:,\">{html}");
    let response = hyper::Response::builder().header("content-type", "text/html");
    response.body(Full::new(html.into())).unwrap()
}

fn sign_in(browser: &Browser, user: &str) {
    browser.fill_in("#username", user);
    browser.fill_in("#password", PASSWORD);
    browser.click("button");
}

/// Nothing on our pages was held back by their own Content-Security-Policy.
fn breaks_no_policy(browser: &Browser) {
    let lines = browser.console();
    let broken = |line: &&String| line.contains("Content Security Policy") || line.contains("Refused to");
    assert_eq!(lines.iter().find(broken), None, "{lines:?}");
}

#[test]
fn one_login_opens_both_applications_until_one_logout_closes_them() {
    let Scene { edge, .. } = &scene();
    let browser = browser();
    let asked = edge.url("iqueue", "/path?q=1&r=%20a+b");
    browser.open(&asked);
    assert!(browser.address().starts_with(&edge.url("sentry", "/login?")), "{}", browser.address());
    assert_eq!(browser.title(), "Sign in");
    sign_in(&browser, "ada");

    assert_eq!(browser.address(), asked, "the page that was asked for, byte for byte");
    assert!(browser.text().contains("hello, ada"), "{}", browser.text());
    assert_eq!(browser.run("return document.referrer"), "", "the application learns nothing of the way");
    assert_eq!(browser.run("return document.cookie"), "", "no script reads our cookies");
    let history = browser.history();
    assert!(!history.iter().any(|address| address.contains("requestID")), "{history:?}");
    the_cookies_are_as_they_should_be(&browser, edge);

    browser.open_tab(&edge.url("dextor", "/"));
    assert_eq!(browser.address(), edge.url("dextor", "/"));
    assert!(browser.text().contains("hello, ada"), "no second login: {}", browser.text());
    let current = browser.wait_for("fetch('/.sentry/currentUser').then(reply => reply.json())");
    assert_eq!(current["currentUser"]["name"], "ada");

    browser.click("a");
    assert!(browser.text().contains("You are signed out"), "{}", browser.text());
    assert_eq!(browser.cookie(&edge.host("dextor"), TOKEN_COOKIE), None);
    browser.first_tab();
    let refused = browser.wait_for("fetch('/api').then(async reply => [reply.status, await reply.json()])");
    assert_eq!(refused[0], 401);
    assert_eq!(refused[1]["error"], "login_required");
    browser.open(&asked);
    assert!(browser.has("#password"), "the login is asked again: {}", browser.text());
    assert!(browser.text_of("[role=status]").contains("session has ended"));
    sign_in(&browser, "ada");
    assert_eq!(browser.address(), asked);
    breaks_no_policy(&browser);
}

fn the_cookies_are_as_they_should_be(browser: &Browser, edge: &Edge) {
    for host in ["sentry", "iqueue"] {
        let cookie = browser.cookie(&edge.host(host), TOKEN_COOKIE).unwrap();
        assert_eq!(cookie["domain"], edge.host(host).as_str(), "this host's alone");
        let attributes = ["path", "httpOnly", "secure", "sameSite", "session"].map(|name| cookie[name].clone());
        assert_eq!(json!(attributes), json!(["/", true, true, "Lax", true]), "{host}");
    }
    assert_eq!(browser.cookie(&edge.host("iqueue"), STATE_COOKIE), None, "the state is spent");
    let csrf = browser.cookie(&edge.host("sentry"), "__Host-SSOLogin").unwrap();
    assert_eq!((&csrf["sameSite"], &csrf["httpOnly"]), (&json!("Strict"), &json!(true)));
    let wide: Vec<_> = browser.cookies().into_iter().filter(|c| c["domain"].as_str().unwrap().starts_with('.')).collect();
    assert!(wide.is_empty(), "no cookie for a whole domain: {wide:?}");
}
