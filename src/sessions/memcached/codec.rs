//! The memcached meta protocol, as far as it is used. Only this file and those below it name `async_memcached`. One call
//! here is one round trip: it takes the client and returns it only when the whole response was read. Deadlines and
//! reconnecting, which the crate does not have, are in [`Connection`](super::connection::Connection).
//!
//! Every command has the server return its key (`k`), and a response that names another key is a protocol error: no request
//! ever gets what belongs to another.

mod dump;
mod error;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_memcached::{Error, ErrorKind, MetaProtocol, MetaValue, Status};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::address::Address;
use super::ipv6_bridge;
use super::resolver::Resolver;
use crate::sessions::StoreError;

pub use dump::DumpedKey;
pub use error::protocol_error;
use error::{is_full, other_key, store_error, unavailable};

/// A connection to a server, with a number of its own.
pub struct Client {
    inner: async_memcached::Client,
    number: u64,
}

/// The unique number of a value that was read (compare-and-swap). It is valid on the same connection only: a server that was
/// restarted counts from the beginning, and the number may then belong to another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas {
    value: u64,
    connection: u64,
}

/// A lifetime in the form that memcached expects: whole seconds, at least one and at most 30 days, because memcached reads a
/// larger number as a date, which would lie in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

/// One command on one key. It is not `Debug`, because a value may be that of a ticket.
pub enum Command {
    Get {
        key: Box<str>,
    },
    Set {
        key: Box<str>,
        value: Vec<u8>,
        ttl: Ttl,
        condition: Condition,
    },
    Delete {
        key: Box<str>,
    },
    /// Adds one. A counter that is missing is created with the value 1 and the lifetime `window`.
    Increment {
        key: Box<str>,
        window: Ttl,
    },
    /// Subtracts one, down to 0. A counter that is missing is not created.
    Decrement {
        key: Box<str>,
    },
    /// Changes nothing and needs no key; only whether the server answers matters.
    Version,
}

impl Command {
    /// Returns the key; an empty string for a command without one.
    pub fn key(&self) -> &str {
        match self {
            Self::Get { key }
            | Self::Set { key, .. }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::Decrement { key } => key,
            Self::Version => "",
        }
    }
}

/// The condition on which a value is set.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    None,
    /// No value is stored under the key.
    Absent,
    /// The stored value is still the one that was read.
    Unchanged(Cas),
}

/// The response to a command. It is not `Debug`, because a value may be that of a ticket.
#[derive(PartialEq, Eq)]
pub enum Reply {
    Done,
    Item {
        value: Vec<u8>,
        cas: Cas,
        /// Seconds until the item expires; -1 is never.
        ttl: Option<i64>,
    },
    /// There is no item, or the condition of the command does not hold.
    NotApplied,
    /// The connection on which the CAS number was read is gone, so the command was not sent.
    NotSent,
    /// The server has no room for the item. The connection can be used further.
    Full,
}

impl Ttl {
    const LONGEST_SECONDS: u64 = 30 * 24 * 60 * 60;
}

impl From<Duration> for Ttl {
    fn from(ttl: Duration) -> Self {
        let rounded_up = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        Self(rounded_up.clamp(1, Self::LONGEST_SECONDS))
    }
}

/// `number` must differ for each connection of a pipeline. Each address of a server with several addresses gets an equal
/// share of `limit`.
pub async fn connect(
    address: &Address,
    resolver: &mut Resolver,
    limit: Duration,
    number: u64,
) -> Result<Client, StoreError> {
    let inner = match address {
        Address::Unix(path) => async_memcached::Client::new(format!("unix://{path}")).await.map_err(store_error)?,
        Address::Tcp { host, port } => {
            let addresses = resolver.resolve(host, *port).await.map_err(|e| store_error(Error::Connect(e)))?;
            connect_tcp(&addresses, limit).await?
        }
    };
    Ok(Client { inner, number })
}

