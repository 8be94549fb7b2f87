//! The runtime directory and the control socket in it: made at start, the edge's own for as long as it accepts
//! connections, and gone with it.
//!
//! A lock on a file beside the socket tells an edge that lives from one that has ended: the system frees it with the
//! process. Only who has the lock removes a socket, and never one that answers.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::watch;

use crate::admin::{Admin, control_socket};
use crate::config::Config;
use crate::config::runtime_dir::{CONTROL_SOCKET, check_parents, runtime_dir};

const LOCK: &str = "control.lock";

/// Others may write to a folder with one of these.
const OTHERS_MAY_WRITE: u32 = 0o022;

/// How long an edge that starts waits for one that is about to end, which closes its listeners first.
const TAKE_OVER: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A control socket that listens.
pub struct ControlSocket {
    listener: UnixListener,
    file: Arc<SocketFile>,
}

/// The socket's place in the file system. Dropping it removes the file.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that only this socket is removed.
    identity: (u64, u64),
    /// Locked until it is closed here and in each process that it was handed to.
    lock: File,
    /// The socket once more, for a process that takes over from this one.
    socket: UnixListener,
    /// Whether another process removes the file: the one that has taken it over, or the one before this, until it has
    /// left it to this one.
    is_left: AtomicBool,
}

/// The control socket of the process before this one, which listens, with the lock on its folder.
pub struct InheritedControlSocket {
    folder: PathBuf,
    identity: (u64, u64),
    listener: UnixListener,
    lock: File,
}

/// Why there is no control socket.
#[derive(Debug)]
pub enum ControlSocketError {
    /// Another edge has this runtime directory.
    Taken(PathBuf),
    /// The folder cannot be used; says why.
    Unusable(PathBuf, String),
}

