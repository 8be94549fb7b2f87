//! Pools of upstream servers: which one gets the next request, and with what timeouts.
//!
//! Decides; Pingora connects. Servers take turns by weight, and a server that this request has already failed on
//! is passed over. Called by `proxy`.

pub mod dial;
mod secure;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::{Error, ErrorType};
use pingora_core::upstreams::peer::{HttpPeer, Peer, Scheme};

use crate::config::{self, PoolProtocol, PoolTimeouts};
use crate::metrics::{Metrics, UpstreamMetrics};
pub use secure::Secure;

/// A bit of the group key: keeps connections for upgrades apart from the others. One that was not upgraded goes at once.
const UPGRADES: u64 = 1;

/// Requests at once over one HTTP/2 connection to an application; more open another. What most servers allow.
const STREAMS: usize = 100;
/// What an application may send of one answer before its client has taken it, and so what a client that does not read
/// makes us hold. Pingora would have 8 MiB, and as much for all of them together.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// A named set of servers for one application.
pub struct Pool {
    pub name: String,
    servers: Vec<Server>,
    /// Indices into `servers`, each as often as its weight says, spread evenly.
    turns: Vec<usize>,
    next: AtomicUsize,
    protocol: PoolProtocol,
    timeouts: PoolTimeouts,
    /// How many further servers may be tried when a connection fails.
    pub retries: usize,
}

pub struct Server {
    pub name: String,
    peer: HttpPeer,
    /// Connections to servers of one key are alike, and as good for one request as for another.
    pub key: u64,
    pub metrics: UpstreamMetrics,
    /// Whether its last handshake failed, so that this is told once and not with every request.
    mistrusted: AtomicBool,
}

impl Pool {
    /// `secure` for a pool that is spoken to over TLS.
    pub fn build(written: &config::Pool, secure: Option<&Secure>, metrics: &Metrics) -> Self {
        let servers: Vec<Server> = written.servers.iter().map(|s| server(written, s, secure, metrics)).collect();
        let weights: Vec<usize> = written.servers.iter().map(|server| usize::from(server.weight)).collect();
        Self {
            name: written.name.clone(),
            servers,
            turns: spread(&weights),
            next: AtomicUsize::new(0),
            protocol: written.protocol,
            timeouts: written.timeouts,
            retries: written.retries,
        }
    }

    #[cfg(test)]
    pub fn empty(name: &str) -> Self {
        let second = Duration::from_secs(1);
        let timeouts = PoolTimeouts { connect: second, read: second, write: second, idle: second };
        Self {
            name: name.into(),
            servers: Vec::new(),
            turns: Vec::new(),
            next: AtomicUsize::new(0),
            protocol: PoolProtocol::Http1,
            timeouts,
            retries: 0,
        }
    }

    /// The index of the server whose turn it is, passing over those in `tried`; any of them when all were tried.
    /// `None` when the pool has no server.
    pub fn select(&self, tried: &[usize]) -> Option<usize> {
        if self.turns.is_empty() {
            return None;
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |offset: usize| self.turns[first.wrapping_add(offset) % self.turns.len()];
        (0..self.turns.len()).map(turn).find(|server| !tried.contains(server)).or_else(|| Some(turn(0)))
    }

    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// For one write to a server.
    pub fn write_timeout(&self) -> Duration {
        self.timeouts.write
    }

    /// `read` overrides the pool's.
    pub fn timeouts(&self, read: Option<Duration>) -> PoolTimeouts {
        PoolTimeouts { read: read.unwrap_or(self.timeouts.read), ..self.timeouts }
    }

    pub fn speaks_http2(&self) -> bool {
        self.protocol != PoolProtocol::Http1
    }

    /// What Pingora needs to reach a server; `read_timeout` overrides the pool's. For an `upgrade` it is a connection
    /// of another kind, never one that was used before.
    pub fn peer(&self, index: usize, read_timeout: Option<Duration>, upgrade: bool) -> HttpPeer {
        let mut peer = self.servers[index].peer.clone();
        peer.options.read_timeout = Some(read_timeout.unwrap_or(self.timeouts.read));
        if upgrade {
            // HTTP/2 servers that take WebSockets do so over HTTP/1.1.
            peer.options.set_http_version(1, 1);
            peer.options.custom_l4 = Some(Arc::new(upgrade::Connector));
            peer.group_key |= UPGRADES;
            peer.options.idle_timeout = Some(Duration::from_millis(1));
        }
        peer
    }
}

impl Server {
    /// Notes that it could not be connected to. What is wrong with a certificate is said to operators once, when it
    /// begins; clients do not learn it.
    pub fn failed(&self, error: &Error) {
        if is_mistrust(error) && !self.mistrusted.swap(true, Ordering::Relaxed) {
            let why = error.context.as_ref().map(|context| context.as_str()).unwrap_or_default();
            log::error!("no TLS with the application's server {}, and its requests are refused: {why}", self.name);
        }
    }

