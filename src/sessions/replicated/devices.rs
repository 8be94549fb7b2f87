//! Device records: one server decides each compare-and-swap, and a second one keeps a copy for when the first is
//! unavailable.
//!
//! The first server for a record's key decides, or the next while that one is unavailable: otherwise one server that is
//! down would keep its share of all browsers from signing in. Two edges that do not reach the same servers may then decide
//! differently; which of two sessions is the older one is found out when the browser next visits the sign-on host.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Cluster;
use super::layout::NodeHandle;
use super::node::Node;
use crate::sessions::device::later;
use crate::sessions::instrumented::Operation;
use crate::sessions::{DeviceKey, DeviceRecord, StoreError, Swap};

/// Servers that hold a record, if there are as many.
const COPIES: usize = 2;

impl<N: Node> Cluster<N> {
    /// Returns the latest record of all servers that may hold one; at least one of them must answer.
    pub async fn read_device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let layout = self.layout.load_full();
        let mut handles = layout.candidates(key.as_str(), COPIES);
        for previous in layout.first_and_previous(key.as_str(), Instant::now()) {
            if handles.iter().all(|handle| handle.name != previous.name) {
                handles.push(previous);
            }
        }
        let mut latest = Err(StoreError::TimedOut);
        for read in join_all(handles.iter().map(|handle| read(handle, key))).await {
            latest = match (latest, read) {
                (Ok(one), Ok(other)) => Ok(later(one, other)),
                (Ok(one), Err(_)) => Ok(one),
                (Err(_), read) => read,
            };
        }
        latest
    }

    /// Swaps the record on the first server that answers. A server that holds another record than `seen` returns it, and the
    /// caller tries again with that one: by then it has looked at the sessions of both.
    pub async fn compare_and_swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let handles = self.layout.load().candidates(key.as_str(), COPIES);
        let mut outcome = Err(StoreError::TimedOut);
        let mut decided = 0;
        for (index, handle) in handles.iter().enumerate() {
            outcome = swap(handle, key, seen, next, ttl).await;
            decided = index;
            if !outcome.as_ref().is_err_and(StoreError::is_unavailable) {
                break;
            }
        }
        if outcome == Ok(Swap::Done) {
            for handle in handles.iter().skip(decided + 1) {
                // A server without the copy only knows less, so a failure does no harm.
                copy(handle, key, next, ttl).await.ok();
            }
        }
        outcome
    }
}

async fn read<N: Node>(handle: &Arc<NodeHandle<N>>, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
    handle.monitor.observe(Operation::Device, handle.node.device(key), Option::is_some).await
}

async fn swap<N: Node>(
    handle: &Arc<NodeHandle<N>>,
    key: &DeviceKey,
    seen: Option<&DeviceRecord>,
    next: &DeviceRecord,
    ttl: Duration,
) -> Result<Swap, StoreError> {
    let swapped = handle.node.swap_device(key, seen, next, ttl);
    handle.monitor.observe(Operation::SwapDevice, swapped, |swap| *swap == Swap::Done).await
}

/// Copies the record, unless a later one is there. The first server has let two concurrent swaps through one after the
/// other, and the number says in which order, whatever the order in which their copies arrive.
async fn copy<N: Node>(
    handle: &Arc<NodeHandle<N>>,
    key: &DeviceKey,
    record: &DeviceRecord,
    ttl: Duration,
) -> Result<(), StoreError> {
    let stored = read(handle, key).await?;
    if stored.as_ref().is_none_or(|stored| stored.number < record.number) {
        swap(handle, key, stored.as_ref(), record, ttl).await?;
    }
    Ok(())
}
