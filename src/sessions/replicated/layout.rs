//! The servers of a cluster, and which of them a key belongs to. A layout is immutable; a reload replaces it.
//!
//! After a change of the list the previous layouts are read as well, for as long as a session may be idle: users stay
//! signed in, and their sessions move to the new servers as they are used. Copies in a previous layout are not slid, so no
//! copy outlives the time for which it is read, and for which the end of its session is written to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::{Node, NodeConfig};
use super::ring::Ring;
use crate::sessions::instrumented::{StoreMonitor, StoreMonitors};

/// Previous layouts that are read; a further change of the list drops the oldest.
const MAX_PREVIOUS: usize = 8;

/// A list of servers that was in use before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousLayout {
    pub servers: Vec<NodeConfig>,
    pub copies: usize,
    /// How much longer the sessions on these servers are read.
    pub keep: Duration,
}

/// A server with its name and its monitor.
pub struct NodeHandle<N> {
    pub name: String,
    pub node: N,
    pub monitor: StoreMonitor,
}

pub struct Layout<N> {
    pub handles: Vec<Arc<NodeHandle<N>>>,
    servers: Vec<NodeConfig>,
    ring: Ring,
    copies: usize,
    /// The latest comes first. A previous layout has no previous ones itself.
    previous: Vec<Previous<N>>,
}

struct Previous<N> {
    layout: Arc<Layout<N>>,
    until: Instant,
}

impl<N> Clone for Previous<N> {
    fn clone(&self) -> Self {
        Self { layout: Arc::clone(&self.layout), until: self.until }
    }
}

/// A server that may hold a key.
pub struct Replica<N> {
    pub handle: Arc<NodeHandle<N>>,
    /// False when the server is read only because it held the key in a previous layout.
    pub is_current: bool,
}

impl<N> NodeHandle<N> {
    fn new(server: &NodeConfig, node: N, monitors: &StoreMonitors) -> Arc<Self> {
        let name = server.name.clone();
        Arc::new(Self { monitor: monitors.monitor(&name), name, node })
    }
}

impl<N: Node> Layout<N> {
    pub fn new<E>(
        servers: &[NodeConfig],
        copies: usize,
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<N, E>,
    ) -> Result<Self, E> {
        let handles = servers.iter().map(|server| Ok(NodeHandle::new(server, connect(server)?, monitors)));
        Ok(Self::of(servers, copies, handles.collect::<Result<_, E>>()?))
    }

    fn of(servers: &[NodeConfig], copies: usize, handles: Vec<Arc<NodeHandle<N>>>) -> Self {
        let ring = Ring::new(servers);
        Self { handles, servers: servers.to_vec(), ring, copies: copies.max(1), previous: Vec::new() }
    }

    /// Returns the layout that follows this one. Servers that stay, or come back, keep their connections. Sessions are still
    /// read from where they belonged before, for `keep`.
    pub fn next<E>(
        self: &Arc<Self>,
        servers: &[NodeConfig],
        copies: usize,
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<N, E>,
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
            next.previous.push(Previous { layout, until: now + keep });
        }
        next.previous.extend(self.previous.iter().filter(|previous| now < previous.until).cloned());
        next.previous.truncate(MAX_PREVIOUS);
        Ok(next)
    }

    /// Returns this layout with further previous layouts, the latest first. Those that name no server for any key that is
    /// not read already are left out.
    pub fn with_previous<E>(
        &self,
        previous: &[PreviousLayout],
        monitors: &StoreMonitors,
        mut connect: impl FnMut(&NodeConfig) -> Result<N, E>,
        now: Instant,
    ) -> Result<Self, E> {
        let mut handles = self.all_nodes(now);
        let mut next = Self::of(&self.servers, self.copies, self.handles.clone());
        next.previous = self.previous.clone();
        for PreviousLayout { servers, copies, keep } in previous {
            let is_covered_by = |layout: &Self| sorted(&layout.servers) == sorted(servers) && *copies <= layout.copies;
            if is_covered_by(&next) || next.previous.iter().any(|earlier| is_covered_by(&earlier.layout)) {
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
            let handles_then = servers.iter().map(&mut handle).collect::<Result<_, E>>()?;
            let layout = Arc::new(Self::of(servers, *copies, handles_then));
            next.previous.push(Previous { layout, until: now + *keep });
        }
        next.previous.truncate(MAX_PREVIOUS);
        Ok(next)
    }

    /// Returns the one server that holds `key`; `None` when several may hold it.
    pub fn only_replica(&self, key: &str) -> Option<&Arc<NodeHandle<N>>> {
        // The clock is read only when there are previous layouts.
        let may_be_several =
            self.copies > 1 || (!self.previous.is_empty() && self.previous(Instant::now()).next().is_some());
        (!may_be_several).then(|| self.first(key))
    }

    /// Returns the first server for `key`, which alone decides operations that must happen only once.
    pub fn first(&self, key: &str) -> &Arc<NodeHandle<N>> {
        match self.handles.as_slice() {
            [only] => only,
            handles => &handles[self.ring.first(key)],
        }
    }

    /// Returns [`first`](Self::first) and, where they differ, the first servers in the previous layouts.
    pub fn first_and_previous(&self, key: &str, now: Instant) -> Vec<Arc<NodeHandle<N>>> {
        let mut handles = vec![Arc::clone(self.first(key))];
        for layout in self.previous(now) {
            let first = layout.first(key);
            if handles.iter().all(|handle| handle.name != first.name) {
                handles.push(Arc::clone(first));
            }
        }
        handles
    }

    /// Returns the first `count` servers for `key`.
    pub fn candidates(&self, key: &str, count: usize) -> Vec<Arc<NodeHandle<N>>> {
        self.ring.replicas(key, count).into_iter().map(|index| Arc::clone(&self.handles[index])).collect()
    }

    /// Returns every server that may hold the session under `key`.
    pub fn replicas(&self, key: &str, now: Instant) -> Vec<Replica<N>> {
        let present = self.candidates(key, self.copies);
        let mut replicas: Vec<Replica<N>> =
            present.into_iter().map(|handle| Replica { handle, is_current: true }).collect();
        for layout in self.previous(now) {
            for handle in layout.candidates(key, layout.copies) {
                if replicas.iter().all(|replica| replica.handle.name != handle.name) {
                    replicas.push(Replica { handle, is_current: false });
                }
            }
        }
        replicas
    }

    /// Returns every server of this layout and of the previous ones.
    pub fn all_nodes(&self, now: Instant) -> Vec<Arc<NodeHandle<N>>> {
        let mut handles = self.handles.clone();
        for handle in self.previous(now).flat_map(|layout| &layout.handles) {
            if handles.iter().all(|other| other.name != handle.name) {
                handles.push(Arc::clone(handle));
            }
        }
        handles
    }

    fn previous(&self, now: Instant) -> impl Iterator<Item = &Layout<N>> {
        self.previous.iter().filter(move |previous| now < previous.until).map(|previous| &*previous.layout)
    }
}

/// Two lists are the same whatever the order of their servers.
fn sorted(servers: &[NodeConfig]) -> Vec<NodeConfig> {
    let mut servers = servers.to_vec();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}
