//! Looking a session up: on its only replica, or on all replicas that may hold it, with the read repair that follows from
//! their replies.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use super::layout::{NodeHandle, Replica};
use super::node::Node;
use super::resolve::{Repair, ReplicaReply, resolve};
use crate::sessions::instrumented::Operation;
use crate::sessions::{Found, SessionKey, StoreError, StoredValue};

impl<N: Node> Cluster<N> {
    async fn look_up(
        handle: &NodeHandle<N>,
        key: &SessionKey,
        slide: Option<Duration>,
    ) -> Result<Option<StoredValue>, StoreError> {
        let is_active = |value: &Option<StoredValue>| matches!(value, Some(StoredValue::Session(_)));
        handle.monitor.observe(Operation::Find, handle.node.look_up(key, slide), is_active).await
    }

    pub async fn find_once(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let layout = self.layout.load_full();
        let Some(handle) = layout.only_replica(key.as_str()) else { return self.read_all(key, slide).await };
        Ok(match Self::look_up(handle, key, slide).await? {
            None => Found::Missing,
            Some(StoredValue::Session(record)) => Found::Active(record),
            Some(StoredValue::Ended(tombstone)) => {
                // The slide has shortened the life of the tombstone, so the tombstone is written again.
                if slide.is_some() {
                    self.repairer.write_tombstone(Arc::clone(handle), key, tombstone);
                }
                Found::Ended
            }
        })
    }

    /// Reads all replicas of the key at once, and resolves their replies.
    async fn read_all(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let replicas = self.replicas(key.as_str());
        let replies = join_all(replicas.iter().map(async |replica| {
            // A copy in a previous layout is not slid, so it does not outlive the time for which it is read.
            let result = Self::look_up(&replica.handle, key, slide.filter(|_| replica.is_current)).await;
            let unavailable_for = if result.is_ok() { Duration::ZERO } else { replica.handle.node.unavailable_for() };
            ReplicaReply { result, unavailable_for, is_current: replica.is_current }
        }));
        let replies = replies.await;
        let current = replies.iter().filter(|reply| reply.is_current);
        let failed = current.clone().filter(|reply| reply.result.is_err()).count();
        if failed > 0 && 2 * failed >= current.count() {
            self.metrics.minority.inc();
        }
        let resolution = resolve(&replies);
        self.repair(&replicas, &replies, key, slide, &resolution.found, resolution.repair);
        resolution.found
    }

    fn repair(
        &self,
        replicas: &[Replica<N>],
        replies: &[ReplicaReply],
        key: &SessionKey,
        slide: Option<Duration>,
        found: &Result<Found, StoreError>,
        repair: Repair,
    ) {
        match (repair, found, slide) {
            // Without a slide it is unknown how long the session may still be idle, so nothing is copied.
            (Repair::Copy(indices), Ok(Found::Active(record)), Some(ttl)) => {
                for index in indices {
                    self.repairer.copy(Arc::clone(&replicas[index].handle), key, record, ttl);
                }
            }
            // The slide has shortened the life of the tombstones that were read, so each of them is written again.
            (Repair::WriteTombstone(tombstone, _), _, Some(_)) => {
                for (replica, _) in replicas.iter().zip(replies).filter(|(_, reply)| reply.result.is_ok()) {
                    self.repairer.write_tombstone(Arc::clone(&replica.handle), key, tombstone);
                }
            }
            (Repair::WriteTombstone(tombstone, indices), _, None) => {
                for index in indices {
                    self.repairer.write_tombstone(Arc::clone(&replicas[index].handle), key, tombstone);
                }
            }
            _ => {}
        }
    }
}
