//! One connection to one server, which a pipeline's worker owns: it is made when it is needed, dropped after any error, and
//! every exchange on it has a deadline. Queueing is the pipeline's part.
//!
//! A firewall between the two may forget an idle connection, and then silently drops what is sent on it. A connection that
//! was idle is therefore probed within a part of the time of an exchange, which leaves the rest for a new connection, and
//! one that was idle for long is not even probed. TCP keep-alive would notice later, and the socket belongs to
//! async-memcached, which takes no socket options.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::breaker::Breaker;
use super::codec::{self, Client, Command};
use super::resolver::Resolver;
use crate::sessions::StoreError;

/// After this long without use a connection is probed with a `version` command before it is used: the server may have been
/// restarted, or a firewall may have forgotten the connection.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// The same before a command that is not idempotent, because it cannot be sent again when the connection proves dead.
const TRUSTED_IDLE_NOT_IDEMPOTENT: Duration = Duration::from_millis(20);
/// After this long without use a connection is closed and another one is made. Firewalls remember a connection for longer.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// The longest time for the probe of a connection, even if an exchange has more time.
const LONGEST_PROBE: Duration = Duration::from_millis(250);

/// Whether a request may be sent a second time when it is unknown whether the first one was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    Idempotent,
    NotIdempotent,
}

pub struct Connection {
    address: Address,
    breaker: Arc<Breaker>,
    /// The client is taken out for each exchange and put back when the exchange succeeded. A client with a response still
    /// outstanding (after a timeout, a dropped task or a protocol error) is thus never used again.
    client: Option<Client>,
    resolver: Resolver,
    /// The number of connections made so far.
    made: u64,
    last_use: Instant,
}

impl Connection {
    pub fn new(address: Address, breaker: Arc<Breaker>) -> Self {
        Self { address, breaker, client: None, resolver: Resolver::default(), made: 0, last_use: Instant::now() }
    }

    /// Performs `work`, a round trip of `codec`, and returns its response or an error by `deadline`. If the connection
    /// proves dead, as every connection does after a restart of the server, an idempotent request is sent again on a new
    /// one.
    pub async fn exchange<T, F>(
        &mut self,
        deadline: Instant,
        idempotency: Idempotency,
        work: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<(Client, T), StoreError>>,
    {
        let begun = Instant::now();
        if begun + self.breaker.trial() / 4 >= deadline {
            // The request waited too long in the queue, which says nothing about this connection. A failure within the
            // little time that is left would say nothing either.
            return Err(StoreError::TimedOut);
        }
        let attempt = async {
            if let Some(client) = self.usable_client(idempotency).await {
                if idempotency == Idempotency::NotIdempotent {
                    return work(client).await;
                }
                match timeout_at(self.first_attempt_deadline(deadline), work(client)).await {
                    Ok(Err(StoreError::Unavailable { .. })) | Err(_) => {}
                    Ok(outcome) => return outcome,
                }
            }
            work(self.connect(deadline).await?).await
        };
        let outcome = timeout_at(deadline, attempt).await.unwrap_or(Err(StoreError::TimedOut));
        let now = Instant::now();
        match outcome {
            Ok((client, response)) => {
                self.client = Some(client);
                self.last_use = now;
                self.breaker.succeeded();
                Ok(response)
            }
            Err(error) => {
                self.breaker.failed(begun, now);
                Err(error)
            }
        }
    }

    /// Whether the circuit breaker is open.
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns the present client if it can be used; probes it first when it was idle.
    async fn usable_client(&mut self, idempotency: Idempotency) -> Option<Client> {
        let client = self.client.take()?;
        let trusted = match idempotency {
            Idempotency::Idempotent => TRUSTED_IDLE,
            Idempotency::NotIdempotent => TRUSTED_IDLE_NOT_IDEMPOTENT,
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

    /// Returns until when an idempotent exchange waits on a connection that was used before, so that it can be repeated on a
    /// new one. A look-up has no time for that; it is the cluster that sends it again.
    fn first_attempt_deadline(&self, deadline: Instant) -> Instant {
        let (now, trial) = (Instant::now(), self.breaker.trial());
        let left = deadline.saturating_duration_since(now);
        if left > 4 * trial { now + left / 2 } else { deadline }
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Client, StoreError> {
        self.made += 1;
        let time = deadline.saturating_duration_since(Instant::now());
        codec::connect(&self.address, &mut self.resolver, time, self.made).await
    }
}
