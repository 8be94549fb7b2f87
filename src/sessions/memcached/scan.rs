//! A scan over a server's keys, for operators. It has two connections of its own: on one the server dumps its keys for as
//! long as that takes, on the other the keys are looked up, a page at a time. Neither waits in a queue with requests, and
//! neither is kept afterwards.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::breaker::Breaker;
use super::codec::{self, DumpedKey};
use super::connection::{Connection, Idempotency};
use super::look_up::decode;
use super::resolver::Resolver;
use super::silence::Silence;
use crate::clock::UnixTime;
use crate::sessions::replicated::node::{self, ScanPage, StoredResult};
use crate::sessions::{SessionKey, StoreError};

/// The deadline of an exchange, if that of a look-up is shorter: no user waits for a scan.
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);
/// The crawler that dumps the keys skips every item that is being read at that very moment. The dump is therefore taken
/// several times, with a pause in which items that were in use are released: otherwise the busiest sessions would be missing.
const PASSES: u32 = 4;
const BETWEEN_PASSES: Duration = Duration::from_millis(100);
/// A server dumps its keys for one client at a time, and now and then its crawler runs for reasons of its own.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

pub struct KeyScan {
    address: Address,
    timeout: Duration,
    look_ups: Connection,
    dump: Option<mpsc::Receiver<Result<Vec<DumpedKey>, StoreError>>>,
}

impl KeyScan {
    pub fn new(address: Address, timeout: Duration, opened: IntCounter) -> Self {
        let timeout = timeout.max(LEAST_TIMEOUT);
        let breaker = Arc::new(Breaker::new(timeout, Arc::new(Silence::new()), opened));
        Self { look_ups: Connection::new(address.clone(), breaker), address, timeout, dump: None }
    }

    /// Starts the dump as a task, because the reader of a dump borrows its connection. The task waits while no page is taken,
    /// and ends when the receiver is dropped.
    fn begin(&self) -> mpsc::Receiver<Result<Vec<DumpedKey>, StoreError>> {
        let (pages, receiver) = mpsc::channel(1);
        let (address, timeout) = (self.address.clone(), self.timeout);
        tokio::spawn(async move {
            for pass in 1..=PASSES {
                if let Err(error) = dump(&address, timeout, &pages).await {
                    // Sending fails when the receiver is gone, and then there is nothing left to do.
                    let _ = pages.send(Err(error)).await;
                    return;
                }
                if pass < PASSES {
                    sleep(BETWEEN_PASSES).await;
                }
                if pages.is_closed() {
                    return;
                }
            }
        });
        receiver
    }
}

async fn dump(
    address: &Address,
    limit: Duration,
    pages: &mpsc::Sender<Result<Vec<DumpedKey>, StoreError>>,
) -> Result<(), StoreError> {
    let mut resolver = Resolver::default();
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let client = timeout(limit, codec::connect(address, &mut resolver, limit, 0))
            .await
            .unwrap_or(Err(StoreError::TimedOut))?;
        match codec::dump(client, limit, pages).await {
            Err(StoreError::Busy) if attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
        sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

impl node::KeyScan for KeyScan {
    async fn keys(&mut self) -> Result<Option<ScanPage>, StoreError> {
        if self.dump.is_none() {
            self.dump = Some(self.begin());
        }
        let Some(dump) = &mut self.dump else { return Ok(None) };
        let Some(page) = dump.recv().await.transpose()? else { return Ok(None) };
        // An item that never expires was stored by another program.
        let expires = |item: &DumpedKey| u64::try_from(item.expires).map_or(UnixTime::LATEST, UnixTime::from_seconds);
        Ok(Some(page.into_iter().map(|item| (expires(&item), item.key)).map(|(at, key)| (key, at)).collect()))
    }

    async fn look_up(&mut self, keys: &[SessionKey]) -> Result<Vec<StoredResult>, StoreError> {
        let mut sorted: Vec<&str> = keys.iter().map(SessionKey::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let deadline = Instant::now() + self.timeout;
        let look_up = |client| codec::look_up(client, &sorted, None);
        let found = self.look_ups.exchange(deadline, Idempotency::Idempotent, look_up).await?;
        let result = |key: &SessionKey| {
            let value = sorted.binary_search(&key.as_str()).ok().and_then(|index| found[index].as_deref());
            value.map(decode).transpose()
        };
        Ok(keys.iter().map(result).collect())
    }
}
