//! What Pingora and the gateway can read about a connection: Pingora's digests and the gateway's `Client`.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, SocketDigest, Ssl, TimingDigest, UniqueID,
};

use super::{ClientStream, ConnectionMonitor};
use crate::proxy::{Client, ClientConnection, peer_address};

impl UniqueID for ClientStream {
    fn id(&self) -> i32 {
        self.info.descriptor
    }
}

impl Ssl for ClientStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.info.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.info.tls.as_ref().map(|_| if self.info.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.info.proxy.clone()
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.info.socket))
    }
}

impl Peek for ClientStream {}

impl Client for ClientStream {
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        Self::poll_readable(self, context)
    }

    fn give_back(&mut self, bytes: &[u8]) {
        Self::give_back(self, bytes);
    }

    fn take_over(&mut self, bytes: Vec<u8>) -> Result<(), Vec<u8>> {
        Self::write_owned(self, bytes)
    }

    fn address(&self) -> IpAddr {
        peer_address(self.info.socket.peer_addr())
    }

    fn secured(&self) -> Option<Arc<ClientConnection>> {
        let connection = self.monitor.as_ref().map(ConnectionMonitor::connection);
        connection.filter(|_| self.info.tls.is_some()).cloned()
    }
}
