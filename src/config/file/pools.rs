//! The `pools` part of the document: the servers of applications.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failures::{Retry, WrittenEject};
use super::{Balance, Health};
use crate::config::units::{Time, TimeOrZero};

/// The servers of an application. Connections to them are kept and used for all clients, but not where the application
/// authenticates connections instead of requests (NTLM, and Negotiate with most servers).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pool {
    /// `HOST:PORT`, `unix:///PATH`, or `{address: HOST:PORT, weight: N}`. Of a name all addresses are used, in turn,
    /// within the weight of its server; metrics and logs have the name. A name without an address is a warning, not a
    /// fault: its server is left out until it has one. Example: `["127.0.0.1:9001", {address: "app.internal:9001", weight: 2}]`.
    pub servers: Vec<PoolServer>,
    /// How the server of a request is chosen: `round_robin`, `least_request` or `{sticky: {cookie: NAME}}`. There is no
    /// hash of a header, a cookie or an address: `sticky` keeps a client at one server. Example: `{sticky: {cookie:
    /// iqueue_server}}`.
    pub balance: Option<Balance>,
    /// How the servers are spoken to. WebSockets go to pools of every protocol over HTTP/1.1.
    pub protocol: Option<PoolProtocol>,
    /// Speaks TLS, 1.2 or 1.3, to the servers, which have to prove their name; there is no switch that turns that off.
    /// `{}` is enough where they are named by their addresses and known to the system's CAs.
    pub tls: Option<PoolTls>,
    /// How long the servers may take.
    pub timeouts: PoolTimeouts,
    /// The same as `retry.attempts`. Example: `2`.
    pub retries: Option<usize>,
    /// When a request is sent again, to another server.
    pub retry: Retry,
    /// When a server that fails is left out for a while; `false` where none ever is. Example: `{failures: 5, for: 10s}`.
    pub eject: Option<WrittenEject>,
    /// The most requests that one server may have at a time, 1 or more. One that is too many goes to the next server, and
    /// is a `503` with `Retry-After` where all have as many. Example: `100`.
    pub in_flight: Option<usize>,
    /// Checks of the servers, beside what their requests show; without this there are none.
    pub health: Option<Health>,
    /// How long a server that was down or ejected, or an address that DNS has added, gets fewer requests than its weight
    /// says: from none to its share, evenly. Not after a start or a reload. Example: `30s`.
    pub slow_start: Option<TimeOrZero>,
    /// The resolution of names of servers.
    pub resolve: Resolve,
}

/// The resolution of names of servers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Resolve {
    /// How often names of the pool's servers are resolved, `1s` or more; one that has no address yet every second. The
    /// last good answer is kept. A start and a reload wait 500 ms for names, in all.
    pub every: Option<Time>,
}

/// A server of a pool: its address, or its address with more about it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`HOST:PORT` or `{address: HOST:PORT, weight: N}`")]
pub enum PoolServer {
    Address(String),
    Keys(PoolServerKeys),
}

/// A server of a pool with more than its address.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolServerKeys {
    /// `HOST:PORT` or `unix:///PATH`.
    pub address: String,
    /// Its share of the requests beside the other servers, 1 to 256.
    pub weight: Option<u16>,
    /// Whether it gets requests only while no other server may take them: they are ejected, set so by an administrator, or
    /// have as many as they may have.
    pub backup: Option<bool>,
    /// The most requests that it may have at a time, 1 or more: over HTTP/1.1 each has a connection of its own while it is
    /// under way. Where the pool has `in_flight` too, the lower of the two holds. Example: `200`.
    pub connections: Option<usize>,
}

/// A server of another list with a weight.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedServer {
    /// As without a weight: `HOST:PORT`.
    pub address: String,
    /// Its share of the requests (of the sessions, for memcached) beside the other servers, 1 to 256.
    pub weight: Option<u16>,
}

/// How the servers of a pool are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolProtocol {
    /// HTTP/1.1, over TLS where the pool has `tls`.
    Http1,
    /// HTTP/2 over TLS, with or without the key `tls`; for gRPC.
    H2,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3), as gRPC servers speak it.
    H2c,
}

/// TLS to the servers of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PoolTls {
    /// The host or address that the servers' certificates have to name. Example: `reports.internal`.
    pub server_name: Option<String>,
    /// A PEM file with the CAs that issue the servers' certificates. The system's are read when the process starts
    /// (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where), those of a file with each reload. Example:
    /// `tls/internal-ca.pem`.
    pub ca: Option<String>,
    /// A PEM file: the certificate that the edge presents to servers that request one. It needs `client_key`.
    pub client_certificate: Option<String>,
    /// A PEM file: the private key of `client_certificate`.
    pub client_key: Option<String>,
}

/// How long the servers of a pool may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PoolTimeouts {
    /// For a connection, the TLS handshake included.
    pub connect: Option<Time>,
    /// Between two reads of a response.
    pub read: Option<Time>,
    /// For one write.
    pub write: Option<Time>,
    /// How long a kept connection may be idle. Less than the application's own keep-alive timeout, or a request meets a
    /// connection that is being closed and, where it may not be sent twice, is a `502`: Node.js closes after 5 s,
    /// gunicorn after 2 s, Tomcat after 20 s or 60 s, nginx after 75 s.
    pub idle: Option<Time>,
}
