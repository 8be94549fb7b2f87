//! Asking for a session: of one server, or of all that may hold it, and what is set right because of their answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Cluster;
use super::layout::{NodeHandle, Replica};
use super::node::Node;
use super::resolve::{Repair, ReplicaReply, resolve};
use crate::sessions::instrumented::Operation;
use crate::sessions::{Found, Held, SessionKey, StoreError};

impl<M: Node> Cluster<M> {
    async fn look_up(
        handle: &NodeHandle<M>,
        key: &SessionKey,
        slide: Option<Duration>,
    ) -> Result<Option<Held>, StoreError> {
        let lives = |held: &Option<Held>| matches!(held, Some(Held::Session(_)));
        handle.monitor.observe(Operation::Find, handle.node.look_up(key, slide), lives).await
    }

    pub async fn find_once(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let layout = self.layout.load_full();
        let Some(handle) = layout.only_replica(key.as_str()) else { return self.read_all(key, slide).await };
        Ok(match Self::look_up(handle, key, slide).await? {
            None => Found::Missing,
            Some(Held::Session(record)) => Found::Active(record),
            Some(Held::Ended(tombstone)) => {
                if slide.is_some() {
                    self.repairer.write_tombstone(Arc::clone(handle), key, tombstone);
                }
                Found::Ended
            }
        })
    }

    /// Of several servers, what all their words come to.
    async fn read_all(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        let replicas = self.replicas(key.as_str());
        let words = join_all(replicas.iter().map(async |replica| {
            let said = Self::look_up(&replica.handle, key, slide.filter(|_| replica.is_current)).await;
            let unavailable_for = if said.is_ok() { Duration::ZERO } else { replica.handle.node.unavailable_for() };
            ReplicaReply { said, unavailable_for, is_current: replica.is_current }
        }));
        let words = words.await;
        let belonging = words.iter().filter(|word| word.is_current);
        let silent = belonging.clone().filter(|word| word.said.is_err()).count();
        if silent > 0 && 2 * silent >= belonging.count() {
            self.metrics.minority.inc();
        }
        let resolution = resolve(&words);
        self.repair(&replicas, &words, key, slide, &resolution.found, resolution.repair);
        resolution.found
    }

    fn repair(
        &self,
        replicas: &[Replica<M>],
        words: &[ReplicaReply],
        key: &SessionKey,
        slide: Option<Duration>,
        found: &Result<Found, StoreError>,
        repair: Repair,
    ) {
        match (repair, found, slide) {
            // Without a slide it is not known how long the session may still idle.
            (Repair::Copy(places), Ok(Found::Active(record)), Some(ttl)) => {
                for place in places {
                    self.repairer.copy(Arc::clone(&replicas[place].handle), key, record, ttl);
                }
            }
            // The slide has shortened the life of the tombstones that it met.
            (Repair::WriteTombstone(tombstone, _), _, Some(_)) => {
                for (replica, _) in replicas.iter().zip(words).filter(|(_, word)| word.said.is_ok()) {
                    self.repairer.write_tombstone(Arc::clone(&replica.handle), key, tombstone);
                }
            }
            (Repair::WriteTombstone(tombstone, places), _, None) => {
                for place in places {
                    self.repairer.write_tombstone(Arc::clone(&replicas[place].handle), key, tombstone);
                }
            }
            _ => {}
        }
    }
}
