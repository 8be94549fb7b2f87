//! Pools of upstream servers: which one gets the next request, and with what timeouts.
//!
//! Decides; Pingora connects. A policy chooses servers (`balancer`), and those that may not take a request or have already
//! failed it are passed over (`balance`); a client's cookie may name one (`sticky`). A server with a name has all of its
//! addresses (`resolver`). How servers are doing is kept over reloads (`server_state`, `pool_state`): those that fail
//! requests are left out for a while (`ejection`), those that fail checks until they pass them (`health_checks`), and one
//! that comes back gets its share little by little (`slow_start`). Called by `proxy`.

mod balance;
mod balancer;
mod connection_auth;
pub mod dial;
pub mod ejection;
mod health_check;
pub mod health_checks;
pub mod pool_state;
pub mod probe;
pub mod resolver;
mod retry_budget;
mod server_address;
pub mod server_state;
mod slow_start;
mod sticky;
mod tls;
mod upgrade;

use std::os::unix::net::SocketAddr as UnixAddress;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pingora::{Error, ErrorType};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::upstreams::peer::{HttpPeer, Peer, Scheme};
use ring::hmac;

use crate::config::{self, Location, PoolProtocol, PoolTimeouts};
use crate::metrics::{Metrics, RetryMetrics, UpstreamMetrics};
pub use balance::{Attempt, Demand, Endpoint, MayRetry, Outcome};
use balancer::Balancer;
use connection_auth::Privacy;
pub use connection_auth::{Owner, PrivateServers};
use ejection::Failure;
use pool_state::{PoolState, PoolStates, Tried};
use resolver::Resolver;
use server_address::{First, ServerAddress, Turns};
use server_state::{AddressState, ServerState, Target};
use sticky::Sticky;
pub use tls::{UpstreamTls, check_system};

/// A bit of the group key that separates connections for one request (upgrades among them) from the others. One that was
/// not upgraded is closed at once.
const UPGRADES: u64 = 1;

/// Concurrent requests over one HTTP/2 connection to a server; more requests open another one. Most servers allow this many.
const STREAMS: usize = 100;
/// Bytes of one response that a server may send before the client has taken them, and so the memory that a client that does
/// not read makes the edge hold. Pingora's default is 8 MiB, and as much for all streams of a connection together.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The seeds are fixed, so that connections are found again after a reload.
const KEYS: ahash::RandomState = ahash::RandomState::with_seeds(4, 3, 2, 1);

/// How the connection of a request is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionUse {
    /// Other requests have used it, or will.
    Kept,
    /// By this request alone.
    Once,
    /// By this request alone, which may upgrade it.
    Upgrade,
}

/// What pools share, and what outlives them.
pub struct Shared<'a> {
    pub private: &'a PrivateServers,
    pub names: &'a Resolver,
    pub states: &'a PoolStates,
    /// The keys that sign the cookies of sticky pools, the one of new cookies first.
    pub cookie_keys: &'a [hmac::Key],
    pub metrics: &'a Metrics,
}

/// A named set of servers for one application.
pub struct Pool {
    pub config: config::Pool,
    servers: Vec<Server>,
    /// Of the servers that are not for backup.
    balancer: Balancer,
    /// Of the others, if there are any.
    backups: Option<Balancer>,
    /// Where clients stay with a server.
    sticky: Option<Sticky<Endpoint>>,
    state: Arc<PoolState>,
}

pub struct Server {
    pub name: String,
    pub state: Arc<ServerState>,
    address: ServerAddress,
    /// Requests that it may have at a time.
    limit: usize,
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
    pub fn build(written: &config::Pool, secure: Option<&UpstreamTls>, shared: &Shared<'_>) -> Self {
        let state = shared.states.pool(&written.name, shared.metrics);
        let build = |server| build_server(written, server, secure, shared, &state);
        let servers: Vec<Server> = written.servers.iter().map(build).collect();
        // The weights of some of the servers; that of another one is 0, so that it is never chosen.
        let weights = |of_backups: bool| -> Vec<usize> {
            let weight = |server: &config::PoolServer| {
                if server.is_backup == of_backups { usize::from(server.weight) } else { 0 }
            };
            written.servers.iter().map(weight).collect()
        };
        let has_backups = written.servers.iter().any(|server| server.is_backup);
        let mut pool = Self {
            config: written.clone(),
            servers,
            balancer: Balancer::new(&written.balance, &weights(false)),
            backups: has_backups.then(|| Balancer::new(&written.balance, &weights(true))),
            sticky: None,
            state,
        };
        let sticky = |_| Sticky::new(written.name.clone(), shared.cookie_keys.to_vec(), pool.identities());
        pool.sticky = written.balance.cookie().map(sticky);
        pool
    }

    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// Returns every address of every server.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.addresses().into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    /// The same, with the state of each.
    pub fn addresses(&self) -> Vec<(Endpoint, Arc<AddressState>)> {
        let mut all = Vec::new();
        for (server, written) in self.servers.iter().enumerate() {
            written.address.find(First::OfKey(0), |address| {
                all.push((Endpoint { server, address: address.target.address() }, Arc::clone(address)));
                None::<()>
            });
        }
        all
    }

