//! The attempts of a request: which server it goes to, at which of its addresses, and whether another one may be tried.
//!
//! The pool's [`Balancer`](super::balancer::Balancer) chooses servers. A connection that is refused costs no time and says
//! nothing of the other addresses of the same server, so these come next; one that is not answered may mean the whole
//! machine, so another server comes first.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use prometheus::IntGauge;

use super::Pool;
use crate::config::MAX_RETRIES;

/// An address of one server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The index of the server in its pool.
    pub server: usize,
    pub address: SocketAddr,
}

/// One attempt of a request. It counts as in flight at its server until it has failed or is dropped with the request.
#[derive(Debug)]
pub struct Attempt {
    pub endpoint: Endpoint,
    /// Whether its server was tried before, at another address.
    is_further_address: bool,
    /// Whether the connection was not answered in time.
    timed_out: bool,
    in_flight: Option<InFlight>,
}

/// Counts one attempt at a server for as long as it exists, so that an attempt that is cut is counted down like one that
/// ends. The count is the metric `upstream_in_flight` itself, which belongs to the process: it stays right over a reload,
/// where attempts at the same server are under way in both snapshots.
#[derive(Debug)]
struct InFlight(IntGauge);

impl InFlight {
    fn begin(count: &IntGauge) -> Self {
        count.inc();
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Attempt {
    /// The connection could not be made.
    pub fn failed(&mut self, timed_out: bool) {
        self.timed_out = timed_out;
        self.end();
    }

    /// The attempt is over, and is kept for the choice of the next one.
    pub fn end(&mut self) {
        self.in_flight = None;
    }
}

impl Pool {
    /// Returns the next attempt of a request that has made those in `tried`, at what was tried already when nothing else is
    /// left. `None` when no server has an address. Requests with the same `key` go to the same server, as long as that
    /// can be reached.
    pub fn select(&self, tried: &[Attempt], key: Option<u64>) -> Option<Attempt> {
        let Some(last) = tried.last() else {
            return self.first_endpoint(key).map(|endpoint| self.begin(endpoint, false));
        };
        let further = |server| self.further_address(server, tried).map(|endpoint| (endpoint, true));
        let another = || {
            let endpoint = self.another_server(tried, key).filter(|_| self.may_try_another(tried));
            endpoint.map(|endpoint| (endpoint, false))
        };
        let next = if last.timed_out {
            another().or_else(|| tried.iter().find_map(|attempt| further(attempt.endpoint.server)))
        } else {
            further(last.endpoint.server).or_else(another)
        };
        // The request has had its turn, so a repeated attempt does not take another one.
        let (endpoint, is_further_address) =
            next.or_else(|| self.another_server(&[], key).map(|endpoint| (endpoint, false)))?;
        Some(self.begin(endpoint, is_further_address))
    }

    /// Whether there may be one more attempt after a connection could not be made. `retries` counts servers. Addresses of
    /// one server do not count, as long as they refuse at once.
    pub fn may_retry(&self, tried: &[Attempt]) -> bool {
        let timed_out = tried.iter().filter(|attempt| attempt.timed_out).count();
        tried.len() <= MAX_RETRIES
            && timed_out <= self.config.retries.max(1)
            && (self.may_try_another(tried)
                || tried.iter().any(|attempt| self.has_further_address(attempt.endpoint.server, tried)))
    }

    fn begin(&self, endpoint: Endpoint, is_further_address: bool) -> Attempt {
        let in_flight = InFlight::begin(&self.servers[endpoint.server].metrics.in_flight);
        Attempt { endpoint, is_further_address, timed_out: false, in_flight: Some(in_flight) }
    }

    fn may_try_another(&self, tried: &[Attempt]) -> bool {
        tried.iter().filter(|attempt| !attempt.is_further_address).count() <= self.config.retries
    }

    fn first_endpoint(&self, key: Option<u64>) -> Option<Endpoint> {
        self.endpoint(self.balancer.first(key)?, key).or_else(|| self.another_server(&[], key))
    }

    /// Returns a server that has an address and was not tried.
    fn another_server(&self, tried: &[Attempt], key: Option<u64>) -> Option<Endpoint> {
        let is_candidate = |server: usize| {
            self.servers[server].address.has_address() && tried.iter().all(|attempt| attempt.endpoint.server != server)
        };
        self.endpoint(self.balancer.among(is_candidate, key)?, key)
    }

    /// Returns an address of a server that was not tried; addresses take turns.
    fn further_address(&self, server: usize, tried: &[Attempt]) -> Option<Endpoint> {
        let addresses = self.untried_addresses(server, tried);
        if addresses.is_empty() {
            return None;
        }
        let turn = self.next_further_address.fetch_add(1, Ordering::Relaxed);
        Some(Endpoint { server, address: addresses[turn % addresses.len()] })
    }

    fn has_further_address(&self, server: usize, tried: &[Attempt]) -> bool {
        !self.untried_addresses(server, tried).is_empty()
    }

    fn untried_addresses(&self, server: usize, tried: &[Attempt]) -> Vec<SocketAddr> {
        let is_new = |address: &SocketAddr| {
            let endpoint = Endpoint { server, address: *address };
            tried.iter().all(|attempt| attempt.endpoint != endpoint)
        };
        self.servers[server].address.addresses().into_iter().filter(is_new).collect()
    }

    fn endpoint(&self, server: usize, key: Option<u64>) -> Option<Endpoint> {
        self.servers[server].address.address(key).map(|address| Endpoint { server, address })
    }
}
