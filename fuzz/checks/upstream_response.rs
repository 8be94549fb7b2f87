//! What becomes of an application's response by the rules that both request paths share: it is refused, or it is a
//! message of one meaning, whose body ends where that of the application's does, to each kind of client.
//!
//! The first byte is the client's version, `0` for HTTP/1.0, `2` for HTTP/2; the second the method, `H` for HEAD; what
//! follows is the response's head as it comes over HTTP/1.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use sentry_edge::proxy::headers::response_rules::{MOST_BYTES, MOST_FIELDS, RequestFacts, UpstreamSync, sanitize};

use super::reader::{self, Values};

/// Fields that end at the edge, whatever else a response says.
const HOP_BY_HOP: [&str; 6] =
    ["keep-alive", "proxy-connection", "te", "trailer", "proxy-authenticate", "proxy-authentication-info"];

/// Where a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the head.
    Head,
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection, or the stream.
    Closed,
    /// It cannot be told.
    Faulty,
}

pub fn check(data: &[u8]) {
    let [client, method, data @ ..] = data else { return };
    let client = match client {
        b'0' => Version::HTTP_10,
        b'2' => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    let method = if *method == b'H' { Method::HEAD } else { Method::GET };
    let Some((version, status, before)) = response(data) else { return };
    let request = RequestFacts { method: &method, version: client, takes_trailers: false };
    let mut fields = before.clone();
    let mended = sanitize(status, version, &mut fields, request);
    let (before, after) = (reader::values(before.iter()), reader::values(fields.iter()));
    // A response without a body is refused for what it says of one, too: it is no response to rely on.
    let said = end(status, &Method::GET, version, &before, false);
    let Ok(afterwards) = mended else {
        let bytes: usize =
            before.iter().flat_map(|(name, values)| values.iter().map(|v| name.len() + v.len() + 4)).sum();
        let is_large = bytes > MOST_BYTES || before.values().map(Vec::len).sum::<usize>() > MOST_FIELDS;
        assert!(said == End::Faulty || is_large, "{mended:?}: {before:?}");
        return;
    };
    assert_ne!(said, End::Faulty, "{before:?}");
    check_fields(status, client, &before, &after);
    let (came, goes) = (end(status, &method, version, &before, true), end(status, &method, client, &after, true));
    match (came, goes) {
        (End::Chunked, End::Closed) => assert_ne!(client, Version::HTTP_11, "the end of chunks is lost: {before:?}"),
        (End::Chunked, End::Chunked) => assert_eq!(client, Version::HTTP_11),
        _ => assert_eq!(came, goes, "{before:?} became {after:?}"),
    }
    // Bytes that come although there can be none would begin the response to the next request on that connection.
    let has_none = status.is_informational() || status == StatusCode::NO_CONTENT;
    if has_none && !matches!(said, End::Closed | End::Length(0)) {
        assert_eq!(afterwards, UpstreamSync::OutOfSync, "{status} {before:?}");
    }
    // A single `close` is heard by whoever reads the head.
    let connection = before.get("connection").map(Vec::as_slice).unwrap_or_default();
    let closes = elements(connection).contains(&b"close".to_vec());
    if closes && !(connection.len() == 1 && connection[0].eq_ignore_ascii_case(b"close")) {
        assert_eq!(afterwards, UpstreamSync::OutOfSync, "{before:?}");
    }
    // What has been mended needs no more of it.
    let mut again = fields.clone();
    assert_eq!(sanitize(status, Version::HTTP_11, &mut again, request), Ok(UpstreamSync::InSync), "{after:?}");
    assert_eq!(again, fields);
}

/// As it is read over HTTP/1: its version, its status and its fields.
fn response(data: &[u8]) -> Option<(Version, StatusCode, HeaderMap)> {
    let head = reader::read(data)?;
    let (version, rest) = head.first.split_at_checked(9)?;
    let version = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return None,
    };
    let status = StatusCode::from_bytes(rest.get(..3)?).ok()?;
    let mut fields = HeaderMap::new();
    for (name, value) in head.fields {
        fields.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?);
    }
    Some((version, status, fields))
}

/// The body's end by the status, the request's method and these fields; by the fields alone without `by_status`.
fn end(status: StatusCode, method: &Method, version: Version, fields: &Values, by_status: bool) -> End {
    let has_none = status.is_informational() || matches!(status.as_u16(), 204 | 304) || *method == Method::HEAD;
    if has_none && by_status {
        return End::Head;
    }
    if let Some(codings) = fields.get("transfer-encoding") {
        let is_chunked = elements(codings).iter().all(|coding| coding == b"chunked");
        return if is_chunked && version == Version::HTTP_11 { End::Chunked } else { End::Faulty };
    }
    let Some(lengths) = fields.get("content-length") else { return End::Closed };
    let mut lengths = elements(lengths).into_iter().map(|text| number(&text));
    match lengths.next().flatten() {
        Some(first) if lengths.all(|other| other == Some(first)) => End::Length(first),
        _ => End::Faulty,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Of a list that may stand in several fields (RFC 9110 §5.3), in lower case.
fn elements(fields: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let parts = fields.iter().flat_map(|field| field.split(|byte| *byte == b','));
    parts.map(|part| part.trim_ascii().to_ascii_lowercase()).collect()
}

/// One framing, nothing of the connection, and all else as it came.
fn check_fields(status: StatusCode, client: Version, before: &Values, after: &Values) {
    let (codings, lengths) = (after.get("transfer-encoding"), after.get("content-length"));
    assert!(codings.is_none() || lengths.is_none(), "two framings: {after:?}");
    assert!(
        codings.is_none_or(|codings| client == Version::HTTP_11 && codings[..] == [b"chunked".to_vec()]),
        "{after:?}"
    );
    assert!(lengths.is_none_or(|lengths| lengths.len() == 1 && number(&lengths[0]).is_some()), "{after:?}");
    let is_bodiless = status.is_informational() || matches!(status.as_u16(), 204 | 304);
    assert!(!is_bodiless || (codings.is_none() && lengths.is_none()), "{status}: {after:?}");
    assert_eq!(HOP_BY_HOP.iter().find(|name| after.contains_key(**name)), None, "{after:?}");
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    assert_eq!(after.get("upgrade"), before.get("upgrade").filter(|_| is_upgrade));
    assert_eq!(after.get("connection"), is_upgrade.then(|| vec![b"upgrade".to_vec()]).as_ref());

    let nominated = elements(before.get("connection").map(Vec::as_slice).unwrap_or_default());
    let framing = ["transfer-encoding", "content-length", "upgrade", "connection"];
    for (name, values) in before.iter().filter(|(name, _)| !framing.contains(&name.as_str())) {
        let ends_here = HOP_BY_HOP.contains(&name.as_str()) || nominated.iter().any(|other| other == name.as_bytes());
        assert_eq!(after.get(name), Some(values).filter(|_| !ends_here), "{name}: {before:?}");
    }
    let added = after.keys().find(|name| *name != "connection" && !before.contains_key(*name));
    assert_eq!(added, None);
}
