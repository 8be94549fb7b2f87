//! Sockets that are listened on and that this process has not bound: the service manager has (socket activation, see
//! sd_listen_fds(3)), and keeps them, so that clients wait while the edge is restarted and none is refused.
//!
//! A socket belongs to the listener of its address. One that no listener has stops the start: the kernel would take
//! connections there which no process ever accepts, and their clients would wait instead of being refused.

use std::io;
use std::net::SocketAddr;

use socket2::{Socket, Type};

use crate::descriptors;

/// Sockets that no listener has taken yet.
#[derive(Default)]
pub struct InheritedSockets {
    left: Vec<InheritedSocket>,
    /// Whether there were any.
    pub is_activated: bool,
}

struct InheritedSocket {
    socket: Socket,
    address: SocketAddr,
}

/// Why sockets of the service manager are not used.
#[derive(Debug)]
pub enum InheritedSocketError {
    /// Its variables or its descriptors cannot be read.
    Unreadable(io::Error),
    /// A descriptor, by its name in the socket unit, that is no TCP socket that listens.
    NoListener(String),
    /// Sockets that no listener of the configuration has.
    Unclaimed(Vec<SocketAddr>),
}

impl InheritedSockets {
    /// Takes the sockets that the service manager has started this process with, if it has. To be called once, before
    /// the process opens anything.
    pub fn from_service_manager() -> Result<Self, InheritedSocketError> {
        let passed = sd_notify::listen_fds_with_names().map_err(InheritedSocketError::Unreadable)?;
        let passed = passed.map(|(number, name)| {
            let socket = Socket::from(descriptors::adopt(number).map_err(InheritedSocketError::Unreadable)?);
            let address = listening_address(&socket).ok_or(InheritedSocketError::NoListener(name))?;
            Ok(InheritedSocket { socket, address })
        });
        let left = passed.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { is_activated: !left.is_empty(), left })
    }

    /// Takes the socket of a listener.
    pub fn take(&mut self, address: SocketAddr) -> Option<Socket> {
        let at = self.left.iter().position(|inherited| inherited.address == address)?;
        Some(self.left.remove(at).socket)
    }

    /// Returns an error where sockets are left that no listener has taken.
    pub fn check_claimed(self) -> Result<(), InheritedSocketError> {
        match self.left.iter().map(|inherited| inherited.address).collect::<Vec<_>>() {
            unclaimed if unclaimed.is_empty() => Ok(()),
            unclaimed => Err(InheritedSocketError::Unclaimed(unclaimed)),
        }
    }
}

/// Returns the address of a TCP socket that listens.
fn listening_address(socket: &Socket) -> Option<SocketAddr> {
    let listens = socket.r#type().ok()? == Type::STREAM && socket.is_listener().ok()?;
    listens.then(|| socket.local_addr().ok()?.as_socket()).flatten()
}

impl std::fmt::Display for InheritedSocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(cause) => {
                write!(f, "cannot take the sockets of the service manager (LISTEN_FDS): {cause}")
            }
            Self::NoListener(name) => write!(
                f,
                "the service manager passes {name}, which is no TCP socket that listens; name addresses with ports by \
                 ListenStream= in the socket unit, and nothing else"
            ),
            Self::Unclaimed(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the service manager listens on {}, which no listener has, and clients would wait there without \
                     end; add it to server.listeners, or remove it from the socket unit",
                    addresses.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for InheritedSocketError {}