impl ControlSocket {
    /// Makes the folder where there is none, and listens in it.
    pub fn bind(folder: &Path) -> Result<Self, ControlSocketError> {
        let failed = |error: io::Error| ControlSocketError::Unusable(folder.to_owned(), error.to_string());
        make(folder).map_err(|what| ControlSocketError::Unusable(folder.to_owned(), what))?;
        let lock = open_lock(&folder.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ControlSocketError::Taken(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = folder.join(CONTROL_SOCKET);
        remove_dead(&path, folder)?;
        Self::bind_at(path, lock).map_err(failed)
    }

    fn bind_at(path: PathBuf, lock: File) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        restrict(&path)?;
        let identity = identity(&path)?;
        Self::new(path, identity, listener, lock)
    }

    fn new(path: PathBuf, identity: (u64, u64), listener: UnixListener, lock: File) -> io::Result<Self> {
        let socket = listener.try_clone()?;
        let file = SocketFile { path, identity, lock, socket, is_left: AtomicBool::new(false) };
        Ok(Self { listener, file: Arc::new(file) })
    }

    /// Goes on with the socket of the process before this one, under the name that it has.
    fn inherit(inherited: InheritedControlSocket) -> io::Result<Self> {
        let InheritedControlSocket { folder, identity: expected, listener, lock } = inherited;
        let path = folder.join(CONTROL_SOCKET);
        match identity(&path) {
            Ok(found) if found == expected => {
                let socket = Self::new(path, expected, listener, lock)?;
                socket.file.leave();
                Ok(socket)
            }
            // Its name was removed, or is another's now.
            _ => {
                remove_dead(&path, &folder).map_err(io::Error::other)?;
                Self::bind_at(path, lock)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Returns the socket's place for as long as it is served.
    pub fn share(&self) -> Weak<SocketFile> {
        Arc::downgrade(&self.file)
    }

    /// Serves it until the edge stops accepting connections.
    pub async fn serve(self, admin: Arc<Admin>, closing: watch::Receiver<bool>) {
        let Self { listener, file } = self;
        control_socket::serve(listener, admin, own_uid(), closing).await;
        drop(file);
    }
}

impl SocketFile {
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Returns what an [`InheritedControlSocket`] is made of in another process.
    pub fn parts(&self) -> ((u64, u64), [RawFd; 2]) {
        (self.identity, [self.socket.as_raw_fd(), self.lock.as_raw_fd()])
    }

    /// Leaves the file to the process that has taken the socket over.
    pub fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    /// Removes the file, if it is this process's to remove.
    pub fn remove(&self) {
        if !self.is_left.load(Ordering::Acquire) && identity(&self.path).is_ok_and(|it| it == self.identity) {
            fs::remove_file(&self.path).ok();
        }
    }

    /// Takes the file over from the process before this one, which has left it.
    pub fn take(&self) {
        self.is_left.store(false, Ordering::Release);
    }
}

impl InheritedControlSocket {
    pub fn new(folder: PathBuf, identity: (u64, u64), descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let [listener, lock]: [OwnedFd; 2] = descriptors.try_into().map_err(|_| ErrorKind::InvalidData)?;
        Ok(Self { folder, identity, listener: listener.into(), lock: lock.into() })
    }
}

/// Returns device and inode of what has this name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Binds the socket of a configuration, or goes on with the inherited one where that is in the same folder. `None` where
/// the default folder cannot be used: an edge serves its users all the same. A folder that the configuration names has to be usable.
pub fn open(
    config: &Config,
    file: &Path,
    inherited: Option<InheritedControlSocket>,
) -> Result<Option<ControlSocket>, ControlSocketError> {
    let written = config.server.runtime_dir.as_deref();
    let folder = runtime_dir(written, file);
    let socket = match inherited.filter(|inherited| inherited.folder == folder) {
        Some(inherited) => {
            ControlSocket::inherit(inherited).map_err(|error| ControlSocketError::Unusable(folder, error.to_string()))
        }
        None => bind_in_time(&folder),
    };
    match socket {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if written.is_some() => Err(error),
        Err(error) => {
            log::warn!("control socket: none, so that no command reaches this edge: {error}");
            Ok(None)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "runs at the start, before anything is served")]
fn bind_in_time(folder: &Path) -> Result<ControlSocket, ControlSocketError> {
    let deadline = Instant::now() + TAKE_OVER;
    loop {
        match ControlSocket::bind(folder) {
            Err(ControlSocketError::Taken(_)) if Instant::now() < deadline => std::thread::sleep(RETRY_AFTER),
            bound => return bound,
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Returns why the folder of a start cannot be used, if it is there. One that is not may be made by the service manager
/// (`RuntimeDirectory=`). Root may look at the folder of an edge of any user.
pub fn inspect(folder: &Path) -> Result<(), String> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        found => check_owner(folder, owner(&found.map_err(|error| error.to_string())?)),
    }
}

/// Returns whose folder one has to be: this user's, and for root that of the user whom it belongs to.
fn owner(found: &fs::Metadata) -> u32 {
    match own_uid() {
        0 => found.uid(),
        own => own,
    }
}

/// Returns why others may put a folder of theirs in the place of this one, if they may. Then commands may find no socket,
/// or another one, which they do not believe: both ends ask the kernel who the other one is.
pub fn exposure(folder: &Path) -> Option<String> {
    let is_there = folder.parent().is_some_and(|parent| parent.as_os_str().is_empty() || parent.exists());
    let own = fs::symlink_metadata(folder).map_or_else(|_| own_uid(), |found| owner(&found));
    let why = if is_there { check_parents(folder, &[0, own]).err()? } else { return None };
    Some(format!("another user may take its folder away: {why}"))
}

/// Makes the folder, which its owner alone may enter. One that is there already is left as it is: it has to belong to
/// this user or to root, and others must not be able to put a socket of theirs into it.
fn make(folder: &Path) -> Result<(), String> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    }
    if let Some(what) = exposure(folder) {
        log::warn!("control socket: {what}");
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.map_err(|error| error.to_string()),
    }
    check_owner(folder, own_uid())
}

fn check_owner(folder: &Path, own: u32) -> Result<(), String> {
    let found = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is no folder".into());
    }
    if ![own, 0].contains(&found.uid()) {
        return Err(format!("it belongs to user id {}, and not to {own} or root", found.uid()));
    }
    if found.mode() & OTHERS_MAY_WRITE != 0 {
        return Err(format!("others may write to it: it has mode {:04o}", found.mode() & 0o7777));
    }
    Ok(())
}

/// Lets the owner alone connect. No link is followed, in case another user has put one there since.
fn restrict(socket: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits()).open(socket)?;
    if !opened.metadata()?.file_type().is_socket() {
        return Err(ErrorKind::InvalidData.into());
    }
    fs::set_permissions(format!("/proc/self/fd/{}", opened.as_raw_fd()), fs::Permissions::from_mode(0o600))
}

/// Opens the file that is locked: no link is followed, which would have a file of another place made or locked.
fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Removes the socket of an edge that has ended. Anything else at its place is left alone.
fn remove_dead(path: &Path, folder: &Path) -> Result<(), ControlSocketError> {
    let unusable = |what: String| ControlSocketError::Unusable(folder.to_owned(), what);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error.to_string())),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(unusable(format!("{CONTROL_SOCKET} in it is no socket; remove it")));
        }
        Ok(_) => {}
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| unusable(error.to_string()))
        }
        // A queue that is full belongs to a process that lives.
        Ok(()) => Err(ControlSocketError::Taken(folder.to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ControlSocketError::Taken(folder.to_owned())),
        Err(error) => Err(unusable(format!("{CONTROL_SOCKET}: {error}"))),
    }
}

/// Connects without waiting.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

impl std::error::Error for ControlSocketError {}

