//! The way to a server over IPv6. async-memcached 0.9 opens IPv4 sockets alone (`TcpSocket::new_v4`), whatever the
//! address, and takes no socket from outside; but it speaks to Unix sockets. So each IPv6 connection is made here,
//! and carried to the crate through a Unix socket that lives in a folder of ours until the crate has connected.
//!
//! It costs two more copies and wake-ups for an exchange. Where that matters, IPv4 or a Unix socket is the way.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::sessions::key::random_base64url;

/// A folder that nobody else may look into, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let name = random_base64url::<12>().map_err(|_| io::Error::other("no randomness"))?;
        let path = std::env::temp_dir().join(format!("sentry-edge-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Connects to `server` and gives `open` the path of a socket that leads there, for one connection.
pub async fn through<T, F>(server: SocketAddr, open: impl FnOnce(PathBuf) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let outside = TcpStream::connect(server).await?;
    outside.set_nodelay(true)?;
    let folder = Folder::new()?;
    let path = folder.0.join("memcached.sock");
    let listener = UnixListener::bind(&path)?;
    let (opened, accepted) = tokio::try_join!(open(path), listener.accept())?;
    let (inside, _) = accepted;
    tokio::spawn(carry(inside, outside));
    Ok(opened)
}

/// Until either side has ended, whether or not the other would: a server that is frozen never does.
async fn carry(inside: UnixStream, outside: TcpStream) {
    let (mut from_inside, mut to_inside) = inside.into_split();
    let (mut from_outside, mut to_outside) = outside.into_split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_inside, &mut to_outside) => {}
        _ = tokio::io::copy(&mut from_outside, &mut to_inside) => {}
    }
}

/// As a URL has it. The path is ours, but where temporary files lie is not.
pub fn url(path: &Path) -> io::Result<String> {
    let text =
        path.to_str().filter(|text| url::Url::parse(&format!("unix://{text}")).is_ok_and(|url| url.path() == *text));
    match text {
        Some(text) => Ok(format!("unix://{text}")),
        None => Err(io::Error::other("the folder for temporary files has a name that async-memcached cannot use")),
    }
}
