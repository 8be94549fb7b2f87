//! A Unix socket that leads to an application at an address.

use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixListener};

use super::runtime;

pub struct UnixSocket {
    /// As a pool's list of servers has it.
    pub server: String,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub fn unix_socket_before(application: SocketAddr) -> UnixSocket {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let _runtime = runtime().enter();
    let listener = UnixListener::bind(&path).unwrap();
    let task = runtime().spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(application).await.unwrap();
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    UnixSocket { server: format!("unix://{}", path.display()), task, _folder: folder }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}
