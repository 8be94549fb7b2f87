//! Pools of upstream servers: which one gets the next request, and with what timeouts.
//!
//! Decides; Pingora connects. Servers take turns by weight, and a server that this request has already failed on
//! is passed over. Called by `proxy`.

pub mod dial;
mod private;
mod secure;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::{Error, ErrorType};
use pingora_core::upstreams::peer::{HttpPeer, Peer, Scheme};

use crate::config::{self, PoolProtocol, PoolTimeouts};
use crate::metrics::{Metrics, UpstreamMetrics};
use private::Privacy;
pub use private::{Owner, PrivateServers};
pub use secure::{Secure, check_system};

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
    privacy: Privacy,
}

impl Pool {
    /// `secure` for a pool that is spoken to over TLS.
    pub fn build(written: &config::Pool, secure: Option<&Secure>, private: &PrivateServers, metrics: &Metrics) -> Self {
        let servers = written.servers.iter().map(|server| build_server(written, server, secure, private, metrics));
        let servers: Vec<Server> = servers.collect();
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
    /// `None` when the pool has no server. Requests of one `owner` go to one server.
    pub fn select(&self, tried: &[usize], owner: Option<Owner>) -> Option<usize> {
        if self.turns.is_empty() {
            return None;
        }
        let first = match owner {
            // Its connections lead to one server, as long as that can be reached.
            Some(owner) => owner.key() as usize,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
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

    /// Whether one of its servers authenticates connections, so that none may be shared between clients.
    pub fn is_private(&self) -> bool {
        self.servers.iter().any(|server| server.privacy.is_private())
    }

    /// What Pingora needs to reach a server; `read_timeout` overrides the pool's. For an `upgrade` it is a connection
    /// of another kind, never one that was used before; with an `owner` one that only this owner has used.
    pub fn peer(&self, index: usize, read_timeout: Option<Duration>, upgrade: bool, owner: Option<Owner>) -> HttpPeer {
        let mut peer = self.servers[index].peer.clone();
        if let Some(owner) = owner {
            peer.group_key ^= owner.key() & !UPGRADES;
        }
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

    /// Notes that it authenticates connections, for as long as the process runs.
    pub fn authenticates_connections(&self) {
        if self.privacy.set() {
            log::info!(
                "upstream: the server authenticates connections (NTLM, Negotiate); from now on they are not shared \
                 between clients server={}",
                self.name
            );
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

fn build_server(
    pool: &config::Pool,
    written: &config::PoolServer,
    secure: Option<&Secure>,
    private: &PrivateServers,
    metrics: &Metrics,
) -> Server {
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
    let key = peer.reuse_hash();
    Server {
        name: written.name.clone(),
        key,
        peer,
        metrics: metrics.traffic.upstream(&pool.name, &written.name),
        mistrusted: AtomicBool::default(),
        privacy: private.of(key),
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
        Pool::build(&written, None, &PrivateServers::default(), &Metrics::new("test").unwrap())
    }

    #[test]
    fn servers_take_turns_by_weight_and_not_in_bursts() {
        assert_eq!(spread(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(spread(&[1, 1, 1]), [0, 1, 2]);
        let pool = pool(&[1, 1]);
        let picked: Vec<_> = (0..4).filter_map(|_| pool.select(&[], None)).collect();
        assert_eq!(picked, [0, 1, 0, 1]);
    }

    #[test]
    fn a_server_that_failed_this_request_is_passed_over() {
        let pool = pool(&[5, 1]);
        assert!((0..12).all(|_| pool.select(&[0], None) == Some(1)));
        assert!(pool.select(&[0, 1], None).is_some(), "when all were tried, one is tried again");
        assert_eq!(Pool::empty("none").select(&[], None), None);
    }

    #[test]
    fn connections_of_one_owner_are_apart_from_all_others_and_lead_to_one_server() {
        let pool = pool(&[1, 1, 1]);
        let (ana, ben) = (Owner::unique(), Owner::unique());
        let server = pool.select(&[], Some(ana)).unwrap();
        assert!((0..9).all(|_| pool.select(&[], Some(ana)) == Some(server)));
        assert_ne!(pool.select(&[server], Some(ana)), Some(server), "unless that one has failed");
        let key = |owner| pool.peer(server, None, false, owner).reuse_hash();
        assert_eq!(key(Some(ana)), key(Some(ana)));
        assert_eq!(key(None), pool.server(server).key);
        assert!(key(Some(ana)) != key(None) && key(Some(ana)) != key(Some(ben)));
        assert_ne!(pool.peer(server, None, true, Some(ana)).reuse_hash(), key(Some(ana)), "nor for upgrades");
    }

    #[test]
    fn every_timeout_is_set() {
        let peer = pool(&[1]).peer(0, Some(Duration::from_secs(9)), false, None);
        let options = &peer.options;
        assert_eq!(options.read_timeout, Some(Duration::from_secs(9)));
        for timeout in
            [options.connection_timeout, options.total_connection_timeout, options.write_timeout, options.idle_timeout]
        {
            assert_eq!(timeout, Some(Duration::from_secs(1)));
        }
    }
}
