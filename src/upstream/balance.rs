//! The attempts of a request: which server it goes to, at which of its addresses, and whether another one may be tried.
//!
//! The pool's [`Balancer`](super::balancer::Balancer) chooses servers; those that may not take the request (ejected, set so
//! by an administrator, busy) are passed over, and backup servers come after all others. A connection that is refused costs
//! no time and says nothing of the other addresses of the same server, so these come next; one that is not answered may
//! mean the whole machine, so another server comes first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Pool;
use super::balancer::{Balancer, Candidates, WHOLE};
use super::ejection::Admission;
use super::server_address::First;
use super::server_state::{AddressState, Administrative, InFlight};
use crate::config::MAX_RETRIES;

/// An address of one server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The index of the server in its pool.
    pub server: usize,
    /// `None` for a Unix socket, which is the only address of its server.
    pub address: Option<SocketAddr>,
}

/// What a request requires of the server that it gets.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Requests with the same key go to the same server, as long as that can be reached.
    pub key: Option<u64>,
    /// Whether it is a GET or HEAD, which may be sent again.
    pub is_safe: bool,
    pub now: Instant,
}

/// One attempt of a request. It counts as in flight at its server until it has failed or is dropped with the request.
pub struct Attempt {
    pub endpoint: Endpoint,
    begun: Instant,
    /// Whether its server was tried before, at another address.
    is_further_address: bool,
    outcome: Outcome,
    in_flight: Option<InFlight>,
}

/// What an attempt has come to, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    UnderWay,
    /// The connection could not be made.
    NotConnected,
    /// The connection was not answered in time.
    ConnectTimedOut,
    /// A kept connection was closed before anything came on it, which says nothing of the server.
    KeptClosed,
    /// The connection was there, and no response came.
    NoResponse,
}

/// Whether there may be one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayRetry {
    No,
    /// At another address of the same server, which counts neither as a retry nor in the budget.
    FurtherAddress,
    Yes,
}

impl Demand {
    fn first(self) -> First {
        self.key.map_or(First::InTurn, First::OfKey)
    }
}

impl Attempt {
    /// The attempt has failed.
    pub fn failed(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.end();
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub fn is_further_address(&self) -> bool {
        self.is_further_address
    }

    /// The attempt is over, and is kept for the choice of the next one.
    pub fn end(&mut self) {
        self.in_flight = None;
    }

    /// The state of its address, until it is over.
    pub fn address(&self) -> Option<&Arc<AddressState>> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.address)
    }

    /// Whether it shows whether an ejected address is well again.
    pub fn is_trial(&self) -> bool {
        self.in_flight.as_ref().is_some_and(InFlight::is_trial)
    }
}

/// The servers of a pool that may take a request which has made the attempts in `tried`.
struct Admitted<'a, A> {
    pool: &'a Pool,
    tried: &'a [Attempt],
    /// Servers that were chosen and had become busy.
    passed_over: &'a [usize],
    admit: A,
    now: Instant,
}

impl<A: Fn(&AddressState) -> Admission> Candidates for Admitted<'_, A> {
    fn share(&self, index: usize) -> u8 {
        let pool = self.pool;
        let is_candidate =
            !self.passed_over.contains(&index) && pool.is_untried(index, self.tried) && pool.admits(index, &self.admit);
        if is_candidate { pool.share(index, &self.admit, self.now) } else { 0 }
    }

    fn in_flight(&self, index: usize) -> u64 {
        self.pool.servers[index].state.in_flight() as u64
    }
}

impl Pool {
    /// Returns the next attempt of a request whose client's cookie names an endpoint: there, if it may take the request.
    pub fn select_named(&self, named: Option<Endpoint>, tried: &[Attempt], demand: Demand) -> Option<Attempt> {
        named.and_then(|named| self.keep(named, tried, demand)).or_else(|| self.select(tried, demand))
    }

    /// Begins an attempt at the server of a client. A server that is draining keeps its clients, and a backup server only
    /// while no other one may take them. One that had closed a kept connection is tried once more, on a new one.
    fn keep(&self, named: Endpoint, tried: &[Attempt], demand: Demand) -> Option<Attempt> {
        const ATTEMPTS: usize = 2;
        let mut there = tried.iter().filter(|attempt| attempt.endpoint == named);
        let may_be_tried = there.clone().count() < ATTEMPTS
            && there.all(|attempt| matches!(attempt.outcome, Outcome::KeptClosed | Outcome::UnderWay));
        let server = self.servers.get(named.server).filter(|_| may_be_tried)?;
        let in_turn = |address: &AddressState| address.may_take(demand.now, demand.is_safe);
        let is_primary = |index: &usize| !self.config.servers[*index].is_backup;
        let mut primaries = (0..self.servers.len()).filter(is_primary);
        let leaves = !is_primary(&named.server)
            && primaries.any(|index| self.is_untried(index, tried) && self.admits(index, in_turn));
        if leaves || server.state.administrative() == Administrative::Disabled {
            return None;
        }
        let at_named = |address: &AddressState| match address.target.address() == named.address {
            true => in_turn(address),
            false => Admission::Closed,
        };
        self.begin(named.server, First::Further, at_named, demand.now)
    }

