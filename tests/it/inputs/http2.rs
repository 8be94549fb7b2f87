//! Inputs 129 to 132 and 209 to 211: HTTP/2 messages that must not become HTTP/1 ones.

use super::Scene;
use crate::harness::raw::{Ended, http2_upload};

const PLAIN: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "iqueue.test"), (":path", "/")];

type Fields = Vec<(&'static str, &'static str)>;

fn with(name: &'static str, value: &'static str) -> Fields {
    PLAIN.into_iter().chain([(name, value)]).collect()
}

fn without(name: &str) -> Fields {
    PLAIN.into_iter().filter(|(field, _)| *field != name).collect()
}

fn changed(name: &str, value: &'static str) -> Fields {
    PLAIN.into_iter().map(|(field, old)| (field, if field == name { value } else { old })).collect()
}

/// Number, fields, body. None of them is served.
pub fn rows() -> Vec<(&'static str, Fields, &'static str)> {
    let mut rows = vec![
        ("116", changed(":authority", "iqueue.test:1"), ""),
        ("117", changed(":authority", "user@iqueue.test"), ""),
        ("129", with("host", "dextor.test"), ""),
        ("129", with("host", "evil.example"), ""),
        ("130", without(":authority"), ""),
        ("131", changed(":scheme", "ftp"), ""),
        ("132", changed(":path", "http://evil/"), ""),
        ("132", changed(":path", "x"), ""),
        ("132", changed(":path", "?x"), ""),
        ("132", changed(":path", "?"), ""),
        ("132", changed(":path", ""), ""),
        ("132", changed(":path", "/a b"), ""),
        ("132", without(":path"), ""),
        ("132", without(":method"), ""),
        ("132", with(":path", "/admin"), ""),
        ("132", with(":evil", "x"), ""),
        ("58", changed(":method", "CONNECT"), ""),
    ];
    for (name, value) in [
        ("X-Upper", "x"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
    ] {
        rows.push(("209", with(name, value), ""));
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b"] {
        rows.push(("210", with("x-a", value), ""));
    }
    rows.push(("210", with("x a", "b"), ""));
    rows.push(("210", with("x:a", "b"), ""));
    rows.push(("210", with("", "b"), ""));
    rows.push(("211", with("content-length", "5"), "hello!"));
    rows.push(("211", with("content-length", "7"), "hello!"));
    rows.push(("211", with("content-length", "5, 6"), "hello!"));
    rows
}

#[test]
fn http_2_messages_that_must_not_become_http_1_ones_end_before_the_application() {
    let scene = Scene::with("access: public");
    let send = |fields: &[(&str, &str)], body: &str| http2_upload(scene.edge.address(), "iqueue.test", fields, body);
    assert_eq!(send(&PLAIN, ""), Ended::Answered(200), "the plain request is good");
    assert_eq!(send(&with("content-length", "6"), "hello!"), Ended::Answered(200), "and so is one with a body");
    let mut wrong = Vec::new();
    for (number, fields, body) in rows() {
        let ended = send(&fields, body);
        if !matches!(ended, Ended::Answered(0 | 400) | Ended::Reset | Ended::Closed) {
            wrong.push(format!("{number} {fields:?} ended as {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let whole = scene.iqueue.seen().into_iter().filter(|seen| seen.whole);
    let targets: Vec<String> = whole.map(|seen| seen.target).collect();
    assert_eq!(targets.len(), 2, "the application has seen the good ones and nothing else: {targets:?}");
}

/// What h2 cuts off a target is gone before anybody decides: the rule that holds is that of the path that is left, and
/// that is what the application gets.
#[test]
fn a_fragment_over_http_2_is_gone_before_anybody_decides() {
    let scene = Scene::with("routes: [{path: /public, access: public}]");
    let send = |path: &'static str| http2_upload(scene.edge.address(), "iqueue.test", &changed(":path", path), "");
    assert_eq!(send("/public#/../admin"), Ended::Answered(200), "input 105");
    assert_eq!(scene.iqueue.last().target, "/public");
    assert_eq!(send("/admin#/../public"), Ended::Answered(0), "401, which HPACK has no number for");
    assert_eq!(scene.iqueue.count(), 1);
}
