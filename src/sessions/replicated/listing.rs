//! A look through all servers of a cluster, one after the other and a page of keys at a time: what one of them lists
//! is asked of all that may hold it, so that copies are one session and ghosts are none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::layout::{Layout, NodeHandle};
use super::node::{KeyScan, Node, StoredResult};
use super::resolve::{ReplicaReply, resolve};
use crate::clock::UnixTime;
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::listing::Gathering;
use crate::sessions::{Found, Held, Listed, Listing, SessionKey, StoreError};

/// A server that is being looked through.
struct NodeScan<M: Node> {
    handle: Arc<NodeHandle<M>>,
    scan: M::KeyScan,
    /// Set by the first failure, after which it is not asked again: a dead server costs one deadline.
    failure: Option<StoreError>,
}

/// What one server is asked of a page of keys: their places in the page.
type Places = Vec<usize>;

pub async fn list<M: Node>(layout: &Layout<M>, user: Option<&str>, limit: usize) -> Listing {
    let mut servers: Vec<NodeScan<M>> =
        layout.all_nodes(Instant::now()).into_iter().map(|handle| NodeScan::new(&handle)).collect();
    let mut gathering = Gathering::new(user, limit);
    for at in 0..servers.len() {
        while !gathering.is_full()
            && let Some(page) = servers[at].keys().await
        {
            let page: Vec<_> = page.into_iter().filter(|(key, _)| !gathering.has(key)).collect();
            take_up(&mut servers, at, layout, &page, &mut gathering).await;
        }
    }
    for NodeScan { handle, failure, .. } in servers {
        if let Some(error) = failure {
            gathering.failed(&handle.name, error);
        }
    }
    gathering.done()
}

/// Takes up those of a page that live, by the words of all that may hold them.
async fn take_up<M: Node>(
    servers: &mut [NodeScan<M>],
    at: usize,
    layout: &Layout<M>,
    page: &[(SessionKey, UnixTime)],
    gathering: &mut Gathering<'_>,
) {
    let asked = whom_to_ask(servers, at, layout, page);
    let said = join_all(servers.iter_mut().zip(&asked).map(async |(server, places)| {
        let keys: Vec<SessionKey> = places.iter().map(|place| page[*place].0.clone()).collect();
        server.look_up(&keys).await
    }))
    .await;
    let mut words: Vec<Vec<(usize, ReplicaReply)>> = page.iter().map(|_| Vec::new()).collect();
    for (server, (places, lies)) in asked.into_iter().zip(said).enumerate() {
        for (place, said) in places.into_iter().zip(lies) {
            words[place].push((server, ReplicaReply { said, unavailable_for: Duration::ZERO, is_current: true }));
        }
    }
    for ((key, idle_expires_at), words) in page.iter().zip(words) {
        let holds = |(_, word): &&(usize, ReplicaReply)| matches!(word.said, Ok(Some(Held::Session(_))));
        let names = words.iter().filter(holds).map(|(server, _)| servers[*server].handle.name.clone()).collect();
        let words: Vec<ReplicaReply> = words.into_iter().map(|(_, word)| word).collect();
        match resolve(&words).found {
            Ok(Found::Active(record)) => {
                gathering.add(Listed { key: key.clone(), record, idle_expires_at: *idle_expires_at, servers: names });
            }
            Ok(Found::Ended | Found::Missing) => {}
            // One bad value says nothing about the server, and hides none of its others: it is increment_counter.
            Err(StoreError::Protocol { .. }) => gathering.cannot_read(key),
            // A server's silence is told of once, at the end.
            Err(_) => {}
        }
    }
}

/// The server that listed a key, and all others that may hold it: those that it is_current to, or did before the last
/// change of the servers.
fn whom_to_ask<M: Node>(
    servers: &[NodeScan<M>],
    at: usize,
    layout: &Layout<M>,
    page: &[(SessionKey, UnixTime)],
) -> Vec<Places> {
    let mut asked: Vec<Places> = servers.iter().map(|_| Places::new()).collect();
    let now = Instant::now();
    for (place, (key, _)) in page.iter().enumerate() {
        let replicas = layout.replicas(key.as_str(), now);
        for (index, server) in servers.iter().enumerate() {
            if index == at || replicas.iter().any(|replica| replica.handle.name == server.handle.name) {
                asked[index].push(place);
            }
        }
    }
    asked
}

impl<M: Node> NodeScan<M> {
    fn new(handle: &Arc<NodeHandle<M>>) -> Self {
        Self { scan: handle.node.scan_keys(), handle: Arc::clone(handle), failure: None }
    }

    /// The next page; `None` when there is none, or no more answer.
    async fn keys(&mut self) -> Option<Vec<(SessionKey, UnixTime)>> {
        if self.failure.is_some() {
            return None;
        }
        match self.handle.monitor.observe(Operation::List, self.scan.keys(), Option::is_some).await {
            Ok(page) => page,
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }

    async fn look_up(&mut self, keys: &[SessionKey]) -> Vec<StoredResult> {
        if keys.is_empty() {
            return Vec::new();
        }
        let said = match &self.failure {
            Some(error) => Err(error.clone()),
            None => self.handle.monitor.observe(Operation::List, self.scan.look_up(keys), always).await,
        };
        said.unwrap_or_else(|error| {
            self.failure = Some(error);
            // Of the keys nothing is known: the failure is the server's, and is told of once.
            keys.iter().map(|_| Err(StoreError::TimedOut)).collect()
        })
    }
}
