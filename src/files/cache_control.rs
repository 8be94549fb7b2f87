//! `Cache-Control` of files: no shared cache keeps what needs a sign-on, and no cache serves a fallback without a look whether it is still good.

use http::HeaderValue;

/// The fields of a route.
pub struct CacheControl {
    pub file: HeaderValue,
    /// Of the file that is sent in the place of one that does not exist. The next request of its path may be a script's, and
    /// the next deployment may have a file there.
    pub fallback: HeaderValue,
}

impl CacheControl {
    /// `is_public`: without a sign-on, so that shared caches may keep what is sent.
    pub fn new(written: Option<&HeaderValue>, is_public: bool) -> Self {
        // A browser asks each time whether its copy is good: else it would guess for how long, and show a page of an
        // application that is not there any more, or to a person who has not signed in.
        let checked = HeaderValue::from_static(if is_public { "no-cache" } else { "private, no-cache" });
        let Some(written) = written else { return Self { file: checked.clone(), fallback: checked } };
        let file = match written.to_str() {
            Ok(text) if !is_public => HeaderValue::try_from(private(text)).unwrap_or_else(|_| checked.clone()),
            Ok(_) | Err(_) => written.clone(),
        };
        let is_kept = !written.to_str().is_ok_and(|text| directives(text).any(|directive| is(directive, "no-store")));
        let fallback = if is_kept { checked } else { file.clone() };
        Self { file, fallback }
    }
}

/// The same directives for the browser alone: with `private`, and without those for shared caches. They hold for responses to
/// requests with cookies too, as the edge's sessions are (RFC 9111 §3.5 keeps back those with `Authorization` alone).
fn private(text: &str) -> String {
    let names = ["public", "s-maxage", "proxy-revalidate"];
    let is_kept = |directive: &&str| !names.iter().any(|name| is(directive, name));
    let mut kept: Vec<&str> = directives(text).filter(is_kept).collect();
    // With a list of fields (`private="Set-Cookie"`) it lets shared caches have the rest.
    let is_private =
        kept.iter().any(|directive| directive.eq_ignore_ascii_case("private") || is(directive, "no-store"));
    if !is_private {
        kept.insert(0, "private");
    }
    kept.join(", ")
}

/// Whether a directive has this name, with an argument or without one.
fn is(directive: &str, name: &str) -> bool {
    directive.split('=').next().is_some_and(|text| text.trim_ascii_end().eq_ignore_ascii_case(name))
}

/// The directives of a value. An argument in quotes may have commas in it.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let parts = text.split(move |c: char| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    parts.map(str::trim_ascii).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_sign_on_is_private() {
        for (written, expected) in [
            ("public, max-age=3600", "private, max-age=3600"),
            ("max-age=31536000, immutable", "private, max-age=31536000, immutable"),
            ("Public,MAX-AGE=60", "private, MAX-AGE=60"),
            ("s-maxage=60, max-age=10", "private, max-age=10"),
            ("public, s-maxage = 60, proxy-revalidate", "private"),
            ("private, max-age=60", "private, max-age=60"),
            ("Private, public", "Private"),
            ("no-store", "no-store"),
            ("no-cache", "private, no-cache"),
            ("private=\"Set-Cookie, X\", max-age=60", "private, private=\"Set-Cookie, X\", max-age=60"),
            ("no-cache=\"a, public, private\"", "private, no-cache=\"a, public, private\""),
            ("x=\"private", "private, x=\"private"),
            (",", "private"),
        ] {
            let written = HeaderValue::from_static(written);
            assert_eq!(CacheControl::new(Some(&written), false).file, expected, "{written:?}");
            assert_eq!(CacheControl::new(Some(&written), true).file, written);
        }
        assert_eq!(CacheControl::new(None, false).file, "private, no-cache");
        assert_eq!(CacheControl::new(None, true).file, "no-cache");
    }

    #[test]
    fn a_fallback_is_not_kept_without_a_look() {
        for (written, is_public, expected) in [
            (None, true, "no-cache"),
            (None, false, "private, no-cache"),
            (Some("public, max-age=3600"), true, "no-cache"),
            (Some("public, max-age=3600"), false, "private, no-cache"),
            (Some("no-store"), true, "no-store"),
        ] {
            let value = written.map(HeaderValue::from_static);
            assert_eq!(CacheControl::new(value.as_ref(), is_public).fallback, expected, "{written:?} {is_public}");
        }
    }
}
