//! The process before this one, seen from the process that takes over from it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::SockAddr;

use super::messages::{Channel, ListenerRecord, Message, PROTOCOL};
use crate::listener::inherited::{InheritedSocket, InheritedSockets};
use crate::server::control_socket::InheritedControlSocket;

/// How long the other process may take for each of its messages. It waits for this one, so it takes no time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The process before this one, which serves until this one does.
pub struct Predecessor {
    channel: Channel,
    /// The folder of its control socket.
    control_folder: Option<PathBuf>,
}

/// What it hands over beside its sockets.
pub struct TakenOver {
    pub control: Option<InheritedControlSocket>,
    /// Its upgrades so far, by result.
    pub upgrades: BTreeMap<String, u64>,
}

impl Predecessor {
    /// Takes the sockets over from the process that listens at `path`.
    pub fn take_over(path: &Path) -> io::Result<(Self, InheritedSockets, TakenOver)> {
        let socket = Channel::new_socket()?;
        socket.connect(&SockAddr::unix(path)?)?;
        let channel = Channel::new(socket)?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        channel.send(&Message::Hello { protocol: PROTOCOL, version }, &[])?;
        let (mut sockets, mut control, mut control_folder) = (Vec::new(), None, None);
        loop {
            match channel.receive(MESSAGE_TIMEOUT)? {
                (Message::Listeners(records), descriptors) if records.len() == descriptors.len() => {
                    for (record, descriptor) in records.into_iter().zip(descriptors) {
                        sockets.push(inherited(record, descriptor)?);
                    }
                }
                (Message::Control { folder, identity }, descriptors) => {
                    control_folder = Some(folder.clone());
                    control = Some(InheritedControlSocket::new(folder, identity, descriptors)?);
                }
                (Message::Ready { upgrades }, _) => {
                    let predecessor = Self { channel, control_folder };
                    return Ok((predecessor, InheritedSockets::new(sockets), TakenOver { control, upgrades }));
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Says that this process serves, with a control socket at this path, and waits until the other one stops accepting
    /// connections. An error says that the other one has ended, so that this process serves alone all the same.
    pub fn replace(self, control_socket: Option<&Path>) -> io::Result<()> {
        let folder = control_socket.and_then(Path::parent);
        let has_control_socket = folder.is_some() && folder == self.control_folder.as_deref();
        self.channel.send(&Message::Serving { has_control_socket }, &[])?;
        match self.channel.receive(MESSAGE_TIMEOUT)? {
            (Message::Replace, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

fn inherited(record: ListenerRecord, descriptor: OwnedFd) -> io::Result<InheritedSocket> {
    let configured = (record.protocol, record.configured);
    InheritedSocket::new(descriptor, Some(configured), record.is_activated)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a descriptor is no listening socket"))
}

fn unexpected() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "an unexpected message")
}
