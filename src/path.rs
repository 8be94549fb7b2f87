//! The path that rules are matched against: decoded once, without dot segments and doubled slashes.
//!
//! The proxy must not decide on another path than the application serves. So a path that an application might
//! read differently (encoded slashes, `;` parameters, backslashes, needless escapes) is matched in its canonical
//! form for rules that demand something, and never matches a rule that demands nothing: see `is_canonical`.

/// A path as rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    text: String,
    /// How a server reads it that cuts segments at `;`, takes `\` for `/`, decodes twice or leaves out control characters,
    /// if that is another way.
    lenient: Option<String>,
    exact: bool,
}

/// The path cannot be read, or climbs above the root; the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

impl CanonicalPath {
    /// Takes the raw path of a request target, which must begin with `/`.
    pub fn of(raw: &str) -> Result<Self, BadPath> {
        if is_plain(raw) {
            return Ok(Self { text: raw.to_owned(), lenient: None, exact: true });
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
        let odd = |c: char| matches!(c, '\\' | ';' | '%') || c.is_control();
        let lenient = if decoded.contains(odd) { Some(read_leniently(&decoded)?) } else { None };
        Ok(Self { lenient: lenient.filter(|lenient| *lenient != text), text, exact })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether every server must read this path as we do.
    pub fn is_canonical(&self) -> bool {
        self.exact
    }

    /// Whether `rule` (no trailing slash, or `/`) is this path or one of its parents.
    pub fn is_under(&self, rule: &str) -> bool {
        is_under(&self.text, rule)
    }

    /// The same of the path as a lenient server reads it.
    pub fn may_be_under(&self, rule: &str) -> bool {
        is_under(self.lenient.as_ref().unwrap_or(&self.text), rule)
    }
}

/// Whether there is nothing in a path that could be read in another way: as most are.
fn is_plain(raw: &str) -> bool {
    let mut before = 0;
    let plain = raw.bytes().all(|byte| {
        // No empty segment, and none that begins as `.` and `..` do.
        let begins_oddly = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !begins_oddly && (byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~'))
    });
    plain && raw.starts_with('/')
}

fn is_under(path: &str, rule: &str) -> bool {
    rule == "/" || path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

fn read_leniently(decoded: &str) -> Result<String, BadPath> {
    // What cannot be decoded a second time is left as it is by those who try.
    let twice = decode_once(decoded).map_or_else(|_| decoded.to_owned(), |(twice, _)| twice);
    let slashes = without_controls(&twice).replace('\\', "/");
    let cut: Vec<&str> = slashes.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    normalize(&cut.join("/"))
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
    let text = String::from_utf8(bytes).map_err(|_| BadPath)?;
    // Programs in C take it for the end. Other control characters, escaped as they are, mean nothing in particular.
    if text.contains('\0') { Err(BadPath) } else { Ok((text, exact)) }
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

    /// All paths of up to eight bytes of these, with which anything odd can be said.
    #[test]
    fn a_plain_path_is_read_as_any_other() {
        const BYTES: &[u8] = b"\\/.a;%2";
        let mut plain = 0;
        for number in 0..BYTES.len().pow(7) {
            let mut rest = number;
            let mut raw = String::from("/");
            while rest > 0 {
                raw.push(char::from(BYTES[rest % BYTES.len()]));
                rest /= BYTES.len();
            }
            if is_plain(&raw) {
                plain += 1;
                assert_eq!(CanonicalPath::of(&raw), CanonicalPath::read(&raw), "{raw}");
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

    #[test]
    fn a_lenient_reading_is_known_where_it_differs() {
        for raw in [
            "/admin;x/users",
            "/x%5c..%5cadmin/users",
            "/%2561dmin/users",
            "/x;y/..;/admin/users",
            "/admin%0A",
            "/ad%250Dmin/users",
            "/x/.%0A./admin/users",
        ] {
            let path = CanonicalPath::of(raw).unwrap();
            assert!(path.may_be_under("/admin"), "{raw}");
        }
        assert!(!CanonicalPath::of("/other;admin/users").unwrap().may_be_under("/admin"));
        assert!(CanonicalPath::of("/admin/x").unwrap().may_be_under("/admin"));
    }

    #[test]
    fn what_cannot_be_read_or_climbs_out_is_refused() {
        for raw in [
            "",
            "a",
            "/..",
            "/a/../..",
            "/%",
            "/%4",
            "/%zz",
            "/%00",
            "/public/.%00./admin",
            "/%c0%ae%c0%ae/admin",
            "/a\tb",
            "/a\tb%20",
            "/é",
        ] {
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
