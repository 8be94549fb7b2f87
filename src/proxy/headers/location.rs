//! The `Location` of applications' responses: one that a browser could not follow through the edge is repaired.
//!
//! An application that does not know that it is behind the edge writes `http://`, its own address, or a path without the
//! prefix that the edge has cut off. Other hosts, which an application may well redirect to, are left as they are. Both
//! request paths call it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, header};

use crate::config::{Forward, Prefixes};
use crate::host::{Authority, Host};
use crate::path::is_under;

/// Which values may have to be repaired on a route. The fast path passes the others on as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None.
    Off,
    /// Those that name a host.
    Hosts,
    /// Paths too.
    Paths,
}

impl Scope {
    pub fn of(forward: &Forward) -> Self {
        match (forward.location_repair, &forward.prefixes) {
            (false, _) => Self::Off,
            (true, None) => Self::Hosts,
            (true, Some(_)) => Self::Paths,
        }
    }

    pub fn may_change(self, location: &[u8]) -> bool {
        match self {
            Self::Off => false,
            Self::Hosts => location.first() != Some(&b'/') || location.get(1) == Some(&b'/'),
            Self::Paths => true,
        }
    }
}

/// What a `Location` is compared with.
pub struct Facts<'a> {
    /// The host of the request, and its spelling by the client, with the port that the client uses.
    pub host: &'a Host,
    pub authority: &'a str,
    /// The path of the request as it was sent.
    pub path: &'a str,
    /// The server that the response is from: as it is configured, and its address.
    pub server: Option<(&'a str, SocketAddr)>,
    pub prefixes: Option<&'a Prefixes>,
}

/// Repairs the field where a response has it.
pub fn repair(fields: &mut HeaderMap, facts: &Facts<'_>) {
    let header::Entry::Occupied(mut locations) = fields.entry(header::LOCATION) else { return };
    for location in locations.iter_mut() {
        let repaired = location.to_str().ok().and_then(|text| repaired(text, facts));
        if let Some(repaired) = repaired.and_then(|text| HeaderValue::try_from(text).ok()) {
            *location = repaired;
        }
    }
}

/// The schemes of a URL that a server may have written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    /// `//host/path`: that of the page.
    Same,
}

/// Returns what a location becomes; `None` where it stays.
fn repaired(location: &str, facts: &Facts<'_>) -> Option<String> {
    let Some((scheme, rest)) = scheme(location) else { return with_prefix(location, facts) };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let own = Authority::parse(authority).is_ok_and(|named| match scheme {
        Scheme::Http => named.host == *facts.host,
        // Another port may be another server's.
        Scheme::Https | Scheme::Same => is_same(&named, facts.authority),
    });
    if !own && !is_server(scheme, authority, facts.server) {
        return None;
    }
    let outer = facts.prefixes.and_then(|prefixes| outer_path(path, prefixes));
    if own && scheme != Scheme::Http {
        return outer.map(|outer| format!("{}{outer}", &location[..location.len() - path.len()]));
    }
    Some(format!("https://{}{}", facts.authority, outer.as_deref().unwrap_or(path)))
}

fn scheme(location: &str) -> Option<(Scheme, &str)> {
    let after = |scheme: &str| {
        let begins = location.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        begins.then(|| &location[scheme.len()..])
    };
    [("http://", Scheme::Http), ("https://", Scheme::Https), ("//", Scheme::Same)]
        .into_iter()
        .find_map(|(text, scheme)| Some((scheme, after(text)?)))
}

/// Whether both are one host and one port, as https has them.
fn is_same(named: &Authority, authority: &str) -> bool {
    let port = |authority: &Authority| authority.port.unwrap_or(443);
    Authority::parse(authority).is_ok_and(|other| other.host == named.host && port(&other) == port(named))
}

/// Whether an authority is the server's own, by its address or by the name that the configuration gives it.
fn is_server(scheme: Scheme, authority: &str, server: Option<(&str, SocketAddr)>) -> bool {
    let Some((name, address)) = server else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside of its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ if scheme == Scheme::Https => (authority, Some(443)),
        _ => (authority, Some(80)),
    };
    let Some(port) = port.filter(|port| *port == address.port()) else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse::<IpAddr>().is_ok_and(|named| named.to_canonical() == address.ip().to_canonical());
    let named = name.rsplit_once(':').filter(|(_, of)| of.parse() == Ok(port)).map(|(host, _)| host);
    let plain = |host: &'_ str| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_address || named.is_some_and(|named| plain(named) == plain(host))
}

