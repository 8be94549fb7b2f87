//! The only file, with `dump` below it, that names `async_memcached`: what we ask of a server, what it may answer, and
//! what its failures are to us. One call here is one round trip; it takes the client and gives it back only when its
//! answer was read whole. Deadlines and reconnecting, which the crate has not, are
//! [`Connection`](super::connection::Connection)'s.
//!
//! Every command asks for its key back (`k`), and an answer that names another key is garbage: no request is
//! ever told what belongs to another.

mod dump;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_memcached::{Error, ErrorKind, MetaProtocol, MetaValue, Status};
use tokio::time::timeout;

use super::address::Address;
use super::ipv6_bridge;
use super::resolver::Names;
use crate::sessions::StoreError;

pub use dump::{Dumped, dump};

/// A connection to a server, with a number of its own.
pub struct Client {
    inner: async_memcached::Client,
    number: u64,
}

/// Which value it was that was read. Good over the same connection alone: a server that was restarted counts from
/// the beginning, and would take the number of another value for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas {
    value: u64,
    connection: u64,
}

/// A lifetime as memcached wants it: whole seconds, at least one, at most 30 days, because a larger number
/// is read as a date, and one in the past at that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

/// One command on one key. Not `Debug`, as a value may be a ticket's.
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
    /// Adds one, beginning with 1 and living for `window` when nothing was there.
    Increment {
        key: Box<str>,
        window: Ttl,
    },
    /// Takes one away down to 0, when something is there.
    Decrement {
        key: Box<str>,
    },
    /// Asks for nothing but an answer.
    Version,
}

impl Command {
    /// Empty for what concerns none.
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

/// When a value is set.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    None,
    /// When there is no other.
    Absent,
    /// When what is there is still what was read.
    Unchanged(Cas),
}