/// Names are resolved here and not by the crate, which opens IPv4 sockets for IPv6 addresses too and would report that
/// failure instead of the real one.
async fn connect_tcp(addresses: &[SocketAddr], limit: Duration) -> Result<async_memcached::Client, StoreError> {
    let share = limit / addresses.len().max(1) as u32;
    let mut error = unavailable("the name has no address");
    for address in addresses {
        let connecting = async {
            match address {
                SocketAddr::V4(_) => {
                    async_memcached::Client::new(format!("tcp://{address}")).await.map_err(store_error)
                }
                SocketAddr::V6(_) => {
                    ipv6_bridge::connect(*address, open_socket).await.map_err(|e| store_error(Error::Connect(e)))
                }
            }
        };
        match timeout(share, connecting).await.unwrap_or(Err(StoreError::TimedOut)) {
            Ok(client) => return Ok(client),
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// Makes the server dump its keys, see `dump::dump`.
pub async fn dump(
    client: Client,
    key_timeout: Duration,
    pages: &mpsc::Sender<Result<Vec<DumpedKey>, StoreError>>,
) -> Result<(), StoreError> {
    dump::dump(client.inner, key_timeout, pages).await
}

async fn open_socket(path: PathBuf) -> std::io::Result<async_memcached::Client> {
    async_memcached::Client::new(ipv6_bridge::url(&path)?).await.map_err(std::io::Error::other)
}

/// Looks all `keys` up in one round trip and, with `slide`, sets the expiry of those that exist. `keys` must be sorted and
/// distinct. Returns the value under each key, in their order; `None` is an authoritative miss.
pub async fn look_up(
    mut client: Client,
    keys: &[&str],
    slide: Option<Ttl>,
) -> Result<(Client, Vec<Option<Vec<u8>>>), StoreError> {
    let touch = slide.map(|ttl| format!("T{}", ttl.0));
    let flags: Vec<&str> = std::iter::once("v").chain(touch.as_deref()).collect();
    let hits = client.inner.meta_get_multi(keys, Some(&flags)).await.map_err(store_error)?;
    let mut found = vec![None; keys.len()];
    for hit in hits {
        let key = hit.key.as_deref().unwrap_or_default();
        let index = keys.binary_search_by(|requested| requested.as_bytes().cmp(key)).map_err(|_| other_key())?;
        if hit.status != Some(Status::Value) {
            return Err(protocol_error("a hit without a value"));
        }
        found[index] = Some(hit.data.unwrap_or_default());
    }
    Ok((client, found))
}

pub async fn execute(client: Client, command: &Command) -> Result<(Client, Reply), StoreError> {
    let Client { inner: mut client, number } = client;
    let reusable = |client| Client { inner: client, number };
    let (key, response) = match command {
        Command::Set { condition: Condition::Unchanged(cas), .. } if cas.connection != number => {
            return Ok((reusable(client), Reply::NotSent));
        }
        Command::Get { key } => (key, client.meta_get(&**key, false, None, Some(&["v", "c", "k", "t"])).await),
        Command::Set { key, value, ttl, condition } => {
            let ttl = format!("T{}", ttl.0);
            let condition = match condition {
                Condition::None => None,
                Condition::Absent => Some("ME".to_owned()),
                Condition::Unchanged(cas) => Some(format!("C{}", cas.value)),
            };
            let flags: Vec<&str> = ["k", &ttl].into_iter().chain(condition.as_deref()).collect();
            (key, client.meta_set(&**key, value.as_slice(), false, None, Some(&flags)).await)
        }
        Command::Delete { key } => (key, client.meta_delete(&**key, false, None, Some(&["k"])).await),
        Command::Increment { key, window } => {
            // N creates a missing counter with this lifetime, J1 gives it the value 1. Later additions do not change the
            // lifetime.
            let vivify = format!("N{}", window.0);
            (key, client.meta_increment(&**key, false, None, None, Some(&["k", "v", "t", &vivify, "J1"])).await)
        }
        Command::Decrement { key } => (key, client.meta_decrement(&**key, false, None, None, Some(&["k"])).await),
        Command::Version => {
            client.version().await.map_err(store_error)?;
            return Ok((reusable(client), Reply::Done));
        }
    };
    Ok((reusable(client), interpret(command, key, response, number)?))
}

/// Interprets the response to a command. The crate reports refusals in two ways: as an error when the response line was
/// bare, as a value with a status when it carried the key. Which one it is depends on the version of the server.
fn interpret(
    command: &Command,
    key: &str,
    response: Result<Option<MetaValue>, Error>,
    connection: u64,
) -> Result<Reply, StoreError> {
    let response = match response {
        Ok(Some(response)) if response.key.as_deref() != Some(key.as_bytes()) => return Err(other_key()),
        Ok(Some(response)) => response,
        Ok(None) => {
            // This is a bare `EN` for a get, and a bare `HD` for all others.
            return Ok(if matches!(command, Command::Get { .. }) { Reply::NotApplied } else { Reply::Done });
        }
        Err(Error::Protocol(Status::Error(ErrorKind::Server(text)))) if is_full(&text) => return Ok(Reply::Full),
        Err(Error::Protocol(status @ (Status::NotFound | Status::NotStored | Status::Exists))) => {
            MetaValue { status: Some(status), ..MetaValue::default() }
        }
        Err(error) => return Err(store_error(error)),
    };
    let status = response.status.unwrap_or(Status::NoOp);
    match (command, status) {
        (Command::Get { .. } | Command::Increment { .. }, Status::Value) => {
            let cas = Cas { value: response.cas.unwrap_or_default(), connection };
            Ok(Reply::Item { value: response.data.unwrap_or_default(), cas, ttl: response.ttl_remaining })
        }
        (Command::Set { .. } | Command::Decrement { .. }, Status::Stored) => Ok(Reply::Done),
        (Command::Delete { .. }, Status::Deleted) => Ok(Reply::Done),
        (Command::Set { .. }, Status::NotFound | Status::NotStored | Status::Exists) => Ok(Reply::NotApplied),
        (Command::Get { .. } | Command::Delete { .. } | Command::Decrement { .. }, Status::NotFound) => {
            Ok(Reply::NotApplied)
        }
        (_, status) => Err(protocol_error(format_args!("a response that does not fit the command: {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_whole_seconds_and_never_a_date() {
        let seconds = |millis| Ttl::from(Duration::from_millis(millis)).0;
        assert_eq!(seconds(0), 1);
        assert_eq!(seconds(1), 1);
        assert_eq!(seconds(1000), 1);
        assert_eq!(seconds(1001), 2);
        assert_eq!(Ttl::from(Duration::from_secs(2_592_000)).0, 2_592_000);
        assert_eq!(Ttl::from(Duration::from_secs(2_592_001)).0, 2_592_000);
        assert_eq!(Ttl::from(Duration::MAX).0, 2_592_000);
    }
}
