//! One memcached server, of one or more that edges share (`cluster`). This file says which commands an operation is;
//! how they get there and back is below: `link` (queue and owner task), `connection`, `breaker`, `wire`. `scan` is the
//! look through all that it holds.
//!
//! A look-up is one `mg … v T<ttl>` in a batch with its neighbours. What must not be undone by a latecomer is a
//! condition on the cas (`ms … C<cas>`), which a server refuses when the value is another or gone: no touch and no
//! rewrite brings an ended session back, and a ticket is won once. A new session is added (`ms … ME`), so that an
//! order that was held up on its way does not undo a logout.
//!
//! Expiries are as memcached has them: whole seconds of a clock that ticks once a second, so an entry may go
//! up to a second before its time, and never lives longer.

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
use self::breaker::Breaker;
use self::look_up::LookUp;
use self::silence::Silence;
use super::replicated::node::Node;
use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Held, Redemption, SessionKey, SessionRecord, StoreError, Swap,
    TicketKey, Tombstone,
};
use crate::clock::UnixTime;
use crate::metrics::StoreMetrics;
use codec::{Cas, Command, Condition, Reply, garbled};
use pipeline::Link;
use scan::KeyScan;

/// How long a look-up may take when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);
/// The same for everything else.
pub const DEFAULT_SIGN_ON_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections for what is not a look-up. Over each goes one command at a time, so this bounds how many a round trip
/// carries out.
const COMMAND_LINKS: usize = 4;

/// How long the key of a ping lives, should it not be deleted.
const REHEARSAL: Duration = Duration::from_secs(10);

/// What a redeemed ticket's value becomes.
const USED: &[u8] = b"used";
/// Stands before every issued ticket's value, which therefore never equals [`USED`].
const ISSUED: &[u8] = b"1 ";

#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port`, `[ipv6]:port` or `unix:///path`.
    pub server: String,
    /// For a look-up as a whole, from the call: queueing, connecting and its round trip.
    pub timeout: Duration,
    /// The same for everything else that is done for people, who would rather wait for a moment than sign in again: logins,
    /// tickets, redemptions, logouts. A server that has been silent for longer is given the time of a look-up. It is also
    /// how long a request waits for a session that could not be looked up and that no policy vouches for.
    pub sign_on_timeout: Duration,
}

/// A server that cannot be used, found when the configuration is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress {
    server: String,
    fault: &'static str,
}

/// Whether `server` could be used; nothing is dialled.
pub fn check(server: &str) -> Result<(), InvalidAddress> {
    Address::parse(server).map(drop)
}

pub struct MemcachedServer {
    address: Address,
    look_ups: Link<LookUp>,
    /// A key has one of them, so that what is ordered for it is carried out in that order.
    commands: [Link<Command>; COMMAND_LINKS],
    /// Of all of them: what is asked of one tells the others.
    silence: Arc<Silence>,
    timeout: Duration,
    sign_on_timeout: Duration,
    rests: IntCounter,
}

impl MemcachedServer {
    /// Connects to nothing yet: the first operation does.
    pub fn new(settings: &Settings, metrics: &StoreMetrics) -> Result<Self, InvalidAddress> {
        let address = Address::parse(&settings.server)?;
        let Settings { timeout, sign_on_timeout, .. } = *settings;
        let rests = metrics.breaker_open.with_label_values(&[&settings.server]);
        let silence = Arc::new(Silence::new());
        let breaker = || Breaker::new(timeout, Arc::clone(&silence), rests.clone());
        Ok(Self {
            look_ups: Link::new(address.clone(), breaker(), Some(metrics.batch_size.clone())),
            commands: std::array::from_fn(|_| Link::new(address.clone(), breaker(), None)),
            address,
            silence,
            timeout,
            sign_on_timeout,
            rests,
        })
    }

