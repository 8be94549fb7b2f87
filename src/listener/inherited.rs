//! Sockets that are listened on and that this process has not bound. Either the service manager has (socket activation,
//! see sd_listen_fds(3)), and keeps them, so that clients wait while the edge is restarted and none is refused. Or they
//! come from the process before this one, which has started this one to take over from it.
//!
//! A socket belongs to the listener of its address. One of the service manager that no listener has stops the start: the
//! kernel would take connections there which no process ever accepts, and their clients would wait instead of being
//! refused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Socket, Type};

use crate::descriptors;

/// Sockets that no listener has taken yet.
#[derive(Default)]
pub struct InheritedSockets {
    left: Vec<InheritedSocket>,
    /// Whether there were any.
    pub is_inherited: bool,
}

pub struct InheritedSocket {
    pub socket: Socket,
    address: SocketAddr,
    /// The listener's protocol and address in the configuration of the process before this one. The port may be 0 there.
    configured: Option<(String, SocketAddr)>,
    /// Whether the service manager has bound it.
    pub is_activated: bool,
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
            let descriptor = descriptors::adopt(number).map_err(InheritedSocketError::Unreadable)?;
            InheritedSocket::new(descriptor, None, true).ok_or(InheritedSocketError::NoListener(name))
        });
        passed.collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    pub fn new(sockets: Vec<InheritedSocket>) -> Self {
        Self { is_inherited: !sockets.is_empty(), left: sockets }
    }

    /// Takes the socket of a listener.
    pub fn take(&mut self, protocol: &str, address: SocketAddr) -> Option<InheritedSocket> {
        let is_same = |it: &InheritedSocket| it.configured.as_ref().is_some_and(|it| *it == (protocol.into(), address));
        let same = self.left.iter().position(is_same);
        let at = same.or_else(|| self.left.iter().position(|inherited| inherited.address == address))?;
        Some(self.left.remove(at))
    }

    /// Closes the sockets that no listener has taken. Returns an error where the service manager has bound one of them.
    pub fn check_claimed(self) -> Result<(), InheritedSocketError> {
        let (activated, own): (Vec<_>, Vec<_>) = self.left.into_iter().partition(|inherited| inherited.is_activated);
        if !activated.is_empty() {
            return Err(InheritedSocketError::Unclaimed(activated.iter().map(|it| it.address).collect()));
        }
        for InheritedSocket { address, .. } in own {
            log::info!("listener {address}: not in the configuration any more, so it closes with the process before");
        }
        Ok(())
    }
}

impl InheritedSocket {
    /// Returns `None` where the descriptor is no TCP socket that listens.
    pub fn new(descriptor: OwnedFd, configured: Option<(String, SocketAddr)>, is_activated: bool) -> Option<Self> {
        let socket = Socket::from(descriptor);
        let address = listening_address(&socket)?;
        Some(Self { socket, address, configured, is_activated })
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