    /// Returns the next attempt of a request that has made those in `tried`. `None` when no server may take it.
    pub fn select(&self, tried: &[Attempt], demand: Demand) -> Option<Attempt> {
        let Some(last) = tried.last() else {
            let in_turn = |address: &AddressState| address.may_take(demand.now, demand.is_safe);
            let servers = Admitted { pool: self, tried, passed_over: &[], admit: in_turn, now: demand.now };
            let turn = self.balancer.first(&servers, demand.key);
            return turn
                .and_then(|server| self.take(server, demand.first(), in_turn, demand.now))
                .or_else(|| self.first_elsewhere(demand, in_turn));
        };
        let another = || self.may_try_another(tried).then(|| self.another_server(tried, demand)).flatten();
        let further = |server| self.further_address(server, tried, demand.now);
        match last.outcome {
            Outcome::NotConnected => further(last.endpoint.server).or_else(another),
            Outcome::ConnectTimedOut => {
                another().or_else(|| tried.iter().find_map(|attempt| further(attempt.endpoint.server)))
            }
            // The request has had its turn, so a repeated attempt does not take another one.
            Outcome::KeptClosed | Outcome::UnderWay => another().or_else(|| self.again(last.endpoint, demand.now)),
            Outcome::NoResponse => another(),
        }
    }

    /// Whether there may be one more attempt after the last one has failed. `retry.attempts` counts servers. Addresses of
    /// one server do not count, as long as they refuse at once.
    pub fn may_retry(&self, tried: &[Attempt]) -> MayRetry {
        let Some(last) = tried.last().filter(|_| tried.len() <= MAX_RETRIES) else { return MayRetry::No };
        let another = self.may_try_another(tried) && self.has_another_server(tried);
        let further = |server| self.has_further_address(server, tried);
        match last.outcome {
            Outcome::NotConnected if further(last.endpoint.server) => MayRetry::FurtherAddress,
            Outcome::ConnectTimedOut => {
                let timed_out = tried.iter().filter(|attempt| attempt.outcome == Outcome::ConnectTimedOut).count();
                let is_bearable = timed_out <= self.config.retry.attempts.max(1);
                match (is_bearable, another) {
                    (true, true) => MayRetry::Yes,
                    (true, false) if tried.iter().any(|attempt| further(attempt.endpoint.server)) => {
                        MayRetry::FurtherAddress
                    }
                    _ => MayRetry::No,
                }
            }
            Outcome::KeptClosed if self.may_try_another(tried) => MayRetry::Yes,
            Outcome::NotConnected | Outcome::NoResponse if another => MayRetry::Yes,
            _ => MayRetry::No,
        }
    }

    /// Begins an attempt at a server, at the first of its addresses that `admit` lets it go to.
    fn take(
        &self,
        index: usize,
        first: First,
        admit: impl Fn(&AddressState) -> Admission,
        now: Instant,
    ) -> Option<Attempt> {
        if !self.servers[index].state.is_active() {
            return None;
        }
        if self.config.slow_start.is_zero() {
            return self.begin(index, first, admit, now);
        }
        // Of the addresses of a name one may be in its slow start.
        let by_share = |address: &AddressState| {
            let share = address.slow_start.share(now, self.config.slow_start);
            if share == WHOLE || fastrand::u8(..) < share { admit(address) } else { Admission::Closed }
        };
        self.begin(index, first, by_share, now).or_else(|| self.begin(index, First::Further, &admit, now))
    }

    /// The same, whatever an administrator has set for the server.
    fn begin(
        &self,
        index: usize,
        first: First,
        admit: impl Fn(&AddressState) -> Admission,
        begun: Instant,
    ) -> Option<Attempt> {
        let server = &self.servers[index];
        server.address.find(first, |address| {
            let is_trial = match admit(address) {
                Admission::Closed => return None,
                Admission::Open => false,
                Admission::Trial => true,
            };
            let in_flight = InFlight::begin(address, server.limit, is_trial)?;
            let endpoint = Endpoint { server: index, address: address.target.address() };
            let outcome = Outcome::UnderWay;
            Some(Attempt { endpoint, begun, is_further_address: false, outcome, in_flight: Some(in_flight) })
        })
    }

