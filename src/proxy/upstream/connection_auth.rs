//! Authentication of connections: NTLM, and Negotiate with most servers, authenticate the connection and not the request
//! (RFC 4559 §6), so that the next request on an upstream connection is taken for one of the user who signed in on it.
//!
//! Such a connection belongs to one client. Three things make it so, on both request paths:
//! - A request with such credentials goes out on a connection of its client's own, and so do all later requests on the
//!   same client connection.
//! - A server that answers with such a challenge is known for it from then on: every request to it goes out on a
//!   connection of its client's own.
//! - The fast path takes neither, and does not keep the connection on which the challenge came.
//!
//! On Pingora's pool the owner is a part of the key. A connection on which a challenge came under the shared key is closed
//! (`response`). Over HTTP/2, where it has other requests too, it goes back; but no request looks under that key any more,
//! and `check_shared` refuses a connection that was taken from there meanwhile.

use http::{HeaderMap, HeaderName, header};
use pingora::{Error, ErrorType, Result};

use crate::client_prefix::is_trusted;
use crate::proxy::context::RequestContext;
use crate::proxy::request::RequestView;
use crate::snapshot::Snapshot;
use crate::upstream::{Owner, Pool};

/// Those that authenticate connections, and what they go by in Windows.
const SCHEMES: [&[u8]; 4] = [b"ntlm", b"negotiate", b"nego2", b"kerberos"];

/// Fields in which a client authenticates itself.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
/// Fields in which a server requires that, or continues it (RFC 9110 §11.6, §11.7).
const CHALLENGES: [HeaderName; 2] = [header::WWW_AUTHENTICATE, header::PROXY_AUTHENTICATE];

/// Whether the value of a field of these names such a scheme, alone or in a list of challenges. Any token counts, also
/// one in a parameter: a false match costs a connection, a missed one shares a user's identity.
pub fn names_scheme(value: &[u8]) -> bool {
    value.split(|byte| !is_token(byte)).any(|token| SCHEMES.iter().any(|scheme| token.eq_ignore_ascii_case(scheme)))
}

const fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'-'
}

/// Whether a request has credentials of such a scheme. One scheme stands first (RFC 9110 §11.4), so that a long token is
/// not looked through; a comma may make a list of several fields that were joined on their way.
fn has_credentials(request: &HeaderMap) -> bool {
    CREDENTIALS.iter().flat_map(|name| request.get_all(name)).any(|value| {
        let value = value.as_bytes().trim_ascii_start();
        let end = value.iter().position(|byte| !is_token(byte)).unwrap_or(value.len());
        names_scheme(&value[..end]) || memchr::memchr(b',', value).is_some_and(|_| names_scheme(value))
    })
}

/// Whether a response says that its server authenticates connections.
pub fn challenges(response: &HeaderMap) -> bool {
    CHALLENGES.iter().flat_map(|name| response.get_all(name)).any(|value| names_scheme(value.as_bytes()))
}

/// Whether a request must not go out on a connection that others have used or will use.
pub fn is_private(request: &RequestView<'_>, pool: &Pool) -> bool {
    pool.is_private()
        || request.connection.is_some_and(|connection| connection.is_authenticated())
        || has_credentials(request.headers())
}

/// Whose the upstream connection of a request has to be; `None` where it may be shared.
pub fn owner(request: &RequestView<'_>, pool: &Pool, ctx: &RequestContext) -> Option<Owner> {
    if !is_private(request, pool) {
        return None;
    }
    if let Some(connection) = request.connection.filter(|_| has_credentials(request.headers())) {
        connection.authenticates();
    }
    Some(owner_of(request, &ctx.snapshot).map_or_else(Owner::unique, |owner| {
        let session = ctx.identity.as_ref().map(|identity| identity.verified().claims().sid.as_str());
        session.map_or(owner, |session| owner.with_session(session))
    }))
}

/// `None` where a client's connection is not its own: a trusted proxy sends requests of many clients on one.
fn owner_of(request: &RequestView<'_>, snapshot: &Snapshot) -> Option<Owner> {
    let connection = request.connection.filter(|_| !is_trusted(request.peer, &snapshot.trusted_proxies));
    connection.map(|connection| connection.owner())
}

/// Refuses a connection that was taken under the shared key, while a response that came meanwhile has made its server
/// one whose connections are not shared. Nothing was sent on it, and a request that may be repeated gets another.
pub fn check_shared(pool: &Pool, owner: Option<Owner>, reused: bool) -> Result<()> {
    if reused && owner.is_none() && pool.is_private() {
        let mut error = Error::explain(ErrorType::ConnectError, "the connection may be authenticated").into_up();
        error.set_retry(true);
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn schemes_that_authenticate_connections_are_found_wherever_they_stand() {
        for value in [
            "NTLM",
            "ntlm",
            "Negotiate",
            "nEgOtIaTe YIIJvwYGKwYBBQUCoIIJszCCCa+=",
            "Basic realm=\"a\", NTLM",
            "Basic realm=\"a, b\",Negotiate",
            "Digest nonce=\"x\" ,\tNTLM TlRMTVNTUAAC",
            "Negotiate, NTLM",
            ",NTLM",
            " NTLM ",
            "Nego2",
            "Kerberos",
            "Basic realm=\"\\\"\", NTLM",
        ] {
            assert!(names_scheme(value.as_bytes()), "{value}");
        }
        assert!(
            names_scheme(b"NTLM\xa0TlRM") && names_scheme(b"NTLM\x0bTlRM"),
            "whatever an application takes for a space"
        );
        for value in ["", "Basic realm=\"a\"", "Bearer abc.NTLMs.x", "Digest nonce=\"ntlm1\"", "Negotiated", "X-NTLM"] {
            assert!(!names_scheme(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn credentials_are_of_the_scheme_that_stands_first() {
        let has = |value: &'static str| {
            let mut request = HeaderMap::new();
            request.append(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
            request.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            has_credentials(&request)
        };
        for value in ["NTLM TlRM", "negotiate YII", " Negotiate YII", "NTLM", "Basic YTpi, NTLM TlRM", "NTLM,x"] {
            assert!(has(value), "{value}");
        }
        for value in ["", "Basic NTLM", "Bearer a.b.c", "Bearer ntlm", "Digest username=\"x\", nonce=y"] {
            assert!(!has(value), "{value}");
        }
    }

    #[test]
    fn a_challenge_may_stand_in_any_field_of_its_kind() {
        for name in CHALLENGES {
            let mut response = HeaderMap::new();
            response.append(&name, HeaderValue::from_static("Basic realm=\"a\""));
            assert!(!challenges(&response));
            response.append(&name, HeaderValue::from_static("NTLM"));
            assert!(challenges(&response), "{name}");
        }
    }
}
