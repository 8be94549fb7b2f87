//! The path that rules are matched against, and the other ways in which servers read it.
//!
//! The proxy must not decide on another path than the application serves. So where a path can be read in several ways
//! (encoded slashes, `;` parameters, backslashes, needless escapes, case), a route is found for it only if all its
//! [readings](CanonicalPath::readings) fall under it, and a rule that demands nothing is not for such a path at all: see
//! `is_canonical`.

mod file_path;
mod readings;

use std::borrow::Cow;

pub use file_path::FilePath;
use unicode_normalization::UnicodeNormalization;

/// A path as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    /// Decoded once, without dot segments and doubled slashes.
    text: String,
    /// As it came, unless that is plain.
    raw: Option<String>,
    exact: bool,
}

/// The path cannot be read, climbs above the root, or has a dot segment or too many readings; the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

impl CanonicalPath {
    /// Takes the raw path of a request target, which must begin with `/`.
    pub fn of(raw: &str) -> Result<Self, BadPath> {
        if is_plain(raw) {
            return Ok(Self { text: raw.to_owned(), raw: None, exact: true });
        }
        Self::read(raw)
    }

    fn read(raw: &str) -> Result<Self, BadPath> {
        if !raw.starts_with('/') || !raw.is_ascii() || raw.contains(char::is_control) {
            return Err(BadPath);
        }
        let (decoded, mut exact) = decode_once(raw)?;
        let text = normalize(&decoded)?;
        exact &= text == decoded && !decoded.contains(['\\', ';']);
        exact &= !decoded.split('/').any(can_be_overlooked);
        Ok(Self { raw: Some(raw.to_owned()), text, exact })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether every server must read this path as we do, but for its case: it is ASCII, without an escape, a parameter,
    /// a doubled slash or a segment that ends in a dot.
    pub fn is_plain(&self) -> bool {
        self.raw.is_none()
    }

    /// Every text that a server may take this path for, but for its case, and this one among them. `Err` when one of
    /// them has a dot segment, or when there are too many.
    pub fn readings(&self) -> Result<Vec<Vec<u8>>, BadPath> {
        readings::of(self.raw.as_ref().unwrap_or(&self.text))
    }

    /// Whether a public rule may hold for this path: it is written in its canonical form, and every server that knows
    /// no more than RFC 3986 reads it as we do.
    pub fn is_canonical(&self) -> bool {
        self.exact
    }

    /// Whether `rule` (no trailing slash, or `/`) is this path or one of its parents.
    pub fn is_under(&self, rule: &str) -> bool {
        is_under(self.text.as_bytes(), rule.as_bytes())
    }

    /// Returns what follows `prefix` in the path as it was sent: nothing, or bytes that begin with one slash. `prefix` is
    /// spelled as [`encoded`] spells it, and a path that spells it in another way is an error. So is a rest that some
    /// server, or a browser that is sent there, reads with two slashes at its beginning, because what follows two slashes
    /// is a host (RFC 3986 §4.2), and one with dot segments, which lead out of it.
    pub fn after(&self, prefix: &str) -> Result<&str, BadPath> {
        let rest = self.raw.as_deref().unwrap_or(&self.text).strip_prefix(prefix).ok_or(BadPath)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(BadPath);
        }
        if !self.is_plain() && !rest.is_empty() && readings::of(rest)?.iter().any(|reading| reading.starts_with(b"//"))
        {
            return Err(BadPath);
        }
        Ok(rest)
    }
}

