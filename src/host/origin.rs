//! Origins of web pages in one spelling (RFC 6454 §6.2): what an `Origin` field says, and what a configuration names.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Host, parse_port};

/// Scheme, host and port of a page, or `null`. Two are equal where a browser would write them alike: letters are in lower
/// case, a scheme's own port and the dot that ends a name are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Box<str>);

/// Why a text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOrigin {
    NotAscii,
    Scheme,
    /// `ws://` and `wss://` are addresses of WebSockets; pages have other schemes.
    WebSocket,
    Wildcard,
    Path,
    Host,
    Port,
}

impl Origin {
    /// Takes what browsers send and nothing more lenient: no path, no blanks, no user info.
    pub fn parse(text: &str) -> Result<Self, BadOrigin> {
        if text == "null" {
            return Ok(Self(text.into()));
        }
        if !text.is_ascii() {
            return Err(BadOrigin::NotAscii);
        }
        let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).ok_or(BadOrigin::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "ws" | "wss" => return Err(BadOrigin::WebSocket),
            _ if rest.contains('*') => return Err(BadOrigin::Wildcard),
            _ if rest.contains(['/', '?', '#', '\\']) => return Err(BadOrigin::Path),
            // Pages of a file have a scheme alone, where they have an origin at all.
            "file" if rest.is_empty() => return Ok(Self("file://".into())),
            "file" => return Err(BadOrigin::Host),
            _ => {}
        }
        let (host, port) = host_and_port(rest)?;
        let own_port = match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let host = if own_port.is_some() { web_host(host)? } else { opaque_host(host)? };
        Ok(Self(match port.filter(|port| Some(*port) != own_port) {
            Some(port) => format!("{scheme}://{host}:{port}").into(),
            None => format!("{scheme}://{host}").into(),
        }))
    }

    /// Of the pages that the edge serves for a host on a port; 443 where it names none.
    pub fn of(host: &Host, port: Option<u16>) -> Self {
        Self(match port.filter(|port| *port != 443) {
            Some(port) => format!("https://{host}:{port}").into(),
            None => format!("https://{host}").into(),
        })
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), BadOrigin> {
    let end = if text.starts_with('[') { text.find(']').map(|at| at + 1) } else { text.find(':').or(Some(text.len())) };
    let (host, rest) = text.split_at(end.ok_or(BadOrigin::Host)?);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(digits) => Some(parse_port(digits).ok().filter(|port| *port != 0).ok_or(BadOrigin::Port)?),
        None => return Err(BadOrigin::Host),
    };
    Ok((host, port))
}

fn web_host(text: &str) -> Result<String, BadOrigin> {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(|address| format!("[{address}]")).map_err(|_| BadOrigin::Host);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    Host::parse(text).map(|host| host.to_string()).map_err(|_| BadOrigin::Host)
}

/// Of an application that is no web site: `localhost` of Capacitor, the id of an extension, `.` of Electron.
fn opaque_host(text: &str) -> Result<String, BadOrigin> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if plain { Ok(text.to_ascii_lowercase()) } else { Err(BadOrigin::Host) }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Completes a sentence that begins with the text.
impl fmt::Display for BadOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAscii => "is not ASCII",
            Self::Scheme => "is no origin: it has no scheme",
            Self::WebSocket => "is the address of a WebSocket and not the origin of a page",
            Self::Wildcard => "has a wildcard",
            Self::Path => "has more than scheme, host and port",
            Self::Host => "is no origin: its host is none",
            Self::Port => "is no origin: its port is none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_write_alike_is_alike() {
        for (texts, canonical) in [
            (&["null"][..], "null"),
            (
                &["https://a.test", "HTTPS://A.test", "https://a.test:443", "https://a.test:0443", "https://a.test."],
                "https://a.test",
            ),
            (&["https://a.test:8443", "https://A.TEST.:08443"], "https://a.test:8443"),
            (&["http://localhost", "http://LOCALHOST:80"], "http://localhost"),
            (&["http://localhost:443"], "http://localhost:443"),
            (&["https://127.0.0.1:3000"], "https://127.0.0.1:3000"),
            (&["https://[::1]", "https://[0:0::1]:443"], "https://[::1]"),
            (&["http://[::1]:8100"], "http://[::1]:8100"),
            (&["capacitor://localhost", "Capacitor://LocalHost"], "capacitor://localhost"),
            (&["capacitor://localhost:443"], "capacitor://localhost:443"),
            (&["ionic://localhost"], "ionic://localhost"),
            (&["chrome-extension://abcdefghijklmnop"], "chrome-extension://abcdefghijklmnop"),
            (&["app://."], "app://."),
            (&["file://", "FILE://"], "file://"),
        ] {
            for text in texts {
                assert_eq!(Origin::parse(text).map(|origin| origin.to_string()), Ok(canonical.into()), "{text}");
            }
        }
        let host = Host::parse("a.test").unwrap();
        for (port, same) in [(None, "https://a.test"), (Some(443), "https://a.test"), (Some(9), "https://a.test:9")] {
            assert_eq!(Origin::of(&host, port), Origin::parse(same).unwrap());
        }
    }

    #[test]
    fn what_no_browser_writes_is_no_origin() {
        for (text, why) in [
            ("", BadOrigin::Scheme),
            ("NULL", BadOrigin::Scheme),
            ("a.test", BadOrigin::Scheme),
            ("https:a.test", BadOrigin::Scheme),
            ("://a.test", BadOrigin::Scheme),
            ("1a://a.test", BadOrigin::Scheme),
            ("*", BadOrigin::Scheme),
            ("*://a.test", BadOrigin::Scheme),
            (" https://a.test", BadOrigin::Scheme),
            ("wss://a.test", BadOrigin::WebSocket),
            ("ws://a.test", BadOrigin::WebSocket),
            ("https://*.a.test", BadOrigin::Wildcard),
            ("https://*", BadOrigin::Wildcard),
            ("https://a.test:*", BadOrigin::Wildcard),
            ("https://a.test/", BadOrigin::Path),
            ("https://a.test/x", BadOrigin::Path),
            ("https://a.test?x", BadOrigin::Path),
            ("https://a.test#x", BadOrigin::Path),
            ("https://a.test\\x", BadOrigin::Path),
            ("file:///", BadOrigin::Path),
            ("file://a.test", BadOrigin::Host),
            ("https://", BadOrigin::Host),
            ("https://:443", BadOrigin::Host),
            ("https://user@a.test", BadOrigin::Host),
            ("https://a.test ", BadOrigin::Host),
            ("https://a.test https://b.test", BadOrigin::Path),
            ("https://a.test,https:b.test", BadOrigin::Port),
            ("https://1.2.3", BadOrigin::Host),
            ("https://[::1", BadOrigin::Host),
            ("https://[::1]x", BadOrigin::Host),
            ("https://[a.test]", BadOrigin::Host),
            ("https://::1", BadOrigin::Port),
            ("capacitor://", BadOrigin::Host),
            ("capacitor://a b", BadOrigin::Host),
            ("https://a.test:", BadOrigin::Port),
            ("https://a.test:0", BadOrigin::Port),
            ("https://a.test:65536", BadOrigin::Port),
            ("https://a.test:+1", BadOrigin::Port),
            ("https://a.test:8443:1", BadOrigin::Port),
            ("https://bücher.test", BadOrigin::NotAscii),
        ] {
            assert_eq!(Origin::parse(text), Err(why), "{text}");
        }
    }
}
