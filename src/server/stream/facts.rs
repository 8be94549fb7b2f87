//! What Pingora may ask of a connection.

use std::sync::Arc;

use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, SocketDigest, Ssl, TimingDigest, UniqueID,
};

use super::Stream;

#[derive(Debug)]
pub struct Facts {
    pub socket: Arc<SocketDigest>,
    pub tls: Option<Arc<SslDigest>>,
    pub proxy: Option<Arc<ProxyDigest>>,
    pub http2: bool,
    pub descriptor: i32,
}

impl UniqueID for Stream {
    fn id(&self) -> i32 {
        self.facts.descriptor
    }
}

impl Ssl for Stream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.facts.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.facts.tls.as_ref().map(|_| if self.facts.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.facts.proxy.clone()
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.facts.socket))
    }
}

impl Peek for Stream {}