    /// The same, with what a cookie is made of for each.
    fn identities(&self) -> Vec<(Endpoint, String)> {
        self.addresses().into_iter().map(|(endpoint, address)| (endpoint, address.target.to_string())).collect()
    }

    /// Returns the name of the cookie by which clients stay with a server, where they do.
    pub fn cookie(&self) -> Option<&str> {
        self.config.balance.cookie()
    }

    /// Returns the endpoint that the value of a client's cookie names.
    pub fn named_by(&self, value: &str) -> Option<Endpoint> {
        self.sticky.as_ref()?.endpoint(value, || self.identities())
    }

    /// Returns the value of the cookie that names an endpoint.
    pub fn cookie_value(&self, endpoint: Endpoint) -> Option<String> {
        let identity = match endpoint.address {
            Some(address) => address.to_string(),
            None => self.servers[endpoint.server].name.clone(),
        };
        self.sticky.as_ref()?.value(&identity)
    }

    /// Returns the key of an endpoint: connections to endpoints of one key are interchangeable.
    pub fn key(&self, endpoint: Endpoint) -> u64 {
        let server = &self.servers[endpoint.server];
        match server.address {
            ServerAddress::Fixed(_) => server.key,
            ServerAddress::Name { .. } => KEYS.hash_one((server.key, endpoint.address)),
        }
    }

    /// Notes that an attempt has failed by its server's fault. `in_body`: its response had begun.
    pub fn note_failure(&self, attempt: &Attempt, failure: Failure, in_body: bool, now: Instant) {
        if let Some(address) = attempt.address() {
            let tried = Tried { is_trial: attempt.is_trial(), now };
            self.state.failed(address, failure, in_body, &self.config, tried);
        }
    }

    /// Notes that a response has come.
    pub fn note_head(&self, attempt: &Attempt, status: u16) {
        let Some(address) = attempt.address() else { return };
        match &self.config.eject {
            Some(policy) if policy.statuses.contains(&status) => {
                self.note_failure(attempt, Failure::Status, false, Instant::now());
            }
            _ => self.state.succeeded(address, attempt.begun()),
        }
    }

    /// Notes that a response has come to its end.
    pub fn note_end(&self, attempt: &Attempt) {
        if let Some(address) = attempt.address() {
            self.state.completed(address);
        }
    }

    /// A request comes in: the retry budget counts those of the last seconds.
    pub fn note_request(&self, now: Instant) {
        self.state.roll_budget(|| self.attempts(), now);
    }

    /// Takes the permission for one retry from the pool's budget.
    pub fn take_retry(&self, now: Instant) -> bool {
        self.state.take_retry(self.attempts(), self.config.retry.budget_percent, now)
    }

    /// Returns how many attempts there have been at its servers.
    fn attempts(&self) -> u64 {
        let of = |server: &Server| server.metrics.attempts() + server.state.in_flight() as u64;
        self.servers.iter().map(of).sum()
    }

