//! Who the client is: the peer of the connection, or the client that a trusted proxy names.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use http::HeaderMap;
use ipnet::IpNet;

use super::context::{RequestContext, RequestId};
use super::decision_log::log_decision;
use super::gateway::Gateway;
use super::headers;
use super::request::RequestView;
use crate::access_log;
use crate::client_prefix::is_trusted;

/// As much of an element is in the log.
const MOST_SHOWN: usize = 64;

impl Gateway {
    /// Sets the client's address and the request id: a trusted proxy's own, else a new one.
    pub(super) fn identify(&self, request: &RequestView<'_>, ctx: &mut RequestContext) {
        let trusted = &ctx.snapshot.trusted_proxies;
        let believed = request.is_believed(trusted);
        let walk = believed.then(|| walk(request.peer, request.headers(), trusted));
        if let Some(unknown) = walk.as_ref().and_then(|walk| walk.unknown(request.headers())) {
            self.client_unknown(request.peer, &unknown);
        }
        ctx.client = Some(walk.map_or(request.peer, |walk| walk.client));
        ctx.is_of_proxy = believed && !request.headers().contains_key(&headers::FORWARDED_FOR);
        let theirs = believed.then(|| RequestId::of(request.headers())).flatten();
        ctx.request_id = theirs.unwrap_or_else(RequestId::fresh);
        log_decision!(
            ctx,
            "received method={} path={:?} protocol={:?} client={} peer={} forwarded_for={}",
            request.head.method,
            access_log::truncate(request.head.uri.path()),
            request.head.version,
            ctx.client.unwrap_or(request.peer),
            request.peer,
            if believed { "trusted" } else { "ignored" }
        );
    }

    fn client_unknown(&self, proxy: IpAddr, unknown: &Unknown<'_>) {
        let metrics = &self.metrics.traffic.unknown_clients;
        let what = match unknown {
            Unknown::Unreadable(element) => {
                metrics.unreadable.inc();
                let shown = &element[..element.len().min(MOST_SHOWN)];
                format!("an element of X-Forwarded-For is no address element=\"{}\"", shown.escape_ascii())
            }
            Unknown::OtherField(name) => {
                metrics.other_field.inc();
                format!("X-Forwarded-For is missing, and {name} is not read")
            }
        };
        if !self.unknown_clients.said.swap(true, Ordering::Relaxed) {
            log::warn!(
                "client: a trusted proxy's client cannot be made out, so requests count as the proxy's: {what} \
                 proxy={proxy}; further ones are counted in sentry_edge_unknown_clients_total"
            );
        }
    }
}

/// The result of reading `X-Forwarded-For` of a trusted proxy.
struct Walk<'a> {
    client: IpAddr,
    /// What ended it and is no address.
    unreadable: Option<&'a [u8]>,
}

/// Why a trusted proxy's client is not known.
#[derive(Debug, PartialEq, Eq)]
enum Unknown<'a> {
    Unreadable(&'a [u8]),
    /// The proxy names its client in a field that is not read.
    OtherField(&'static str),
}

impl<'a> Walk<'a> {
    fn unknown(&self, headers: &HeaderMap) -> Option<Unknown<'a>> {
        if let Some(element) = self.unreadable {
            return Some(Unknown::Unreadable(element));
        }
        let is_named = headers.contains_key(&headers::FORWARDED_FOR);
        let other = || ["forwarded", "x-real-ip"].into_iter().find(|name| headers.contains_key(*name));
        if is_named { None } else { other().map(Unknown::OtherField) }
    }
}

/// The nearest address in `X-Forwarded-For` that is no trusted proxy, read from the right: what stands further
/// left was said by that client itself. An element that is no address ends the walk at the last one on its right, as
/// only proxies write there. Without trust in the peer the field says nothing.
fn walk<'a>(peer: IpAddr, headers: &'a HeaderMap, trusted: &[IpNet]) -> Walk<'a> {
    let mut walk = Walk { client: peer, unreadable: None };
    if !is_trusted(peer, trusted) {
        return walk;
    }
    for element in headers::forwarded_for(headers).rev().filter(|element| !element.is_empty()) {
        let Some(address) = element_address(element) else {
            walk.unreadable = Some(element);
            break;
        };
        walk.client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    walk
}

