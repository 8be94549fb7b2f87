//! A request's head on the fast path: what is served was read as an obvious reading has it, has no body, and is written
//! for the application as it was read. What is refused is stood in for by a head that nothing refuses.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use sentry_edge::config::Limits;
use sentry_edge::host::Authority;
use sentry_edge::path::CanonicalPath;
use sentry_edge::proxy::downstream::parse::{self, Head};
use sentry_edge::proxy::headers::MOST_SET;
use sentry_edge::proxy::headers::edit::HeaderPatch;
use sentry_edge::validate::head as raw;
use sentry_edge::validate::head::Framing;
use sentry_edge::validate::{self, Malformed, RequestTarget, UncheckedRequest};

use super::reader::{self, Values};

/// Names that have no place in a request on the fast path: each of them means a body, another reply than one, or
/// something between the client and the edge alone.
const NEVER: [&str; 12] = [
    "content-length",
    "transfer-encoding",
    "trailer",
    "te",
    "expect",
    "upgrade",
    "http2-settings",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
];

pub fn check(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let accepted = parse::parse(&bytes);
    match judge(&bytes) {
        Ok(Some(framing)) => match &accepted {
            Some(head) => check_accepted(&bytes, head, Some(framing)),
            None => assert!(!is_ordinary(&bytes), "an ordinary head is left: {}", bytes.escape_ascii()),
        },
        judged => {
            if let Some(head) = &accepted {
                check_accepted(&bytes, head, None);
            }
            if judged.is_err() {
                let placeholder_head = raw::placeholder_head(&bytes);
                assert_eq!(
                    judge(&placeholder_head),
                    Ok(Some(Framing::Length(0))),
                    "{}",
                    placeholder_head.escape_ascii()
                );
            }
        }
    }
}

/// As the stream judges what a client sends, before anything else reads it; `None` where that is not one head alone.
fn judge(bytes: &[u8]) -> Result<Option<Framing>, Malformed> {
    match raw::end(bytes, 0)? {
        Some(end) if end == bytes.len() => raw::check(bytes).map(Some),
        Some(end) => raw::check(&bytes[..end]).map(|_| None),
        None => Ok(None),
    }
}

/// What the parser has accepted. `framing` of a head that the stream lets pass.
fn check_accepted(bytes: &Bytes, head: &Head, framing: Option<Framing>) {
    let read = reader::read(bytes).expect("what is no head is accepted");
    assert_eq!(read.length, bytes.len(), "there is more than a head: {}", bytes.escape_ascii());
    assert!([Method::GET, Method::HEAD].contains(&head.parts.method), "{}", head.parts.method);
    assert_eq!(head.fields, read.fields.len());
    let mut kept = reader::values(read.fields);
    assert_eq!(closes(&kept.remove("connection").unwrap_or_default()), Some(head.closes), "{}", bytes.escape_ascii());
    assert_eq!(kept, received(&head.parts.headers), "{}", bytes.escape_ascii());
    assert_eq!(NEVER.iter().find(|name| kept.contains_key(**name)), None, "{}", bytes.escape_ascii());

    let Some(framing) = framing else { return };
    // A fragment would be cut off, and is refused before.
    assert_eq!(read.first, request_line(head).as_bytes(), "another request line: {}", bytes.escape_ascii());
    assert!(read.is_strict, "not in the one way of writing a head: {}", bytes.escape_ascii());
    assert_eq!(framing, Framing::Length(0), "{}", bytes.escape_ascii());
    let parts = &head.parts;
    let incoming =
        UncheckedRequest { method: &parts.method, uri: &parts.uri, headers: &parts.headers, raw: Some(bytes) };
    if let Ok(target) = validate::inspect(incoming, &Limits::DEFAULT) {
        check_served(head, &kept, &target);
    }
}

/// The target is the one that was judged, and the application reads what was read here.
fn check_served(head: &Head, kept: &Values, target: &RequestTarget) {
    let hosts: Vec<&str> = kept["host"].iter().filter_map(|host| std::str::from_utf8(host).ok()).collect();
    assert_eq!(hosts.len(), kept["host"].len());
    let [host] = hosts[..] else { panic!("several hosts: {hosts:?}") };
    assert_eq!(Authority::parse(host).as_ref(), Ok(&target.authority));
    let line = request_line(head);
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    assert_eq!(CanonicalPath::of(path).as_ref(), Ok(&target.path), "{path}");

    let wire = HeaderPatch::of(&head.parts, MOST_SET).wire();
    let written = reader::read(&wire).expect("what is written is a head");
    assert!(written.is_strict && written.length == wire.len(), "{}", wire.escape_ascii());
    assert_eq!(written.first, line.as_bytes());
    assert_eq!(&reader::values(written.fields), kept, "{}", wire.escape_ascii());
}

fn request_line(head: &Head) -> String {
    let target = head.parts.uri.path_and_query().expect("a target in origin form");
    assert_eq!((head.parts.uri.scheme(), head.parts.uri.authority()), (None, None));
    format!("{} {target} HTTP/1.1", head.parts.method)
}

fn received(headers: &HeaderMap) -> Values {
    assert!(!headers.contains_key(header::CONNECTION));
    reader::values(headers.iter())
}

/// What all `Connection` fields together say, where they say nothing but this.
fn closes(said: &[Vec<u8>]) -> Option<bool> {
    said.iter().try_fold(false, |closes, value| match value.to_ascii_lowercase().as_slice() {
        b"close" => Some(true),
        b"keep-alive" => Some(closes),
        _ => None,
    })
}

/// Whether a head is plainly one for the fast path, so that nothing but speed is lost where it is not taken.
fn is_ordinary(bytes: &[u8]) -> bool {
    let Some(head) = reader::read(bytes) else { return false };
    let line = String::from_utf8_lossy(&head.first).into_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return false };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?=&.-_".contains(&byte);
    head.is_strict
        && head.length == bytes.len()
        && ["GET", "HEAD"].contains(&method)
        && target.starts_with('/')
        && target.bytes().all(is_plain)
        && head.fields.len() <= 64
        && !head.fields.iter().any(|(name, _)| NEVER.contains(&name.to_ascii_lowercase().as_str()))
}
