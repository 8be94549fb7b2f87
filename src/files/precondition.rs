//! Conditional requests: whether a client's copy is good, and whether the file is the one that it means (RFC 9110 §13).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The fields of a request that are conditions.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    if_match: Vec<HeaderValue>,
    if_none_match: Vec<HeaderValue>,
    if_modified_since: Option<HeaderValue>,
    if_unmodified_since: Option<HeaderValue>,
    if_range: Vec<HeaderValue>,
}

/// What a file's version is known by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// A strong entity tag.
    pub etag: &'a str,
    /// Seconds since the Unix epoch, and never later than now. `None` for a date that HTTP cannot write.
    pub last_modified: Option<u64>,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

/// What the conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file is sent, or a range of it if `ranges` says that the client means this version.
    Send { ranges: bool },
    /// `304`
    NotModified,
    /// `412`
    Failed,
}

impl Conditions {
    pub fn of(headers: &HeaderMap) -> Self {
        let all = |name: HeaderName| headers.get_all(name).iter().cloned().collect();
        Self {
            if_match: all(header::IF_MATCH),
            if_none_match: all(header::IF_NONE_MATCH),
            if_modified_since: one(headers, &header::IF_MODIFIED_SINCE),
            if_unmodified_since: one(headers, &header::IF_UNMODIFIED_SINCE),
            if_range: all(header::IF_RANGE),
        }
    }

    /// Evaluates the conditions of a GET or a HEAD, in the order of RFC 9110 §13.2.2.
    pub fn evaluate(&self, file: Validators<'_>) -> Outcome {
        // 1. and 2. If-Unmodified-Since counts only without If-Match. A date that is none is ignored (§13.1.4).
        if !self.if_match.is_empty() {
            if !matches(&self.if_match, |tag| is_strongly(tag, file.etag)) {
                return Outcome::Failed;
            }
        } else if let (Some(date), Some(modified)) = (date(self.if_unmodified_since.as_ref()), file.last_modified)
            && modified > date
        {
            return Outcome::Failed;
        }
        // 3. and 4. If-Modified-Since counts only without If-None-Match (§13.1.3).
        if !self.if_none_match.is_empty() {
            if matches(&self.if_none_match, |tag| is_weakly(tag, file.etag)) {
                return Outcome::NotModified;
            }
        } else if let (Some(date), Some(modified)) = (date(self.if_modified_since.as_ref()), file.last_modified)
            && modified <= date
        {
            return Outcome::NotModified;
        }
        // 5. Of two fields it cannot be said which version is meant, and that is no reason to send a part of this one.
        let ranges = match &self.if_range[..] {
            [] => true,
            [value] => is_same_version(value, file),
            [_, _, ..] => false,
        };
        Outcome::Send { ranges }
    }
}

/// A field that has one value; `None` where there are several, of which it cannot be said which counts.
pub fn one(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    first.filter(|_| second.is_none()).cloned()
}

/// Whether a list of entity tags is `*` or has one that fits.
fn matches(fields: &[HeaderValue], fits: impl Fn(&[u8]) -> bool) -> bool {
    fields.iter().any(|field| field.as_bytes().trim_ascii() == b"*" || tags(field.as_bytes()).any(&fits))
}

/// The entity tags of a list. A tag may have a comma in it (RFC 9110 §8.8.3).
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let begin = rest.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        rest = &rest[begin..];
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(open) != Some(&b'"') {
            // What follows is no list of tags.
            return None;
        }
        let end = open + 2 + rest[open + 1..].iter().position(|byte| *byte == b'"')?;
        let (tag, after) = rest.split_at(end);
        rest = after;
        Some(tag)
    })
}

/// Our tags are strong, and a weak one never fits in a strong comparison (RFC 9110 §8.8.3.2).
fn is_strongly(tag: &[u8], etag: &str) -> bool {
    tag == etag.as_bytes()
}

fn is_weakly(tag: &[u8], etag: &str) -> bool {
    tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
}

/// If-Range has an entity tag or a date, and both have to be exactly the file's (RFC 9110 §13.1.5). A date is strong
/// enough once a second has passed since: the file could have changed twice within that one (§8.8.2.2).
fn is_same_version(value: &HeaderValue, file: Validators<'_>) -> bool {
    let text = value.as_bytes().trim_ascii();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        return is_strongly(text, file.etag);
    }
    file.last_modified.is_some_and(|modified| date(Some(value)) == Some(modified) && modified < file.now)
}

