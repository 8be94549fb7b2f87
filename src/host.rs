//! Host names, parsed once: lower-case, no port, no trailing dot. Not DNS resolution and not routing.
//!
//! `config` parses what operators write, `proxy` parses what clients send; behind that everything takes a
//! [`Host`], so no room compares raw strings.

mod origin;

use std::collections::HashMap;
use std::fmt;

pub use origin::{BadOrigin, Origin};

/// A DNS name in canonical form: lower-case letters, digits, `-` and `.`; at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

/// What a configuration may name: one host, or every host one label below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `iqueue.leantaas.com`
    Exact(Host),
    /// `*.iqueue.leantaas.com`; holds what follows the `*.`.
    Wildcard(Host),
}

/// Values filed under host patterns; an exact host wins over a wildcard. Only an operator files any, so no client can
/// choose names that collide.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    exact: HashMap<Host, T, ahash::RandomState>,
    wildcard: HashMap<Host, T, ahash::RandomState>,
}

/// The text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHost;

/// The host of a `Host` field or an `:authority`, and the port if one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub host: Host,
    pub port: Option<u16>,
}

impl Host {
    /// Folds case and drops one trailing dot; everything else must be a DNS name as RFC 1123 has it.
    /// Address literals are no hosts: no certificate of ours covers one and no service is named so.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if !is_name(text.as_bytes()) {
            return Err(BadHost);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// Returns a host in place of one that the configuration failed to name, so that the rest of it can be checked.
    /// `.invalid` never resolves (RFC 6761 §6.4).
    pub fn placeholder() -> Self {
        Self("host.invalid".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label, for wildcard look-ups; `None` for a single label.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

/// Labels of 1 to 63 letters, digits and `-`, which stands at no end of one, with a dot between them; the last is no
/// number, or the text could be an address. One pass, as every request has a host.
fn is_name(text: &[u8]) -> bool {
    const LONGEST: usize = 253;
    const LONGEST_LABEL: usize = 63;
    let (mut length, mut before, mut is_number) = (0, b'.', true);
    for byte in text.iter().copied() {
        match byte {
            b'.' if length == 0 || length > LONGEST_LABEL || before == b'-' => return false,
            b'-' if length == 0 => return false,
            b'.' => (length, is_number) = (0, true),
            b'0'..=b'9' => length += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'-' => (length, is_number) = (length + 1, false),
            _ => return false,
        }
        before = byte;
    }
    text.len() <= LONGEST && (1..=LONGEST_LABEL).contains(&length) && before != b'-' && !is_number
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HostPattern {
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        match text.strip_prefix("*.") {
            Some(domain) => Host::parse(domain).map(Self::Wildcard),
            None => Host::parse(text).map(Self::Exact),
        }
    }

    /// Whether `host` is one that this pattern names.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Wildcard(domain) => host.parent() == Some(domain.as_str()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => host.fmt(f),
            Self::Wildcard(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default() }
    }
}

impl<T> HostTable<T> {
    pub fn insert(&mut self, pattern: HostPattern, value: T) {
        match pattern {
            HostPattern::Exact(host) => self.exact.insert(host, value),
            HostPattern::Wildcard(domain) => self.wildcard.insert(domain, value),
        };
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values())
    }

    pub fn find(&self, host: &Host) -> Option<&T> {
        self.exact.get(host).or_else(|| host.parent().and_then(|domain| self.wildcard.get(domain)))
    }
}

/// Lets a part of a name be looked up in a wildcard table, without making a `Host` of it.
impl std::borrow::Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Authority {
    /// `host` or `host:port`; no user info, no address literal, no empty or malformed port (RFC 9110 §7.2).
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let (host, port) = match memchr::memchr(b':', text.as_bytes()) {
            None => (text, None),
            Some(colon) => (&text[..colon], Some(parse_port(&text[colon + 1..])?)),
        };
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// Whether a text that can be parsed is written as [`Display`](fmt::Display) writes it.
    pub fn is_canonical(text: &str) -> bool {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let is_lower = !host.ends_with('.') && !host.bytes().any(|byte| byte.is_ascii_uppercase());
        is_lower && port.is_none_or(|port| port != "443" && !port.starts_with('0'))
    }
}

/// The one spelling that applications are given: in lower case, without a trailing dot, and with the port where it is not
/// that of HTTPS, as browsers write it (RFC 9110 §4.2.3).
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port.filter(|port| *port != 443) {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

fn parse_port(digits: &str) -> Result<u16, BadHost> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().map_err(|_| BadHost) } else { Err(BadHost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_one_trailing_dot_do_not_make_another_host() {
        let plain = Host::parse("iqueue.leantaas.com").unwrap();
        assert_eq!(Host::parse("IQUEUE.LeanTaaS.com."), Ok(plain));
    }

    /// RFC 1123 §2.1 word by word.
    fn is_name_by_labels(text: &str) -> bool {
        let is_label = |label: &str| {
            let of_a_label = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (1..=63).contains(&label.len()) && of_a_label && !label.starts_with('-') && !label.ends_with('-')
        };
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        text.len() <= 253 && text.split('.').all(is_label) && !text.split('.').next_back().is_some_and(is_number)
    }

    /// All texts of up to seven of these, and around the longest label and the longest name.
    #[test]
    fn a_name_is_read_in_one_pass_as_by_its_labels() {
        const SIGNS: [char; 7] = ['a', 'Z', '0', '-', '.', '_', 'é'];
        let mut names = 0;
        let mut judge = |text: &str| {
            let expected = is_name_by_labels(text);
            assert_eq!(is_name(text.as_bytes()), expected, "{text}");
            names += usize::from(expected);
        };
        judge("");
        for length in 1..=7 {
            for number in 0..SIGNS.len().pow(length) {
                let sign = |place: u32| SIGNS[number / SIGNS.len().pow(place) % SIGNS.len()];
                judge(&(0..length).map(sign).collect::<String>());
            }
        }
        for long in 60..=66 {
            judge(&"a".repeat(long));
            judge(&format!("{}.b", "a".repeat(long)));
            judge(&(format!("{}.", "a".repeat(50)).repeat(4) + &"b".repeat(long - 14)));
        }
        assert!(names > 10_000, "{names}");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.com", "a".repeat(300));
        for bad in [
            "",
            ".",
            "..iqueue.com",
            "iqueue..com",
            "a b.com",
            "a_b.com",
            "-a.com",
            "a-.com",
            "user@a.com",
            "a.com/..",
            "a.com\0",
            "127.0.0.1",
            "[::1]",
            "[::1",
            "iqueue.com..",
            "іqueue.com",
            "a.com, evil",
            "*.a.com",
            &long,
        ] {
            assert_eq!(Host::parse(bad), Err(BadHost), "{bad:?}");
        }
    }

    #[test]
    fn a_port_is_digits_and_fits() {
        assert_eq!(Authority::parse("a.com:8443").unwrap().port, Some(8443));
        assert_eq!(Authority::parse("a.com").unwrap().port, None);
        for bad in ["a.com:", "a.com:99999", "a.com:80:80", "a.com:1.2", "a.com:+80", "a.com: 80", "[::1]:80"] {
            assert_eq!(Authority::parse(bad), Err(BadHost), "{bad:?}");
        }
    }

    #[test]
    fn an_authority_has_one_spelling() {
        for (text, canonical) in [
            ("a.com", "a.com"),
            ("a-1.com:8443", "a-1.com:8443"),
            ("A.Com", "a.com"),
            ("a.com.", "a.com"),
            ("A.com.:8443", "a.com:8443"),
            ("a.com:443", "a.com"),
            ("a.com:00443", "a.com"),
            ("a.com:08443", "a.com:8443"),
        ] {
            assert_eq!(Authority::parse(text).unwrap().to_string(), canonical, "{text}");
            assert_eq!(Authority::is_canonical(text), text == canonical, "{text}");
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wild = HostPattern::parse("*.iqueue.com").unwrap();
        let host = |name| Host::parse(name).unwrap();
        assert!(wild.matches(&host("a.iqueue.com")));
        assert!(!wild.matches(&host("iqueue.com")));
        assert!(!wild.matches(&host("a.b.iqueue.com")));
        assert!(!wild.matches(&host("evil-iqueue.com")));
    }
}
