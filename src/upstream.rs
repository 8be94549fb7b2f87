//! Pools of upstream servers: which one gets the next request, and with what timeouts.
//!
//! Decides; Pingora connects. A policy chooses servers (`balancer`), and those that a request has already failed on are
//! passed over (`balance`). A server with a name has all of its addresses (`resolver`). Called by `proxy`.

mod balance;
mod balancer;
mod connection_auth;
pub mod dial;
pub mod resolver;
mod server_address;
mod tls;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::{Error, ErrorType};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{HttpPeer, Peer, Scheme};

use crate::config::{self, Location, PoolProtocol, PoolTimeouts};
use crate::metrics::{Metrics, UpstreamMetrics};
pub use balance::{Attempt, Endpoint};
use balancer::Balancer;
use connection_auth::Privacy;
pub use connection_auth::{Owner, PrivateServers};
use resolver::Resolver;
use server_address::ServerAddress;
pub use tls::{UpstreamTls, check_system};

/// A bit of the group key that separates connections for upgrades from the others. A connection that was not upgraded is
/// closed at once.
const UPGRADES: u64 = 1;

/// Concurrent requests over one HTTP/2 connection to a server; more requests open another one. Most servers allow this many.
const STREAMS: usize = 100;
/// Bytes of one response that a server may send before the client has taken them, and so the memory that a client that does
/// not read makes the edge hold. Pingora's default is 8 MiB, and as much for all streams of a connection together.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The seeds are fixed, so that connections are found again after a reload.
const KEYS: ahash::RandomState = ahash::RandomState::with_seeds(4, 3, 2, 1);

/// A named set of servers for one application.
pub struct Pool {
    pub config: config::Pool,
    servers: Vec<Server>,
    balancer: Balancer,
    /// The turn of an address of a server that was tried before, at another one.
    next_further_address: AtomicUsize,
}

pub struct Server {
    pub name: String,
    address: ServerAddress,
    /// The template of its connections; a server with a name has no address in it.
    peer: HttpPeer,
    /// Connections to servers of one key and at one address are alike, and as good for one request as for another.
    key: u64,
    pub metrics: UpstreamMetrics,
    /// Whether its last TLS handshake failed, so that this is logged once and not with every request.
    tls_failing: AtomicBool,
    privacy: Privacy,
}

impl Pool {
    /// `secure` is set for a pool whose servers are spoken to over TLS.
    pub fn build(
        written: &config::Pool,
        secure: Option<&UpstreamTls>,
        private: &PrivateServers,
        names: &Resolver,
        metrics: &Metrics,
    ) -> Self {
        let build = |server| build_server(written, server, secure, private, names, metrics);
        let servers: Vec<Server> = written.servers.iter().map(build).collect();
        let weights: Vec<usize> = written.servers.iter().map(|server| usize::from(server.weight)).collect();
        Self {
            config: written.clone(),
            servers,
            balancer: Balancer::new(written.balance, &weights),
            next_further_address: AtomicUsize::new(0),
        }
    }

    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// Returns every address of every server.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let of = |(server, place): (usize, &ServerAddress)| {
            place.addresses().into_iter().map(move |address| Endpoint { server, address }).collect::<Vec<_>>()
        };
        self.servers.iter().map(|server| &server.address).enumerate().flat_map(of).collect()
    }

    /// Returns the key of an endpoint: connections to endpoints of one key are interchangeable.
    pub fn key(&self, endpoint: Endpoint) -> u64 {
        let server = &self.servers[endpoint.server];
        match server.address {
            ServerAddress::Address(_) => server.key,
            ServerAddress::Name { .. } => KEYS.hash_one((server.key, endpoint.address)),
        }
    }

    /// Returns the timeout of one write to a server.
    pub fn write_timeout(&self) -> Duration {
        self.config.timeouts.write
    }

    /// Returns the timeouts of a request; `read` overrides the pool's.
    pub fn timeouts(&self, read: Option<Duration>) -> PoolTimeouts {
        PoolTimeouts { read: read.unwrap_or(self.config.timeouts.read), ..self.config.timeouts }
    }

    pub fn speaks_http2(&self) -> bool {
        self.config.protocol != PoolProtocol::Http1
    }

    /// Whether one of its servers authenticates connections, so that none may be shared between clients.
    pub fn is_private(&self) -> bool {
        self.servers.iter().any(|server| server.privacy.is_private())
    }

    /// Returns what Pingora needs to reach a server; `read_timeout` overrides the pool's. An `upgrade` gets a connection that
    /// was never used before; with an `owner` it is one that only this owner has used.
    pub fn peer(
        &self,
        endpoint: Endpoint,
        read_timeout: Option<Duration>,
        upgrade: bool,
        owner: Option<Owner>,
    ) -> HttpPeer {
        let mut peer = self.servers[endpoint.server].peer.clone();
        peer._address = SocketAddr::Inet(endpoint.address);
        if let Some(owner) = owner {
            peer.group_key ^= owner.key() & !UPGRADES;
        }
        peer.options.read_timeout = Some(read_timeout.unwrap_or(self.config.timeouts.read));
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
    /// Notes that a connection could not be made. A TLS failure is logged once, when it begins; clients do not learn its cause.
    pub fn failed(&self, error: &Error) {
        if is_tls_failure(error) && !self.tls_failing.swap(true, Ordering::Relaxed) {
            let why = error.context.as_ref().map(|context| context.as_str()).unwrap_or_default();
            log::error!(
                "upstream: TLS handshake failed, requests to the server are refused server={} error={why}",
                self.name
            );
        }
    }

    /// Notes that the server authenticates connections, for as long as the process runs.
    pub fn authenticates_connections(&self) {
        if self.privacy.set() {
            log::info!(
                "upstream: the server authenticates connections (NTLM, Negotiate); from now on they are not shared \
                 between clients server={}",
                self.name
            );
        }
    }

    /// Notes that the server answered.
    pub fn answered(&self) {
        if self.tls_failing.load(Ordering::Relaxed) && self.tls_failing.swap(false, Ordering::Relaxed) {
            log::info!("upstream: TLS handshake succeeds again server={}", self.name);
        }
    }
}