    /// The server whose turn it is may not take the request.
    #[cold]
    fn first_elsewhere(&self, demand: Demand, in_turn: impl Fn(&AddressState) -> Admission) -> Option<Attempt> {
        let in_turn = self.elsewhere(&[], demand, in_turn);
        // Where a server is only busy, the request waits nowhere. Where all are ejected, one of them gets it, so that the
        // first one that is well again is noticed at once.
        in_turn
            .or_else(|| self.is_all_out_of_turn().then(|| self.elsewhere(&[], demand, |_| Admission::Open)).flatten())
    }

    fn is_all_out_of_turn(&self) -> bool {
        let mut active = self.servers.iter().filter(|server| server.state.is_active());
        active.all(|server| !server.address.any(AddressState::takes_turns))
    }

    /// Begins an attempt at a server that was not tried; at a backup server where no other one may take it.
    fn elsewhere(
        &self,
        tried: &[Attempt],
        demand: Demand,
        admit: impl Fn(&AddressState) -> Admission,
    ) -> Option<Attempt> {
        self.balancers().find_map(|balancer| {
            // A server that was chosen may have become busy by the time when the attempt begins.
            let mut passed_over = Vec::new();
            loop {
                let servers = Admitted { pool: self, tried, passed_over: &passed_over, admit: &admit, now: demand.now };
                let index = balancer.another(&servers, demand.key)?;
                match self.take(index, demand.first(), &admit, demand.now) {
                    Some(attempt) => return Some(attempt),
                    None => passed_over.push(index),
                }
            }
        })
    }

    fn balancers(&self) -> impl Iterator<Item = &Balancer> {
        [Some(&self.balancer), self.backups.as_ref()].into_iter().flatten()
    }

    fn is_untried(&self, index: usize, tried: &[Attempt]) -> bool {
        tried.iter().all(|attempt| attempt.endpoint.server != index)
    }

    fn admits(&self, index: usize, admit: impl Fn(&AddressState) -> Admission) -> bool {
        let server = &self.servers[index];
        server.state.is_active()
            && server.state.in_flight() < server.limit
            && server.address.any(|address| admit(address) != Admission::Closed)
    }

    /// Returns how much of its weight a server has: that of the address that has the most.
    fn share(&self, index: usize, admit: impl Fn(&AddressState) -> Admission, now: Instant) -> u8 {
        if self.config.slow_start.is_zero() {
            return WHOLE;
        }
        let mut share = 1;
        self.servers[index].address.find(First::OfKey(0), |address| {
            if admit(address) != Admission::Closed {
                share = share.max(address.slow_start.share(now, self.config.slow_start));
            }
            (share == WHOLE).then_some(())
        });
        share
    }

    fn may_try_another(&self, tried: &[Attempt]) -> bool {
        tried.iter().filter(|attempt| !attempt.is_further_address).count() <= self.config.retry.attempts
    }

    /// A request is not sent again to a server that fails too.
    fn another_server(&self, tried: &[Attempt], demand: Demand) -> Option<Attempt> {
        self.elsewhere(tried, demand, if_good)
    }

    fn has_another_server(&self, tried: &[Attempt]) -> bool {
        (0..self.servers.len()).any(|index| self.is_untried(index, tried) && self.admits(index, if_good))
    }

    /// Begins an attempt at an address of a server that was not tried; addresses take turns.
    fn further_address(&self, server: usize, tried: &[Attempt], now: Instant) -> Option<Attempt> {
        let mut attempt = self.take(server, First::Further, if_untried(server, tried), now)?;
        attempt.is_further_address = true;
        Some(attempt)
    }

    fn has_further_address(&self, server: usize, tried: &[Attempt]) -> bool {
        self.admits(server, if_untried(server, tried))
    }

    /// Begins another attempt at the same address.
    fn again(&self, endpoint: Endpoint, now: Instant) -> Option<Attempt> {
        let there = |address: &AddressState| {
            if address.target.address() == endpoint.address { Admission::Open } else { Admission::Closed }
        };
        self.take(endpoint.server, First::Further, there, now)
    }
}

fn if_good(address: &AddressState) -> Admission {
    if address.is_good() { Admission::Open } else { Admission::Closed }
}

fn if_untried(server: usize, tried: &[Attempt]) -> impl Fn(&AddressState) -> Admission {
    move |address| {
        let endpoint = Endpoint { server, address: address.target.address() };
        let is_untried = tried.iter().all(|attempt| attempt.endpoint != endpoint);
        if is_untried { if_good(address) } else { Admission::Closed }
    }
}
