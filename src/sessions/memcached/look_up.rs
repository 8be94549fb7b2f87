//! Looking up session records, which is the hot path: all look-ups that wait are sent to the server together.

use tokio::time::Instant;

use super::codec::{self, Ttl};
use super::connection::{Connection, Idempotency};
use super::pipeline::{Pending, Request};
use crate::sessions::{SessionKey, StoreError, StoredValue};

/// Reads the value under `key`; with `slide`, its expiry moves to that long from now.
pub struct LookUp {
    pub key: SessionKey,
    pub slide: Option<Ttl>,
}

impl Request for LookUp {
    type Response = Option<Vec<u8>>;

    /// One round trip is made for each different `slide` in the batch. There are few: one for each configured idle timeout.
    async fn execute(batch: &mut Vec<Pending<Self>>, connection: &mut Connection) {
        batch.retain(Pending::is_awaited);
        while let Some(slide) = batch.first().map(|pending| pending.request.slide) {
            let group = batch.extract_if(.., |pending| pending.request.slide == slide).collect();
            look_up(group, slide, connection).await;
        }
    }
}

async fn look_up(mut group: Vec<Pending<LookUp>>, slide: Option<Ttl>, connection: &mut Connection) {
    group.sort_unstable_by(|a, b| a.request.key.cmp(&b.request.key));
    let mut keys: Vec<&str> = group.iter().map(|pending| pending.request.key.as_str()).collect();
    keys.dedup();
    // The exchange may last as long as any caller waits; each caller keeps its own deadline.
    let deadline = group.iter().map(|pending| pending.deadline).max().unwrap_or_else(Instant::now);
    let outcome =
        connection.exchange(deadline, Idempotency::Idempotent, |client| codec::look_up(client, &keys, slide)).await;
    let responses: Vec<_> = match outcome {
        Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
        Ok(found) => {
            let index = |pending: &Pending<LookUp>| keys.binary_search(&pending.request.key.as_str()).ok();
            group.iter().map(|pending| Ok(index(pending).and_then(|index| found[index].clone()))).collect()
        }
    };
    for (pending, response) in group.into_iter().zip(responses) {
        pending.respond(response);
    }
}

/// Decodes the value under the key of a session.
pub fn decode(value: &[u8]) -> Result<StoredValue, StoreError> {
    StoredValue::decode(value).ok_or_else(|| codec::protocol_error("no session record of this version"))
}
