//! One connection to one server, kept by a link's owner task: made when it is needed, thrown away when
//! anything went wrong, with a deadline on whatever is done over it. It does not queue; that is the link's.
//!
//! A firewall between the two may forget a connection that was idle, and then drops what is sent on it without a word.
//! So a connection that was idle is probed within a part of the time that an exchange has, which leaves the rest for a
//! new one, and one that was idle for long is not even probed. TCP keep-alive would tell later, and the socket is
//! async-memcached's, which takes no options.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::breaker::Breaker;
use super::codec::{self, Client, Command};
use super::resolver::Names;
use crate::sessions::StoreError;

/// After this long without use a connection is asked for its version before it is trusted: the server may have
/// been restarted, or a firewall may have forgotten us.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// The same, for what must not be done twice, and so cannot be tried again when the connection proves dead.
const TRUSTED_IDLE_BEFORE_HARM: Duration = Duration::from_millis(20);
/// After this long without use a connection is closed and another one made. Shorter than firewalls remember one.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// For the probe of a connection, at most, also where an exchange has much time.
const LONGEST_PROBE: Duration = Duration::from_millis(250);

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
        let begun = Instant::now();
        if begun + self.breaker.trial() / 4 >= deadline {
            // It waited too long in the queue, which says nothing about this connection. Nor would a failure to do
            // in the little that is left what has most of the time to be done in.
            return Err(StoreError::TimedOut);
        }
        let attempt = async {
            if let Some(client) = self.proven(twice).await {
                if twice == Twice::Harmful {
                    return work(client).await;
                }
                match timeout_at(self.until_renewal(deadline), work(client)).await {
                    Ok(Err(StoreError::Unavailable { .. })) | Err(_) => {}
                    Ok(outcome) => return outcome,
                }
            }
            work(self.connect(deadline).await?).await
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
                self.breaker.failed(begun, now);
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
        if self.last_use.elapsed() > LONGEST_IDLE {
            return None;
        }
        let probe = codec::execute(client, &Command::Version);
        let probed = timeout((self.breaker.trial() / 4).min(LONGEST_PROBE), probe).await.ok()?;
        probed.ok().map(|(client, _)| client)
    }

    /// How long an exchange waits on a connection that was used before, when it can be done again on a new one. A
    /// look-up has no time for that; it is the cluster that asks again.
    fn until_renewal(&self, deadline: Instant) -> Instant {
        let (now, trial) = (Instant::now(), self.breaker.trial());
        let left = deadline.saturating_duration_since(now);
        if left > 4 * trial { now + left / 2 } else { deadline }
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Client, StoreError> {
        self.made += 1;
        let time = deadline.saturating_duration_since(Instant::now());
        codec::connect(&self.address, &mut self.names, time, self.made).await
    }
}