/// Not `Debug`, as a value may be a ticket's.
#[derive(PartialEq, Eq)]
pub enum Reply {
    Done,
    Item {
        value: Vec<u8>,
        cas: Cas,
        /// Seconds until it is forgotten; -1 is never.
        ttl: Option<i64>,
    },
    /// Nothing is there, or something else than the command's condition wants.
    Not,
    /// The connection on which it was read has gone, and whether it is still so was not asked.
    NotAsked,
    /// The server has no room for it. An answer like others: the connection is as good as before.
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

/// `number` must be another for each connection of a link. A server with several addresses has a share of `patience`
/// for each.
pub async fn connect(
    address: &Address,
    names: &mut Names,
    patience: Duration,
    number: u64,
) -> Result<Client, StoreError> {
    let inner = match address {
        Address::Unix(path) => async_memcached::Client::new(format!("unix://{path}")).await.map_err(failure)?,
        Address::Tcp { host, port } => {
            let addresses = names.resolve(host, *port).await.map_err(|e| failure(Error::Connect(e)))?;
            connect_tcp(&addresses, patience).await?
        }
    };
    Ok(Client { inner, number })
}

/// Names are resolved by us and not by the crate, which opens IPv4 sockets for IPv6 addresses too and would report that
/// failure in place of the one that matters.
async fn connect_tcp(addresses: &[SocketAddr], patience: Duration) -> Result<async_memcached::Client, StoreError> {
    let share = patience / addresses.len().max(1) as u32;
    let mut error = StoreError::Unavailable { cause: "the name has no address".into() };
    for address in addresses {
        let connecting = async {
            match address {
                SocketAddr::V4(_) => async_memcached::Client::new(format!("tcp://{address}")).await.map_err(failure),
                SocketAddr::V6(_) => {
                    ipv6_bridge::through(*address, open_socket).await.map_err(|e| failure(Error::Connect(e)))
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

async fn open_socket(path: PathBuf) -> std::io::Result<async_memcached::Client> {
    async_memcached::Client::new(ipv6_bridge::url(&path)?).await.map_err(std::io::Error::other)
}

/// Looks all `keys` up in one round trip and, with `slide`, sets the expiry of those that are there. `keys`
/// are sorted and differ. Answers what lies under each, in their order; `None` is an authoritative miss.
pub async fn look_up(
    mut client: Client,
    keys: &[&str],
    slide: Option<Ttl>,
) -> Result<(Client, Vec<Option<Vec<u8>>>), StoreError> {
    let touch = slide.map(|ttl| format!("T{}", ttl.0));
    let flags: Vec<&str> = std::iter::once("v").chain(touch.as_deref()).collect();
    let hits = client.inner.meta_get_multi(keys, Some(&flags)).await.map_err(failure)?;
    let mut found = vec![None; keys.len()];
    for hit in hits {
        let key = hit.key.as_deref().unwrap_or_default();
        let place = keys.binary_search_by(|asked| asked.as_bytes().cmp(key)).map_err(|_| other_key())?;
        if hit.status != Some(Status::Value) {
            return Err(garbled("a hit without a value"));
        }
        found[place] = Some(hit.data.unwrap_or_default());
    }
    Ok((client, found))
}

pub async fn execute(client: Client, command: &Command) -> Result<(Client, Reply), StoreError> {
    let Client { inner: mut client, number } = client;
    let whole = |client| Client { inner: client, number };
    let (key, answer) = match command {
        Command::Set { condition: Condition::Unchanged(cas), .. } if cas.connection != number => {
            return Ok((whole(client), Reply::NotAsked));
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
            // N: make it when it is missing; J: begin with. The lifetime is not set again by later additions.
            let vivify = format!("N{}", window.0);
            (key, client.meta_increment(&**key, false, None, None, Some(&["k", "v", "t", &vivify, "J1"])).await)
        }
        Command::Decrement { key } => (key, client.meta_decrement(&**key, false, None, None, Some(&["k"])).await),
        Command::Version => {
            client.version().await.map_err(failure)?;
            return Ok((whole(client), Reply::Done));
        }
    };
    Ok((whole(client), judge(command, key, answer, number)?))
}

/// Reads an answer against the question. The crate tells refusals in two ways: as an error where the reply
/// line was bare, as a value with a status where it bore the key. Which it is depends on the server's version.
fn judge(
    command: &Command,
    key: &str,
    answer: Result<Option<MetaValue>, Error>,
    connection: u64,
) -> Result<Reply, StoreError> {
    let answer = match answer {
        Ok(Some(answer)) if answer.key.as_deref() != Some(key.as_bytes()) => return Err(other_key()),
        Ok(Some(answer)) => answer,
        Ok(None) => {
            // A bare `EN` to a get, a bare `HD` to all others.
            return Ok(if matches!(command, Command::Get { .. }) { Reply::Not } else { Reply::Done });
        }
        Err(Error::Protocol(Status::Error(ErrorKind::Server(text)))) if is_full(&text) => return Ok(Reply::Full),
        Err(Error::Protocol(status @ (Status::NotFound | Status::NotStored | Status::Exists))) => {
            MetaValue { status: Some(status), ..MetaValue::default() }
        }
        Err(error) => return Err(failure(error)),
    };
    let status = answer.status.unwrap_or(Status::NoOp);
    match (command, status) {
        (Command::Get { .. } | Command::Increment { .. }, Status::Value) => {
            let cas = Cas { value: answer.cas.unwrap_or_default(), connection };
            Ok(Reply::Item { value: answer.data.unwrap_or_default(), cas, ttl: answer.ttl_remaining })
        }
        (Command::Set { .. } | Command::Decrement { .. }, Status::Stored) => Ok(Reply::Done),
        (Command::Delete { .. }, Status::Deleted) => Ok(Reply::Done),
        (Command::Set { .. }, Status::NotFound | Status::NotStored | Status::Exists) => Ok(Reply::Not),
        (Command::Get { .. } | Command::Delete { .. } | Command::Decrement { .. }, Status::NotFound) => Ok(Reply::Not),
        (_, status) => Err(garbled(format_args!("an answer that does not fit the command: {status}"))),
    }
}

/// memcached says "out of memory storing object" and "object too large for cache".
fn is_full(text: &str) -> bool {
    text.starts_with("out of memory") || text.starts_with("object too large")
}

fn failure(error: Error) -> StoreError {
    match error {
        Error::Connect(_) | Error::Io(_) | Error::ConnectionClosed => away(error),
        // Its own trouble, or that of a proxy before it with the server behind.
        Error::Protocol(Status::Error(ErrorKind::Server(_))) => away(error),
        Error::Protocol(Status::Error(ErrorKind::NonexistentCommand)) => {
            unfit("it does not know the commands that are used; memcached 1.6.10 or later is needed")
        }
        Error::Protocol(Status::Error(ErrorKind::Client(text))) if text.contains("unauthenticated") => {
            unfit("it wants a password (-Y), and has to be used without one")
        }
        Error::Protocol(_) | Error::ParseError(_) => garbled(error),
    }
}

fn unfit(cause: &str) -> StoreError {
    StoreError::Unfit { cause: cause.to_owned() }
}

fn other_key() -> StoreError {
    garbled("an answer for another key")
}

fn away(cause: impl Display) -> StoreError {
    StoreError::Unavailable { cause: printable(cause) }
}

pub fn garbled(cause: impl Display) -> StoreError {
    StoreError::Protocol { cause: printable(cause) }
}

/// A cause may quote the server, which may be anything: it reaches the log short and on one line.
fn printable(cause: impl Display) -> String {
    cause.to_string().chars().take(200).flat_map(char::escape_debug).collect()
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

    #[test]
    fn what_a_server_says_cannot_break_a_log_line() {
        let StoreError::Unavailable { cause } = away("x\r\n\u{1b}[31mY".repeat(100)) else { panic!() };
        assert!(cause.len() < 2000 && cause.chars().all(|c| !c.is_control()), "{cause}");
    }
}