    /// Returns the metrics of requests that are sent again.
    pub fn retries(&self) -> &RetryMetrics {
        &self.state.retries
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

    /// Returns what Pingora needs to reach a server; `read_timeout` overrides the pool's. With an `owner` the connection is
    /// one that only this owner has used.
    pub fn peer(
        &self,
        endpoint: Endpoint,
        read_timeout: Option<Duration>,
        connection: ConnectionUse,
        owner: Option<Owner>,
    ) -> HttpPeer {
        let mut peer = self.servers[endpoint.server].peer.clone();
        if let Some(address) = endpoint.address {
            peer._address = SocketAddr::Inet(address);
        }
        if let Some(owner) = owner {
            peer.group_key ^= owner.key() & !UPGRADES;
        }
        peer.options.read_timeout = Some(read_timeout.unwrap_or(self.config.timeouts.read));
        if connection == ConnectionUse::Upgrade {
            // HTTP/2 servers that take WebSockets do so over HTTP/1.1.
            peer.options.set_http_version(1, 1);
            peer.options.custom_l4 = Some(Arc::new(upgrade::Connector));
        }
        if connection != ConnectionUse::Kept {
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

/// The address of a template whose server has a name.
const UNSPECIFIED: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn template(address: SocketAddr) -> HttpPeer {
    // An empty SNI keeps all plaintext connections to a server in one group of Pingora's pool.
    let mut peer = HttpPeer::new(UNSPECIFIED, false, String::new());
    peer._address = address;
    peer
}

fn build_server(
    pool: &config::Pool,
    written: &config::PoolServer,
    secure: Option<&UpstreamTls>,
    shared: &Shared<'_>,
    pool_state: &PoolState,
) -> Server {
    let state = pool_state.server(&written.name, shared.metrics);
    state.set_backup(written.is_backup);
    let (mut peer, address, host) = match &written.location {
        Location::Address(address) => {
            (template((*address).into()), ServerAddress::Fixed(state.fixed(Target::Address(*address))), None)
        }
        Location::Unix(path) => {
            // `config` has seen to it that the path is one.
            let address = UnixAddress::from_pathname(path).map_or_else(|_| UNSPECIFIED.into(), SocketAddr::from);
            (template(address), ServerAddress::Fixed(state.fixed(Target::Path(path.clone()))), None)
        }
        Location::Name { host, port } => {
            let name = shared.names.follow(host, pool.resolve_every);
            let (turns, state) = (Turns::default(), Arc::clone(&state));
            state.resolved(&name.addresses(), *port);
            (template(UNSPECIFIED.into()), ServerAddress::Name { name, port: *port, state, turns }, Some(host))
        }
    };
    if let Some(secure) = secure {
        peer.scheme = Scheme::HTTPS;
        peer = secure.secure(peer, written.name.rsplit_once(':').map_or("", |(host, _)| host));
    }
    if let Some(host) = host {
        // A server is known by its name for authenticating connections (`private`), so those to a name are apart from those
        // to the same address that is named elsewhere.
        peer.group_key ^= KEYS.hash_one(host) & !UPGRADES;
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
        metrics: state.metrics.clone(),
        state,
        address,
        limit: written.connections.into_iter().chain(pool.in_flight).min().unwrap_or(usize::MAX),
        key,
        peer,
        tls_failing: AtomicBool::default(),
        privacy: shared.private.of(key),
    }
}

#[cfg(test)]
mod tests {
    use super::server_state::Administrative;
    use super::*;
    use crate::config::Retry;

    pub(super) fn written(servers: Vec<config::PoolServer>) -> config::Pool {
        let second = Duration::from_secs(1);
        config::Pool {
            name: "p".into(),
            servers,
            balance: config::Balance::RoundRobin,
            health: None,
            slow_start: Duration::ZERO,
            protocol: PoolProtocol::Http1,
            tls: None,
            timeouts: PoolTimeouts { connect: second, read: second, write: second, idle: second },
            retry: Retry::new(2, config::defaults::RETRY_ON, 20),
            eject: None,
            in_flight: None,
            resolve_every: 10 * second,
        }
    }

    fn build(written: &config::Pool, names: &Resolver) -> Pool {
        build_beside(written, names, &PoolStates::default())
    }

    fn build_beside(written: &config::Pool, names: &Resolver, states: &PoolStates) -> Pool {
        let (private, metrics) = (PrivateServers::default(), Metrics::new("test").unwrap());
        Pool::build(written, None, &Shared { private: &private, names, states, cookie_keys: &[], metrics: &metrics })
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
            is_backup: false,
            connections: None,
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
            is_backup: false,
            connections: None,
        };
        build(&written(hosts.iter().map(server).collect()), &names)
    }

    /// What a GET wants.
    fn get(key: Option<u64>) -> Demand {
        Demand { key, is_safe: true, now: Instant::now() }
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
                let mut attempt = pool.select(&tried, get(None)).unwrap();
                if !is_down(attempt.endpoint) {
                    served.push(attempt.endpoint);
                    break;
                }
                attempt.failed(outcome(timed_out));
                tried.push(attempt);
                failures += 1;
                if pool.may_retry(&tried) == MayRetry::No {
                    break;
                }
            }
        }
        (served, failures)
    }

    fn outcome(timed_out: bool) -> Outcome {
        if timed_out { Outcome::ConnectTimedOut } else { Outcome::NotConnected }
    }

    fn server_of(attempt: Option<Attempt>) -> usize {
        attempt.unwrap().endpoint.server
    }

    #[test]
    fn servers_take_turns_by_weight_and_not_in_bursts() {
        let pool = pool(&[1, 1]);
        let picked: Vec<_> = (0..4).map(|_| server_of(pool.select(&[], get(None)))).collect();
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
    fn retries_count_servers_and_go_to_those_that_were_not_tried() {
        let four = pool(&[1, 1, 1, 1]);
        assert_eq!(serve(&four, 10, false, |_| true), (Vec::new(), 30), "one and two more");
        let one = pool(&[1]);
        assert_eq!(serve(&one, 1, false, |_| true).1, 1, "there is no other");
        assert!(pool(&[]).select(&[], get(None)).is_none());
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
        assert_eq!(served.iter().filter(|endpoint| endpoint.address == Some("[::1]:80".parse().unwrap())).count(), 5);
        assert_eq!(failures, 0);
        for (retries, timed_out) in [(0, false), (0, true), (2, false), (2, true)] {
            let mut pool = named(&["two"], lookup);
            pool.config.retry.attempts = retries;
            let (served, failures) = serve(&pool, 10, timed_out, |endpoint| endpoint.address.unwrap().is_ipv6());
            assert_eq!((served.len(), failures), (10, 5), "{retries} retries");
        }
        let pool = named(&["eight"], lookup);
        let last: std::net::SocketAddr = "10.0.1.8:80".parse().unwrap();
        let (served, _) = serve(&pool, 10, false, |endpoint| endpoint.address != Some(last));
        assert_eq!(served.len(), 10, "refusals cost no time");
        let (_, failures) = serve(&pool, 1, true, |_| true);
        assert_eq!(failures, 3, "and silence is waited for as often as retries say");
    }

    #[test]
    fn after_a_silence_another_server_comes_first_and_after_a_refusal_another_address() {
        let pool =
            named(&["a", "b"], |host| if host == "a" { vec!["10.0.0.1:0", "10.0.0.2:0"] } else { vec!["10.0.0.3:0"] });
        for (timed_out, next) in [(true, 1), (false, 0)] {
            let mut first = pool.select(&[], get(None)).unwrap();
            while first.endpoint.server != 0 {
                first = pool.select(&[], get(None)).unwrap();
            }
            first.failed(outcome(timed_out));
            assert_eq!(server_of(pool.select(&[first], get(None))), next, "timed out: {timed_out}");
        }
    }

    #[test]
    fn a_name_without_an_address_is_left_out() {
        let pool = named(&["good", "none"], |host| if host == "good" { vec!["10.0.0.1:0"] } else { Vec::new() });
        let (served, failures) = serve(&pool, 10, false, |_| false);
        assert_eq!((served.len(), failures), (10, 0));
        assert!(named(&["none"], |_| Vec::new()).select(&[], get(None)).is_none());
    }

    #[test]
    fn connections_to_addresses_and_names_are_apart() {
        let pool = named(&["a", "b"], |_| vec!["10.0.0.1:0", "10.0.0.2:0"]);
        let mut keys: Vec<u64> = pool.endpoints().into_iter().map(|endpoint| pool.key(endpoint)).collect();
        keys.extend(
            pool.endpoints()
                .into_iter()
                .map(|endpoint| pool.peer(endpoint, None, ConnectionUse::Kept, None).reuse_hash()),
        );
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 8);
        let endpoint = pool.endpoints()[1];
        assert_eq!(
            pool.peer(endpoint, None, ConnectionUse::Kept, None).address(),
            &SocketAddr::Inet("10.0.0.2:80".parse().unwrap())
        );
    }

    #[test]
    fn connections_of_one_owner_are_apart_from_all_others_and_lead_to_one_server() {
        let pool = pool(&[1, 1, 1]);
        let (ana, ben) = (Owner::unique(), Owner::unique());
        let attempt = pool.select(&[], get(Some(ana.key()))).unwrap();
        let endpoint = attempt.endpoint;
        assert!((0..9).all(|_| pool.select(&[], get(Some(ana.key()))).unwrap().endpoint == endpoint));
        assert_ne!(
            pool.select(&[attempt], get(Some(ana.key()))).unwrap().endpoint,
            endpoint,
            "unless that one has failed"
        );
        let key = |owner| pool.peer(endpoint, None, ConnectionUse::Kept, owner).reuse_hash();
        assert_eq!(key(Some(ana)), key(Some(ana)));
        assert_eq!(key(None), pool.key(endpoint));
        assert!(key(Some(ana)) != key(None) && key(Some(ana)) != key(Some(ben)));
        assert_ne!(
            pool.peer(endpoint, None, ConnectionUse::Upgrade, Some(ana)).reuse_hash(),
            key(Some(ana)),
            "nor for upgrades"
        );
    }

    #[test]
    fn an_attempt_counts_as_in_flight_until_it_has_failed_ended_or_been_dropped() {
        let pool = pool(&[1, 1]);
        let counts = || [0, 1].map(|server| pool.server(server).metrics.in_flight.get());
        let mut first = pool.select(&[], get(None)).unwrap();
        assert_eq!(counts(), [1, 0]);
        first.failed(Outcome::NotConnected);
        assert_eq!(counts(), [0, 0], "it has failed");
        let mut tried = vec![first];
        tried.push(pool.select(&tried, get(None)).unwrap());
        assert_eq!(counts(), [0, 1], "the next one counts at its own server");
        let other = pool.select(&[], get(None)).unwrap();
        assert_eq!(counts(), [0, 2]);
        drop(other);
        assert_eq!(counts(), [0, 1]);
        tried.last_mut().unwrap().end();
        assert_eq!(counts(), [0, 0], "it has ended");
        tried.push(pool.select(&tried, get(None)).unwrap());
        assert_eq!(counts().iter().sum::<i64>(), 1);
        drop(tried);
        assert_eq!(counts(), [0, 0], "the request was cut");
    }

    #[test]
    fn every_timeout_is_set() {
        let pool = pool(&[1]);
        let peer = pool.peer(pool.endpoints()[0], Some(Duration::from_secs(9)), ConnectionUse::Kept, None);
        let options = &peer.options;
        assert_eq!(options.read_timeout, Some(Duration::from_secs(9)));
        for timeout in
            [options.connection_timeout, options.total_connection_timeout, options.write_timeout, options.idle_timeout]
        {
            assert_eq!(timeout, Some(Duration::from_secs(1)));
        }
    }

    /// A pool of servers with this policy, and the key that signs its cookies.
    fn pool_by(balance: config::Balance, slow_start: Duration, count: usize) -> Pool {
        let servers = pool(&vec![1; count]).config.servers;
        let written = config::Pool { balance, slow_start, ..written(servers) };
        let (private, metrics) = (PrivateServers::default(), Metrics::new("test").unwrap());
        let (states, names) = (PoolStates::default(), names(|_| Vec::new()));
        let cookie_keys = &[hmac::Key::new(hmac::HMAC_SHA256, b"key")];
        Pool::build(
            &written,
            None,
            &Shared { private: &private, names: &names, states: &states, cookie_keys, metrics: &metrics },
        )
    }

    fn sticky_pool(count: usize) -> Pool {
        pool_by(config::Balance::Sticky { cookie: "server".into() }, Duration::ZERO, count)
    }

    fn address_of(pool: &Pool, server: usize) -> Arc<AddressState> {
        Arc::clone(&pool.addresses()[server].1)
    }

    #[test]
    fn a_client_keeps_its_server_while_that_drains_and_leaves_one_that_is_disabled_or_down() {
        let pool = sticky_pool(3);
        let named = pool.named_by(&pool.cookie_value(pool.endpoints()[1]).unwrap());
        let stays = || (0..9).all(|_| server_of(pool.select_named(named, &[], get(None))) == 1);
        let goes = || (0..9).all(|_| server_of(pool.select_named(named, &[], get(None))) != 1);
        let state = &pool.server(1).state;
        assert!(stays());
        state.set_administrative(Administrative::Draining);
        assert!(
            stays() && (0..9).all(|_| server_of(pool.select_named(None, &[], get(None))) != 1),
            "and no new clients"
        );
        state.set_administrative(Administrative::Disabled);
        assert!(goes());
        state.set_administrative(Administrative::Active);
        assert!(stays());
        address_of(&pool, 1).set_down(true);
        assert!(goes());
        address_of(&pool, 1).set_down(false);
        assert!(stays());
    }

    #[test]
    fn a_client_stays_after_a_kept_connection_was_closed_and_leaves_a_server_that_cannot_be_connected_to() {
        let pool = sticky_pool(3);
        let named = pool.named_by(&pool.cookie_value(pool.endpoints()[1]).unwrap());
        for (outcome, next) in
            [(Outcome::KeptClosed, true), (Outcome::NotConnected, false), (Outcome::ConnectTimedOut, false)]
        {
            let mut first = pool.select_named(named, &[], get(None)).unwrap();
            first.failed(outcome);
            let mut second = pool.select_named(named, std::slice::from_ref(&first), get(None)).unwrap();
            assert_eq!(second.endpoint.server == 1, next, "{outcome:?}");
            second.failed(outcome);
            let third = pool.select_named(named, &[first, second], get(None));
            assert!(third.is_none_or(|third| third.endpoint.server != 1), "{outcome:?}: not a third time");
        }
    }

    #[test]
    fn servers_that_are_down_get_requests_only_where_all_are() {
        for balance in [config::Balance::RoundRobin, config::Balance::LeastRequest] {
            let pool = pool_by(balance, Duration::ZERO, 3);
            let chosen = || -> std::collections::BTreeSet<usize> {
                (0..60).map(|_| server_of(pool.select(&[], get(None)))).collect()
            };
            address_of(&pool, 0).set_down(true);
            assert_eq!(chosen().into_iter().collect::<Vec<_>>(), [1, 2]);
            address_of(&pool, 1).set_down(true);
            assert_eq!(chosen().into_iter().collect::<Vec<_>>(), [2]);
            address_of(&pool, 2).set_down(true);
            assert_eq!(chosen().into_iter().collect::<Vec<_>>(), [0, 1, 2], "all are down, so all are used");
            assert!(pool.addresses().iter().all(|(_, address)| !address.takes_turns()));
            assert_eq!(pool.server(0).metrics.up.get(), 0);
            address_of(&pool, 0).set_down(false);
            assert_eq!(chosen().into_iter().collect::<Vec<_>>(), [0]);
            assert_eq!(pool.server(0).metrics.up.get(), 1);
        }
    }

    #[test]
    fn a_server_that_comes_back_gets_its_share_little_by_little() {
        fastrand::seed(30);
        for balance in [config::Balance::RoundRobin, config::Balance::LeastRequest] {
            let pool = pool_by(balance, Duration::from_secs(100), 2);
            let begun = Instant::now();
            let share = |seconds: u64| {
                let demand = Demand { now: begun + Duration::from_secs(seconds), ..get(None) };
                (0..3000).filter(|_| server_of(pool.select(&[], demand)) == 0).count()
            };
            assert!((1350..1650).contains(&share(1)), "not after a start");
            address_of(&pool, 0).slow_start.begin(begun);
            // Of two servers of which one has a tenth, a half, all of its weight.
            for (seconds, fair) in [(10, 3000 / 11), (50, 1000), (101, 1500)] {
                let count = share(seconds);
                assert!(count.abs_diff(fair) < 150, "after {seconds} s: {count}, and not some {fair}");
            }
        }
    }

    #[test]
    fn an_address_that_dns_has_added_starts_slowly_and_those_of_the_start_do_not() {
        let pool = pool(&[1]);
        let resolved =
            |addresses: &[&str]| Arc::new(addresses.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>());
        let state = Arc::new(ServerState::new("p", "app:80", pool.server(0).metrics.clone()));
        let shares = |addresses: &[&str]| -> Vec<bool> {
            let states = state.resolved(&resolved(addresses), 80);
            let share =
                |address: &Arc<AddressState>| address.slow_start.share(Instant::now(), Duration::from_secs(3600));
            states.iter().map(|address| share(address) == balancer::WHOLE).collect()
        };
        assert_eq!(shares(&["10.0.0.1:0", "10.0.0.2:0"]), [true, true]);
        assert_eq!(shares(&["10.0.0.1:0", "10.0.0.2:0", "10.0.0.3:0"]), [true, true, false]);
        assert_eq!(shares(&["10.0.0.2:0", "10.0.0.4:0"]), [true, false]);
    }
}
