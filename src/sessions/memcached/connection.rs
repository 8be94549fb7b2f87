//! One connection to one server, kept by a link's owner task: made when it is needed, thrown away when
//! anything went wrong, with a deadline on whatever is done over it. It does not queue; that is the link's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::breaker::Breaker;
use super::names::Names;
use super::wire::{self, Client, Command};
use crate::sessions::StoreError;

/// After this long without use a connection is asked for its version before it is trusted: the server may have
/// been restarted, or a firewall may have forgotten us.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// The same, for what must not be done twice, and so cannot be tried again when the connection proves dead.
const TRUSTED_IDLE_BEFORE_HARM: Duration = Duration::from_millis(20);

/// What it does to carry something out a second time, when it is not known whether the first came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    Harmless,
    Harmful,
}

pub struct Connection {
    address: Address,
    breaker: Arc<Breaker>,
    /// Taken out for each exchange and put back when it succeeded, so a client whose answer is still on its
    /// way (it timed out, its task was dropped, its answer was garbage) is never used again.
    client: Option<Client>,
    names: Names,
    /// Connections made so far.
    made: u64,
    last_use: Instant,
}

impl Connection {
    pub fn new(address: Address, breaker: Arc<Breaker>) -> Self {
        Self { address, breaker, client: None, names: Names::default(), made: 0, last_use: Instant::now() }
    }

    /// Does `work`, one of [`wire`]'s round trips, and has its answer or a failure by `deadline`. On a connection
    /// that proves dead, as all do when a server was restarted, it is done again on a new one if that is harmless.
    pub async fn exchange<T, F>(
        &mut self,
        deadline: Instant,
        twice: Twice,
        work: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<(Client, T), StoreError>>,
    {
        if Instant::now() + self.breaker.trial() / 4 >= deadline {
            // It waited too long in the queue, which says nothing about this connection. Nor would a failure to do
            // in the little that is left what has most of the time to be done in.
            return Err(StoreError::TimedOut);
        }
        let attempt = async {
            if let Some(client) = self.proven(twice).await {
                match work(client).await {
                    Err(StoreError::Away { .. }) if twice == Twice::Harmless => {}
                    outcome => return outcome,
                }
            }
            work(self.connect().await?).await
        };
        let outcome = timeout_at(deadline, attempt).await.unwrap_or(Err(StoreError::TimedOut));
        let now = Instant::now();
        match outcome {
            Ok((client, answer)) => {
                self.client = Some(client);
                self.last_use = now;
                self.breaker.succeeded();
                Ok(answer)
            }
            Err(error) => {
                self.breaker.failed(now);
                Err(error)
            }
        }
    }

    /// Whether the server is to be left alone for now.
    pub fn is_resting(&self) -> bool {
        self.breaker.is_resting()
    }

    /// The client at hand, if it can be trusted.
    async fn proven(&mut self, twice: Twice) -> Option<Client> {
        let client = self.client.take()?;
        let trusted = match twice {
            Twice::Harmless => TRUSTED_IDLE,
            Twice::Harmful => TRUSTED_IDLE_BEFORE_HARM,
        };
        if self.last_use.elapsed() < trusted {
            return Some(client);
        }
        let probed = wire::execute(client, &Command::Version).await;
        probed.ok().map(|(client, _)| client)
    }

    async fn connect(&mut self) -> Result<Client, StoreError> {
        self.made += 1;
        wire::connect(&self.address, &mut self.names, self.breaker.trial(), self.made).await
    }
}
