//! Records of browsers: one server decides a swap, and another one has a copy, for when that one is away.
//!
//! The first server for a record's key decides, or the next while that one gives no answer: else one server that is down
//! would keep its share of all browsers from signing in. Two edges that do not reach the same servers may then decide
//! differently; which of two sessions is the older is found out when the browser next comes to the sign-on host.

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

/// Servers that a record lies on, where there are as many.
const PLACES: usize = 2;

impl<M: Node> Cluster<M> {
    /// The latest of what the servers say, of which one must answer.
    pub async fn device_anywhere(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let layout = self.layout.load_full();
        let mut handles = layout.candidates(key.as_str(), PLACES);
        for before in layout.first_and_former(key.as_str(), Instant::now()) {
            if handles.iter().all(|handle| handle.name != before.name) {
                handles.push(before);
            }
        }
        let mut answer = Err(StoreError::TimedOut);
        for said in join_all(handles.iter().map(|handle| read(handle, key))).await {
            answer = match (answer, said) {
                (Ok(one), Ok(other)) => Ok(later(one, other)),
                (Ok(one), Err(_)) => Ok(one),
                (Err(_), said) => said,
            };
        }
        answer
    }

    /// A server that holds another record than was seen says so, and is asked again with that: then what both name has
    /// been looked at.
    pub async fn swap_device_somewhere(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let handles = self.layout.load().candidates(key.as_str(), PLACES);
        let mut outcome = Err(StoreError::TimedOut);
        let mut decided = 0;
        for (place, handle) in handles.iter().enumerate() {
            outcome = swap(handle, key, seen, next, ttl).await;
            decided = place;
            if !outcome.as_ref().is_err_and(StoreError::is_unavailable) {
                break;
            }
        }
        if outcome == Ok(Swap::Done) {
            for handle in handles.iter().skip(decided + 1) {
                // Without its copy this server only says less.
                copy(handle, key, next, ttl).await.ok();
            }
        }
        outcome
    }
}

async fn read<M: Node>(handle: &Arc<NodeHandle<M>>, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
    handle.monitor.observe(Operation::Device, handle.node.device(key), Option::is_some).await
}

async fn swap<M: Node>(
    handle: &Arc<NodeHandle<M>>,
    key: &DeviceKey,
    seen: Option<&DeviceRecord>,
    next: &DeviceRecord,
    ttl: Duration,
) -> Result<Swap, StoreError> {
    let swapped = handle.node.swap_device(key, seen, next, ttl);
    handle.monitor.observe(Operation::SwapDevice, swapped, |swap| *swap == Swap::Done).await
}

/// Unless a later record is there. Of two swaps at once the first server has let one through after the other, and the
/// number says which, in whatever order their copies arrive.
async fn copy<M: Node>(
    handle: &Arc<NodeHandle<M>>,
    key: &DeviceKey,
    record: &DeviceRecord,
    ttl: Duration,
) -> Result<(), StoreError> {
    let there = read(handle, key).await?;
    if there.as_ref().is_none_or(|there| there.number < record.number) {
        swap(handle, key, there.as_ref(), record, ttl).await?;
    }
    Ok(())
}