    /// For what is no look-up. A stall is waited out; an outage that has lasted for longer than that is not waited for
    /// each time anew.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let is_outage = self.silence.lasted(now) >= self.sign_on_timeout;
        now + if is_outage { self.timeout } else { self.timeout.max(self.sign_on_timeout) }
    }

    async fn execute(&self, command: Command, deadline: Instant) -> Result<Reply, StoreError> {
        match self.commands[link_of(&command)].ask(command, deadline).await? {
            Reply::Full => Err(StoreError::Full),
            Reply::NotAsked => Err(StoreError::Unavailable { cause: "the connection was lost half-way".into() }),
            reply => Ok(reply),
        }
    }

    async fn increment(&self, key: &CounterKey, window: Duration, deadline: Instant) -> Result<Count, StoreError> {
        let command = Command::Increment { key: key.as_str().into(), window: window.into() };
        match self.execute(command, deadline).await? {
            Reply::Item { value, ttl, .. } => count(&value, ttl, window),
            _ => Err(garbled("an addition without a sum")),
        }
    }

    async fn get(&self, key: &str, deadline: Instant) -> Result<Option<(Vec<u8>, Cas)>, StoreError> {
        match self.execute(Command::Get { key: key.into() }, deadline).await? {
            Reply::Item { value, cas, .. } => Ok(Some((value, cas))),
            _ => Ok(None),
        }
    }

    /// Whatever is there.
    async fn put(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), StoreError> {
        match self.set(key, value, ttl, Condition::None, self.deadline()).await? {
            true => Ok(()),
            false => Err(garbled("an unconditional set was refused")),
        }
    }

    async fn rehearse(&self, deadline: Instant) -> Result<(), StoreError> {
        let key = CounterKey::new("ping", &uuid::Uuid::new_v4().to_string());
        self.set(key.as_str(), b"0".to_vec(), REHEARSAL, Condition::Absent, deadline).await?;
        self.increment(&key, REHEARSAL, deadline).await?;
        self.get(key.as_str(), deadline).await?;
        self.execute(Command::Delete { key: key.as_str().into() }, deadline).await.map(drop)
    }

    /// Answers whether `condition` held.
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
    type KeyScan = KeyScan;

    async fn look_up(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Option<Held>, StoreError> {
        let look_up = LookUp { key: key.clone(), slide: slide.map(Into::into) };
        let deadline = Instant::now() + self.timeout;
        self.look_ups.ask(look_up, deadline).await?.map(|value| decode(&value)).transpose()
    }

    async fn add(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        self.set(key.as_str(), record.encode(), ttl, Condition::Absent, self.deadline()).await
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        let Some((value, cas)) = self.get(key.as_str(), deadline).await? else { return Ok(false) };
        match decode(&value)? {
            Held::Session(mut record) if record.last_accessed < now => {
                record.last_accessed = now;
                self.set(key.as_str(), record.encode(), ttl, Condition::Unchanged(cas), deadline).await
            }
            Held::Session(_) | Held::Ended(_) => Ok(false),
        }
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        let deadline = self.deadline();
        let Some((value, cas)) = self.get(key.as_str(), deadline).await? else { return Ok(false) };
        match decode(&value)? {
            Held::Session(_) => self.set(key.as_str(), record.encode(), ttl, Condition::Unchanged(cas), deadline).await,
            Held::Ended(_) => Ok(false),
        }
    }

    async fn write_tombstone(&self, key: &SessionKey, tombstone: Tombstone, ttl: Duration) -> Result<(), StoreError> {
        self.put(key.as_str(), tombstone.encode(), ttl).await
    }

    /// What another program or version left there says nothing of a browser.
    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        let there = self.get(key.as_str(), self.deadline()).await?;
        Ok(there.and_then(|(value, _)| DeviceRecord::decode(&value)))
    }

    /// A condition that fails has met another swap: what that one left is read, and told.
    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let deadline = self.deadline();
        let there = self.get(key.as_str(), deadline).await?;
        let condition = there.as_ref().map_or(Condition::Absent, |(_, cas)| Condition::Unchanged(*cas));
        let there = there.and_then(|(value, _)| DeviceRecord::decode(&value));
        if there.as_ref() != seen {
            return Ok(Swap::Found(there));
        }
        if self.set(key.as_str(), next.encode(), ttl, condition, deadline).await? {
            return Ok(Swap::Done);
        }
        let there = self.get(key.as_str(), deadline).await?;
        Ok(Swap::Found(there.and_then(|(value, _)| DeviceRecord::decode(&value))))
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
        // What another program left there opens nothing, as if nothing lay there: the sign-on goes round once more.
        let Some(value) = value.strip_prefix(ISSUED) else { return Ok(Redemption::Unknown) };
        // Of all that read this cas, the server lets one through.
        let won = self.set(key.as_str(), USED.to_vec(), remember, Condition::Unchanged(cas), deadline).await?;
        Ok(if won { Redemption::Won(value.to_vec()) } else { Redemption::Replayed })
    }

    /// A value that is no number, or that never expires, was written by another program. The count begins anew in its
    /// place: refused, it would keep an account from signing in for as long as it lies there.
    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        let deadline = self.deadline();
        match self.increment(key, window, deadline).await {
            Err(StoreError::Protocol { .. }) => {
                self.execute(Command::Delete { key: key.as_str().into() }, deadline).await?;
                self.increment(key, window, deadline).await
            }
            counted => counted,
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

    /// Does what operations do, on a key of its own: a server that is too old, or wants a password, tells its version
    /// all the same. One that has no more room is there.
    async fn ping(&self) -> Result<(), StoreError> {
        match self.rehearse(self.deadline()).await {
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
        self.sign_on_timeout.saturating_sub(self.silence.lasted(Instant::now()))
    }

    fn is_failing(&self) -> bool {
        self.look_ups.is_failing()
    }

    fn is_resting(&self) -> bool {
        self.look_ups.is_resting()
    }

    fn scan_keys(&self) -> KeyScan {
        KeyScan::new(self.address.clone(), self.timeout, self.rests.clone())
    }
}

/// Any byte of a hash will do, but for the last ones, of which base64 uses some bits alone.
fn link_of(command: &Command) -> usize {
    command.key().as_bytes().get(8).map_or(0, |byte| usize::from(*byte)) % COMMAND_LINKS
}

impl InvalidAddress {
    fn new(server: &str, fault: &'static str) -> Self {
        Self { server: server.to_owned(), fault }
    }
}

impl std::fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} cannot be used as a memcached server: {}", self.server, self.fault)
    }
}

impl std::error::Error for InvalidAddress {}

/// memcached pads a number that has become shorter with blanks. `otherwise` is how long the counter stays where the
/// server does not say: memcached 1.6 answers -1 to the addition that makes the counter.
fn count(value: &[u8], ttl: Option<i64>, otherwise: Duration) -> Result<Count, StoreError> {
    let count = std::str::from_utf8(value).ok().and_then(|count| count.trim_end().parse().ok());
    let count: u64 = count.ok_or_else(|| garbled("a count that is no number"))?;
    let left = match ttl.map(u64::try_from) {
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) if count > 1 => return Err(garbled("a count that never ends")),
        Some(Err(_)) | None => otherwise,
    };
    Ok(Count { count, left, server: None })
}

fn decode(value: &[u8]) -> Result<Held, StoreError> {
    Held::decode(value).ok_or_else(|| garbled("no session record of this version"))
}
