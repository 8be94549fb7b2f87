//! A request as the gateway's decisions see it, whoever has read it: Pingora, or `express`.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, header, request};
use ipnet::IpNet;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_proxy::Session;

use super::client::{NOBODY, is_trusted};
use super::connection::Connection;
use super::exchange::Exchange;
use super::introduction::authority;
use crate::host::Authority;
use crate::reply::Asked;
use crate::request::is_repeatable;
use crate::sentry::SERVICE_LOGOUT;

#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub head: &'a request::Parts,
    /// Who connected to us: a trusted proxy, or the client itself.
    pub peer: IpAddr,
    pub is_tls: bool,
    /// The connection that it came on; `None` where the stream is not one of ours.
    pub connection: Option<&'a Arc<Connection>>,
}

/// Of a connection's other end.
pub fn peer_address(of: Option<&SocketAddr>) -> IpAddr {
    of.and_then(|address| address.as_inet()).map_or(NOBODY, |address| address.ip().to_canonical())
}

impl<'a> Asking<'a> {
    pub fn of(session: &'a Session) -> Self {
        Self {
            head: session.req_header(),
            peer: peer_address(session.client_addr()),
            is_tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()),
            connection: Connection::of(session.as_downstream()),
        }
    }

    pub fn headers(&self) -> &'a HeaderMap {
        &self.head.headers
    }

    /// Whether a request's own word on where it comes from counts: it was sent by a trusted proxy that reads what it
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

    /// For a reply that tells of a problem. Who is signed in is known once the request was let in.
    pub fn asked<'b>(&self, exchange: &'b Exchange) -> Asked<'b> {
        let accept = self.headers().get(header::ACCEPT);
        let snapshot = &exchange.snapshot;
        let user = exchange.user();
        Asked {
            html: accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html")),
            repeats: is_repeatable(&self.head.method),
            request_id: &exchange.request_id,
            branding: &snapshot.branding,
            user,
            applications: user.map(|_| snapshot.sentry.applications(self.port())),
            sign_out: user.map(|_| SERVICE_LOGOUT),
        }
    }

    /// The port that clients connect to, unless it is 443.
    fn port(&self) -> Option<u16> {
        let named = || Authority::parse(authority(self.head).ok()?.0.to_str().ok()?).ok()?.port;
        self.public_port().or_else(named).filter(|port| *port != 443)
    }
}
