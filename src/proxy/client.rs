//! Who the client is: the peer of the connection, or whom a trusted proxy says that it stands for.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use ipnet::IpNet;

use super::asking::Asking;
use super::exchange::{Exchange, RequestId};
use super::headers;

/// Stands for a client whose address nobody knows.
pub const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Finds out who asks, and under which request id: a trusted proxy's own, else a new one.
pub fn identify(asking: &Asking<'_>, exchange: &mut Exchange) {
    let trusted = &exchange.snapshot.trusted_proxies;
    let believed = asking.is_believed(trusted);
    exchange.client = Some(if believed { address(asking.peer, asking.headers(), trusted) } else { asking.peer });
    let theirs = asking.headers().get(&headers::REQUEST_ID).filter(|_| believed);
    exchange.request_id = theirs.and_then(RequestId::of).unwrap_or_else(RequestId::fresh);
}

pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// The nearest address in `X-Forwarded-For` that is no trusted proxy, read from the right: what stands further
/// left was said by that client itself. Without trust in the peer the header says nothing.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let fields: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = peer;
    for text in fields.iter().rev().flat_map(|field| field.rsplit(',')) {
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        address(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()]).to_string()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(client("192.0.2.1", &["1.2.3.4"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_about_its_own_peer_alone() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "192.0.2.7, 10.0.0.9"]), "192.0.2.7");
        assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["unknown"]), "10.0.0.1");
    }
}