/// Seconds since the Unix epoch of an HTTP date (RFC 9110 §5.6.7); `None` for what is none.
fn date(value: Option<&HeaderValue>) -> Option<u64> {
    let moment = httpdate::parse_http_date(value?.to_str().ok()?).ok()?;
    moment.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// An HTTP date of so many seconds since the Unix epoch.
pub fn http_date(seconds: u64) -> String {
    let moment: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    httpdate::fmt_http_date(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"a,b\"";
    const MODIFIED: u64 = 1_700_000_000;

    fn outcome_at(now: u64, fields: &[(&'static str, &str)]) -> Outcome {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Conditions::of(&headers).evaluate(Validators { etag: ETAG, last_modified: Some(MODIFIED), now })
    }

    fn outcome(fields: &[(&'static str, &str)]) -> Outcome {
        outcome_at(MODIFIED + 3600, fields)
    }

    const SEND: Outcome = Outcome::Send { ranges: true };
    const WHOLE: Outcome = Outcome::Send { ranges: false };

    #[test]
    fn conditions_are_evaluated_in_the_order_of_the_standard() {
        let (earlier, same, later) = (http_date(MODIFIED - 1), http_date(MODIFIED), http_date(MODIFIED + 1));
        for (fields, expected) in [
            (&[][..], SEND),
            (&[("if-match", ETAG)], SEND),
            (&[("if-match", "*")], SEND),
            (&[("if-match", "\"x\", \"a,b\"")], SEND),
            (&[("if-match", "\"x\""), ("if-match", ETAG)], SEND),
            (&[("if-match", "W/\"a,b\"")], Outcome::Failed),
            (&[("if-match", "\"x\"")], Outcome::Failed),
            (&[("if-match", "a,b")], Outcome::Failed),
            (&[("if-unmodified-since", &same)], SEND),
            (&[("if-unmodified-since", &later)], SEND),
            (&[("if-unmodified-since", &earlier)], Outcome::Failed),
            (&[("if-unmodified-since", "yesterday")], SEND),
            (&[("if-match", ETAG), ("if-unmodified-since", &earlier)], SEND),
            (&[("if-match", "\"x\""), ("if-none-match", ETAG)], Outcome::Failed),
            (&[("if-none-match", ETAG)], Outcome::NotModified),
            (&[("if-none-match", "W/\"a,b\"")], Outcome::NotModified),
            (&[("if-none-match", "\"x\" , W/\"a,b\"")], Outcome::NotModified),
            (&[("if-none-match", "*")], Outcome::NotModified),
            (&[("if-none-match", "\"x\"")], SEND),
            (&[("if-none-match", "\"a\", \"b\"")], SEND),
            (&[("if-none-match", "\"x\""), ("if-modified-since", &later)], SEND),
            (&[("if-modified-since", &same)], Outcome::NotModified),
            (&[("if-modified-since", &later)], Outcome::NotModified),
            (&[("if-modified-since", &earlier)], SEND),
            (&[("if-modified-since", "0")], SEND),
            (&[("if-modified-since", &later), ("if-modified-since", &later)], SEND),
            (&[("if-match", ETAG), ("if-none-match", ETAG)], Outcome::NotModified),
            (&[("if-unmodified-since", &later), ("if-modified-since", &later)], Outcome::NotModified),
            (&[("if-range", ETAG)], SEND),
            (&[("if-range", &same)], SEND),
            (&[("if-range", "W/\"a,b\"")], WHOLE),
            (&[("if-range", "\"x\"")], WHOLE),
            (&[("if-range", &earlier)], WHOLE),
            (&[("if-range", &later)], WHOLE),
            (&[("if-range", "junk")], WHOLE),
            (&[("if-range", ""), ("if-range", "")], WHOLE),
            (&[("if-range", ETAG), ("if-range", ETAG)], WHOLE),
            (&[("if-range", ETAG), ("if-range", "\"x\"")], WHOLE),
            (&[("if-range", &same), ("if-range", &same)], WHOLE),
            (&[("if-none-match", "\"x\""), ("if-none-match", ETAG)], Outcome::NotModified),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"y\"")], SEND),
            (&[("if-unmodified-since", &earlier), ("if-unmodified-since", &earlier)], SEND),
            (&[("if-none-match", ETAG), ("if-range", ETAG)], Outcome::NotModified),
        ] {
            assert_eq!(outcome(fields), expected, "{fields:?}");
        }
        assert_eq!(outcome_at(MODIFIED, &[("if-range", &same)]), WHOLE, "it may change again within this second");
    }

    #[test]
    fn a_date_has_one_of_the_three_forms() {
        for text in ["Tue, 14 Nov 2023 22:13:20 GMT", "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"] {
            assert_eq!(date(Some(&HeaderValue::from_static(text))), Some(MODIFIED), "{text}");
        }
        assert_eq!(http_date(MODIFIED), "Tue, 14 Nov 2023 22:13:20 GMT");
    }
}
