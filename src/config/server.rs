//! Checked: `server`, where it listens and what it bears.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Protocol, SecretSource, defaults};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Request workers; `None` is one for each core.
    pub threads: Option<usize>,
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    pub trusted_proxies: Vec<IpNet>,
    /// The folder of certificate authorities' challenges.
    pub acme_challenge: Option<PathBuf>,
    /// How long requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub address: SocketAddr,
    /// Opens the admin API; without one there is none.
    pub token: Option<SecretSource>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub http2: bool,
    /// Connections begin with a header that says for whom a trusted proxy stands.
    pub proxy_protocol: bool,
    /// What clients connect to, where that is another port than that of `address`.
    pub public_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_address: usize,
    pub header_bytes: usize,
    pub header_count: usize,
    /// For the whole of a request's head.
    pub header_timeout: Duration,
    pub body_bytes: usize,
    /// Bytes in a second that a request's body brings on average, once it has taken the read timeout.
    pub min_body_rate: usize,
    pub streams: usize,
    /// Of memory that all clients may make the edge hold, and that each may.
    pub buffer_bytes: usize,
    pub buffer_bytes_per_address: usize,
    /// Of each client.
    pub requests_per_second: Option<u32>,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        connections: defaults::CONNECTIONS,
        connections_per_address: defaults::CONNECTIONS_PER_ADDRESS,
        header_bytes: defaults::HEADER_BYTES,
        header_count: defaults::HEADER_COUNT,
        header_timeout: defaults::HEADER_TIMEOUT,
        body_bytes: defaults::BODY_BYTES,
        min_body_rate: defaults::MIN_BODY_RATE,
        streams: defaults::STREAMS,
        buffer_bytes: defaults::BUFFER_BYTES,
        buffer_bytes_per_address: defaults::BUFFER_BYTES_PER_ADDRESS,
        requests_per_second: defaults::REQUESTS_PER_SECOND,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tls_handshake: Duration,
    pub keepalive: Duration,
    pub read: Duration,
    pub write: Duration,
}
