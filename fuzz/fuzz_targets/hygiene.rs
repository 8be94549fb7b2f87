//! The hygiene room: a head as it comes over HTTP/1, parsed as Pingora parses. What is let through can be read in one
//! way, by a reading that knows nothing of ours.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use libfuzzer_sys::fuzz_target;
use sentry_edge::config::Limits;
use sentry_edge::host::Authority;
use sentry_edge::validate::{self, UncheckedRequest};

const LIMITS: Limits = Limits { header_bytes: 1000, header_count: 10, body_bytes: 1000, ..Limits::DEFAULT };

struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    raw: Vec<u8>,
}

/// With what Pingora mends before we see it: the length beside a coding is gone, and so is a fragment.
fn parse(data: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(data).ok()? else { return None };
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    // Pingora refuses a second Host by itself.
    if headers.get_all(header::HOST).iter().count() > 1 {
        return None;
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let uri = request.path?.parse().ok()?;
    let method = request.method?.parse().ok()?;
    Some(Head { method, uri, headers, raw: data[..length].to_vec() })
}

fuzz_target!(|data: &[u8]| {
    let Some(head) = parse(data) else { return };
    let Head { method, uri, headers, raw } = &head;
    let incoming = UncheckedRequest { method, uri, headers, raw: Some(raw) };
    let Ok(target) = validate::inspect(incoming, &LIMITS) else { return };
    let text = String::from_utf8_lossy(raw).to_ascii_lowercase();
    let line = text.lines().next().unwrap();
    assert!(raw.len() <= 1000 && headers.len() <= 10);
    assert!(!["trace", "connect"].contains(&line.split(' ').next().unwrap()), "{line:?}");
    assert_eq!(line.split(' ').count(), 3, "{line:?}");
    assert!(!line.contains(['#', '\\', '\0', '\t', '\u{fffd}']), "{line:?}");
    let has = |name: &str| text.lines().skip(1).any(|line| line.split(':').next().unwrap_or("").trim() == name);
    assert!(!(has("transfer-encoding") && has("content-length")), "two framings: {text:?}");
    let codings: Vec<&HeaderValue> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
    assert!(codings.is_empty() || codings.len() == 1 && codings[0].as_bytes().eq_ignore_ascii_case(b"chunked"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let named = uri.authority().map(|authority| authority.as_str()).or(host).expect("it is for somebody");
    assert_eq!(Authority::parse(named).as_ref(), Ok(&target.authority));
    // The canonical path begins at the root and climbs nowhere.
    assert!(target.path.as_str().starts_with('/') && !target.path.as_str().contains("/../"));
    // A field that nobody reads changes nothing, nor does the case of a name.
    let mut louder = headers.clone();
    louder.append("x-fuzz", HeaderValue::from_static("1"));
    let again =
        validate::inspect(UncheckedRequest { headers: &louder, ..incoming }, &Limits { header_count: 11, ..LIMITS });
    assert_eq!(again.map(|target| target.path.as_str().to_owned()), Ok(target.path.as_str().to_owned()));
});
