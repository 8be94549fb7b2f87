//! The header fields that an application receives, and the cookies that it may set: strip first, then set.
//!
//! Runs after the hop-by-hop fields and those that `Connection` names are removed, so that a client cannot have the edge's
//! own fields removed: Pingora has removed them, or the fast path has declined such a request.

pub mod edit;
pub mod location;
pub mod request_rules;
pub mod response_kind;
pub mod response_rules;
pub mod route_fields;
pub mod upstream_request;
pub mod upstream_response;

use std::fmt::Write;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header, request, response};
use pingora::{ErrorType, OrErr};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::auth::cookie::{OwnCookies, parts};
use crate::auth::{Identity, Source};
use crate::config::ForwardToken;
use crate::config::header_names::{is_forwarding_field, normalize, sets_cookie};
use crate::routes::Service;
use crate::snapshot::Snapshot;
use crate::validate::is_ambiguous_name;
use edit::HeaderEdit;

/// The facts that the forwarding fields carry.
pub struct Forwarding<'a> {
    pub client: HeaderValue,
    /// Who connected to us: a trusted proxy, or the client itself.
    pub peer: IpAddr,
    pub peer_is_trusted: bool,
    pub host: &'a HeaderValue,
    pub port: u16,
    pub request_id: &'a HeaderValue,
}

pub static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Who the client has shown itself to be over TLS, as Envoy writes it.
pub static CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The part of the client's path that the application does not receive.
pub static FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SESSION: HeaderName = HeaderName::from_static("x-forwarded-session");
pub static ASSERTION: HeaderName = HeaderName::from_static("x-sentry-assertion");

/// Fields that an application may find beyond those that the client sent: all of the above, who the user is, and Host.
pub const MOST_SET: usize = 15;

/// Lets `change` at the fields of a request. Afterwards their names are in lower case, as those of HTTP/2 are anyway
/// and as case has no meaning (RFC 9110 §5.1), and the target is in origin form: an absolute one is for proxies, an
/// application gets path and query (RFC 9112 §3.2.1), and its authority agrees with the Host field, or Pingora would
/// have refused it.
///
/// To keep the case, Pingora's head has every name twice, and parses, copies and hashes each one that is set for both.
pub fn rewrite<R>(head: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap) -> R) -> R {
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = request::Parts::from(std::mem::replace(head, empty));
    let answer = change(&mut parts.headers);
    *head = parts.into();
    answer
}

/// The same for a response: its reason phrase stays, and the names that HTTP knows are written as it spells them.
pub fn rewrite_response(head: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap)) -> pingora::Result<()> {
    let own = head.get_reason_phrase().filter(|reason| Some(*reason) != head.status.canonical_reason());
    let reason = own.map(str::to_owned);
    let empty = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts = response::Parts::from(std::mem::replace(head, empty));
    change(&mut parts.headers);
    *head = parts.into();
    if reason.is_some() { head.set_reason_phrase(reason.as_deref()) } else { Ok(()) }
}

/// Whether a client sent a name that some application would read as one that only we may set.
pub fn has_spoofed_name(headers: &HeaderMap, snapshot: &Snapshot) -> bool {
    headers.keys().filter(|name| is_ambiguous_name(name)).any(|name| is_ours(&normalize(name.as_str()), snapshot))
}

fn is_ours(folded: &str, snapshot: &Snapshot) -> bool {
    is_forwarding_field(folded) || snapshot.reserved_headers.iter().any(|ours| ours == folded)
}

/// Takes out what clients must not say. Answers how many fields went because their name was odd, and how many
/// because the name is ours.
pub fn strip(fields: &mut impl HeaderEdit, snapshot: &Snapshot) -> (u64, u64) {
    let doomed: Vec<(HeaderName, bool)> = fields
        .received()
        .keys()
        .filter_map(|name| {
            let odd = is_ambiguous_name(name);
            (odd || is_ours(name.as_str(), snapshot)).then(|| (name.clone(), odd))
        })
        .collect();
    let (mut odd_names, mut our_names) = (0, 0);
    for (name, odd) in doomed {
        fields.remove(&name);
        *if odd { &mut odd_names } else { &mut our_names } += 1;
    }
    (odd_names, our_names)
}

