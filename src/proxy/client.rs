//! Who the client is: the peer of the connection, or whom a trusted proxy says that it stands for.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;
use pingora_proxy::Session;

use super::connection::Connection;
use super::exchange::{Exchange, RequestId};
use super::headers;

/// Finds out who asks, and under which request id: a trusted proxy's own, else a new one.
pub fn identify(session: &Session, exchange: &mut Exchange) {
    let peer = peer_address(session);
    let received = &session.req_header().headers;
    let trusted = &exchange.snapshot.trusted_proxies;
    let believed = is_believed(session, trusted);
    exchange.client = Some(if believed { address(peer, received, trusted) } else { peer });
    let theirs = received.get(&headers::REQUEST_ID).filter(|_| believed);
    exchange.request_id = theirs.and_then(RequestId::of).unwrap_or_else(RequestId::fresh);
}

pub fn peer_address(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip().to_canonical())
}

/// Whether a request's own word on where it comes from counts: it was sent by a trusted proxy, and not through one
/// that passes on whatever it gets.
pub fn is_believed(session: &Session, trusted: &[IpNet]) -> bool {
    let is_anonymous = Connection::of(session.as_downstream()).is_some_and(|connection| connection.is_anonymous);
    !is_anonymous && is_trusted(peer_address(session), trusted)
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
