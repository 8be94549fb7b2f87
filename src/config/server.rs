//! The checked types of `server`: listeners, limits and timeouts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{AdminRole, Protocol, SecretSource, defaults};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The number of request workers; `None` is one for each core.
    pub threads: Option<usize>,
    pub listeners: Vec<Listener>,
    pub admin: Admin,
    /// The folder of the control socket, where it is written; see `runtime_dir`.
    pub runtime_dir: Option<PathBuf>,
    pub trusted_proxies: Vec<IpNet>,
    /// The folder of ACME challenges.
    pub acme_challenge: Option<PathBuf>,
    /// The path at which load balancers ask whether the edge takes requests.
    pub health: Option<String>,
    pub drain: DrainTimes,
    /// How long a process may take to take over from the one that runs.
    pub upgrade_timeout: Duration,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// The steps of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimes {
    /// How long the listeners stay open while the edge says that it is not ready.
    pub notice: Duration,
    /// How long requests in flight may take to finish after that.
    pub requests: Duration,
}

impl DrainTimes {
    pub fn total(self) -> Duration {
        self.notice.saturating_add(self.requests)
    }
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub address: SocketAddr,
    /// The tokens that open the admin API on the listener; without one it is on the control socket alone.
    pub tokens: Vec<AdminToken>,
}

/// A token of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// The path of its key in the file, for faults that are found when the secret is read.
    pub place: String,
    pub name: Arc<str>,
    pub role: AdminRole,
    pub secret: SecretSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub http2: bool,
    /// Whether connections begin with a PROXY protocol header, which names the client of a trusted proxy.
    pub proxy_protocol: bool,
    /// The port that clients connect to, where it is not the one of `address`.
    pub public_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_address: usize,
    pub header_bytes: usize,
    pub header_count: usize,
    /// The time that the whole head of a request may take.
    pub header_timeout: Duration,
    pub body_bytes: usize,
    /// The minimum average rate of a request body that has taken longer than the read timeout, in bytes per second.
    pub min_body_rate: usize,
    pub streams: usize,
    /// Memory that all clients together may make the edge hold, and that each of them may, in bytes.
    pub buffer_bytes: usize,
    pub buffer_bytes_per_address: usize,
    /// The limit of each client.
    pub requests_per_second: Option<u32>,
}

impl Limits {
    /// The limits of an empty configuration.
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