/// A reference without a host: it is relative to the host that the client has sent its request to.
fn with_prefix(location: &str, facts: &Facts<'_>) -> Option<String> {
    let prefixes = facts.prefixes?;
    if location.starts_with('/') {
        let outer = outer_path(location, prefixes)?;
        // The application has written a path, so that it leads to this host, whatever it begins with.
        let names_host = names_host(&outer);
        return Some(if names_host { format!("https://{}{outer}", facts.authority) } else { outer });
    }
    // A relative path is resolved by the client below its own path, which has the prefix. Only where the prefix is all of
    // it, and has no slash at its end, is the application's path one segment deeper.
    let first = location.split(['/', '?', '#']).next().unwrap_or_default();
    let is_relative_path = !first.is_empty() && !first.contains(':');
    (is_relative_path && facts.path == prefixes.stripped()).then(|| format!("{}/{location}", prefixes.stripped()))
}

/// Whether a browser takes what follows the first slash for a host, as after two of them (RFC 3986 §4.2): a backslash is a
/// slash to it, and tabs and line ends are left out before it reads anything (WHATWG URL, "basic URL parser").
fn names_host(path: &str) -> bool {
    let mut read = path.chars().filter(|c| !['\t', '\r', '\n'].contains(c));
    let mut is_slash = || read.next().is_some_and(|c| c == '/' || c == '\\');
    is_slash() && is_slash()
}