/// Sets `X-Forwarded-*`, the request id and, for a user whom the guard has admitted, the identity fields.
pub fn set(
    fields: &mut impl HeaderEdit,
    forwarding: &Forwarding<'_>,
    received: &HeaderMap,
    identity: Option<(&Identity, &Service)>,
) -> pingora::Result<()> {
    let client = forwarding.client.clone();
    let chain = if forwarding.peer_is_trusted { chain(forwarding, received)? } else { client.clone() };
    fields.set(&FORWARDED_FOR, chain);
    fields.set(&REAL_IP, client);
    fields.set(&FORWARDED_PROTO, HeaderValue::from_static("https"));
    fields.set(&FORWARDED_HOST, forwarding.host.clone());
    let port = if forwarding.port == 443 { HeaderValue::from_static("443") } else { forwarding.port.into() };
    fields.set(&FORWARDED_PORT, port);
    fields.set(&REQUEST_ID, forwarding.request_id.clone());
    if let Some((identity, service)) = identity {
        set_identity(fields, identity, service)?;
    }
    Ok(())
}

pub fn address(address: IpAddr) -> pingora::Result<HeaderValue> {
    // As long as the longest IPv4 address; an IPv6 one may make it grow.
    let mut text = String::with_capacity(15);
    // Writing to a string cannot fail.
    let _ = write!(text, "{address}");
    value(text)
}

pub fn value(text: String) -> pingora::Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InvalidHTTPHeader, "no value for a field")
}

