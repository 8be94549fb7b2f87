//! One connection to one server, kept by a link's owner task: made when it is needed, thrown away when
//! anything went wrong, with a deadline on whatever is done over it. It does not queue; that is the link's.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::breaker::Breaker;
use super::wire::{self, Client, Command};
use crate::sessions::StoreError;

/// After this long without use a connection is asked for its version before it is trusted with a command: the
/// server may have been restarted, or a firewall may have forgotten us, and not every command may be repeated.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

pub struct Connection {
    address: Address,
    breaker: Arc<Breaker>,
    /// Taken out for each exchange and put back when it succeeded, so a client whose answer is still on its
    /// way (it timed out, its task was dropped, its answer was garbage) is never used again.
    client: Option<Client>,
    /// Connections made so far.
    made: u64,
    last_use: Instant,
}

impl Connection {
    pub fn new(address: Address, breaker: Arc<Breaker>) -> Self {
        Self { address, breaker, client: None, made: 0, last_use: Instant::now() }
    }

    /// Does `work`, one of [`wire`]'s round trips, and has its answer or a failure by `deadline`.
    pub async fn exchange<T, F>(&mut self, deadline: Instant, work: impl FnOnce(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<(Client, T), StoreError>>,
    {
        if Instant::now() >= deadline {
            // It waited too long in the queue, which says nothing about this connection.
            return Err(StoreError::TimedOut);
        }
        let attempt = async { work(self.client().await?).await };
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

    /// The client at hand, if it can be trusted, or a new one.
    async fn client(&mut self) -> Result<Client, StoreError> {
        if let Some(client) = self.client.take() {
            if self.last_use.elapsed() < TRUSTED_IDLE {
                return Ok(client);
            }
            if let Ok((client, _)) = wire::execute(client, &Command::Version).await {
                return Ok(client);
            }
        }
        self.made += 1;
        wire::connect(&self.address, self.made).await
    }
}
