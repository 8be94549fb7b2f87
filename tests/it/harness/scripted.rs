//! An application that says exact bytes, whatever HTTP has to say about them, and remembers on which connection it was
//! asked what.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::runtime;

/// What it says to `/probe`, and to `/last`, after which it closes.
const PROBE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe";
const LAST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nprobe";

/// What it says to one request.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub said: Vec<u8>,
    /// What comes a moment later, when the response may have been passed on already.
    pub late: Vec<u8>,
    /// Whether its connection ends with that.
    pub closes: bool,
    /// Whether it is said when the request's head has come, and does not wait for the body.
    pub early: bool,
}

#[derive(Clone, Debug)]
pub struct Asked {
    /// The first is 1.
    pub connection: usize,
    pub head: String,
}

pub struct Scripted {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<Vec<Script>>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

/// One that knows nothing but `/probe` yet.
pub fn scripted() -> Scripted {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::<Shared>::default();
    let serving = Arc::clone(&shared);
    let task = runtime().spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let connection = serving.connections.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::spawn(serve(socket, connection, Arc::clone(&serving)));
        }
    });
    Scripted { address, shared, task }
}

impl Scripted {
    /// The path under which this is said from now on.
    pub fn script(&self, script: Script) -> String {
        let mut scripts = self.shared.scripts.lock().unwrap();
        scripts.push(script);
        format!("/{}", scripts.len() - 1)
    }

    /// Everything that was asked since the last look.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, connection: usize, shared: Arc<Shared>) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let end = until(&mut socket, &mut received, |bytes| find(bytes, b"\r\n\r\n").map(|end| end + 4)).await?;
        let target = String::from_utf8_lossy(&received[..end]).split(' ').nth(1).unwrap_or_default().to_owned();
        let last = target.split('?').next().and_then(|path| path.rsplit('/').next());
        let number = last.and_then(|number| number.parse::<usize>().ok());
        let script = number.and_then(|number| shared.scripts.lock().unwrap().get(number).cloned());
        if let Some(script) = script.as_ref().filter(|script| script.early) {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            shared.asked.lock().unwrap().push(Asked { connection, head });
            socket.write_all(&script.said).await.ok()?;
            let end = until(&mut socket, &mut received, request_end).await.filter(|_| !script.closes)?;
            received.drain(..end);
            continue;
        }
        let end = until(&mut socket, &mut received, request_end).await?;
        let request: Vec<u8> = received.drain(..end).collect();
        let head = String::from_utf8_lossy(&request).into_owned();
        let is_head = head.starts_with("HEAD ");
        shared.asked.lock().unwrap().push(Asked { connection, head });
        let script = match number {
            Some(_) => script?,
            None => {
                let closes = target == "/last";
                let said = if closes { LAST } else { PROBE };
                let said = if is_head { said.trim_end_matches("probe") } else { said };
                Script { said: said.into(), closes, ..Script::default() }
            }
        };
        socket.write_all(&script.said).await.ok()?;
        if !script.late.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.write_all(&script.late).await.ok()?;
        }
        if script.closes {
            return None;
        }
    }
}

/// Reads until there is the end of something.
async fn until(socket: &mut TcpStream, received: &mut Vec<u8>, end: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
    loop {
        if let Some(end) = end(received) {
            return Some(end);
        }
        let mut chunk = vec![0; 8192];
        match socket.read(&mut chunk).await {
            Ok(read @ 1..) => received.extend_from_slice(&chunk[..read]),
            _ => return None,
        }
    }
}

/// Where the request that the bytes begin with ends, its body among it.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding:") {
        return Some(head + find(&bytes[head..], b"0\r\n\r\n")? + 5);
    }
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
    let end = head + length.map_or(0, |length| length.trim().parse().unwrap());
    (bytes.len() >= end).then_some(end)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
