//! What an application hears of a request, and what it may say to the browser: strip, then set.
//!
//! Runs in `upstream_request_filter`, after Pingora has taken out the hop-by-hop fields and those that `Connection`
//! names, so that nobody can have our own removed.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::auth::cookie::{pair, parts};
use crate::auth::{Identity, Source};
use crate::config::ForwardToken;
use crate::hygiene::{fold, is_odd};
use crate::routes::Service;
use crate::snapshot::Snapshot;

/// The facts that an application is told.
pub struct Forwarding<'a> {
    pub client: IpAddr,
    /// Who connected to us: a trusted proxy, or the client itself.
    pub peer: IpAddr,
    pub peer_is_trusted: bool,
    pub host: &'a str,
    pub port: u16,
    pub request_id: &'a str,
}

/// Fields that say where a request came from. Only we, and proxies that are trusted, may say that.
const SAYS_WHERE: [&str; 5] = ["x-forwarded-", "x-original-", "x-rewrite-", "x-real-ip", "forwarded"];

fn says_where(name: &str) -> bool {
    SAYS_WHERE.iter().any(|ours| if ours.ends_with('-') { name.starts_with(ours) } else { name == *ours })
}

/// Whether a client sent a name that some application would read as one that only we may set.
pub fn has_disguised(headers: &HeaderMap, snapshot: &Snapshot) -> bool {
    headers.keys().filter(|name| is_odd(name)).any(|name| is_ours(&fold(name), snapshot))
}

fn is_ours(folded: &str, snapshot: &Snapshot) -> bool {
    says_where(folded) || snapshot.our_headers.iter().any(|ours| ours == folded)
}

/// Takes out what clients must not say. Answers how many fields went because their name was odd, and how many
/// because the name is ours.
pub fn strip(upstream: &mut RequestHeader, snapshot: &Snapshot) -> (u64, u64) {
    let doomed: Vec<(HeaderName, bool)> = upstream
        .headers
        .keys()
        .filter_map(|name| {
            let odd = is_odd(name);
            (odd || is_ours(name.as_str(), snapshot)).then(|| (name.clone(), odd))
        })
        .collect();
    let (mut odd_names, mut our_names) = (0, 0);
    for (name, odd) in doomed {
        upstream.remove_header(&name);
        *if odd { &mut odd_names } else { &mut our_names } += 1;
    }
    (odd_names, our_names)
}

/// `X-Forwarded-*`, the request id and, for somebody whom the guard knows, who they are.
pub fn set(
    upstream: &mut RequestHeader,
    forwarding: &Forwarding<'_>,
    received: &HeaderMap,
    identity: Option<(&Identity, &Service)>,
) -> pingora::Result<()> {
    upstream.insert_header("X-Forwarded-For", chain(forwarding, received))?;
    upstream.insert_header("X-Real-IP", forwarding.client.to_string())?;
    upstream.insert_header("X-Forwarded-Proto", "https")?;
    upstream.insert_header("X-Forwarded-Host", forwarding.host)?;
    upstream.insert_header("X-Forwarded-Port", forwarding.port)?;
    upstream.insert_header("X-Request-ID", forwarding.request_id)?;
    if let Some((identity, service)) = identity {
        set_identity(upstream, identity, service)?;
    }
    Ok(())
}

/// A trusted proxy's chain and that proxy itself. It may have said it in several fields, which are one list
/// (RFC 9110 §5.3).
fn chain(forwarding: &Forwarding<'_>, received: &HeaderMap) -> String {
    let fields = received.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let said = fields.filter(|_| forwarding.peer_is_trusted).map(str::to_owned);
    said.chain([forwarding.peer.to_string()]).collect::<Vec<_>>().join(", ")
}

fn set_identity(upstream: &mut RequestHeader, identity: &Identity, service: &Service) -> pingora::Result<()> {
    let claims = identity.verified().claims();
    let names = &service.identity_headers;
    // Names may hold letters beyond ASCII; a header carries them as their UTF-8 octets.
    let text = |text: &str| pingora_http::header_value_from_slice(text.as_bytes());
    upstream.insert_header(names.user.clone(), text(&claims.name))?;
    if let Some(email) = &claims.email {
        upstream.insert_header(names.email.clone(), text(email))?;
    }
    upstream.insert_header(names.roles.clone(), text(&identity.roles().join(",")))?;
    if identity.source() == Source::Bearer && service.forward_token != ForwardToken::Bearer {
        upstream.remove_header(&header::AUTHORIZATION);
    }
    if service.forward_token == ForwardToken::Bearer {
        upstream.insert_header(header::AUTHORIZATION, format!("Bearer {}", identity.verified().token()))?;
    }
    Ok(())
}

/// An absolute target is for proxies: an application gets path and query (RFC 9112 §3.2.1). Its authority agrees
/// with the Host field, or Pingora would have refused it.
pub fn use_origin_form(upstream: &mut RequestHeader) {
    if !upstream.raw_path().starts_with(b"/") {
        // Forgets the target as it was sent, of which Pingora has kept path and query here.
        upstream.set_uri(upstream.uri.clone());
    }
}

