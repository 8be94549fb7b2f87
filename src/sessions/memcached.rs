//! One memcached server, of one or more that the edges share (`replicated`). This file maps each operation to memcached
//! commands; the files below it send them: `pipeline` (queue and worker task), `connection`, `breaker`, `codec`. `scan`
//! lists all keys of the server.
//!
//! A look-up is one `mg … v T<ttl>` in a batch with others. A write that must not undo a change that came before
//! it has a condition on the CAS number (`ms … C<cas>`), and the server refuses it when the value has changed or is gone: no
//! touch and no rewrite brings an ended session back, and a ticket is redeemed once. A new session is added (`ms … ME`), so that a
//! delayed command does not undo a logout.
//!
//! Expiries have memcached's precision: whole seconds of a clock that ticks once a second, so an entry may expire up to a
//! second early, and never late.

mod address;
mod breaker;
mod codec;
mod command;
mod connection;
mod ipv6_bridge;
mod look_up;
mod pipeline;
mod resolver;
mod scan;
mod silence;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use self::address::Address;
pub use self::address::InvalidAddress;
use self::breaker::Breaker;
use self::look_up::{LookUp, decode};
use self::silence::Silence;
use super::replicated::node::Node;
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Redemption, SessionKey, SessionRecord, StoreError, StoredValue, Swap,
    TicketKey, Tombstone,
};
use crate::clock::UnixTime;
use crate::metrics::StoreMetrics;
use codec::{Cas, Command, Condition, Reply, protocol_error};
use pipeline::Pipeline;
use scan::KeyScan;

/// Connections for commands other than look-ups. Each executes one command at a time, so this bounds how many commands are
/// executed per round trip.
const COMMAND_PIPELINES: usize = 4;

/// The lifetime of the key of a ping, should it not be deleted.
const PING_KEY_TTL: Duration = Duration::from_secs(10);

/// The value of a ticket that has been redeemed.
const USED: &[u8] = b"used";
/// The prefix of every issued ticket's value, which therefore never equals [`USED`].
const ISSUED: &[u8] = b"1 ";

#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port`, `[ipv6]:port` or `unix:///path`.
    pub server: String,
    /// The deadline of a look-up as a whole: queueing, connecting and the round trip.
    pub timeout: Duration,
    /// The deadline of every other operation that users wait for, who would rather wait for a moment than sign in again:
    /// logins, tickets, redemptions, logouts. A server that has been silent for longer gets the time of a look-up. It is
    /// also how long a request waits for a session that could not be looked up and that the outage policy does not cover.
    pub sign_on_timeout: Duration,
}

/// Checks that `server` is a valid address; no connection is made.
pub fn check(server: &str) -> Result<(), InvalidAddress> {
    Address::parse(server).map(drop)
}

pub struct MemcachedServer {
    address: Address,
    look_ups: Pipeline<LookUp>,
    /// All commands on one key use the same pipeline, so they are executed in order.
    commands: [Pipeline<Command>; COMMAND_PIPELINES],
    /// Shared by all pipelines: an outage that one of them notices is known to the others.
    silence: Arc<Silence>,
    timeout: Duration,
    sign_on_timeout: Duration,
    breaker_opened: IntCounter,
}

impl MemcachedServer {
    /// Makes no connection yet; the first operation does.
    pub fn new(settings: &Settings, metrics: &StoreMetrics) -> Result<Self, InvalidAddress> {
        let address = Address::parse(&settings.server)?;
        let Settings { timeout, sign_on_timeout, .. } = *settings;
        let breaker_opened = metrics.breaker_open.with_label_values(&[&settings.server]);
        let silence = Arc::new(Silence::new());
        let breaker = || Breaker::new(timeout, Arc::clone(&silence), breaker_opened.clone());
        Ok(Self {
            look_ups: Pipeline::new(address.clone(), breaker(), Some(metrics.batch_size.clone())),
            commands: std::array::from_fn(|_| Pipeline::new(address.clone(), breaker(), None)),
            address,
            silence,
            timeout,
            sign_on_timeout,
            breaker_opened,
        })
    }

