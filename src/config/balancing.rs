//! The checked types of how a pool chooses servers, and of how it checks them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How the server of a request is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Servers take turns, by weight.
    RoundRobin,
    /// Of two servers that are drawn by weight, the one with fewer requests in flight for its weight.
    LeastRequest,
    /// The server that the client's cookie names; without one, servers take turns.
    Sticky { cookie: String },
}

impl Balance {
    /// Returns the name of the cookie by which clients stay with a server.
    pub fn cookie(&self) -> Option<&str> {
        match self {
            Self::Sticky { cookie } => Some(cookie),
            Self::RoundRobin | Self::LeastRequest => None,
        }
    }
}

/// How the servers of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub check: HealthCheck,
    /// From one check of an address to the next.
    pub interval: Duration,
    /// For a whole check.
    pub timeout: Duration,
    /// Failed checks in a row after which a server is down.
    pub fall: u32,
    /// Good checks in a row after which it is up again.
    pub rise: u32,
}

/// What a server has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Accept a connection and, where the pool has TLS, prove who it is.
    Tcp,
    /// Answer a GET with one of these statuses.
    Http {
        path: String,
        status: RangeInclusive<u16>,
        /// The `Host` of the request, where it is not that of the server.
        host: Option<String>,
    },
}
