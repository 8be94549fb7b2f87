//! Who has connected: the peer of the socket or, on a listener that speaks the PROXY protocol, whom it stands for.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{Malformed, Parsed, Source, parse};
use super::{Clients, Guests, Service};
use crate::client_prefix::is_trusted;

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    /// Whether a balancer has said whose it is, or has come for itself, by the PROXY protocol. It passes on bytes, so
    /// what requests on the connection say of their origin is some client's word, however much the balancer is trusted.
    pub is_introduced: bool,
}

impl Caller {
    pub fn direct(address: SocketAddr) -> Self {
        Self { address, is_introduced: false }
    }
}

impl Service {
    /// Reads the header that comes before everything else; within the deadline of a handshake, and from trusted
    /// proxies alone, as anybody could say anything there. Answers why not, for the metric.
    pub async fn introduced(&self, socket: &mut TcpStream, peer: SocketAddr) -> Result<Caller, &'static str> {
        let Guests::Clients(Clients { snapshot, .. }) = &self.guests else { return Err("untrusted_proxy") };
        if !is_trusted(peer.ip(), &snapshot.load().trusted_proxies) {
            return Err("untrusted_proxy");
        }
        match tokio::time::timeout(self.handshake, read_header(socket)).await {
            Ok(Ok(Source::Client(address))) => Ok(Caller { address, is_introduced: true }),
            Ok(Ok(Source::Unsaid)) => Ok(Caller { address: peer, is_introduced: true }),
            Ok(Err(Malformed)) | Err(_) => Err("proxy_header"),
        }
    }
}

/// Takes the header from the socket and nothing that follows it.
async fn read_header(socket: &mut TcpStream) -> Result<Source, Malformed> {
    let mut header = Vec::with_capacity(128);
    loop {
        let more = match parse(&header)? {
            Parsed::Whole(source) => return Ok(source),
            Parsed::Needs(more) => more,
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
