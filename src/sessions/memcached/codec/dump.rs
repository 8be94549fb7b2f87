//! The list of a server's keys, as its LRU crawler dumps it: the one exchange that has many responses. The deadlines are
//! here, because there is one for each key.

use std::time::Duration;

use async_memcached::{Error, ErrorKind, KeyMetadata, Status};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::error::{protocol_error, store_error};
use crate::sessions::{SessionKey, StoreError};

/// The key of a session or a tombstone in a dump.
pub struct DumpedKey {
    pub key: SessionKey,
    /// Unix time in seconds by the server's clock, or -1 for never.
    pub expires: i64,
}

/// Keys in a page of a dump: as many as are looked up together.
const PAGE: usize = 64;

/// Makes the server dump its keys, and sends those of sessions in pages, until the end of the dump or until the receiver is
/// dropped. `key_timeout` is the deadline for each key. Returns [`StoreError::Busy`] when the server is dumping its keys
/// for another client.
pub async fn dump(
    mut client: async_memcached::Client,
    key_timeout: Duration,
    pages: &mpsc::Sender<Result<Vec<DumpedKey>, StoreError>>,
) -> Result<(), StoreError> {
    let mut keys = client.dump_keys().await.map_err(store_error)?;
    let mut page = Vec::with_capacity(PAGE);
    loop {
        let (entry, outcome) = match timeout(key_timeout, keys.next()).await {
            Ok(Some(Ok(entry))) => (session_key(entry), None),
            Ok(Some(Err(error))) => (None, Some(Err(dump_error(error)))),
            Ok(None) if keys.is_complete() => (None, Some(Ok(()))),
            Ok(None) => (None, Some(Err(protocol_error("a list of keys without its end")))),
            Err(_) => (None, Some(Err(StoreError::TimedOut))),
        };
        page.extend(entry);
        // Keys that came before a failure are sent as well.
        if page.len() == PAGE || (outcome.is_some() && !page.is_empty()) {
            let full = std::mem::replace(&mut page, Vec::with_capacity(PAGE));
            if pages.send(Ok(full)).await.is_err() {
                return Ok(());
            }
        }
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
}

/// Returns `None` for the keys of tickets and counters, and for those of other programs.
fn session_key(entry: KeyMetadata) -> Option<DumpedKey> {
    let key = std::str::from_utf8(&entry.key).ok().and_then(SessionKey::parse)?;
    Some(DumpedKey { key, expires: entry.expiration })
}

/// The crate reports a refusal of the crawler by its text alone, and any other as something that it cannot parse.
fn dump_error(error: Error) -> StoreError {
    match error {
        Error::Protocol(Status::Error(ErrorKind::Generic(text))) if text.starts_with("BUSY") => StoreError::Busy,
        Error::Protocol(_) => protocol_error(format_args!("it lists no keys (is its LRU crawler off?): {error}")),
        error => store_error(error),
    }
}