/// A trusted proxy's chain and that proxy itself, as one field (RFC 9110 §5.3). An element with a byte that is no text
/// is left out; it must not take its neighbours with it, nor make an application that cannot read it read none.
fn chain(forwarding: &Forwarding<'_>, received: &HeaderMap) -> pingora::Result<HeaderValue> {
    let mut text = String::with_capacity(64);
    let is_text = |element: &&[u8]| element.iter().all(|byte| (b' '..=b'~').contains(byte));
    for element in forwarded_for(received).filter(|element| !element.is_empty()).filter(is_text) {
        text.push_str(std::str::from_utf8(element).unwrap_or_default());
        text.push_str(", ");
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", forwarding.peer);
    value(text)
}

fn set_identity(fields: &mut impl HeaderEdit, identity: &Identity, service: &Service) -> pingora::Result<()> {
    let names = &service.config.identity_headers;
    let sent = identity.identity_headers();
    fields.set(&names.user, sent.user.clone());
    if let Some(email) = &sent.email {
        fields.set(&names.email, email.clone());
    }
    fields.set(&names.roles, identity.roles_header());
    fields.set(&SESSION, sent.session.clone());
    if identity.source() == Source::Bearer && service.config.forward_token != ForwardToken::Bearer {
        fields.remove(&header::AUTHORIZATION);
    }
    if service.config.forward_token == ForwardToken::Bearer {
        fields.set(&header::AUTHORIZATION, value(format!("Bearer {}", identity.verified().token()))?);
    }
    Ok(())
}

/// Leaves one Cookie field without our cookies: HTTP/2 clients may have sent one for each (RFC 9113 §8.2.3), of
/// which an application would see the first. `keep` is the one of ours that the service's configuration forwards. What is left stays
/// as it was sent: `=NAME=x`, a cookie without a name, must not become `NAME=x` under way.
pub fn join_cookies(fields: &mut impl HeaderEdit, ours: &OwnCookies, keep: Option<&str>) {
    let is_ours = |part: &[u8]| ours.name_of(part).is_some_and(|name| keep != Some(name));
    let cookies = fields.received().get_all(header::COOKIE);
    let (mut joined, mut sent, mut changes): (Vec<u8>, _, _) = (Vec::new(), 0, false);
    for field in &cookies {
        sent += 1;
        // All of it at once, with a separator before it.
        joined.reserve(field.len() + 2);
        for part in parts(field) {
            if is_ours(part) {
                changes = true;
            } else if !part.is_empty() {
                if !joined.is_empty() {
                    joined.extend_from_slice(b"; ");
                }
                joined.extend_from_slice(part);
            }
        }
    }
    if sent > 1 || changes {
        match joined.is_empty() {
            true => fields.remove(&header::COOKIE),
            false => fields.set(&header::COOKIE, pingora_http::header_value_from_raw(joined)),
        }
    }
}

/// Removes the edge's own cookies that an application tries to set: only the edge signs users on.
pub fn drop_reserved_set_cookies(response: &mut ResponseHeader, ours: &[String]) -> pingora::Result<()> {
    let set = response.headers.get_all(header::SET_COOKIE);
    if !set.iter().any(|value| sets_cookie(value.as_bytes(), ours)) {
        return Ok(());
    }
    let kept: Vec<HeaderValue> = set.iter().filter(|value| !sets_cookie(value.as_bytes(), ours)).cloned().collect();
    response.remove_header(&header::SET_COOKIE);
    for value in kept {
        response.append_header(header::SET_COOKIE, value)?;
    }
    Ok(())
}

/// The elements of all `X-Forwarded-For` fields, which are one list (RFC 9110 §5.3), trimmed. They are bytes: a field
/// that were passed over because one of its bytes is no ASCII would take the proxy's own elements with it.
pub fn forwarded_for(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &[u8]> {
    let fields = headers.get_all(&FORWARDED_FOR).iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(cookies: &[&'static str], keep: Option<&str>) -> Option<String> {
        let mut fields = HeaderMap::new();
        for cookie in cookies {
            fields.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut fields, &OwnCookies::new(vec!["__Host-JWTCookie".into(), "server".into()]), keep);
        assert!(fields.get_all("cookie").iter().count() <= 1);
        fields.get("cookie").map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_rewritten_head_keeps_all_but_the_case_of_its_names_and_an_absolute_target() {
        let mut head = RequestHeader::build("PUT", b"http://a.test/x?y", None).unwrap();
        head.append_header("X-Name", "A").unwrap();
        head.append_header("x-name", "B").unwrap();
        rewrite(&mut head, |fields| fields.insert(REAL_IP.clone(), HeaderValue::from_static("C")));
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!((head.method.as_str(), head.raw_path()), ("PUT", &b"/x?y"[..]));
        assert_eq!(String::from_utf8(wire).unwrap(), "x-name: A\r\nx-name: B\r\nx-real-ip: C\r\n");
    }

    #[test]
    fn a_rewritten_response_keeps_its_status_its_reason_and_its_fields() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.append_header("CONTENT-type", "text/html").unwrap();
        head.append_header("X-Name", "A").unwrap();
        for reason in ["OK", "Fine"] {
            head.set_reason_phrase(Some(reason)).unwrap();
            rewrite_response(&mut head, |fields| {
                fields.insert(REQUEST_ID.clone(), HeaderValue::from_static("C"));
            })
            .unwrap();
            let mut wire = Vec::new();
            head.header_to_h1_wire(&mut wire);
            assert_eq!((head.status.as_u16(), head.get_reason_phrase()), (200, Some(reason)));
            let fields = "Content-Type: text/html\r\nx-name: A\r\nx-request-id: C\r\n";
            assert_eq!(String::from_utf8(wire).unwrap(), fields);
        }
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
    fn a_name_without_a_prefix_is_ours_to_the_letter() {
        assert_eq!(joined(&["a=1; server=x; servers=y; Server=z"], None).as_deref(), Some("a=1; servers=y; Server=z"));
        assert_eq!(joined(&["xserver=x; server; server =y"], None).as_deref(), Some("xserver=x; server"));
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
        drop_reserved_set_cookies(&mut response, &["__Host-JWTCookie".into()]).unwrap();
        let left: Vec<_> = response.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(left, ["a=1", "b=__Host-JWTCookie"]);
    }
}
