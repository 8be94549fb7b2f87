//! The `services` and `pools` parts of the document.

use serde::Deserialize;

use super::{HostTls, OnOutage};
use crate::config::units::Time;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub hosts: Vec<String>,
    pub idle_timeout: Option<Time>,
    pub pool: Option<String>,
    pub forward_token: Option<ForwardToken>,
    pub requests_per_second: Option<u32>,
    pub identity_assertion: Option<bool>,
    pub identity_headers: IdentityHeaders,
    pub access: Option<Access>,
    pub credentials: Option<Vec<Credential>>,
    pub extends_session: Option<bool>,
    pub read_timeout: Option<Time>,
    pub compression: Option<Vec<Encoding>>,
    pub on_outage: Option<OnOutage>,
    pub preflight: Option<Preflight>,
    pub websocket_origins: Vec<WrittenOrigin>,
    pub tls: HostTls,
    pub routes: Vec<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardToken {
    None,
    Cookie,
    Bearer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct IdentityHeaders {
    pub user: Option<String>,
    pub email: Option<String>,
    pub roles: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Route {
    pub path: Option<String>,
    pub access: Option<Access>,
    pub credentials: Option<Vec<Credential>>,
    pub extends_session: Option<bool>,
    pub read_timeout: Option<Time>,
    pub compression: Option<Vec<Encoding>>,
    pub preflight: Option<Preflight>,
    pub pool: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`public`, `required` or `{roles: [NAME, …]}`")]
pub enum Access {
    Word(AccessWord),
    Roles(Roles),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessWord {
    Public,
    Required,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    pub roles: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    Cookie,
    Bearer,
}

/// What becomes of a CORS preflight (Fetch, "CORS-preflight fetch").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preflight {
    /// It is a request like any other, and has no credentials.
    Check,
    /// The application answers it.
    Forward,
}

/// An origin; `None` where `null` is written without quotes, which YAML takes for nothing at all.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct WrittenOrigin(pub Option<String>);

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Gzip,
    Br,
    Zstd,
}

impl Encoding {
    /// Returns the name of the coding in header fields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pool {
    pub servers: Vec<PoolServer>,
    pub balance: Option<Balance>,
    pub protocol: Option<PoolProtocol>,
    pub tls: Option<PoolTls>,
    pub timeouts: PoolTimeouts,
    pub retries: Option<usize>,
    pub resolve: Resolve,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resolve {
    pub every: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "`HOST:PORT` or `{address: HOST:PORT, weight: N}`")]
pub enum PoolServer {
    Address(String),
    Weighted(WeightedServer),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedServer {
    pub address: String,
    pub weight: Option<u16>,
}

/// How the server of a request is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Servers take turns, by weight.
    RoundRobin,
}

/// How the servers of a pool are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolProtocol {
    Http1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3), as gRPC servers speak it.
    H2c,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PoolTls {
    pub server_name: Option<String>,
    pub ca: Option<String>,
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PoolTimeouts {
    pub connect: Option<Time>,
    pub read: Option<Time>,
    pub write: Option<Time>,
    pub idle: Option<Time>,
}