/// The client's path for a path of the application, with what follows it; `None` where the two are the same.
fn outer_path(path: &str, prefixes: &Prefixes) -> Option<String> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (strip, add) = (prefixes.stripped(), prefixes.add.as_str());
    let is_inside = !add.is_empty() && is_under(&path.as_bytes()[..end], add.as_bytes());
    let inner = if is_inside { &path[add.len()..] } else { path };
    let slash = if inner.starts_with('/') { "" } else { "/" };
    // An application that follows X-Forwarded-Prefix has written the prefix itself.
    let is_outer = !is_inside && !strip.is_empty() && is_under(&path.as_bytes()[..end], strip.as_bytes());
    let outer = if is_outer { path.to_owned() } else { format!("{strip}{slash}{inner}") };
    (outer != path).then_some(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: (&str, &str) = ("", "");

    fn repaired_by((strip, add): (&'static str, &str), path: &str, location: &str) -> Option<String> {
        let prefixes = Prefixes { strip: HeaderValue::from_static(strip), add: add.into() };
        let facts = Facts {
            host: &Host::parse("iqueue.test").unwrap(),
            authority: "iQueue.test:8443",
            path,
            server: Some(("App.internal:9001", "127.0.0.1:9001".parse().unwrap())),
            prefixes: (strip, add).ne(&PLAIN).then_some(&prefixes),
        };
        let (mut fields, text) = (HeaderMap::new(), HeaderValue::try_from(location).unwrap());
        fields.insert(header::LOCATION, text);
        repair(&mut fields, &facts);
        let repaired = fields[header::LOCATION].to_str().unwrap().to_owned();
        // The fast path must not pass on what is repaired.
        let scope = Scope::of(&Forward { prefixes: facts.prefixes.cloned(), ..Forward::to("p") });
        assert!(repaired == location || scope.may_change(location.as_bytes()), "{location}");
        (repaired != location).then_some(repaired)
    }

    #[test]
    fn this_host_over_http_and_the_servers_own_address_become_this_host_over_https() {
        for location in [
            "http://iqueue.test/a?b#c",
            "HTTP://IQUEUE.test./a?b#c",
            "http://iqueue.test:80/a?b#c",
            "http://iqueue.test:34871/a?b#c",
            "http://127.0.0.1:9001/a?b#c",
            "http://[::ffff:127.0.0.1]:9001/a?b#c",
            "https://127.0.0.1:9001/a?b#c",
            "//127.0.0.1:9001/a?b#c",
            "http://app.internal:9001/a?b#c",
            "http://APP.internal.:9001/a?b#c",
        ] {
            assert_eq!(
                repaired_by(PLAIN, "/x", location).as_deref(),
                Some("https://iQueue.test:8443/a?b#c"),
                "{location}"
            );
        }
        assert_eq!(repaired_by(PLAIN, "/x", "http://iqueue.test").as_deref(), Some("https://iQueue.test:8443"));
        assert_eq!(repaired_by(PLAIN, "/x", "http://iqueue.test?a").as_deref(), Some("https://iQueue.test:8443?a"));
    }

    #[test]
    fn other_hosts_and_paths_stay() {
        for location in [
            "",
            "/",
            "/a?b#c",
            "a/b",
            "?a",
            "#a",
            "../a",
            "https://iqueue.test:8443/a",
            "https://iqueue.test/a",
            "//iqueue.test:8443/a",
            "http://other.test/a",
            "https://other.test/a?to=http://iqueue.test/",
            "http://iqueue.test.other.test/",
            "http://iqueue.test@other.test/",
            "http://other.test@iqueue.test/",
            "http://xiqueue.test/",
            "http://127.0.0.1/a",
            "http://127.0.0.1:9002/a",
            "http://127.0.0.2:9001/a",
            "http://app.internal/a",
            "http://app.internal:9002/a",
            "http:/iqueue.test/a",
            "http:iqueue.test/a",
            "http:///a",
            "mailto:a@iqueue.test",
            "javascript:http://iqueue.test/",
        ] {
            assert_eq!(repaired_by(PLAIN, "/x", location), None, "{location}");
        }
    }

    #[test]
    fn a_prefix_that_was_cut_off_is_put_back() {
        let strip = ("/orthanc", "");
        for (location, expected) in [
            ("/studies?a#b", Some("/orthanc/studies?a#b")),
            ("/", Some("/orthanc/")),
            ("/?a", Some("/orthanc/?a")),
            ("http://iqueue.test/studies", Some("https://iQueue.test:8443/orthanc/studies")),
            ("http://127.0.0.1:9001/studies", Some("https://iQueue.test:8443/orthanc/studies")),
            ("http://127.0.0.1:9001", Some("https://iQueue.test:8443/orthanc/")),
            ("http://127.0.0.1:9001?a", Some("https://iQueue.test:8443/orthanc/?a")),
            ("https://iqueue.test:8443/studies", Some("https://iqueue.test:8443/orthanc/studies")),
            ("//iqueue.test:8443/studies", Some("//iqueue.test:8443/orthanc/studies")),
            ("/orthancs", Some("/orthanc/orthancs")),
            // By an application that follows X-Forwarded-Prefix.
            ("/orthanc/studies", None),
            ("/orthanc", None),
            ("https://iqueue.test:8443/orthanc/studies", None),
            ("http://iqueue.test/orthanc/studies", Some("https://iQueue.test:8443/orthanc/studies")),
            ("https://other.test/studies", None),
            ("//other.test/studies", None),
            ("studies", None),
            ("?a", None),
            ("", None),
        ] {
            assert_eq!(repaired_by(strip, "/orthanc/a", location).as_deref(), expected, "{location}");
        }
        for (location, expected) in
            [("ui/x", Some("/orthanc/ui/x")), ("?a", None), ("#a", None), ("mailto:a", None), ("", None)]
        {
            assert_eq!(repaired_by(strip, "/orthanc", location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_prefix_that_was_put_before_a_path_is_taken_off_again() {
        for (prefixes, location, expected) in [
            (("/orthanc", "/v2"), "/v2/studies?a", Some("/orthanc/studies?a")),
            (("/orthanc", "/v2"), "/v2", Some("/orthanc/")),
            (("/orthanc", "/v2"), "/v2?a", Some("/orthanc/?a")),
            (("/orthanc", "/v2"), "/studies", Some("/orthanc/studies")),
            (("/orthanc", "/v2"), "http://127.0.0.1:9001/v2/a", Some("https://iQueue.test:8443/orthanc/a")),
            (("/orthanc", "/v2"), "/orthanc/a", None),
            (("", "/v2"), "/v2/a", Some("/a")),
            (("", "/v2"), "/v2", Some("/")),
            (("", "/v2"), "/a", None),
            (("", "/v2"), "/v20/a", None),
        ] {
            assert_eq!(repaired_by(prefixes, "/x", location).as_deref(), expected, "{prefixes:?} {location}");
        }
    }

    /// With up to three of these parts behind the prefix, as browsers read what comes of it.
    #[test]
    fn no_path_of_an_application_becomes_another_host() {
        const PARTS: [&str; 13] = ["/", "\\", "\t", " ", "%2f", "%5c", "%09", ".", ";", "?", "#", "@", "evil.test"];
        let base = url::Url::parse("https://iqueue.test:8443/x/y").unwrap();
        let mut texts = vec![String::new()];
        for at in 0.. {
            let Some(text) = texts.get(at).cloned().filter(|_| texts.len() < 1 + 13 + 13 * 13 + 13 * 13 * 13) else {
                break;
            };
            texts.extend(PARTS.map(|part| format!("{text}{part}")));
        }
        let mut repaired = 0;
        for text in texts {
            for (prefixes, location) in [
                (("", "/v2"), format!("/v2{text}/evil.test/")),
                (("/orthanc", "/v2"), format!("/v2{text}/evil.test/")),
                (("/orthanc", ""), format!("{text}/evil.test/")),
                (("", "/v2"), format!("http://iqueue.test/v2{text}/evil.test/")),
                (("", "/v2"), format!("//127.0.0.1:9001/v2{text}/evil.test/")),
            ] {
                let Some(client) = repaired_by(prefixes, "/orthanc", &location) else { continue };
                repaired += 1;
                let led = base.join(&client).unwrap();
                assert_eq!(
                    (led.scheme(), led.host_str(), led.port(), led.username()),
                    ("https", Some("iqueue.test"), Some(8443), ""),
                    "{prefixes:?} {location:?} -> {client:?}"
                );
            }
        }
        assert!(repaired > 8_000, "{repaired}");
    }
}
