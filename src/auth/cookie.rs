//! Cookies: found in a request byte for byte, built and cleared for a response (RFC 6265bis).
//!
//! Names are compared byte for byte; nothing is unquoted, percent-decoded or trimmed beyond space and tab, so that no
//! other spelling can pass as ours. A value in double quotes is therefore no token.

use http::{HeaderMap, HeaderValue, header};

use crate::config::SameSite;

/// The cookies of one name in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    Absent,
    One(&'a str),
    Several,
}

/// The names of the edge's own cookies, which no application sees or sets.
pub struct OwnCookies {
    names: Vec<String>,
    /// A bit for each ASCII character that a name begins with, so that most cookies of a request are compared with none.
    initials: u128,
}

impl OwnCookies {
    pub fn new(names: Vec<String>) -> Self {
        let initials = names.iter().filter_map(|name| name.bytes().next()).map(bit).fold(0, |all, bit| all | bit);
        Self { names, initials }
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the name that a part of a Cookie field has, if it is one of these.
    pub fn name_of(&self, part: &[u8]) -> Option<&str> {
        let first = *part.first()?;
        if self.initials & bit(first) == 0 {
            return None;
        }
        self.names.iter().map(String::as_str).find(|name| value_in(part, name).is_some())
    }
}

/// 0 for a byte that is not ASCII, with which no name begins.
const fn bit(byte: u8) -> u128 {
    if byte.is_ascii() { 1 << byte } else { 0 }
}

/// Searches all Cookie fields: HTTP/2 clients may send one for each cookie (RFC 9113 §8.2.3).
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Lookup<'a> {
    let mut found = None;
    for field in headers.get_all(header::COOKIE) {
        for value in parts(field).filter_map(|part| value_in(part, name)) {
            if found.replace(value).is_some() {
                return Lookup::Several;
            }
        }
    }
    match found.map(std::str::from_utf8) {
        Some(Ok(value)) => Lookup::One(value),
        // Bytes that are not UTF-8 are no token of ours either.
        Some(Err(_)) => Lookup::One(""),
        None => Lookup::Absent,
    }
}

/// Returns every value of one name. More than one of them may be valid: a logout ends them all.
pub fn all<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields.flat_map(parts).filter_map(move |part| std::str::from_utf8(value_in(part, name)?).ok())
}

/// Returns the parts of a Cookie field between the semicolons, as they were sent.
pub fn parts(field: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let field = field.as_bytes();
    let mut begin = 0;
    memchr::memchr_iter(b';', field).chain([field.len()]).map(move |end| {
        let part = &field[begin..end];
        begin = end + 1;
        trim(part)
    })
}

/// Returns the value of such a part, if it has this name. A name of ours has neither `=` nor a blank.
pub fn value_in<'a>(part: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = part.strip_prefix(name.as_bytes())?;
    trim(rest).strip_prefix(b"=").map(trim)
}

/// Trims space and tab only; Unicode spaces and vertical tabs are part of a name, and so make it another name.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// A cookie of ours. All are host-only, `Secure` and `HttpOnly`, as the `__Host-` prefix requires.
#[derive(Clone, Copy, Debug)]
pub struct SetCookie<'a> {
    pub name: &'a str,
    pub value: &'a str,
    pub same_site: SameSite,
    /// Seconds; without it the cookie ends with the browser's session.
    pub max_age: Option<u64>,
}

impl SetCookie<'_> {
    /// Returns the header value that deletes a cookie: the attributes that it was set with, and an age of zero.
    pub fn clear(name: &str, same_site: SameSite) -> Option<HeaderValue> {
        SetCookie { name, value: "", same_site, max_age: Some(0) }.to_header()
    }

    /// Returns `None` if name or value have what a header field cannot, which ours never do.
    pub fn to_header(self) -> Option<HeaderValue> {
        let same_site = match self.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let mut text = format!("{}={}; Path=/; Secure; HttpOnly; SameSite={same_site}", self.name, self.value);
        if let Some(seconds) = self.max_age {
            text.push_str(&format!("; Max-Age={seconds}"));
        }
        HeaderValue::try_from(text).ok()
    }
}

/// Maximum size of a cookie that browsers keep: name, `=` and value, in bytes (RFC 6265bis §5.6).
pub const MAX_COOKIE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "__Host-JWTCookie";

    fn look(fields: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        format!("{:?}", find(&headers, NAME))
    }

    #[test]
    fn one_cookie_is_found_among_others_and_in_crumbs() {
        assert_eq!(look(&[b"a=1; __Host-JWTCookie=A; b=2"]), "One(\"A\")");
        assert_eq!(look(&[b"a=1", b"__Host-JWTCookie=A", b"b=2"]), "One(\"A\")");
        assert_eq!(look(&[b"a=1;__Host-JWTCookie\t=\tA"]), "One(\"A\")");
    }

    #[test]
    fn two_of_our_name_are_several_in_one_field_or_in_two() {
        assert_eq!(look(&[b"__Host-JWTCookie=A; __Host-JWTCookie=B"]), "Several");
        assert_eq!(look(&[b"__Host-JWTCookie=A", b"__Host-JWTCookie=A"]), "Several");
    }

    #[test]
    fn another_spelling_is_another_cookie() {
        for field in [
            &b"__host-jwtcookie=A"[..],
            b"__HOST-JWTCOOKIE=A",
            b"\xe2\x80\x80__Host-JWTCookie=A",
            b"\xc2\xa0__Host-JWTCookie=A",
            b"=__Host-JWTCookie=A",
            b"__Host-JWTCookie",
            b"x__Host-JWTCookie=A",
            b"",
        ] {
            assert_eq!(look(&[field]), "Absent", "{field:?}");
        }
    }

    #[test]
    fn quotes_belong_to_the_value_and_odd_octets_are_survived() {
        assert_eq!(look(&[b"$Version=1; __Host-JWTCookie=\"A\"; $Path=/"]), "One(\"\\\"A\\\"\")");
        assert_eq!(look(&[b"__Host-JWTCookie=\xff\xfe"]), "One(\"\")");
    }

    #[test]
    fn a_cookie_is_cleared_with_the_attributes_that_it_was_set_with() {
        let set = SetCookie { name: NAME, value: "v", same_site: SameSite::Lax, max_age: None }.to_header().unwrap();
        let clear = SetCookie::clear(NAME, SameSite::Lax).unwrap();
        assert_eq!(set, "__Host-JWTCookie=v; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(clear, "__Host-JWTCookie=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    }
}
