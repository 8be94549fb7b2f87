//! Who has connected: the peer of the socket or, on a listener that speaks the PROXY protocol, whom it stands for.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{Malformed, Parsed, Source, parse};
use super::{ClientLimits, ListenerContext, ListenerKind};
use crate::client_prefix::is_trusted;

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub struct PeerInfo {
    pub address: SocketAddr,
    /// Whether a balancer has said whose it is, or has come for itself, by the PROXY protocol. It passes on bytes, so
    /// what requests on the connection say of their origin is some client's word, however much the balancer is trusted.
    pub via_proxy_protocol: bool,
}

impl PeerInfo {
    pub fn direct(address: SocketAddr) -> Self {
        Self { address, via_proxy_protocol: false }
    }
}

impl ListenerContext {
    /// Reads the header that comes before everything else; within the deadline of a handshake, and from trusted
    /// proxies alone, as anybody could say anything there. Answers why not, for the metric.
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

/// Takes the header from the socket and nothing that follows it.
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