/// An address, as most proxies write it, or with a port and with brackets, as Azure's gateway and IIS do.
fn element_address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address: IpAddr = text.parse().ok().or_else(with_port).or_else(bare)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(&headers::FORWARDED_FOR, HeaderValue::from_bytes(value).unwrap());
        }
        let walk = walk(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()]);
        // Where the client was found there is nothing to tell.
        assert!(walk.unreadable.is_none() || peer != "192.0.2.1");
        walk.client.to_string()
    }

    fn unknown(peer: &str, fields: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let walk = walk(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()]);
        walk.unknown(&headers).map(|unknown| match unknown {
            Unknown::Unreadable(element) => String::from_utf8_lossy(element).into_owned(),
            Unknown::OtherField(name) => format!("{name}:"),
        })
    }

    #[test]
    fn a_client_is_unknown_where_the_walk_meets_what_is_no_address() {
        let (list, real) = ("x-forwarded-for", "x-real-ip");
        let long = "10.0.0.9, ".repeat(3000) + "unknown";
        let longer = "unknown, ".to_owned() + &"10.0.0.9, ".repeat(3000);
        for (fields, expected) in [
            (&[(list, "unknown")][..], Some("unknown")),
            (&[(list, "_hidden")], Some("_hidden")),
            (&[(list, "_SEVKISEK")], Some("_SEVKISEK")),
            (&[(list, "fe80::1%eth0")], Some("fe80::1%eth0")),
            (&[(list, "[fe80::1%25eth0]:443")], Some("[fe80::1%25eth0]:443")),
            (&[(list, "for=192.0.2.7")], Some("for=192.0.2.7")),
            (&[(list, "192.0.2.7, unknown")], Some("unknown")),
            (&[(list, "unknown, 10.0.0.9")], Some("unknown")),
            (&[(list, "unknown"), (list, "10.0.0.9")], Some("unknown")),
            (&[(list, &long)], Some("unknown")),
            (&[(list, &longer)], Some("unknown")),
            (&[("forwarded", "for=192.0.2.7")], Some("forwarded:")),
            (&[(real, "192.0.2.7")], Some("x-real-ip:")),
            // What stands on the left of a client is its own, and nothing is missing.
            (&[(list, "unknown, 192.0.2.7")], None),
            (&[(list, "unknown, 192.0.2.7, 10.0.0.9")], None),
            (&[(list, "unknown"), (list, "192.0.2.7")], None),
            (&[(list, "192.0.2.7"), (real, "192.0.2.7"), ("forwarded", "for=x")], None),
            (&[(list, "::ffff:192.0.2.7")], None),
            (&[(list, "[2001:db8::7]:443")], None),
            (&[(list, "192.0.2.7:1")], None),
            (&[(list, ", ,192.0.2.7,,")], None),
            (&[(list, "")], None),
            (&[(list, "10.0.0.9")], None),
            (&[], None),
        ] {
            assert_eq!(unknown("10.0.0.1", fields).as_deref(), expected, "{:.80}", format!("{fields:?}"));
        }
    }

    #[test]
    fn no_peer_is_believed_by_default() {
        assert_eq!(client("192.0.2.1", &[b"1.2.3.4"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_about_its_own_peer_alone() {
        assert_eq!(client("10.0.0.1", &[b"6.6.6.6, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &[b"6.6.6.6", b"192.0.2.7, 10.0.0.9"]), "192.0.2.7");
        assert_eq!(client("::ffff:10.0.0.1", &[b"192.0.2.7"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_one_on_its_right() {
        let unreadable: [&[u8]; 16] = [
            b"\xe9",
            b"\x80\xff",
            "é".as_bytes(),
            b"\t\xa0",
            b"unknown",
            b"_hidden",
            b"-",
            b"x",
            b"1.2.3",
            b"999.1.1.1",
            b"\"",
            b"for=6.6.6.6",
            b"6.6.6.6 7.7.7.7",
            b"6.6.6.6;7.7.7.7",
            b"[6.6.6.6]",
            b"fe80::1%eth0",
        ];
        for odd in unreadable {
            let list = |parts: &[&[u8]]| parts.join(&b", "[..]);
            let shown = String::from_utf8_lossy(odd);
            assert_eq!(client("10.0.0.1", &[odd]), "10.0.0.1", "{shown}");
            assert_eq!(client("10.0.0.1", &[&list(&[odd, b"192.0.2.7"])]), "192.0.2.7", "{shown}");
            assert_eq!(client("10.0.0.1", &[odd, b"192.0.2.7"]), "192.0.2.7", "{shown}");
            assert_eq!(
                client("10.0.0.1", &[&list(&[b"6.6.6.6", odd, b"192.0.2.7", b"10.0.0.9"])]),
                "192.0.2.7",
                "{shown}"
            );
            // On its right there are trusted proxies alone, or no element: what stands on its left was not said by them.
            assert_eq!(client("10.0.0.1", &[&list(&[b"6.6.6.6", odd])]), "10.0.0.1", "{shown}");
            assert_eq!(client("10.0.0.1", &[b"6.6.6.6", odd]), "10.0.0.1", "{shown}");
            assert_eq!(client("10.0.0.1", &[&list(&[b"6.6.6.6", odd, b"10.0.0.9"])]), "10.0.0.9", "{shown}");
        }
    }

    #[test]
    fn an_address_may_have_a_port_and_brackets_and_an_empty_element_is_none() {
        for (element, address) in [
            (&b"203.0.113.7:51234"[..], "203.0.113.7"),
            (b"[2001:db8::7]:443", "2001:db8::7"),
            (b"[2001:db8::7]", "2001:db8::7"),
            (b"2001:db8::7", "2001:db8::7"),
            (b"::ffff:203.0.113.7", "203.0.113.7"),
            (b"[::ffff:203.0.113.7]:1", "203.0.113.7"),
            (b" \t203.0.113.7\t ", "203.0.113.7"),
        ] {
            let list = [b"6.6.6.6, ", element, b", , 10.0.0.9:80,"].concat();
            assert_eq!(client("10.0.0.1", &[&list, b""]), address, "{}", String::from_utf8_lossy(element));
        }
    }
}
