//! The process after this one, seen from the process that it takes over from.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use rustix::net::sockopt::socket_peercred;
use socket2::{SockAddr, Socket};
use tokio::net::TcpListener;

use super::UpgradeSource;
use super::messages::{Channel, ListenerRecord, Message, PROTOCOL};
use crate::descriptors::MAX_IN_MESSAGE;

/// The interval between two looks at whether the other process has ended or its time is up.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where the new process connects to. The socket is gone when this is dropped.
pub struct UpgradeSocket {
    socket: Socket,
    path: PathBuf,
}

/// Why the new process does not serve in the place of this one.
#[derive(Debug)]
pub enum UpgradeError {
    /// Its messages cannot be sent or received.
    Failed(io::Error),
    /// It closed the connection, and probably ended.
    Gone,
    /// It said what is no part of an upgrade.
    Unexpected(String),
    /// The caller has stopped waiting; says why.
    Stopped(String),
}

impl UpgradeSocket {
    /// Listens. What is at the path was left by a process that ended during an upgrade: the folder has one edge.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Channel::new_socket()?;
        socket.bind(&SockAddr::unix(path)?)?;
        let bound = Self { socket, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        bound.socket.set_nonblocking(true)?;
        bound.socket.listen(1)?;
        Ok(bound)
    }

    /// Waits for the process with this id, hands over the sockets to it, and waits until it serves. `still` is called
    /// again and again; it ends the wait by an error.
    pub fn hand_over(
        &self,
        pid: u32,
        source: &UpgradeSource,
        mut still: impl FnMut() -> Result<(), String>,
    ) -> Result<Successor, UpgradeError> {
        let mut still = move || still().map_err(UpgradeError::Stopped);
        let channel = self.accept(pid, &mut still)?;
        match next(&channel, &mut still)? {
            Message::Hello { protocol: PROTOCOL, version } => {
                log::info!("upgrade: process {pid} has read its configuration version={version}");
            }
            other => return Err(UpgradeError::Unexpected(format!("{other:?}"))),
        }
        source.send_to(&channel)?;
        match next(&channel, &mut still)? {
            Message::Serving { has_control_socket } => Ok(Successor { channel, has_control_socket }),
            other => Err(UpgradeError::Unexpected(format!("{other:?}"))),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a thread of the upgrade alone")]
    fn accept(&self, pid: u32, still: &mut impl FnMut() -> Result<(), UpgradeError>) -> Result<Channel, UpgradeError> {
        loop {
            match self.socket.accept() {
                // Another process of this user is no successor.
                Ok((socket, _)) => match socket_peercred(&socket) {
                    Ok(peer) if u32::try_from(peer.pid.as_raw_nonzero().get()).is_ok_and(|peer| peer == pid) => {
                        return Channel::new(socket).map_err(UpgradeError::Failed);
                    }
                    _ => log::warn!("upgrade: a process that is not the new one has connected, and was refused"),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(UpgradeError::Failed(error)),
            }
            still()?;
        }
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

fn next(channel: &Channel, still: &mut impl FnMut() -> Result<(), UpgradeError>) -> Result<Message, UpgradeError> {
    loop {
        match channel.receive(POLL_INTERVAL) {
            Ok((message, _)) => return Ok(message),
            Err(error) if error.kind() == ErrorKind::WouldBlock => still()?,
            Err(error) if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) => {
                return Err(UpgradeError::Gone);
            }
            Err(error) => return Err(UpgradeError::Failed(error)),
        }
    }
}

/// A new process that accepts connections, as this one still does.
pub struct Successor {
    channel: Channel,
    has_control_socket: bool,
}

impl Successor {
    /// Says to it that this process stops accepting connections.
    pub fn replace(self, source: &UpgradeSource) -> Result<(), UpgradeError> {
        self.channel.send(&Message::Replace, &[])?;
        if let Some(control) = source.control.upgrade().filter(|_| self.has_control_socket) {
            control.leave();
        }
        Ok(())
    }
}

impl UpgradeSource {
    fn send_to(&self, channel: &Channel) -> Result<(), UpgradeError> {
        for some in self.listeners.chunks(MAX_IN_MESSAGE) {
            // One that is gone is closing, and so is the edge.
            let open: Vec<(ListenerRecord, Arc<TcpListener>)> = some
                .iter()
                .filter_map(|listener| {
                    let record = ListenerRecord {
                        protocol: listener.protocol.to_owned(),
                        configured: listener.configured,
                        is_activated: listener.is_activated,
                    };
                    Some((record, listener.socket.upgrade()?))
                })
                .collect();
            let sockets: Vec<RawFd> = open.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
            let records = open.iter().map(|(record, _)| record.clone()).collect();
            channel.send(&Message::Listeners(records), &sockets)?;
        }
        if let Some(control) = self.control.upgrade() {
            let (identity, descriptors) = control.parts();
            channel.send(&Message::Control { folder: control.folder().to_owned(), identity }, &descriptors)?;
        }
        Ok(channel.send(&Message::Ready { upgrades: self.results() }, &[])?)
    }

    fn results(&self) -> BTreeMap<String, u64> {
        let result = |result: &&str| ((*result).to_owned(), self.results.with_label_values(&[*result]).get());
        crate::metrics::UPGRADE_RESULTS.iter().map(result).collect()
    }
}

impl From<io::Error> for UpgradeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Failed(error),
        }
    }
}

impl std::fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the sockets cannot be handed over: {error}"),
            Self::Gone => write!(f, "the new process has closed its connection"),
            Self::Unexpected(message) => write!(f, "the new process is of another kind: it sent {message:.100}"),
            Self::Stopped(why) => write!(f, "{why}"),
        }
    }
}
