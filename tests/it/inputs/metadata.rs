//! Inputs 85 to 90: what clients say of themselves, where `/public` is public and everything else is not.

use super::{Row, Scene, request};
use crate::harness::origin::Seen;

#[test]
fn nothing_that_a_client_says_of_itself_opens_a_door() {
    let scene = Scene::with("routes: [{path: /public, access: public}]");
    let cookie = scene.cookie();
    scene.ask(&rows(&cookie));
}

/// `cookie` is of Ada, an administrator.
pub fn rows(cookie: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for agent in ["GoogleHC/1.0", "kube-probe/1.2", "ELB-HealthChecker/2.0", "curl/8", ""] {
        rows.push(Row::answered("85", 401, request("GET /", &format!("User-Agent: {agent}\r\n"), "")));
    }
    for said in [
        "X-Forwarded-Uri: /public",
        "X-Forwarded-Method: OPTIONS",
        "X-Forwarded-Prefix: /public",
        "X-Original-URL: /public",
        "X-Original-Path: /public",
        "X-Rewrite-URL: /public",
        "X-HTTP-Method-Override: OPTIONS",
        "X-Method-Override: OPTIONS",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1;host=evil.example",
    ] {
        rows.push(Row::answered("86", 401, request("GET /admin", &format!("{said}\r\n"), "")));
    }
    let signed_in = |fields: &str| request("GET /", &format!("User-Agent: test/1\r\nCookie: {cookie}\r\n{fields}"), "");
    for nominated in
        ["X-Forwarded-User", "x-forwarded-user, X-Real-IP", "X-Request-ID", "keep-alive, X-Forwarded-Groups"]
    {
        let fields = format!("Connection: {nominated}\r\nX-Forwarded-User: root\r\n");
        rows.push(Row::served("88", signed_in(&fields), says_ada));
    }
    for nominated in ["X-Forwarded-For", "x-forwarded-proto", "Host", "X-Forwarded-Host"] {
        rows.push(Row::refused("88", 400, signed_in(&format!("Connection: {nominated}\r\n"))));
    }
    let line = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /public HTTP/1.1\r\nHost: iqueue.test\r\n\r\n";
    rows.push(Row::refused("90", 400, line));
    rows
}

fn says_ada(seen: &Seen) {
    assert_eq!(seen.one("x-forwarded-user").as_deref(), Some("ada"));
    assert_eq!(seen.one("x-forwarded-groups").as_deref(), Some("admin"));
    assert_eq!(seen.one("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert!(seen.one("x-request-id").is_some());
}