    /// Notes that it answered.
    pub fn answered(&self) {
        if self.mistrusted.load(Ordering::Relaxed) && self.mistrusted.swap(false, Ordering::Relaxed) {
            log::info!("TLS with the application's server {} is well again", self.name);
        }
    }
}

/// Whether a connection came to nothing because there was no TLS to be had with the server, or not with the right one.
pub fn is_mistrust(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert)
}

fn server(pool: &config::Pool, written: &config::PoolServer, secure: Option<&Secure>, metrics: &Metrics) -> Server {
    // An empty SNI keeps all plaintext connections to a server in one group of Pingora's pool.
    let mut peer = HttpPeer::new(written.address, false, String::new());
    if let Some(secure) = secure {
        peer.scheme = Scheme::HTTPS;
        peer = secure.secure(peer, written.name.rsplit_once(':').map_or("", |(host, _)| host));
    }
    peer.options.connection_timeout = Some(pool.timeouts.connect);
    peer.options.total_connection_timeout = Some(pool.timeouts.connect);
    peer.options.read_timeout = Some(pool.timeouts.read);
    peer.options.write_timeout = Some(pool.timeouts.write);
    peer.options.idle_timeout = Some(pool.timeouts.idle);
    if matches!(pool.protocol, PoolProtocol::H2 | PoolProtocol::H2c) {
        peer.options.set_http_version(2, 2);
        peer.options.max_h2_streams = STREAMS;
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW_BYTES);
        // Room for all of them: a client that does not read must not keep the others' answers from coming.
        peer.options.h2_connection_window_size = Some(STREAMS as u32 * STREAM_WINDOW_BYTES);
    } else {
        // The kernel would let it grow to megabytes for each answer, of memory that all connections share.
        peer.options.tcp_recv_buf = Some(STREAM_WINDOW_BYTES as usize);
    }
    Server {
        name: written.name.clone(),
        key: peer.reuse_hash(),
        peer,
        metrics: metrics.traffic.upstream(&pool.name, &written.name),
        mistrusted: AtomicBool::default(),
    }
}

/// Smooth weighted round robin, worked out beforehand: weights 3 and 1 give 0 0 1 0, never 0 0 0 1.
fn spread(weights: &[usize]) -> Vec<usize> {
    let total: usize = weights.iter().sum();
    let mut credit = vec![0_isize; weights.len()];
    let mut turns = Vec::with_capacity(total);
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += *weight as isize;
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|server| credit[*server]) else { break };
        credit[richest] -= total as isize;
        turns.push(richest);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(weights: &[u16]) -> Pool {
        let second = Duration::from_secs(1);
        let written = config::Pool {
            name: "p".into(),
            servers: weights
                .iter()
                .enumerate()
                .map(|(n, weight)| config::PoolServer {
                    name: format!("s{n}"),
                    address: ([127, 0, 0, 1], 9000 + n as u16).into(),
                    weight: *weight,
                })
                .collect(),
            protocol: PoolProtocol::Http1,
            tls: None,
            timeouts: PoolTimeouts { connect: second, read: second, write: second, idle: second },
            retries: 2,
        };
        Pool::build(&written, None, &Metrics::new("test").unwrap())
    }

    #[test]
    fn servers_take_turns_by_weight_and_not_in_bursts() {
        assert_eq!(spread(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(spread(&[1, 1, 1]), [0, 1, 2]);
        let pool = pool(&[1, 1]);
        let picked: Vec<_> = (0..4).filter_map(|_| pool.select(&[])).collect();
        assert_eq!(picked, [0, 1, 0, 1]);
    }

    #[test]
    fn a_server_that_failed_this_request_is_passed_over() {
        let pool = pool(&[5, 1]);
        assert!((0..12).all(|_| pool.select(&[0]) == Some(1)));
        assert!(pool.select(&[0, 1]).is_some(), "when all were tried, one is tried again");
        assert_eq!(Pool::empty("none").select(&[]), None);
    }

    #[test]
    fn every_timeout_is_set() {
        let peer = pool(&[1]).peer(0, Some(Duration::from_secs(9)), false);
        let options = &peer.options;
        assert_eq!(options.read_timeout, Some(Duration::from_secs(9)));
        for timeout in
            [options.connection_timeout, options.total_connection_timeout, options.write_timeout, options.idle_timeout]
        {
            assert_eq!(timeout, Some(Duration::from_secs(1)));
        }
    }
}