/// Leaves one Cookie field without our cookies: HTTP/2 clients may have sent one for each (RFC 9113 §8.2.3), of
/// which an application would see the first. `keep` is the one of ours that a service asked for. What is left stays
/// as it was sent: `=NAME=x`, a cookie without a name, must not become `NAME=x` under way.
pub fn join_cookies(upstream: &mut RequestHeader, ours: &[String], keep: Option<&str>) -> pingora::Result<()> {
    let fields = upstream.headers.get_all(header::COOKIE);
    let mut joined: Vec<u8> = Vec::new();
    let mut untouched = true;
    for (at, field) in fields.iter().enumerate() {
        untouched &= at == 0;
        for part in parts(field) {
            let name = pair(part).0;
            let is_ours = ours.iter().any(|our| our.as_bytes() == name) && keep.map(str::as_bytes) != Some(name);
            if is_ours {
                untouched = false;
                continue;
            }
            if part.is_empty() {
                continue;
            }
            if !joined.is_empty() {
                joined.extend_from_slice(b"; ");
            }
            joined.extend_from_slice(part);
        }
    }
    if untouched {
        return Ok(());
    }
    upstream.remove_header(&header::COOKIE);
    if !joined.is_empty() {
        upstream.insert_header(header::COOKIE, pingora_http::header_value_from_slice(&joined))?;
    }
    Ok(())
}

/// Takes out cookies of ours that an application tries to set: only the edge signs anybody on.
pub fn keep_own_cookies(response: &mut ResponseHeader, ours: &[String]) -> pingora::Result<()> {
    let sets_ours = |value: &HeaderValue| {
        let first = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        // Older browsers keep `=NAME=x` as a cookie without a name, and send it back as `NAME=x`.
        let begins = first.iter().position(|b| *b != b'=' && !b.is_ascii_whitespace()).unwrap_or(first.len());
        let first = &first[begins..];
        let name = first.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
        // Browsers take a prefix in any case for ours (RFC 6265bis §4.1.3).
        ours.iter().any(|our| our.as_bytes().eq_ignore_ascii_case(name))
    };
    if !response.headers.get_all(header::SET_COOKIE).iter().any(sets_ours) {
        return Ok(());
    }
    let kept: Vec<HeaderValue> =
        response.headers.get_all(header::SET_COOKIE).iter().filter(|value| !sets_ours(value)).cloned().collect();
    response.remove_header(&header::SET_COOKIE);
    for value in kept {
        response.append_header(header::SET_COOKIE, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookies: &[&str]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for cookie in cookies {
            request.append_header("Cookie", *cookie).unwrap();
        }
        request
    }

    fn joined(cookies: &[&str], keep: Option<&str>) -> Option<String> {
        let mut request = request(cookies);
        join_cookies(&mut request, &["__Host-JWTCookie".into()], keep).unwrap();
        assert!(request.headers.get_all("cookie").iter().count() <= 1);
        request.headers.get("cookie").map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn crumbs_are_joined_and_ours_are_left_out() {
        assert_eq!(joined(&["a=1", "__Host-JWTCookie=x", "b=2"], None).as_deref(), Some("a=1; b=2"));
        assert_eq!(joined(&["a=1; __Host-JWTCookie=x; b=2"], None).as_deref(), Some("a=1; b=2"));
        assert_eq!(
            joined(&["a = 1;=b; __Host-JWTCookie=x; =__Host-JWTCookie=y"], None).as_deref(),
            Some("a = 1; =b; =__Host-JWTCookie=y")
        );
        assert_eq!(joined(&["__Host-JWTCookie=x"], None), None);
        assert_eq!(joined(&[], None), None);
    }

    #[test]
    fn a_single_field_without_ours_is_left_byte_for_byte() {
        assert_eq!(joined(&["a=1;b=\"2\";;  c"], None).as_deref(), Some("a=1;b=\"2\";;  c"));
    }

    #[test]
    fn a_service_may_ask_for_the_token_cookie() {
        let kept = joined(&["__Host-JWTCookie=x", "a=1"], Some("__Host-JWTCookie"));
        assert_eq!(kept.as_deref(), Some("__Host-JWTCookie=x; a=1"));
    }

    #[test]
    fn an_application_cannot_set_our_cookies_in_any_case() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for cookie in
            ["a=1", "__Host-JWTCookie=x; Path=/", "__host-jwtcookie =y", "=__Host-JWTCookie=z", "b=__Host-JWTCookie"]
        {
            response.append_header("Set-Cookie", cookie).unwrap();
        }
        keep_own_cookies(&mut response, &["__Host-JWTCookie".into()]).unwrap();
        let left: Vec<_> = response.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(left, ["a=1", "b=__Host-JWTCookie"]);
    }
}
