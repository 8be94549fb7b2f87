//! Which servers there are, and which of them a key belongs to. Immutable; a reload puts another in its place.
//!
//! After a change of the list the former layouts are asked as well, for as long as a session may idle: so whoever
//! is signed in stays so, and their sessions move as they are used. What lies there is not slid, so that no copy
//! outlives the time for which it is asked for and told of an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Member;
use super::ring::Ring;
use crate::sessions::instrumented::{Watcher, Watchers};

/// Former layouts that are asked; a change of the list beyond that forgets the oldest.
const MOST_FORMER: usize = 8;

/// A server as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its address as it is written: it also says where on the ring the server is.
    pub name: String,
    pub weight: u32,
}

/// A list that was in use before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    pub servers: Vec<Server>,
    pub copies: usize,
    /// For how long yet what lies there is asked for.
    pub keep: Duration,
}

/// A server with its watcher.
pub struct Seat<M> {
    pub name: String,
    pub member: M,
    pub watcher: Watcher,
}

pub struct Layout<M> {
    pub seats: Vec<Arc<Seat<M>>>,
    servers: Vec<Server>,
    ring: Ring,
    copies: usize,
    /// The last one first. They have no former ones themselves.
    former: Vec<Before<M>>,
}

struct Before<M> {
    layout: Arc<Layout<M>>,
    until: Instant,
}

impl<M> Clone for Before<M> {
    fn clone(&self) -> Self {
        Self { layout: Arc::clone(&self.layout), until: self.until }
    }
}

/// One of the servers that may hold a key.
pub struct Owner<M> {
    pub seat: Arc<Seat<M>>,
    /// False when it is asked only because it held the key in a former layout.
    pub belongs: bool,
}

impl<M> Seat<M> {
    fn new(server: &Server, member: M, watchers: &Watchers) -> Arc<Self> {
        let name = server.name.clone();
        Arc::new(Self { watcher: watchers.watcher(&name), name, member })
    }
}

impl<M: Member> Layout<M> {
    pub fn new<E>(
        servers: &[Server],
        copies: usize,
        watchers: &Watchers,
        mut connect: impl FnMut(&Server) -> Result<M, E>,
    ) -> Result<Self, E> {
        let seats = servers.iter().map(|server| Ok(Seat::new(server, connect(server)?, watchers)));
        Ok(Self::of(servers, copies, seats.collect::<Result<_, E>>()?))
    }

    fn of(servers: &[Server], copies: usize, seats: Vec<Arc<Seat<M>>>) -> Self {
        let ring = Ring::new(servers);
        Self { seats, servers: servers.to_vec(), ring, copies: copies.max(1), former: Vec::new() }
    }

    /// The layout that follows this one. Servers that stay, or come back, keep their connections. What lies where it
    /// belonged before is asked for there for `keep`.
    pub fn next<E>(
        self: &Arc<Self>,
        servers: &[Server],
        copies: usize,
        watchers: &Watchers,
        mut connect: impl FnMut(&Server) -> Result<M, E>,
        now: Instant,
        keep: Duration,
    ) -> Result<Self, E> {
        let known = self.everybody(now);
        let seats = servers.iter().map(|server| match known.iter().find(|seat| seat.name == server.name) {
            Some(seat) => Ok(Arc::clone(seat)),
            None => Ok(Seat::new(server, connect(server)?, watchers)),
        });
        let mut next = Self::of(servers, copies, seats.collect::<Result<_, E>>()?);
        if sorted(&self.servers) != sorted(servers) || self.copies > copies {
            let layout = Arc::new(Self::of(&self.servers, self.copies, self.seats.clone()));
            next.former.push(Before { layout, until: now + keep });
        }
        next.former.extend(self.former.iter().filter(|former| now < former.until).cloned());
        next.former.truncate(MOST_FORMER);
        Ok(next)
    }

