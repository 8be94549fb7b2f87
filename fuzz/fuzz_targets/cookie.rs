//! Cookie fields, one a line: our cookie is found as a slow and obvious reading finds it, and none of ours is left
//! for an application to see.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use sentry_edge::auth::cookie::{self, Lookup, OwnCookies};
use sentry_edge::proxy::headers;

const NAME: &str = "__Host-JWTCookie";
const STATE: &str = "__Host-SSOState";

/// Name and value of all cookies, by RFC 6265bis §5.6 taken word for word: first the semicolons, then the first `=`.
fn slowly(fields: &[HeaderValue]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let trim = |text: &[u8]| -> Vec<u8> {
        let mut text = text.to_vec();
        while text.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            text.remove(0);
        }
        while text.last().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            text.pop();
        }
        text
    };
    let parts = fields.iter().flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    let pairs = parts.filter_map(|part| {
        let at = part.iter().position(|b| *b == b'=')?;
        Some((trim(&part[..at]), trim(&part[at + 1..])))
    });
    pairs.collect()
}

fuzz_target!(|data: &[u8]| {
    let fields: Vec<HeaderValue> =
        data.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let mut headers = HeaderMap::new();
    for field in &fields {
        headers.append(header::COOKIE, field.clone());
    }
    let pairs = slowly(&fields);
    let ours: Vec<&[u8]> =
        pairs.iter().filter(|(name, _)| name == NAME.as_bytes()).map(|(_, value)| value.as_slice()).collect();
    let expected = match ours[..] {
        [] => Lookup::Absent,
        [one] => Lookup::One(std::str::from_utf8(one).unwrap_or("")),
        _ => Lookup::Several,
    };
    assert_eq!(cookie::find(&headers, NAME), expected);
    let texts: Vec<&str> = ours.iter().filter_map(|value| std::str::from_utf8(value).ok()).collect();
    assert_eq!(cookie::all(&headers, NAME).collect::<Vec<_>>(), texts);

    headers::join_cookies(&mut headers, &OwnCookies::new(vec![NAME.to_owned(), STATE.to_owned()]), None);
    let left: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    assert!(left.len() <= 1 || left.len() == fields.len());
    let others = |(name, _): &(Vec<u8>, Vec<u8>)| name != NAME.as_bytes() && name != STATE.as_bytes();
    assert_eq!(slowly(&left), pairs.into_iter().filter(others).collect::<Vec<_>>());
});
