//! Whether a response is compressed on its way to the client, and what its head says then.
//!
//! Pure, but for the [`encoder`]. Off unless a route configures it, and never for replies of our own: the length of a
//! compressed page reveals whether a text that another site put into it occurs in it twice, and so lets that site
//! guess a secret in it letter by letter (BREACH, CVE-2013-3587). Called by `proxy`.

pub mod encoder;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::ResponseHeader;

use crate::config::Encoding;
use crate::framing::ends_with_head;

/// Below this, a response fits into one packet either way.
const LEAST_BYTES: u64 = 1024;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is sent as it is, and would be to any client.
    Identity,
    /// It is sent as it is, but another client might get it compressed: caches have to know.
    IdentityVaries,
    Compress(Encoding),
}

/// The parts of a request that decide on compression.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    pub method: &'a Method,
    pub version: Version,
    pub headers: &'a HeaderMap,
}

/// `offered` are the encodings that the route has, the best first.
pub fn choose(request: RequestParts<'_>, response: &ResponseHeader, offered: &[Encoding]) -> Choice {
    if offered.is_empty() || !is_compressible(response) {
        return Choice::Identity;
    }
    // HTTP/1.0 has no chunked coding, and the length of a compressed body is not known in advance.
    if *request.method == Method::HEAD || request.version < Version::HTTP_11 || is_of_another_site(request.headers) {
        return Choice::IdentityVaries;
    }
    preferred(request.headers, offered).map_or(Choice::IdentityVaries, Choice::Compress)
}

fn is_compressible(response: &ResponseHeader) -> bool {
    let has_body = !ends_with_head(response.status);
    // A range is one of the bytes as they are, and a digest that of the bytes as they are.
    let is_bound_to_its_bytes = response.status == StatusCode::PARTIAL_CONTENT
        || ["content-encoding", "content-range", "content-md5", "digest", "content-digest", "repr-digest", "trailer"]
            .iter()
            .any(|name| response.headers.contains_key(*name));
    let may_be_changed = !words(&response.headers, header::CACHE_CONTROL).any(|word| is(word, "no-transform"));
    let length = response.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    has_body
        && !is_bound_to_its_bytes
        && may_be_changed
        && length.is_none_or(|length: u64| length >= LEAST_BYTES)
        && is_text(&response.headers)
}

/// What is text, whatever it is called. Events are not: they are small, and each has to go out at once.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (top, sub) = kind.split_once('/').unwrap_or_default();
    match top {
        "text" => sub != "event-stream",
        _ if sub.ends_with("+json") || sub.ends_with("+xml") => true,
        "application" => ["json", "javascript", "x-javascript", "xml", "x-ndjson"].contains(&sub),
        _ => false,
    }
}

/// Whether another site's page has caused the request: then a part of the response may be that site's choice.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

/// The encoding that the client prefers (RFC 9110 §12.5.3), and among equal ones the first that the route offers. `*` is
/// ignored: a client that accepts an encoding names it.
fn preferred(headers: &HeaderMap, offered: &[Encoding]) -> Option<Encoding> {
    let weight = |encoding: Encoding| {
        let mut named = words(headers, header::ACCEPT_ENCODING).filter_map(|word| {
            let mut parts = word.split(';');
            let name = parts.next()?.trim();
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=").or(part.trim().strip_prefix("Q=")));
            let quality = quality.map_or(Some(1.0), |text| text.parse().ok().filter(|q| (0.0..=1.0).contains(q)));
            is(name, encoding.name()).then_some(quality.unwrap_or(0.0))
        });
        named.next().unwrap_or(0.0_f32)
    };
    // Of equals, `max_by` takes the last.
    let best = offered.iter().rev().copied().max_by(|one, other| weight(*one).total_cmp(&weight(*other)))?;
    (weight(best) > 0.0).then_some(best)
}

fn words(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','))
}

fn is(word: &str, expected: &str) -> bool {
    word.trim().eq_ignore_ascii_case(expected)
}

/// Adds `Vary: Accept-Encoding`, for caches.
pub fn add_vary(response: &mut ResponseHeader) -> pingora::Result<()> {
    if words(&response.headers, header::VARY).any(|word| is(word, "accept-encoding") || word.trim() == "*") {
        return Ok(());
    }
    response.append_header(header::VARY, "Accept-Encoding").map(drop)
}

/// Says that the body is compressed, and takes back what was said of it as it was.
pub fn mark(response: &mut ResponseHeader, encoding: Encoding) -> pingora::Result<()> {
    response.set_version(Version::HTTP_11);
    response.remove_header(&header::CONTENT_LENGTH);
    response.remove_header(&header::ACCEPT_RANGES);
    response.insert_header(header::CONTENT_ENCODING, encoding.name())?;
    response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    // The same page in other bytes: only a weak validator may name both (RFC 9110 §8.8.1).
    if let Some(etag) = response.headers.get(header::ETAG).map(HeaderValue::as_bytes)
        && etag.starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag].concat())
    {
        response.insert_header(header::ETAG, weak)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
