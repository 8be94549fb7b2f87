//! The checked types of applications and of the servers behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::{Encoding, ForwardToken, OutagePolicy};
use crate::host::HostPattern;

#[derive(Clone, Debug)]
pub struct Service {
    pub name: Arc<str>,
    pub hosts: Vec<HostPattern>,
    pub idle_timeout: Duration,
    pub forward_token: ForwardToken,
    /// Of each client.
    pub requests_per_second: Option<u32>,
    pub assertion: bool,
    pub identity_headers: IdentityHeaders,
    pub on_outage: OutagePolicy,
    /// The last one is `/`, which holds what the service says of itself.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    pub user: HeaderName,
    pub email: HeaderName,
    pub roles: HeaderName,
}

#[derive(Clone, Debug)]
pub struct Route {
    /// Begins with `/`, ends without one unless it is `/` itself.
    pub path: String,
    pub access: Access,
    pub credentials: Credentials,
    pub counts_as_activity: bool,
    pub read_timeout: Option<Duration>,
    /// The best first; none where responses are left as they are.
    pub compression: Vec<Encoding>,
    pub pool: String,
}

/// What a route demands of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    Required,
    /// Any one of these roles.
    Roles(Vec<String>),
}

/// Where a route takes tokens from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub cookie: bool,
    pub bearer: bool,
}

#[derive(Clone, Debug)]
pub struct Pool {
    pub name: String,
    pub servers: Vec<PoolServer>,
    pub protocol: PoolProtocol,
    pub timeouts: PoolTimeouts,
    pub retries: usize,
}

/// How applications are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolProtocol {
    Http1,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3): what gRPC servers speak.
    H2c,
}

#[derive(Clone, Debug)]
pub struct PoolServer {
    /// As it is written, for labels.
    pub name: String,
    pub address: SocketAddr,
    pub weight: u16,
}

#[derive(Clone, Copy, Debug)]
pub struct PoolTimeouts {
    pub connect: Duration,
    pub read: Duration,
    pub write: Duration,
    pub idle: Duration,
}