impl std::fmt::Display for ControlSocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(folder) => write!(
                f,
                "another edge runs with the runtime directory {}; give each a folder of its own (server.runtime_dir)",
                folder.display()
            ),
            Self::Unusable(folder, what) => write!(
                f,
                "the runtime directory {} cannot be used: {what}; name another one (server.runtime_dir)",
                folder.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/run");
        (parent, folder)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_folder_and_the_socket_are_the_owners_alone_and_the_socket_goes_with_the_edge() {
        let (_parent, folder) = folder();
        let socket = ControlSocket::bind(&folder).unwrap();
        assert_eq!((mode(&folder), mode(socket.path())), (0o700, 0o600));
        assert!(matches!(ControlSocket::bind(&folder), Err(ControlSocketError::Taken(_))));
        assert!(connect(socket.path()).is_ok(), "the second one has left it alone");
        drop(socket);
        assert!(!folder.join(CONTROL_SOCKET).exists());
        assert!(ControlSocket::bind(&folder).is_ok());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_one_that_answers_is_not_whether_or_not_it_has_a_lock() {
        let (_parent, folder) = folder();
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let path = folder.join(CONTROL_SOCKET);
        let alive = UnixListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&folder), Err(ControlSocketError::Taken(_))));
        // Its queue is full, and it takes nothing.
        let waiting: Vec<_> =
            std::iter::repeat_with(|| nonblocking(&path)).take_while(Result::is_ok).take(10_000).collect();
        assert!(matches!(ControlSocket::bind(&folder), Err(ControlSocketError::Taken(_))));
        drop((alive, waiting));
        assert!(path.exists(), "a process that is killed leaves it");
        assert!(ControlSocket::bind(&folder).is_ok());
    }

    fn nonblocking(path: &Path) -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(socket)
    }

    #[test]
    fn nothing_else_at_its_place_is_removed_or_followed() {
        let (parent, folder) = folder();
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let (path, other) = (folder.join(CONTROL_SOCKET), parent.path().join("other"));
        fs::write(&other, "kept").unwrap();
        for place in ["file", "link", "link to nothing", "folder"] {
            match place {
                "file" => fs::write(&path, "kept").unwrap(),
                "link" => std::os::unix::fs::symlink(&other, &path).unwrap(),
                "link to nothing" => std::os::unix::fs::symlink(parent.path().join("nothing"), &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let bound = ControlSocket::bind(&folder);
            assert!(matches!(bound, Err(ControlSocketError::Unusable(..))), "{place}");
            assert!(path.symlink_metadata().is_ok(), "{place} is still there");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        assert!(!parent.path().join("nothing").exists());
    }

    #[test]
    fn a_folder_below_one_that_others_may_write_to_is_used_with_a_warning() {
        let (_parent, folder) = folder();
        let above = folder.parent().unwrap();
        assert_eq!(exposure(&folder), None, "nothing is there yet");
        fs::create_dir_all(above).unwrap();
        for (bad, exposed) in [(0o777, true), (0o2777, true), (0o1777, false), (0o755, false)] {
            fs::set_permissions(above, fs::Permissions::from_mode(bad)).unwrap();
            let why = exposure(&folder);
            assert_eq!(why.is_some_and(|why| why.contains("others may write to")), exposed, "{bad:o}");
            assert_eq!(inspect(&folder), Ok(()), "{bad:o}");
            let socket = ControlSocket::bind(&folder).unwrap_or_else(|error| panic!("{bad:o}: {error}"));
            assert_eq!((mode(&folder) & 0o777, mode(socket.path())), (0o700, 0o600), "{bad:o}");
        }
    }

    #[test]
    fn only_a_socket_is_restricted_and_no_link_is_followed() {
        let (parent, _) = folder();
        let (file, link) = (parent.path().join("file"), parent.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            assert!(restrict(path).is_err());
            assert_eq!(mode(&file), 0o644);
        }
    }

    #[test]
    fn a_lock_that_is_a_link_is_not_used() {
        let (parent, folder) = folder();
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&other, folder.join(LOCK)).unwrap();
        assert!(matches!(ControlSocket::bind(&folder), Err(ControlSocketError::Unusable(..))));
        assert!(!other.exists());
    }

    #[test]
    fn neither_a_folder_that_is_to_be_made_nor_that_of_the_edges_user_is_a_fault_for_root() {
        let (_parent, folder) = folder();
        assert_eq!(inspect(&folder), Ok(()), "its parent is not there either");
        assert_eq!(inspect(Path::new("/proc/sentry-edge")), Ok(()), "it could not be made here");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(inspect(&folder), Ok(()));
        let is_root = own_uid() == 0;
        if is_root {
            std::os::unix::fs::chown(&folder, Some(998), Some(998)).unwrap();
            assert_eq!(inspect(&folder), Ok(()), "it is the edge's user's");
            assert!(check_owner(&folder, 997).is_err());
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(inspect(&folder).unwrap_err().contains("others may write to it"));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used_and_not_changed() {
        let (parent, folder) = folder();
        fs::create_dir_all(&folder).unwrap();
        for bad in [0o777, 0o1777, 0o770, 0o702] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(bad)).unwrap();
            assert!(matches!(ControlSocket::bind(&folder), Err(ControlSocketError::Unusable(..))), "{bad:o}");
            assert_eq!(mode(&folder), bad);
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(ControlSocket::bind(&folder).is_ok(), "the socket itself is the owner's");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(matches!(ControlSocket::bind(&link), Err(ControlSocketError::Unusable(..))));
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for bad in [file.clone(), file.join("below")] {
            assert!(matches!(ControlSocket::bind(&bad), Err(ControlSocketError::Unusable(..))));
        }
    }
}
