//! A firewall before a real memcached that forgets connections which were idle, and says nothing: what is sent on them
//! later is swallowed, in both directions, and neither side is ever notified.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::memcached::Memcached;
use super::runtime;

pub struct Forgetful {
    address: SocketAddr,
    forgotten: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// Forgets what was idle for as long as `lull`.
pub fn forgetful(memcached: &Memcached, lull: Duration) -> Forgetful {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (socket, forgotten) = (memcached.socket().to_owned(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&forgotten);
    let task = runtime().spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(carry(client, socket.clone(), lull, Arc::clone(&count)));
        }
    });
    Forgetful { address, forgotten, task }
}

impl Forgetful {
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connections on which something was swallowed.
    pub fn forgotten(&self) -> usize {
        self.forgotten.load(Ordering::Relaxed)
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut client: TcpStream, socket: PathBuf, lull: Duration, forgotten: Arc<AtomicUsize>) {
    let mut server = UnixStream::connect(socket).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                if last.elapsed() >= lull {
                    break;
                }
                server.write_all(&from_client[..length]).await.unwrap();
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
        last = Instant::now();
    }
    forgotten.fetch_add(1, Ordering::Relaxed);
    while let Ok(1..) = client.read(&mut from_client).await {}
}