    /// This layout with others before it, the last one first. Those that say nothing new of where a key may lie are
    /// left out.
    pub fn after<E>(
        &self,
        former: &[Former],
        watchers: &Watchers,
        mut connect: impl FnMut(&Server) -> Result<M, E>,
        now: Instant,
    ) -> Result<Self, E> {
        let mut seats = self.everybody(now);
        let mut next = Self::of(&self.servers, self.copies, self.seats.clone());
        next.former = self.former.clone();
        for Former { servers, copies, keep } in former {
            let says_the_same = |layout: &Self| sorted(&layout.servers) == sorted(servers) && *copies <= layout.copies;
            if says_the_same(&next) || next.former.iter().any(|before| says_the_same(&before.layout)) {
                continue;
            }
            let mut seat = |server: &Server| match seats.iter().find(|seat| seat.name == server.name) {
                Some(seat) => Ok(Arc::clone(seat)),
                None => {
                    let seat = Seat::new(server, connect(server)?, watchers);
                    seats.push(Arc::clone(&seat));
                    Ok(seat)
                }
            };
            let seats_then = servers.iter().map(&mut seat).collect::<Result<_, E>>()?;
            let layout = Arc::new(Self::of(servers, *copies, seats_then));
            next.former.push(Before { layout, until: now + *keep });
        }
        next.former.truncate(MOST_FORMER);
        Ok(next)
    }

    /// The one server that `key` lies on; `None` when there may be several.
    pub fn only_owner(&self, key: &str) -> Option<&Arc<Seat<M>>> {
        // The clock is asked only after a change.
        let may_be_several =
            self.copies > 1 || (!self.former.is_empty() && self.former(Instant::now()).next().is_some());
        (!may_be_several).then(|| self.first(key))
    }

    /// The server that alone decides what must happen once.
    pub fn first(&self, key: &str) -> &Arc<Seat<M>> {
        match self.seats.as_slice() {
            [only] => only,
            seats => &seats[self.ring.first(key)],
        }
    }

    /// [`first`](Self::first) and, where they differ, those before the last changes.
    pub fn first_and_former(&self, key: &str, now: Instant) -> Vec<Arc<Seat<M>>> {
        let mut seats = vec![Arc::clone(self.first(key))];
        for former in self.former(now) {
            let before = former.first(key);
            if seats.iter().all(|seat| seat.name != before.name) {
                seats.push(Arc::clone(before));
            }
        }
        seats
    }

    /// The `count` servers that come first for `key`.
    pub fn candidates(&self, key: &str, count: usize) -> Vec<Arc<Seat<M>>> {
        self.ring.owners(key, count).into_iter().map(|index| Arc::clone(&self.seats[index])).collect()
    }

    /// Everybody who may hold the session under `key`.
    pub fn owners(&self, key: &str, now: Instant) -> Vec<Owner<M>> {
        let present = self.candidates(key, self.copies);
        let mut owners: Vec<Owner<M>> = present.into_iter().map(|seat| Owner { seat, belongs: true }).collect();
        for former in self.former(now) {
            for seat in former.candidates(key, former.copies) {
                if owners.iter().all(|owner| owner.seat.name != seat.name) {
                    owners.push(Owner { seat, belongs: false });
                }
            }
        }
        owners
    }

    /// Every server that may hold anything.
    pub fn everybody(&self, now: Instant) -> Vec<Arc<Seat<M>>> {
        let mut seats = self.seats.clone();
        for seat in self.former(now).flat_map(|former| &former.seats) {
            if seats.iter().all(|other| other.name != seat.name) {
                seats.push(Arc::clone(seat));
            }
        }
        seats
    }

    fn former(&self, now: Instant) -> impl Iterator<Item = &Layout<M>> {
        self.former.iter().filter(move |former| now < former.until).map(|former| &*former.layout)
    }
}

/// The order in which servers are listed says nothing.
fn sorted(servers: &[Server]) -> Vec<Server> {
    let mut servers = servers.to_vec();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}
