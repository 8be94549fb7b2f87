//! Which servers there are, and which of them a key is_current to. Immutable; a reload puts another in its place.
//!
//! After a change of the list the former layouts are asked as well, for as long as a session may idle: so whoever
//! is signed in stays so, and their sessions move as they are used. What lies there is not slid, so that no copy
//! outlives the time for which it is asked for and told of an end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use super::ring::Ring;
use crate::sessions::instrumented::{StoreMonitor, StoreMonitors};

/// PreviousLayout layouts that are asked; a change of the list beyond that forgets the oldest.
const MAX_FORMER: usize = 8;

/// A server as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its address as it is written: it also says where on the ring the server is.
    pub name: String,
    pub weight: u32,
}

/// A list that was in use before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousLayout {
    pub servers: Vec<NodeConfig>,
    pub copies: usize,
    /// For how long yet what lies there is asked for.
    pub keep: Duration,
}

/// A server with its monitor.
pub struct NodeHandle<M> {
    pub name: String,
    pub node: M,
    pub monitor: StoreMonitor,
}

pub struct Layout<M> {
    pub handles: Vec<Arc<NodeHandle<M>>>,
    servers: Vec<NodeConfig>,
    ring: Ring,
    copies: usize,
    /// The last one first. They have no former ones themselves.
    former: Vec<Previous<M>>,
}

struct Previous<M> {
    layout: Arc<Layout<M>>,
    until: Instant,
}

impl<M> Clone for Previous<M> {
    fn clone(&self) -> Self {
        Self { layout: Arc::clone(&self.layout), until: self.until }
    }
}

/// One of the servers that may hold a key.
pub struct Replica<M> {
    pub handle: Arc<NodeHandle<M>>,
    /// False when it is asked only because it held the key in a former layout.
    pub is_current: bool,
}

impl<M> NodeHandle<M> {
    fn new(server: &NodeConfig, node: M, monitors: &StoreMonitors) -> Arc<Self> {
        let name = server.name.clone();
        Arc::new(Self { monitor: monitors.monitor(&name), name, node })
    }
}

impl<M: Node> Layout<M> {
    pub fn new<E>(
        servers: &[NodeConfig],
        copies: usize,
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<M, E>,
    ) -> Result<Self, E> {
        let handles = servers.iter().map(|server| Ok(NodeHandle::new(server, connect(server)?, monitors)));
        Ok(Self::of(servers, copies, handles.collect::<Result<_, E>>()?))
    }

    fn of(servers: &[NodeConfig], copies: usize, handles: Vec<Arc<NodeHandle<M>>>) -> Self {
        let ring = Ring::new(servers);
        Self { handles, servers: servers.to_vec(), ring, copies: copies.max(1), former: Vec::new() }
    }

    /// The layout that follows this one. Servers that stay, or come back, keep their connections. What lies where it
    /// belonged before is asked for there for `keep`.
    pub fn next<E>(
        self: &Arc<Self>,
        servers: &[NodeConfig],
        copies: usize,
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<M, E>,
        now: Instant,
        keep: Duration,
    ) -> Result<Self, E> {
        let known = self.all_nodes(now);
        let handles = servers.iter().map(|server| match known.iter().find(|handle| handle.name == server.name) {
            Some(handle) => Ok(Arc::clone(handle)),
            None => Ok(NodeHandle::new(server, connect(server)?, monitors)),
        });
        let mut next = Self::of(servers, copies, handles.collect::<Result<_, E>>()?);
        if sorted(&self.servers) != sorted(servers) || self.copies > copies {
            let layout = Arc::new(Self::of(&self.servers, self.copies, self.handles.clone()));
            next.former.push(Previous { layout, until: now + keep });
        }
        next.former.extend(self.former.iter().filter(|former| now < former.until).cloned());
        next.former.truncate(MAX_FORMER);
        Ok(next)
    }

