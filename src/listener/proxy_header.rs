//! The client of a connection: the peer of the socket or, on a listener with the PROXY protocol, the address that the
//! header names.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{Malformed, Parsed, Source, parse};
use super::{ClientLimits, ListenerContext, ListenerKind};
use crate::client_prefix::is_trusted;

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub struct PeerInfo {
    pub address: SocketAddr,
    /// Whether a balancer sent a header of the PROXY protocol, for a client or for itself. The balancer forwards bytes
    /// unread, so forwarding fields in requests on the connection were written by a client, however much the balancer
    /// is trusted.
    pub via_proxy_protocol: bool,
}

impl PeerInfo {
    pub fn direct(address: SocketAddr) -> Self {
        Self { address, via_proxy_protocol: false }
    }
}

impl ListenerContext {
    /// Reads the header that comes before everything else, within the deadline of a handshake. Only trusted proxies may
    /// send one, as any client could claim any address in it. Returns the reason of a failure, as a label of the
    /// metric.
    pub async fn read_proxy_header(&self, socket: &mut TcpStream, peer: SocketAddr) -> Result<PeerInfo, &'static str> {
        let ListenerKind::Clients(ClientLimits { snapshot, .. }) = &self.kind else { return Err("untrusted_proxy") };
        if !is_trusted(peer.ip(), &snapshot.load().trusted_proxies) {
            return Err("untrusted_proxy");
        }
        match tokio::time::timeout(self.handshake, read_header(socket)).await {
            Ok(Ok(Source::Client(address))) => Ok(PeerInfo { address, via_proxy_protocol: true }),
            Ok(Ok(Source::Unspecified)) => Ok(PeerInfo { address: peer, via_proxy_protocol: true }),
            Ok(Err(Malformed)) | Err(_) => Err("proxy_header"),
        }
    }
}

/// Reads the header from the socket and no byte that follows it.
async fn read_header(socket: &mut TcpStream) -> Result<Source, Malformed> {
    let mut header = Vec::with_capacity(128);
    loop {
        let more = match parse(&header)? {
            Parsed::Complete(source) => return Ok(source),
            Parsed::Incomplete(more) => more,
        };
        let had = header.len();
        header.resize(had + more, 0);
        let read = socket.read(&mut header[had..]).await.map_err(|_| Malformed)?;
        if read == 0 {
            return Err(Malformed);
        }
        header.truncate(had + read);
    }
}
