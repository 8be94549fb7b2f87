//! Connections over IPv6. async-memcached 0.9 opens IPv4 sockets only (`TcpSocket::new_v4`), whatever the address, and
//! accepts no socket that was opened elsewhere; but it supports Unix sockets. Each IPv6 connection is therefore opened here
//! and bridged to the crate through a Unix socket, in a private folder that exists until the crate has connected.
//!
//! It costs two more copies and wake-ups for each exchange. Where that matters, use IPv4 or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::sessions::key::random_base64url;

/// A folder that only this user may read; it is removed when this is dropped.
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

/// Connects to `server` and calls `open` with the path of a Unix socket that is bridged to it, for one connection.
pub async fn connect<T, F>(server: SocketAddr, open: impl FnOnce(PathBuf) -> F) -> io::Result<T>
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
    tokio::spawn(copy_both_ways(inside, outside));
    Ok(opened)
}

/// Copies in both directions until either side has closed its end. It does not wait for the other side: a frozen server never
/// closes.
async fn copy_both_ways(inside: UnixStream, outside: TcpStream) {
    let (mut from_inside, mut to_inside) = inside.into_split();
    let (mut from_outside, mut to_outside) = outside.into_split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_inside, &mut to_outside) => {}
        _ = tokio::io::copy(&mut from_outside, &mut to_inside) => {}
    }
}

/// Returns the path as a URL. The last part of the path is ours, but the folder for temporary files is the system's.
pub fn url(path: &Path) -> io::Result<String> {
    let text =
        path.to_str().filter(|text| url::Url::parse(&format!("unix://{text}")).is_ok_and(|url| url.path() == *text));
    match text {
        Some(text) => Ok(format!("unix://{text}")),
        None => Err(io::Error::other("the folder for temporary files has a name that async-memcached cannot use")),
    }
}