    /// This layout with others before it, the last one first. Those that say nothing new of where a key may lie are
    /// left out.
    pub fn after<E>(
        &self,
        former: &[PreviousLayout],
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<M, E>,
        now: Instant,
    ) -> Result<Self, E> {
        let mut handles = self.all_nodes(now);
        let mut next = Self::of(&self.servers, self.copies, self.handles.clone());
        next.former = self.former.clone();
        for PreviousLayout { servers, copies, keep } in former {
            let says_the_same = |layout: &Self| sorted(&layout.servers) == sorted(servers) && *copies <= layout.copies;
            if says_the_same(&next) || next.former.iter().any(|before| says_the_same(&before.layout)) {
                continue;
            }
            let mut handle = |server: &NodeConfig| match handles.iter().find(|handle| handle.name == server.name) {
                Some(handle) => Ok(Arc::clone(handle)),
                None => {
                    let handle = NodeHandle::new(server, connect(server)?, monitors);
                    handles.push(Arc::clone(&handle));
                    Ok(handle)
                }
            };
            let seats_then = servers.iter().map(&mut handle).collect::<Result<_, E>>()?;
            let layout = Arc::new(Self::of(servers, *copies, seats_then));
            next.former.push(Previous { layout, until: now + *keep });
        }
        next.former.truncate(MAX_FORMER);
        Ok(next)
    }

    /// The one server that `key` lies on; `None` when there may be several.
    pub fn only_replica(&self, key: &str) -> Option<&Arc<NodeHandle<M>>> {
        // The clock is asked only after a change.
        let may_be_several =
            self.copies > 1 || (!self.former.is_empty() && self.former(Instant::now()).next().is_some());
        (!may_be_several).then(|| self.first(key))
    }

    /// The server that alone decides what must happen once.
    pub fn first(&self, key: &str) -> &Arc<NodeHandle<M>> {
        match self.handles.as_slice() {
            [only] => only,
            handles => &handles[self.ring.first(key)],
        }
    }

    /// [`first`](Self::first) and, where they differ, those before the last changes.
    pub fn first_and_former(&self, key: &str, now: Instant) -> Vec<Arc<NodeHandle<M>>> {
        let mut handles = vec![Arc::clone(self.first(key))];
        for former in self.former(now) {
            let before = former.first(key);
            if handles.iter().all(|handle| handle.name != before.name) {
                handles.push(Arc::clone(before));
            }
        }
        handles
    }

    /// The `count` servers that come first for `key`.
    pub fn candidates(&self, key: &str, count: usize) -> Vec<Arc<NodeHandle<M>>> {
        self.ring.replicas(key, count).into_iter().map(|index| Arc::clone(&self.handles[index])).collect()
    }

    /// Everybody who may hold the session under `key`.
    pub fn replicas(&self, key: &str, now: Instant) -> Vec<Replica<M>> {
        let present = self.candidates(key, self.copies);
        let mut replicas: Vec<Replica<M>> =
            present.into_iter().map(|handle| Replica { handle, is_current: true }).collect();
        for former in self.former(now) {
            for handle in former.candidates(key, former.copies) {
                if replicas.iter().all(|replica| replica.handle.name != handle.name) {
                    replicas.push(Replica { handle, is_current: false });
                }
            }
        }
        replicas
    }

    /// Every server that may hold anything.
    pub fn all_nodes(&self, now: Instant) -> Vec<Arc<NodeHandle<M>>> {
        let mut handles = self.handles.clone();
        for handle in self.former(now).flat_map(|former| &former.handles) {
            if handles.iter().all(|other| other.name != handle.name) {
                handles.push(Arc::clone(handle));
            }
        }
        handles
    }

    fn former(&self, now: Instant) -> impl Iterator<Item = &Layout<M>> {
        self.former.iter().filter(move |former| now < former.until).map(|former| &*former.layout)
    }
}

/// The order in which servers are listed says nothing.
fn sorted(servers: &[NodeConfig]) -> Vec<NodeConfig> {
    let mut servers = servers.to_vec();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}
