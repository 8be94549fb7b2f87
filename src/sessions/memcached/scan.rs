//! A look through a server's keys, for operators. It has two connections of its own: over one the server dumps its
//! keys as long as it takes, over the other they are looked up, a page at a time. Neither waits in a queue with
//! requests, and neither is kept after it.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::breaker::Breaker;
use super::codec::{self, Dumped};
use super::connection::{Connection, Twice};
use super::decode;
use super::resolver::Names;
use super::silence::Silence;
use crate::clock::UnixTime;
use crate::sessions::replicated::node::{self, StoredResult};
use crate::sessions::{SessionKey, StoreError};

/// For an exchange, where a request's deadline is shorter: nobody's page waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The crawler that dumps the keys passes over whatever is being read at that very moment. So it goes several times, with time
/// between for what was in use to be let go: else the busiest sessions would be the ones that are missing.
const PASSES: u32 = 4;
const BETWEEN_PASSES: Duration = Duration::from_millis(100);
/// A server dumps its keys for one asker at a time, and looks through them now and then for reasons of its own.
const TRIALS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

pub struct KeyScan {
    address: Address,
    patience: Duration,
    look_ups: Connection,
    dump: Option<mpsc::Receiver<Result<Vec<Dumped>, StoreError>>>,
}

impl KeyScan {
    pub fn new(address: Address, timeout: Duration, rests: IntCounter) -> Self {
        let patience = timeout.max(PATIENCE);
        let breaker = Arc::new(Breaker::new(patience, Arc::new(Silence::new()), rests));
        Self { look_ups: Connection::new(address.clone(), breaker), address, patience, dump: None }
    }

    /// The dump has a task, because what reads it borrows its connection. It waits while nobody takes a page, and
    /// ends when nobody will.
    fn begin(&self) -> mpsc::Receiver<Result<Vec<Dumped>, StoreError>> {
        let (pages, taken) = mpsc::channel(1);
        let (address, patience) = (self.address.clone(), self.patience);
        tokio::spawn(async move {
            for pass in 1..=PASSES {
                if let Err(error) = dump(&address, patience, &pages).await {
                    // An error means that nobody waits any longer.
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
        taken
    }
}

async fn dump(
    address: &Address,
    patience: Duration,
    pages: &mpsc::Sender<Result<Vec<Dumped>, StoreError>>,
) -> Result<(), StoreError> {
    let mut names = Names::default();
    let mut pause = FIRST_PAUSE;
    for trial in 1.. {
        let client = timeout(patience, codec::connect(address, &mut names, patience, 0))
            .await
            .unwrap_or(Err(StoreError::TimedOut))?;
        match codec::dump(client, patience, pages).await {
            Err(StoreError::Busy) if trial < TRIALS => {}
            outcome => return outcome,
        }
        sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

impl node::KeyScan for KeyScan {
    async fn keys(&mut self) -> Result<Option<Vec<(SessionKey, UnixTime)>>, StoreError> {
        if self.dump.is_none() {
            self.dump = Some(self.begin());
        }
        let Some(dump) = &mut self.dump else { return Ok(None) };
        let Some(page) = dump.recv().await.transpose()? else { return Ok(None) };
        // What never expires was stored by another program.
        let moment = |dumped: &Dumped| u64::try_from(dumped.expires).map_or(UnixTime::LATEST, UnixTime::from_seconds);
        Ok(Some(page.into_iter().map(|dumped| (moment(&dumped), dumped.key)).map(|(at, key)| (key, at)).collect()))
    }

    async fn look_up(&mut self, keys: &[SessionKey]) -> Result<Vec<StoredResult>, StoreError> {
        let mut sorted: Vec<&str> = keys.iter().map(SessionKey::as_str).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let deadline = Instant::now() + self.patience;
        let found =
            self.look_ups.exchange(deadline, Twice::Harmless, |client| codec::look_up(client, &sorted, None)).await?;
        let lies = |key: &SessionKey| {
            let value = sorted.binary_search(&key.as_str()).ok().and_then(|place| found[place].as_deref());
            value.map(decode).transpose()
        };
        Ok(keys.iter().map(lies).collect())
    }
}
