//! A server's list of its keys, as its LRU crawler dumps it: the one exchange that has many answers. Deadlines are here,
//! as there is one for each key.

use std::time::Duration;

use async_memcached::{Error, ErrorKind, KeyMetadata, Status};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Client, failure, garbled};
use crate::sessions::{SessionKey, StoreError};

/// A session's key, or a tombstone's, in a dump.
pub struct Dumped {
    pub key: SessionKey,
    /// Unix time in seconds by the server's clock, or -1 for never.
    pub expires: i64,
}

/// Keys in a page of a dump: as many as are looked up together.
const PAGE: usize = 64;

/// Has the server dump its keys, and hands on those of sessions, until its end or until nobody takes the pages.
/// `patience` is for each key. [`StoreError::Busy`] when the server dumps them for somebody else.
pub async fn dump(
    mut client: Client,
    patience: Duration,
    pages: &mpsc::Sender<Result<Vec<Dumped>, StoreError>>,
) -> Result<(), StoreError> {
    let mut keys = client.inner.dump_keys().await.map_err(failure)?;
    let mut page = Vec::with_capacity(PAGE);
    loop {
        let (entry, outcome) = match timeout(patience, keys.next()).await {
            Ok(Some(Ok(entry))) => (dumped(entry), None),
            Ok(Some(Err(error))) => (None, Some(Err(dump_failure(error)))),
            Ok(None) if keys.is_complete() => (None, Some(Ok(()))),
            Ok(None) => (None, Some(Err(garbled("a list of keys without its end")))),
            Err(_) => (None, Some(Err(StoreError::TimedOut))),
        };
        page.extend(entry);
        // What came before a failure counts.
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

/// `None` for the keys of tickets and counters, and for those of other programs.
fn dumped(entry: KeyMetadata) -> Option<Dumped> {
    let key = std::str::from_utf8(&entry.key).ok().and_then(SessionKey::parse)?;
    Some(Dumped { key, expires: entry.expiration })
}

/// The crate tells a refusal of the crawler by its text alone, and any other as something that it cannot parse.
fn dump_failure(error: Error) -> StoreError {
    match error {
        Error::Protocol(Status::Error(ErrorKind::Generic(text))) if text.starts_with("BUSY") => StoreError::Busy,
        Error::Protocol(_) => garbled(format_args!("it lists no keys (is its LRU crawler off?): {error}")),
        error => failure(error),
    }
}
