//! The cookie by which a client stays with a server of its pool (`balance: {sticky: {cookie: NAME}}`).
//!
//! It is read when a server is chosen, and set on the response of a server that the request's cookie does not name: the
//! client had none or a bad one, or its server was away and another one took over. Requests reach the application without
//! it, as without all of the edge's own cookies, and an application cannot set it. Both paths, and WebSockets, come here.
//!
//! Like the cookies of the sign-on it is host-only, for all paths, `Secure`, `HttpOnly`, `SameSite=Lax` and ends with the
//! browser's session. With `Lax` a form that another site posts comes without it, as without the token.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::auth::cookie::{self, SetCookie};
use crate::config::SameSite;
use crate::upstream::{Endpoint, Pool};

/// Fields that say what caches may store; the second one is for shared caches near the edge (RFC 9213).
static CACHE_FIELDS: [HeaderName; 2] = [header::CACHE_CONTROL, HeaderName::from_static("cdn-cache-control")];

/// Returns the endpoint that a request's cookie names. Of several cookies the first good one counts.
pub fn endpoint(headers: &HeaderMap, pool: &Pool) -> Option<Endpoint> {
    cookie::all(headers, pool.cookie()?).find_map(|value| pool.named_by(value))
}

/// Returns the `Set-Cookie` for a client whose request goes to this endpoint; `None` where its cookie names it already.
pub fn set(pool: &Pool, named: Option<Endpoint>, endpoint: Endpoint) -> Option<HeaderValue> {
    let name = pool.cookie().filter(|_| named != Some(endpoint))?;
    let value = pool.cookie_value(endpoint)?;
    SetCookie { name, value: &value, same_site: SameSite::Lax, max_age: None }.to_header()
}

/// Adds the cookie to a response. A shared cache that stored it would send all of its clients to one server, and caches do
/// store responses with a `Set-Cookie` (RFC 9111 §7.3), so that this response becomes a private one.
pub fn add(fields: &mut HeaderMap, cookie: &HeaderValue) {
    fields.append(header::SET_COOKIE, cookie.clone());
    make_private(fields, &CACHE_FIELDS[0]);
    if fields.contains_key(&CACHE_FIELDS[1]) {
        make_private(fields, &CACHE_FIELDS[1]);
    }
}

/// Adds `private` to the directives (RFC 9111 §5.2.2.7), unless they say so or more already. Where directives disagree,
/// the most restrictive one holds (RFC 9111 §4.2.1).
fn make_private(fields: &mut HeaderMap, name: &HeaderName) {
    let directives = || fields.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is = |directive: &[u8], wanted: &[u8]| directive.trim_ascii().eq_ignore_ascii_case(wanted);
    if directives().any(|directive| is(directive, b"private") || is(directive, b"no-store")) {
        return;
    }
    let mut joined: Vec<u8> = Vec::new();
    for value in fields.get_all(name).iter().filter(|value| !value.as_bytes().trim_ascii().is_empty()) {
        joined.extend_from_slice(value.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(b"private");
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        fields.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_with_the_cookie_is_for_its_client_alone() {
        for (lines, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "public, max-age=60, private"),
            (&["max-age=60", "s-maxage=600"], "max-age=60, s-maxage=600, private"),
            (&[""], "private"),
            (&["private"], "private"),
            (&["max-age=60,Private"], "max-age=60,Private"),
            (&["no-store"], "no-store"),
            (&["no-cache"], "no-cache, private"),
            // Said of some fields alone.
            (&["private=\"X-Name\""], "private=\"X-Name\", private"),
        ] {
            let mut fields = HeaderMap::new();
            for line in lines {
                fields.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
            }
            add(&mut fields, &HeaderValue::from_static("server=x"));
            let all: Vec<_> =
                fields.get_all(header::CACHE_CONTROL).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(all, [expected], "{lines:?}");
            assert!(!fields.contains_key("cdn-cache-control"));
        }
        let mut fields = HeaderMap::new();
        fields.append("cdn-cache-control", HeaderValue::from_static("max-age=600"));
        fields.append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        add(&mut fields, &HeaderValue::from_static("server=x"));
        assert_eq!(fields["cdn-cache-control"], "max-age=600, private");
        assert_eq!(fields.get_all(header::SET_COOKIE).iter().count(), 2, "beside those of the application");
    }
}
