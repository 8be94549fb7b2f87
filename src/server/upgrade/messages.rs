//! What the two processes of an upgrade say to each other. Each message is one packet, with the descriptors that it
//! names.
//!
//! ```text
//! new process                                        old process
//!   Hello        ──────────────────────────────────▶
//!                ◀────────── Listeners, with sockets   until all are sent
//!                ◀── Control, with socket and lock
//!                ◀──────────────────────────── Ready
//!   it starts, and accepts
//!   Serving      ──────────────────────────────────▶
//!                ◀────────────────────────── Replace   it drains, and the new process alone is the edge
//! ```
//!
//! A connection that ends before `Serving` is an upgrade that has failed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::descriptors;

/// The version of these messages. Edges of different versions of them do not upgrade to one another.
pub const PROTOCOL: u32 = 1;

/// Bytes of a message at most.
const MAX_BYTES: usize = 64 << 10;

/// How long a message may wait for the other process to take the ones before it.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Hello {
        protocol: u32,
        version: String,
    },
    /// Some of the listeners, each with its socket.
    Listeners(Vec<ListenerRecord>),
    /// The control socket in this folder, and the lock on the folder.
    Control {
        folder: PathBuf,
        /// Device and inode of the socket's name.
        identity: (u64, u64),
    },
    /// Everything is sent. `upgrades` are the upgrades so far, by result.
    Ready {
        upgrades: BTreeMap<String, u64>,
    },
    /// The new process accepts connections.
    Serving {
        /// Whether it has taken over the control socket, which it has not where its folder is another one.
        has_control_socket: bool,
    },
    /// The old process stops accepting connections.
    Replace,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerRecord {
    pub protocol: String,
    pub configured: SocketAddr,
    pub is_activated: bool,
}

/// A connection between the two.
pub struct Channel(Socket);

impl Channel {
    pub fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self(socket))
    }

    pub fn new_socket() -> io::Result<Socket> {
        Socket::new(Domain::UNIX, Type::SEQPACKET, None)
    }

    pub fn send(&self, message: &Message, descriptors: &[RawFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        match bytes.len() {
            ..=MAX_BYTES => descriptors::send(&self.0, &bytes, descriptors),
            _ => Err(io::Error::new(ErrorKind::InvalidInput, "a message is too long")),
        }
    }

    /// Receives the next message. [`ErrorKind::WouldBlock`] says that there was none in this time.
    pub fn receive(&self, wait: Duration) -> io::Result<(Message, Vec<OwnedFd>)> {
        self.0.set_read_timeout(Some(wait))?;
        let mut buffer = vec![0; MAX_BYTES];
        match descriptors::receive(&self.0, &mut buffer)? {
            (0, _) => Err(ErrorKind::UnexpectedEof.into()),
            (length, descriptors) => Ok((serde_json::from_slice(&buffer[..length])?, descriptors)),
        }
    }
}
