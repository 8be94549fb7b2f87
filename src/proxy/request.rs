//! The view of a request that decisions are made on, on the fast path and on the full path.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::{self, Parts};
use http::{HeaderMap, HeaderValue, header};
use ipnet::IpNet;
use pingora::{Error, ErrorType, Result};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_proxy::Session;

use super::client_connection::ClientConnection;
use super::headers;
use crate::client_prefix::{UNKNOWN_CLIENT_IP, is_trusted};
use crate::host::Authority;

#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    pub head: &'a request::Parts,
    /// Who connected to us: a trusted proxy, or the client itself.
    pub peer: IpAddr,
    pub is_tls: bool,
    /// The connection that it came on; `None` where the stream is not one of ours.
    pub connection: Option<&'a Arc<ClientConnection>>,
}

/// Of a connection's other end.
pub fn peer_address(of: Option<&SocketAddr>) -> IpAddr {
    of.and_then(|address| address.as_inet()).map_or(UNKNOWN_CLIENT_IP, |address| address.ip().to_canonical())
}

impl<'a> RequestView<'a> {
    pub fn of(session: &'a Session) -> Self {
        Self {
            head: session.req_header(),
            peer: peer_address(session.client_addr()),
            is_tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()),
            connection: ClientConnection::of(session.as_downstream()),
        }
    }

    pub fn headers(&self) -> &'a HeaderMap {
        &self.head.headers
    }

    /// Whether the forwarding fields of a request are trusted: it was sent by a trusted proxy that reads what it
    /// passes on. A balancer that speaks the PROXY protocol passes on bytes, so what a request on its connection says
    /// was said by the client, however much the address is trusted that the balancer names.
    pub fn is_believed(&self, trusted: &[IpNet]) -> bool {
        let is_introduced = self.connection.is_some_and(|connection| connection.is_introduced);
        !is_introduced && is_trusted(self.peer, trusted)
    }

    /// The port that its listener's clients connect to, where the configuration says so.
    pub fn public_port(&self) -> Option<u16> {
        self.connection.and_then(|connection| connection.public_port)
    }

    /// The port that clients connect to, unless it is 443.
    pub fn port(&self) -> Option<u16> {
        let named = || Authority::parse(authority(self.head).ok()?.0.to_str().ok()?).ok()?.port;
        self.public_port().or_else(named).filter(|port| *port != 443)
    }
}

/// `:authority`, or the one Host field, in its canonical spelling: two services on one server must not be distinguished
/// by another rule there than here. The second says whether the client spelled it so.
pub fn authority(request: &Parts) -> Result<(HeaderValue, bool)> {
    let none = || Error::explain(ErrorType::InvalidHTTPHeader, "no authority");
    let text = match (request.uri.authority(), request.headers.get(header::HOST)) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => {
            let text = host.to_str().map_err(|_| none())?;
            if Authority::is_canonical(text) {
                return Ok((host.clone(), true));
            }
            text
        }
        (None, None) => return Err(none()),
    };
    let canonical = match Authority::is_canonical(text) {
        true => text.to_owned(),
        false => Authority::parse(text).map_err(|_| none())?.to_string(),
    };
    Ok((headers::value(canonical)?, false))
}