    /// Returns the deadline of an operation other than a look-up. A stall is waited out; an outage that has lasted for longer
    /// does not make every operation wait again.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let is_outage = self.silence.duration(now) >= self.sign_on_timeout;
        now + if is_outage { self.timeout } else { self.timeout.max(self.sign_on_timeout) }
    }

    async fn execute(&self, command: Command, deadline: Instant) -> Result<Reply, StoreError> {
        match self.commands[pipeline_of(&command)].send(command, deadline).await? {
            Reply::Full => Err(StoreError::Full),
            Reply::NotSent => Err(StoreError::Unavailable {
                cause: "the connection was lost between a read and its conditional write".into(),
            }),
            reply => Ok(reply),
        }
    }

    async fn increment(&self, key: &CounterKey, window: Duration, deadline: Instant) -> Result<Count, StoreError> {
        let command = Command::Increment { key: key.as_str().into(), window: window.into() };
        match self.execute(command, deadline).await? {
            Reply::Item { value, ttl, .. } => count(&value, ttl, window),
            _ => Err(protocol_error("an increment without a result")),
        }
    }

    async fn get(&self, key: &str, deadline: Instant) -> Result<Option<(Vec<u8>, Cas)>, StoreError> {
        match self.execute(Command::Get { key: key.into() }, deadline).await? {
            Reply::Item { value, cas, .. } => Ok(Some((value, cas))),
            _ => Ok(None),
        }
    }

    /// Writes unconditionally.
    async fn put(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), StoreError> {
        match self.set(key, value, ttl, Condition::None, self.deadline()).await? {
            true => Ok(()),
            false => Err(protocol_error("an unconditional set was refused")),
        }
    }

    async fn try_all_commands(&self, deadline: Instant) -> Result<(), StoreError> {
        let key = CounterKey::new("ping", &uuid::Uuid::new_v4().to_string());
        self.set(key.as_str(), b"0".to_vec(), PING_KEY_TTL, Condition::Absent, deadline).await?;
        self.increment(&key, PING_KEY_TTL, deadline).await?;
        self.get(key.as_str(), deadline).await?;
        self.execute(Command::Delete { key: key.as_str().into() }, deadline).await.map(drop)
    }

    /// Returns whether `condition` held.
    async fn set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Duration,
        condition: Condition,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let command = Command::Set { key: key.into(), value, ttl: ttl.into(), condition };
        Ok(self.execute(command, deadline).await? == Reply::Done)
    }
}

impl Node for MemcachedServer {
    type Scan = KeyScan;

    async fn look_up(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Option<StoredValue>, StoreError> {
        let look_up = LookUp { key: key.clone(), slide: slide.map(Into::into) };
        let deadline = Instant::now() + self.timeout;
        self.look_ups.send(look_up, deadline).await?.map(|value| decode(&value)).transpose()
    }

    async fn add(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        self.set(key.as_str(), record.encode(), ttl, Condition::Absent, self.deadline()).await
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        let Some((value, cas)) = self.get(key.as_str(), deadline).await? else { return Ok(false) };
        match decode(&value)? {
            StoredValue::Session(mut record) if record.last_accessed < now => {
                record.last_accessed = now;
                self.set(key.as_str(), record.encode(), ttl, Condition::Unchanged(cas), deadline).await
            }
            StoredValue::Session(_) | StoredValue::Ended(_) => Ok(false),
        }
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        let Some((value, cas)) = self.get(key.as_str(), deadline).await? else { return Ok(false) };
        match decode(&value)? {
            StoredValue::Session(_) => {
                self.set(key.as_str(), record.encode(), ttl, Condition::Unchanged(cas), deadline).await
            }
            StoredValue::Ended(_) => Ok(false),
        }
    }

    async fn write_tombstone(&self, key: &SessionKey, tombstone: Tombstone, ttl: Duration) -> Result<(), StoreError> {
        self.put(key.as_str(), tombstone.encode(), ttl).await
    }

    /// A value that another program or version has written counts as none.
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let stored = self.get(key.as_str(), self.deadline()).await?;
        Ok(stored.and_then(|(value, _)| DeviceRecord::decode(&value)))
    }