/// Whether a connection failed in its TLS handshake, or because the certificate of the server is not the expected one.
pub fn is_tls_failure(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert)
}

fn build_server(
    pool: &config::Pool,
    written: &config::PoolServer,
    secure: Option<&UpstreamTls>,
    private: &PrivateServers,
    names: &Resolver,
    metrics: &Metrics,
) -> Server {
    let (address, place) = match &written.location {
        Location::Address(address) => (*address, ServerAddress::Address(*address)),
        Location::Name { host, port } => {
            let name = names.follow(host, pool.resolve_every);
            (([0, 0, 0, 0], *port).into(), ServerAddress::Name { name, port: *port, next: AtomicUsize::new(0) })
        }
    };
    // An empty SNI keeps all plaintext connections to a server in one group of Pingora's pool.
    let mut peer = HttpPeer::new(address, false, String::new());
    if let Some(secure) = secure {
        peer.scheme = Scheme::HTTPS;
        peer = secure.secure(peer, written.name.rsplit_once(':').map_or("", |(host, _)| host));
    }
    if let ServerAddress::Name { name, .. } = &place {
        // A server is known by its name for authenticating connections (`private`), so those to a name are apart from those
        // to the same address that is named elsewhere.
        peer.group_key ^= KEYS.hash_one(name.host()) & !UPGRADES;
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
        // The connection has a window for all of its streams: a client that does not read must not hold up other responses.
        peer.options.h2_connection_window_size = Some(STREAMS as u32 * STREAM_WINDOW_BYTES);
    } else {
        // Without this the kernel lets the buffer grow to megabytes for each response, of memory that all connections share.
        peer.options.tcp_recv_buf = Some(STREAM_WINDOW_BYTES as usize);
    }
    let key = peer.reuse_hash();
    Server {
        name: written.name.clone(),
        address: place,
        key,
        peer,
        metrics: metrics.traffic.upstream(&pool.name, &written.name),
        tls_failing: AtomicBool::default(),
        privacy: private.of(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(servers: Vec<config::PoolServer>) -> config::Pool {
        let second = Duration::from_secs(1);
        config::Pool {
            name: "p".into(),
            servers,
            balance: config::defaults::BALANCE,
            protocol: PoolProtocol::Http1,
            tls: None,
            timeouts: PoolTimeouts { connect: second, read: second, write: second, idle: second },
            retries: 2,
            resolve_every: 10 * second,
        }
    }

    fn build(written: &config::Pool, names: &Resolver) -> Pool {
        Pool::build(written, None, &PrivateServers::default(), names, &Metrics::new("test").unwrap())
    }

    fn names(lookup: impl Fn(&str) -> Vec<&'static str> + Send + Sync + 'static) -> Resolver {
        let lookup = move |host: &str| Ok(lookup(host).into_iter().map(|text| text.parse().unwrap()).collect());
        Resolver::new(Some(Arc::new(lookup)), None)
    }

    fn pool(weights: &[u16]) -> Pool {
        let server = |(n, weight): (usize, &u16)| config::PoolServer {
            name: format!("s{n}"),
            location: Location::Address(([127, 0, 0, 1], 9000 + n as u16).into()),
            weight: *weight,
        };
        build(&written(weights.iter().enumerate().map(server).collect()), &names(|_| Vec::new()))
    }

    /// A pool of names, and what they lead to.
    fn named(hosts: &[&str], lookup: impl Fn(&str) -> Vec<&'static str> + Send + Sync + 'static) -> Pool {
        let names = names(lookup);
        let _held = names.prepare(&hosts.iter().map(|host| (*host, Duration::from_secs(10))).collect::<Vec<_>>());
        let server = |host: &&str| config::PoolServer {
            name: format!("{host}:80"),
            location: Location::Name { host: (*host).into(), port: 80 },
            weight: 1,
        };
        build(&written(hosts.iter().map(server).collect()), &names)
    }

    /// Where requests end up, and how many of their attempts failed before, while these servers do not answer.
    fn serve(
        pool: &Pool,
        requests: usize,
        timed_out: bool,
        is_down: impl Fn(Endpoint) -> bool,
    ) -> (Vec<Endpoint>, usize) {
        let (mut served, mut failures) = (Vec::new(), 0);
        for _ in 0..requests {
            let mut tried: Vec<Attempt> = Vec::new();
            loop {
                let mut attempt = pool.select(&tried, None).unwrap();
                if !is_down(attempt.endpoint) {
                    served.push(attempt.endpoint);
                    break;
                }
                attempt.failed(timed_out);
                tried.push(attempt);
                failures += 1;
                if !pool.may_retry(&tried) {
                    break;
                }
            }
        }
        (served, failures)
    }

    fn server_of(attempt: Option<Attempt>) -> usize {
        attempt.unwrap().endpoint.server
    }

    #[test]
    fn servers_take_turns_by_weight_and_not_in_bursts() {
        let pool = pool(&[1, 1]);
        let picked: Vec<_> = (0..4).map(|_| server_of(pool.select(&[], None))).collect();
        assert_eq!(picked, [0, 1, 0, 1]);
    }

    #[test]
    fn a_server_that_is_down_costs_its_share_of_the_requests_and_no_more() {
        for timed_out in [false, true] {
            for (weights, share) in
                [(&[1, 1][..], 2), (&[1, 1, 1], 3), (&[1, 1, 1, 1], 4), (&[2, 1, 3], 3), (&[1, 1, 1, 1, 1], 5)]
            {
                let pool = pool(weights);
                let requests = 120;
                let (served, failures) = serve(&pool, requests, timed_out, |endpoint| endpoint.server == 0);
                assert_eq!((served.len(), failures), (requests, requests / share), "{weights:?}");
                let others: usize = weights[1..].iter().map(|weight| usize::from(*weight)).sum();
                for (server, weight) in weights.iter().enumerate().skip(1) {
                    let count = served.iter().filter(|endpoint| endpoint.server == server).count();
                    assert_eq!(
                        count,
                        requests * usize::from(*weight) / others,
                        "{weights:?}: by weight, server {server}"
                    );
                }
            }
        }
    }

    #[test]
    fn retries_count_servers_and_when_all_were_tried_one_is_tried_again() {
        let four = pool(&[1, 1, 1, 1]);
        assert_eq!(serve(&four, 10, false, |_| true), (Vec::new(), 30), "one and two more");
        let one = pool(&[1]);
        assert_eq!(serve(&one, 1, false, |_| true).1, 3);
        assert!(pool(&[]).select(&[], None).is_none());
    }

    #[test]
    fn every_address_of_a_name_is_used_and_tried() {
        let lookup = |host: &str| match host {
            "two" => vec!["10.0.0.1:0", "[::1]:0"],
            "eight" => vec![
                "10.0.1.1:0",
                "10.0.1.2:0",
                "10.0.1.3:0",
                "10.0.1.4:0",
                "10.0.1.5:0",
                "10.0.1.6:0",
                "10.0.1.7:0",
                "10.0.1.8:0",
            ],
            _ => Vec::new(),
        };
        let pool = named(&["two"], lookup);
        let (served, failures) = serve(&pool, 10, false, |_| false);
        assert_eq!(served.iter().filter(|endpoint| endpoint.address == "[::1]:80".parse().unwrap()).count(), 5);
        assert_eq!(failures, 0);
        for (retries, timed_out) in [(0, false), (0, true), (2, false), (2, true)] {
            let mut pool = named(&["two"], lookup);
            pool.config.retries = retries;
            let (served, failures) = serve(&pool, 10, timed_out, |endpoint| endpoint.address.is_ipv6());
            assert_eq!((served.len(), failures), (10, 5), "{retries} retries");
        }
        let pool = named(&["eight"], lookup);
        let last: std::net::SocketAddr = "10.0.1.8:80".parse().unwrap();
        let (served, _) = serve(&pool, 10, false, |endpoint| endpoint.address != last);
        assert_eq!(served.len(), 10, "refusals cost no time");
        let (_, failures) = serve(&pool, 1, true, |_| true);
        assert_eq!(failures, 3, "and silence is waited for as often as retries say");
    }

    #[test]
    fn after_a_silence_another_server_comes_first_and_after_a_refusal_another_address() {
        let pool =
            named(&["a", "b"], |host| if host == "a" { vec!["10.0.0.1:0", "10.0.0.2:0"] } else { vec!["10.0.0.3:0"] });
        for (timed_out, next) in [(true, 1), (false, 0)] {
            let mut first = pool.select(&[], None).unwrap();
            while first.endpoint.server != 0 {
                first = pool.select(&[], None).unwrap();
            }
            first.failed(timed_out);
            assert_eq!(server_of(pool.select(&[first], None)), next, "timed out: {timed_out}");
        }
    }

    #[test]
    fn a_name_without_an_address_is_left_out() {
        let pool = named(&["good", "none"], |host| if host == "good" { vec!["10.0.0.1:0"] } else { Vec::new() });
        let (served, failures) = serve(&pool, 10, false, |_| false);
        assert_eq!((served.len(), failures), (10, 0));
        assert!(named(&["none"], |_| Vec::new()).select(&[], None).is_none());
    }

    #[test]
    fn connections_to_addresses_and_names_are_apart() {
        let pool = named(&["a", "b"], |_| vec!["10.0.0.1:0", "10.0.0.2:0"]);
        let mut keys: Vec<u64> = pool.endpoints().into_iter().map(|endpoint| pool.key(endpoint)).collect();
        keys.extend(pool.endpoints().into_iter().map(|endpoint| pool.peer(endpoint, None, false, None).reuse_hash()));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 8);
        let endpoint = pool.endpoints()[1];
        assert_eq!(pool.peer(endpoint, None, false, None).address(), &SocketAddr::Inet("10.0.0.2:80".parse().unwrap()));
    }

    #[test]
    fn connections_of_one_owner_are_apart_from_all_others_and_lead_to_one_server() {
        let pool = pool(&[1, 1, 1]);
        let (ana, ben) = (Owner::unique(), Owner::unique());
        let attempt = pool.select(&[], Some(ana.key())).unwrap();
        let endpoint = attempt.endpoint;
        assert!((0..9).all(|_| pool.select(&[], Some(ana.key())).unwrap().endpoint == endpoint));
        assert_ne!(pool.select(&[attempt], Some(ana.key())).unwrap().endpoint, endpoint, "unless that one has failed");
        let key = |owner| pool.peer(endpoint, None, false, owner).reuse_hash();
        assert_eq!(key(Some(ana)), key(Some(ana)));
        assert_eq!(key(None), pool.key(endpoint));
        assert!(key(Some(ana)) != key(None) && key(Some(ana)) != key(Some(ben)));
        assert_ne!(pool.peer(endpoint, None, true, Some(ana)).reuse_hash(), key(Some(ana)), "nor for upgrades");
    }

    #[test]
    fn an_attempt_counts_as_in_flight_until_it_has_failed_ended_or_been_dropped() {
        let pool = pool(&[1, 1]);
        let counts = || [0, 1].map(|server| pool.server(server).metrics.in_flight.get());
        let mut first = pool.select(&[], None).unwrap();
        assert_eq!(counts(), [1, 0]);
        first.failed(false);
        assert_eq!(counts(), [0, 0], "it has failed");
        let mut tried = vec![first];
        tried.push(pool.select(&tried, None).unwrap());
        assert_eq!(counts(), [0, 1], "the next one counts at its own server");
        let other = pool.select(&[], None).unwrap();
        assert_eq!(counts(), [0, 2]);
        drop(other);
        assert_eq!(counts(), [0, 1]);
        tried.last_mut().unwrap().end();
        assert_eq!(counts(), [0, 0], "it has ended");
        tried.push(pool.select(&tried, None).unwrap());
        assert_eq!(counts().iter().sum::<i64>(), 1);
        drop(tried);
        assert_eq!(counts(), [0, 0], "the request was cut");
    }

    #[test]
    fn every_timeout_is_set() {
        let pool = pool(&[1]);
        let peer = pool.peer(pool.endpoints()[0], Some(Duration::from_secs(9)), false, None);
        let options = &peer.options;
        assert_eq!(options.read_timeout, Some(Duration::from_secs(9)));
        for timeout in
            [options.connection_timeout, options.total_connection_timeout, options.write_timeout, options.idle_timeout]
        {
            assert_eq!(timeout, Some(Duration::from_secs(1)));
        }
    }
}