/// Returns a decoded path as a request target spells it (RFC 3986 §2.1 and §6.2.2): everything escaped, with capital
/// letters, that cannot stand as it is.
pub fn encoded(decoded: &str) -> String {
    let mut text = String::with_capacity(decoded.len());
    for byte in decoded.bytes() {
        if byte.is_ascii_alphanumeric() || is_sign(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Whether `rule` (no trailing slash, or `/`) is this path or one of its parents.
pub fn is_under(path: &[u8], rule: &[u8]) -> bool {
    rule == b"/" || path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The same where case has no meaning in letters of ASCII.
pub fn is_under_in_any_case(path: &[u8], rule: &[u8]) -> bool {
    let begins = || path.get(..rule.len()).is_some_and(|start| start.eq_ignore_ascii_case(rule));
    rule == b"/" || (begins() && matches!(path.get(rule.len()), None | Some(b'/')))
}

/// A text as servers compare it to which case has no meaning in any alphabet: NFKC, each letter by its capital, since
/// `ı` and `ſ` have those of `i` and `s`, and without the dot that `İ` leaves behind.
pub fn folded(text: &str) -> String {
    let letters = text.nfkc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    letters.nfkc().filter(|c| *c != '\u{307}').collect()
}

/// Whether a decoded path can be a rule: no server reads it as another, so that the readings of a request's path can be
/// compared with it.
pub fn is_rule(decoded: &str) -> bool {
    readings::is_single(decoded)
}

/// What may stand in a path as it is (RFC 3986 §3.3), but for `;` and escapes.
const fn is_sign(byte: u8) -> bool {
    matches!(
        byte,
        b'/' | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b'='
            | b':'
            | b'@'
    )
}

/// Whether there is nothing in a path that could be read in another way: as most are.
fn is_plain(raw: &str) -> bool {
    let mut before = 0;
    let plain = raw.bytes().all(|byte| {
        let is_odd_after = match byte {
            // An empty segment, and one that ends in a dot.
            b'/' => matches!(before, b'/' | b'.'),
            // `::$DATA`, to Windows.
            b'$' => before == b':',
            _ => false,
        };
        before = byte;
        !is_odd_after && (byte.is_ascii_alphanumeric() || is_sign(byte))
    });
    plain && raw.starts_with('/') && before != b'.'
}

/// Without dot segments and doubled slashes. Some servers cut a segment at `;` before they look for dots.
fn normalize(decoded: &str) -> Result<String, BadPath> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(BadPath)?;
            }
            _ => segments.push(segment),
        }
    }
    let mut text = String::with_capacity(decoded.len());
    for segment in &segments {
        text.push('/');
        text.push_str(segment);
    }
    if text.is_empty() || decoded.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

/// Whether a segment is none, or dots, to who leaves control characters out.
fn can_be_overlooked(segment: &str) -> bool {
    segment.contains(char::is_control) && matches!(&*without_controls(segment), "" | "." | "..")
}

/// As who trims a path reads it, and who matches it against a pattern that ends with `$`, as `/admin%0A` does.
fn without_controls(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The decoded text, and whether each escape was one that had to be: of an octet that is neither unreserved nor
/// a delimiter that servers act on.
fn decode_once(raw: &str) -> Result<(String, bool), BadPath> {
    if !raw.contains('%') {
        return Ok((raw.to_owned(), true));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut exact = true;
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(BadPath);
        let octet = (digit()? * 16 + digit()?) as u8;
        exact &= !octet.is_ascii_alphanumeric() && !b"-._~/\\%;?#".contains(&octet);
        bytes.push(octet);
    }
    // Programs in C take it for the end. Other control characters, escaped as they are, mean nothing in particular.
    if bytes.contains(&0) {
        return Err(BadPath);
    }
    // Latin-1, as in the names of old files.
    let text = String::from_utf8_lossy(&bytes);
    exact &= matches!(text, Cow::Borrowed(_));
    Ok((text.into_owned(), exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(raw: &str) -> (String, bool) {
        let path = CanonicalPath::of(raw).unwrap();
        (path.as_str().into(), path.is_canonical())
    }

    #[test]
    fn plain_paths_are_canonical_as_they_are() {
        for raw in ["/", "/a", "/a/", "/a/b.html", "/a~b/c_d", "/a:b@c"] {
            assert_eq!(canonical(raw), (raw.to_owned(), true));
        }
        assert_eq!(canonical("/a%20b/%C3%A9"), ("/a b/é".into(), true));
        assert_eq!(canonical("/a%09b%0D%0A"), ("/a\tb\r\n".into(), true));
    }

    /// All paths of up to seven bytes, the first a slash, of these, with which anything odd can be said.
    #[test]
    fn a_plain_path_has_one_reading_and_is_its_own_canonical_form() {
        const BYTES: &[u8] = b"\\/.a:;%$";
        let mut plain = 0;
        for number in 0..BYTES.len().pow(6) {
            let mut rest = number;
            let mut raw = String::from("/");
            while rest > 0 {
                raw.push(char::from(BYTES[rest % BYTES.len()]));
                rest /= BYTES.len();
            }
            if is_plain(&raw) {
                plain += 1;
                let (plain, read) = (CanonicalPath::of(&raw).unwrap(), CanonicalPath::read(&raw).unwrap());
                assert_eq!((&plain.text, plain.exact), (&read.text, read.exact), "{raw}");
                assert_eq!(read.readings(), Ok(vec![raw.clone().into_bytes()]), "{raw}");
            }
        }
        assert!(plain > 1_000, "{plain}");
    }

    #[test]
    fn what_a_server_might_read_differently_is_not_canonical() {
        for (raw, seen) in [
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/..%2fadmin", "/admin"),
            ("/public/%2e%2e%2fadmin", "/admin"),
            ("/public/..;/admin", "/admin"),
            ("/public%2f..%2fadmin", "/admin"),
            ("//admin", "/admin"),
            ("/public/..%5cadmin", "/public/..\\admin"),
            ("/public/%252e%252e/admin", "/public/%2e%2e/admin"),
            ("/public;/../admin", "/admin"),
            ("/%70ublic/x", "/public/x"),
            ("/public/x;a=b", "/public/x;a=b"),
            ("/public/.%0A./admin", "/public/.\n./admin"),
            ("/public/%0D/admin", "/public/\r/admin"),
            ("/public/%0A", "/public/\n"),
        ] {
            assert_eq!(canonical(raw), (seen.to_owned(), false), "{raw}");
        }
    }

    fn readings(raw: &str) -> Result<Vec<String>, BadPath> {
        let readings = CanonicalPath::of(raw).unwrap().readings()?;
        Ok(readings.iter().map(|reading| String::from_utf8_lossy(reading).into_owned()).collect())
    }

    #[test]
    fn the_readings_of_a_path_are_those_of_servers_that_there_are() {
        for (raw, expected) in [
            ("/a%20b/%C3%A9", &["/a b/é"][..]),
            ("/%61dmin", &["/%61dmin", "/admin"]),
            ("/%2561dmin", &["/%2561dmin", "/%61dmin", "/admin"]),
            ("/%40me", &["/%40me", "/@me"]),
            ("/x%2fy", &["/x%2fy", "/x/y"]),
            ("/x%5cy", &["/x%5cy", "/x\\y", "/x/y"]),
            ("/admin;x/users", &["/admin;x/users", "/admin/users"]),
            ("/a;x%2fb", &["/a;x%2fb", "/a;x/b", "/a", "/a/b"]),
            ("//host/admin", &["//host/admin", "/host/admin", "/admin"]),
            ("/admin%3fx", &["/admin%3fx", "/admin?x", "/admin"]),
            ("/admin%2500x", &["/admin%2500x", "/admin%00x", "/admin\0x", "/admin", "/adminx"]),
            ("/admin%0A", &["/admin%0A", "/admin\n", "/admin"]),
            ("/ad%E2%80%8Bmin", &["/ad\u{200b}min", "/admin"]),
            ("/admin./x", &["/admin./x", "/admin/x"]),
            ("/admin%20/x", &["/admin /x", "/admin/x"]),
            ("/admin::$DATA", &["/admin::$DATA", "/admin"]),
            ("/admin:$i30:$INDEX_ALLOCATION/x", &["/admin:$i30:$INDEX_ALLOCATION/x", "/admin/x"]),
            ("/x%EF%BC%8Fadmin", &["/x／admin", "/x/admin"]),
            ("/x%E2%88%95y", &["/x∕y", "/x/y"]),
            ("/caf%E9.pdf", &["/caf\u{fffd}.pdf", "/café.pdf", "/caf.pdf"]),
        ] {
            let mut found = readings(raw).unwrap();
            let mut expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{raw}");
        }
    }

    #[test]
    fn a_dot_segment_in_any_spelling_leaves_a_path_without_a_reading() {
        for segment in [
            ".",
            "..",
            "...",
            "....",
            "%2e",
            "%2E%2e",
            ".%2e",
            "%2e.",
            "%252e%252e",
            "%25252e.",
            ".;",
            "..;",
            "..;a=b",
            "..%3b",
            ".%0A.",
            "%0D..",
            "..%09",
            "..%7F",
            "..%C2%80",
            "%20..",
            "..%20",
            ".%20.",
            "..%2520",
            "%E3%80%80..",
            "%EF%BC%8E%EF%BC%8E",
            ".%EF%BC%8E",
            "%E2%80%A5",
            "%E2%80%A6",
            "%E2%80%A4.",
            "%EF%B9%92.",
            ".%E2%80%8B.",
            "..%EF%BB%BF",
            ".%C2%AD.",
            "%C2%A0..",
            "%EF%BC%85%32%65.",
            "..%EF%BC%9Ba",
            "..::$DATA",
            "..%FF",
            "%C0%AE.",
            "%c0%ae%c0%ae",
            "%e0%80%ae.",
            "..%00x%2500",
        ] {
            for raw in ["/a/S", "/a/S/", "/a/S/b", "/S/a", "/S", "/a//S/b", "/a%2fS%2fb", "/a%5cS%5cb", "/a%255cS/b"] {
                let raw = raw.replace('S', segment);
                // Some climb above the root, or hold a NUL, and are no path for any server.
                let read = CanonicalPath::of(&raw).and_then(|path| path.readings());
                assert_eq!(read, Err(BadPath), "{raw}");
            }
        }
        for raw in ["/.well-known/x", "/a..b/..c/d..", "/a/.b", "/v1...v2", "/a/..b%20", "/a%2e/b", "/a/%2eb", "/%20/x"]
        {
            assert!(readings(raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn the_work_for_a_path_is_bounded() {
        for piece in ["%25", "%2525", "/;/", "%2f%5c;", "%EF%BC%8F%2f;%0A", "%E9%2f", "a.%20", "//", "%3f%23;"] {
            let raw = format!("/{}41", piece.repeat(30_000 / piece.len()));
            let bytes: usize = readings(&raw).unwrap_or_default().iter().map(String::len).sum();
            assert!(bytes <= 512 * 1024, "{piece}: {bytes}");
        }
        assert_eq!(readings(&format!("/%{}41", "25".repeat(100))), Err(BadPath));
    }

    #[test]
    fn what_follows_a_prefix_begins_with_one_slash_in_every_reading() {
        for (raw, prefix, rest) in [
            ("/old", "/old", Some("")),
            ("/old/", "/old", Some("/")),
            ("/old/a/b", "/old", Some("/a/b")),
            ("/old/a//b", "/old", Some("/a//b")),
            ("/old/a%2Fb;v=1", "/old", Some("/a%2Fb;v=1")),
            ("/caf%C3%A9/x", "/caf%C3%A9", Some("/x")),
            ("/a", "", Some("/a")),
            ("/older", "/old", None),
            ("/Old/a", "/old", None),
            ("/%6fld/a", "/old", None),
            ("/caf%c3%a9/x", "/caf%C3%A9", None),
            ("//old/a", "/old", None),
            ("/old//host", "/old", None),
            ("/old///host", "/old", None),
            ("/old/\\host", "/old", None),
            ("/old/%5chost", "/old", None),
            ("/old/%2fhost", "/old", None),
            ("/old/%2Fhost", "/old", None),
            ("/old/%252fhost", "/old", None),
            ("/old/%09/host", "/old", None),
            ("/old/%E2%80%8B/host", "/old", None),
            ("/old/%EF%BC%8Fhost", "/old", None),
            ("/old/;/host", "/old", None),
            ("/old/%20/host", "/old", None),
            ("/old/./host", "/old", None),
            ("/old/../host", "/old", None),
            ("/old/a/../../host", "/old", None),
            ("/old/%2e%2e/host", "/old", None),
            ("/old/..;/host", "/old", None),
            ("//host", "", None),
            ("/\\host", "", None),
        ] {
            let path = CanonicalPath::of(raw);
            assert_eq!(path.as_ref().ok().and_then(|path| path.after(prefix).ok()), rest, "{raw}");
        }
    }

    #[test]
    fn a_decoded_path_is_spelled_in_one_way() {
        for (decoded, spelled) in [
            ("/a/b", "/a/b"),
            ("/a b", "/a%20b"),
            ("/café", "/caf%C3%A9"),
            ("/a{b}", "/a%7Bb%7D"),
            ("/@me:x", "/@me:x"),
        ] {
            assert_eq!(encoded(decoded), spelled);
            assert_eq!(CanonicalPath::of(spelled).unwrap().as_str(), decoded);
        }
    }

    #[test]
    fn a_rule_has_one_reading() {
        for rule in ["/", "/admin", "/Admin/x", "/café", "/a b", "/a{b}", "/.well-known", "/@me", "/a:b"] {
            assert!(is_rule(rule), "{rule}");
        }
        for rule in ["/a.", "/a ", "/a/...", "/ﬁle", "/cafe\u{301}", "/a\tb", "/a//b", "/a:$b", "/a\\b", "/a;b"] {
            assert!(!is_rule(rule), "{rule}");
        }
    }

    #[test]
    fn letters_are_folded_as_any_server_may() {
        for text in ["ADMIN", "adm\u{131}n", "ADM\u{130}N", "\u{ff41}dmin", "ＡＤＭＩＮ"] {
            assert_eq!(folded(text), "admin", "{text}");
        }
        assert_eq!((folded("\u{17f}\u{212a}ß").as_str(), folded("ΣΟΣ")), ("skss", folded("σος")));
    }

    #[test]
    fn what_cannot_be_read_or_climbs_out_is_refused() {
        for raw in
            ["", "a", "/..", "/a/../..", "/%", "/%4", "/%zz", "/%00", "/public/.%00./admin", "/a\tb", "/a\tb%20", "/é"]
        {
            assert_eq!(CanonicalPath::of(raw), Err(BadPath), "{raw}");
        }
    }

    #[test]
    fn a_rule_matches_whole_segments() {
        let under = |raw: &str, rule: &str| CanonicalPath::of(raw).unwrap().is_under(rule);
        assert!(under("/admin", "/admin") && under("/admin/", "/admin") && under("/admin/x", "/admin"));
        assert!(!under("/administrator", "/admin") && !under("/ADMIN", "/admin") && !under("/x/admin", "/admin"));
        assert!(under("/anything", "/"));
    }
}
