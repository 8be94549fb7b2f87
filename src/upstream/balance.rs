//! Which server gets a request, at which of its addresses, and whether another one may be tried.
//!
//! Each request takes one turn. Its further attempts do not move it: they are spread, by weight, over what it has not
//! tried, or a server that is down would draw every turn of a pool of two upon itself. A connection that is refused costs no
//! time and says nothing of the other addresses of the same server, so these come next; one that is not answered may
//! mean the whole machine, so another server comes first.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::{Owner, Pool};
use crate::config::MOST_RETRIES;

/// An address of one server of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its place in the pool.
    pub server: usize,
    pub address: SocketAddr,
}

/// One attempt of a request.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub endpoint: Endpoint,
    /// Whether its server was tried before, at another address.
    is_further_address: bool,
    /// Whether connecting was waited for in vain.
    pub timed_out: bool,
}

impl Pool {
    /// Where the next attempt of a request goes that has made those in `tried`; what was tried already when nothing else
    /// is left. `None` when no server has an address. Requests of one `owner` go to one server.
    pub fn select(&self, tried: &[Attempt], owner: Option<Owner>) -> Option<Attempt> {
        let first = |endpoint| Attempt { endpoint, is_further_address: false, timed_out: false };
        let Some(last) = tried.last() else { return self.next_turn(owner).map(first) };
        let further = |server| self.further_address(server, tried);
        let another = || self.another(tried, owner).filter(|_| self.may_try_another(tried)).map(first);
        let next = if last.timed_out {
            another().or_else(|| tried.iter().find_map(|attempt| further(attempt.endpoint.server)))
        } else {
            further(last.endpoint.server).or_else(another)
        };
        // The turn is this request's no more.
        next.or_else(|| self.another(&[], owner).map(first))
    }

    /// Whether there may be one more attempt after a connection could not be made. `retries` counts servers. Addresses of
    /// one server do not count, as long as they refuse at once.
    pub fn may_retry(&self, tried: &[Attempt]) -> bool {
        let timed_out = tried.iter().filter(|attempt| attempt.timed_out).count();
        tried.len() <= MOST_RETRIES
            && timed_out <= self.config.retries.max(1)
            && (self.may_try_another(tried)
                || tried.iter().any(|attempt| self.further_address(attempt.endpoint.server, tried).is_some()))
    }

    fn may_try_another(&self, tried: &[Attempt]) -> bool {
        tried.iter().filter(|attempt| !attempt.is_further_address).count() <= self.config.retries
    }

    fn next_turn(&self, owner: Option<Owner>) -> Option<Endpoint> {
        if self.turns.is_empty() {
            return None;
        }
        let turn = match owner {
            // Its connections lead to one server, as long as that can be reached.
            Some(owner) => owner.key() as usize,
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        let server = self.turns[turn % self.turns.len()];
        self.endpoint(server, owner).or_else(|| self.another(&[], owner))
    }

    /// A server that has an address and was not tried, by weight.
    fn another(&self, tried: &[Attempt], owner: Option<Owner>) -> Option<Endpoint> {
        let fits = |server: &&usize| {
            self.servers[**server].place.has_address()
                && tried.iter().all(|attempt| attempt.endpoint.server != **server)
        };
        let turn = self.turn_among(self.turns.iter().filter(fits).count(), owner)?;
        let server = *self.turns.iter().filter(fits).nth(turn)?;
        self.endpoint(server, owner)
    }

    /// An address of a server that was not tried.
    fn further_address(&self, server: usize, tried: &[Attempt]) -> Option<Attempt> {
        let is_new = |address: &SocketAddr| {
            let endpoint = Endpoint { server, address: *address };
            tried.iter().all(|attempt| attempt.endpoint != endpoint)
        };
        let addresses: Vec<SocketAddr> = self.servers[server].place.addresses().into_iter().filter(is_new).collect();
        let address = addresses[self.turn_among(addresses.len(), None)?];
        Some(Attempt { endpoint: Endpoint { server, address }, is_further_address: true, timed_out: false })
    }

    fn endpoint(&self, server: usize, owner: Option<Owner>) -> Option<Endpoint> {
        self.servers[server].place.address(owner).map(|address| Endpoint { server, address })
    }

    fn turn_among(&self, count: usize, owner: Option<Owner>) -> Option<usize> {
        let turn =
            || owner.map_or_else(|| self.next_other.fetch_add(1, Ordering::Relaxed), |owner| owner.key() as usize);
        (count > 0).then(|| turn() % count)
    }
}
