//! An application whose answers go on: WebSockets, events, and bodies of which a test says when more of them comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use super::runtime;

/// What a `/download` promises.
const DOWNLOAD_BYTES: usize = 1_000_000;

pub struct Streaming {
    pub address: SocketAddr,
    said: broadcast::Sender<String>,
    /// Streams that the edge has not closed.
    open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// By the last word of the path: `ws` echoes, `events` are sent as they are said, `download` has a length and sends what
/// is said, `upload` takes a body, `finite` is a stream that ends at once, and anything else is an ordinary page.
pub fn streaming() -> Streaming {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let said = broadcast::channel(64).0;
    let open = Arc::new(AtomicUsize::new(0));
    let (speaker, counter) = (said.clone(), Arc::clone(&open));
    let task = runtime().spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, speaker.clone(), Arc::clone(&counter)));
        }
    });
    Streaming { address, said, open, task }
}

impl Streaming {
    /// To everybody who listens.
    pub fn say(&self, text: &str) {
        self.said.send(text.to_owned()).ok();
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Requests of one connection, until one of them goes on.
async fn serve(mut socket: TcpStream, said: broadcast::Sender<String>, open: Arc<AtomicUsize>) {
    while let Some(path) = request(&mut socket).await {
        let word = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let head = match word {
            "ws" => {
                "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            }
            "events" => "200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            "finite" => "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n",
            "download" => &format!("200 OK\r\nContent-Length: {DOWNLOAD_BYTES}\r\n\r\n"),
            "upload" => "",
            _ => "200 OK\r\nContent-Length: 5\r\n\r\nhello",
        };
        // Before the head is sent: who has it hears all that is said from then on.
        let said = said.subscribe();
        let head = if head.is_empty() { String::new() } else { format!("HTTP/1.1 {head}") };
        socket.write_all(head.as_bytes()).await.unwrap();
        if ["ws", "events", "download", "upload"].contains(&word) {
            open.fetch_add(1, Ordering::SeqCst);
            go_on(socket, said, word).await;
            open.fetch_sub(1, Ordering::SeqCst);
            return;
        }
    }
}

/// The path of the next request; `None` when there is none.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()?.split(' ').nth(1).map(str::to_owned)
}

/// Until the edge closes.
async fn go_on(mut socket: TcpStream, mut said: broadcast::Receiver<String>, word: &str) {
    let mut chunk = [0; 4096];
    loop {
        tokio::select! {
            read = socket.read(&mut chunk) => match read {
                Ok(read @ 1..) if word == "ws" => socket.write_all(&chunk[..read]).await.unwrap(),
                Ok(1..) => {}
                _ => return,
            },
            Ok(text) = said.recv() => {
                let text = if word == "events" { format!("{:x}\r\n{text}\r\n", text.len()) } else { text };
                if word != "upload" && socket.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}
