//! Listing the sessions of a cluster: the servers are scanned one after the other, a page of keys at a time. Each key that a
//! server lists is read on all servers that may hold it, so that several copies count as one session, and copies of a
//! session that has ended count as none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::layout::{Layout, NodeHandle};
use super::node::{KeyScan, Node, ScanPage, StoredResult};
use super::resolve::{ReplicaReply, resolve};
use crate::clock::UnixTime;
use crate::sessions::instrumented::{Operation, always};
use crate::sessions::listing::ListingBuilder;
use crate::sessions::{Found, Listed, Listing, SessionKey, StoreError, StoredValue};

/// A server that is being scanned.
struct NodeScan<N: Node> {
    handle: Arc<NodeHandle<N>>,
    scan: N::Scan,
    /// The first failure. No request is sent after it, so a dead server costs one deadline.
    failure: Option<StoreError>,
}

/// The keys of a page that are read on one server, as indices into the page.
type Indices = Vec<usize>;

pub async fn list<N: Node>(layout: &Layout<N>, user: Option<&str>, limit: usize) -> Listing {
    let mut servers: Vec<NodeScan<N>> =
        layout.all_nodes(Instant::now()).into_iter().map(|handle| NodeScan::new(&handle)).collect();
    let mut listing = ListingBuilder::new(user, limit);
    for at in 0..servers.len() {
        while !listing.is_full()
            && let Some(page) = servers[at].keys().await
        {
            let page: Vec<_> = page.into_iter().filter(|(key, _)| !listing.contains(key)).collect();
            add_page(&mut servers, at, layout, &page, &mut listing).await;
        }
    }
    for NodeScan { handle, failure, .. } in servers {
        if let Some(error) = failure {
            listing.add_failure(&handle.name, error);
        }
    }
    listing.finish()
}

/// Adds the active sessions of a page, as resolved from the replies of all servers that may hold them.
async fn add_page<N: Node>(
    servers: &mut [NodeScan<N>],
    at: usize,
    layout: &Layout<N>,
    page: &[(SessionKey, UnixTime)],
    listing: &mut ListingBuilder<'_>,
) {
    let reads = plan_reads(servers, at, layout, page);
    let results = join_all(servers.iter_mut().zip(&reads).map(async |(server, indices)| {
        let keys: Vec<SessionKey> = indices.iter().map(|index| page[*index].0.clone()).collect();
        server.look_up(&keys).await
    }))
    .await;
    let mut replies: Vec<Vec<(usize, ReplicaReply)>> = page.iter().map(|_| Vec::new()).collect();
    for (server, (indices, results)) in reads.into_iter().zip(results).enumerate() {
        for (index, result) in indices.into_iter().zip(results) {
            replies[index].push((server, ReplicaReply { result, unavailable_for: Duration::ZERO, is_current: true }));
        }
    }
    for ((key, idle_expires_at), replies) in page.iter().zip(replies) {
        let is_holder = |(_, reply): &&(usize, ReplicaReply)| matches!(reply.result, Ok(Some(StoredValue::Session(_))));
        let names = replies.iter().filter(is_holder).map(|(server, _)| servers[*server].handle.name.clone()).collect();
        let replies: Vec<ReplicaReply> = replies.into_iter().map(|(_, reply)| reply).collect();
        match resolve(&replies).found {
            Ok(Found::Active(record)) => {
                listing.add(Listed { key: key.clone(), record, idle_expires_at: *idle_expires_at, servers: names });
            }
            Ok(Found::Ended | Found::Missing) => {}
            // A damaged value says nothing about the server or about its other values, so it is only counted.
            Err(StoreError::Protocol { .. }) => listing.add_unreadable(key),
            // The failure of a server is reported once, at the end.
            Err(_) => {}
        }
    }
}

/// Returns for each server the keys to read there: a key is read on the server that listed it and on all others that may
/// hold it, in this layout or in a previous one.
fn plan_reads<N: Node>(
    servers: &[NodeScan<N>],
    at: usize,
    layout: &Layout<N>,
    page: &[(SessionKey, UnixTime)],
) -> Vec<Indices> {
    let mut reads: Vec<Indices> = servers.iter().map(|_| Indices::new()).collect();
    let now = Instant::now();
    for (key_index, (key, _)) in page.iter().enumerate() {
        let replicas = layout.replicas(key.as_str(), now);
        for (index, server) in servers.iter().enumerate() {
            if index == at || replicas.iter().any(|replica| replica.handle.name == server.handle.name) {
                reads[index].push(key_index);
            }
        }
    }
    reads
}

impl<N: Node> NodeScan<N> {
    fn new(handle: &Arc<NodeHandle<N>>) -> Self {
        Self { scan: handle.node.scan_keys(), handle: Arc::clone(handle), failure: None }
    }

    /// Returns the next page; `None` after the last page, or after a failure.
    async fn keys(&mut self) -> Option<ScanPage> {
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
        let results = match &self.failure {
            Some(error) => Err(error.clone()),
            None => self.handle.monitor.observe(Operation::List, self.scan.look_up(keys), always).await,
        };
        results.unwrap_or_else(|error| {
            self.failure = Some(error);
            // Nothing is known about the keys; the failure itself is reported once, for the server.
            keys.iter().map(|_| Err(StoreError::TimedOut)).collect()
        })
    }
}