    /// If the condition fails, another swap came first; its record is read and returned.
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let deadline = self.deadline();
        let stored = self.get(key.as_str(), deadline).await?;
        let condition = stored.as_ref().map_or(Condition::Absent, |(_, cas)| Condition::Unchanged(*cas));
        let stored = stored.and_then(|(value, _)| DeviceRecord::decode(&value));
        if stored.as_ref() != seen {
            return Ok(Swap::Found(stored));
        }
        if self.set(key.as_str(), next.encode(), ttl, condition, deadline).await? {
            return Ok(Swap::Done);
        }
        let stored = self.get(key.as_str(), deadline).await?;
        Ok(Swap::Found(stored.and_then(|(value, _)| DeviceRecord::decode(&value))))
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        self.put(key.as_str(), [ISSUED, value].concat(), ttl).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let deadline = self.deadline();
        let Some((value, cas)) = self.get(key.as_str(), deadline).await? else { return Ok(Redemption::Unknown) };
        if value == USED {
            return Ok(Redemption::Replayed);
        }
        // A value that another program has written is no ticket: the sign-on starts again.
        let Some(value) = value.strip_prefix(ISSUED) else { return Ok(Redemption::Unknown) };
        // Of all calls that read this CAS number, the server accepts the write of one.
        let won = self.set(key.as_str(), USED.to_vec(), remember, Condition::Unchanged(cas), deadline).await?;
        Ok(if won { Redemption::Won(value.to_vec()) } else { Redemption::Replayed })
    }

    /// A value that is no number, or that never expires, was written by another program. It is replaced by a new counter:
    /// an error would keep an account from signing in for as long as that value is stored.
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let deadline = self.deadline();
        match self.increment(key, window, deadline).await {
            Err(StoreError::Protocol { .. }) => {
                self.execute(Command::Delete { key: key.as_str().into() }, deadline).await?;
                self.increment(key, window, deadline).await
            }
            result => result,
        }
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        match self.execute(Command::Get { key: key.as_str().into() }, self.deadline()).await? {
            Reply::Item { value, ttl, .. } => Ok(count(&value, ttl, Duration::ZERO).unwrap_or_default()),
            _ => Ok(Count::default()),
        }
    }

    async fn counter_decr(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.execute(Command::Decrement { key: key.as_str().into() }, self.deadline()).await.map(drop)
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.execute(Command::Delete { key: key.as_str().into() }, self.deadline()).await.map(drop)
    }

    /// Executes the commands of real operations, on a key of its own: a server that is too old, or that wants a password,
    /// still answers a `version` command. A full server counts as available.
    async fn ping(&self) -> Result<(), StoreError> {
        match self.try_all_commands(self.deadline()).await {
            Err(StoreError::Full) => Ok(()),
            Err(StoreError::Protocol { cause }) => {
                let cause = format!("it answers with {cause}; memcached 1.6.10 or later is needed");
                Err(StoreError::Unfit { cause })
            }
            done => done,
        }
    }

    fn unavailable_for(&self) -> Duration {
        self.look_ups.unavailable_for()
    }

    fn retry_window(&self) -> Duration {
        self.sign_on_timeout.saturating_sub(self.silence.duration(Instant::now()))
    }

    fn is_failing(&self) -> bool {
        self.look_ups.is_failing()
    }

    fn is_open(&self) -> bool {
        self.look_ups.is_open()
    }

    fn scan_keys(&self) -> KeyScan {
        KeyScan::new(self.address.clone(), self.timeout, self.breaker_opened.clone())
    }
}

/// Any byte of the hash spreads the keys evenly, except the last ones, of which base64 uses only some bits.
fn pipeline_of(command: &Command) -> usize {
    command.key().as_bytes().get(8).map_or(0, |byte| usize::from(*byte)) % COMMAND_PIPELINES
}

/// Parses a counter. memcached pads a number that has become shorter with blanks. `otherwise` is the remaining lifetime when
/// the server does not report one: memcached 1.6 returns -1 for the increment that creates the counter.
fn count(value: &[u8], ttl: Option<i64>, otherwise: Duration) -> Result<Count, StoreError> {
    let count = std::str::from_utf8(value).ok().and_then(|count| count.trim_end().parse().ok());
    let count: u64 = count.ok_or_else(|| protocol_error("a counter that is no number"))?;
    let left = match ttl.map(u64::try_from) {
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) if count > 1 => return Err(protocol_error("a counter that never expires")),
        Some(Err(_)) | None => otherwise,
    };
    Ok(Count { count, left, server: None })
}
