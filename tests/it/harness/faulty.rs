//! A faulty path to a real memcached: it forwards everything, until a test makes it cut, corrupt, delay, swap or refuse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::memcached::Memcached;
use super::runtime;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes as it is.
    None,
    /// Half of each answer, then the end of the connection.
    Cut,
    /// Something that no memcached says.
    Garbage,
    /// Each answer comes long after the deadline of its request, whole and correct.
    Late,
    /// The next answer comes long after the deadline of its request; those behind it are not delayed.
    LateOnce,
    /// To each look-up a true answer, of another key, from whichever connection.
    Swapped,
    /// No answer.
    Silence,
    /// No question arrives, so there is no answer either: what a network does that drops packets.
    Unheard,
    /// Whatever is to be stored is refused for want of memory.
    Full,
}

/// How late is late: several times the timeout that the tests of outages configure.
const DELAY: Duration = Duration::from_millis(1500);

pub struct Faulty {
    address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    task: tokio::task::JoinHandle<()>,
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    socket: PathBuf,
    fault: Arc<Mutex<Fault>>,
    hits: Arc<Mutex<Vec<Vec<u8>>>>,
}

pub fn faulty(memcached: &Memcached) -> Faulty {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let fault = Arc::new(Mutex::new(Fault::None));
    let shared = Shared { socket: memcached.socket().into(), fault: Arc::clone(&fault), hits: Arc::default() };
    let task = runtime().spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let Ok(server) = UnixStream::connect(&shared.socket).await else { continue };
            tokio::spawn(carry(client, server, shared.clone()));
        }
    });
    Faulty { address, fault, task }
}

impl Faulty {
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From the next answer on.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn hit_of_another(&self, received: &[u8]) -> Vec<u8> {
        let line = |hit: &[u8]| hit.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
        let hits = self.hits.lock().unwrap();
        hits.iter().rfind(|hit| line(hit) != line(received)).expect("another key was looked up before").clone()
    }
}

/// Carries questions as they come, whole or in pieces, and changes the answers.
async fn carry(client: TcpStream, server: UnixStream, shared: Shared) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let request: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (question, fault) = (Arc::clone(&request), Arc::clone(&shared.fault));
    let answers = tokio::spawn(answer(from_server, to_client, request, shared));
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_client.read(&mut chunk).await {
        if *fault.lock().unwrap() == Fault::Unheard {
            continue;
        }
        question.lock().unwrap().extend_from_slice(&chunk[..read]);
        if to_server.write_all(&chunk[..read]).await.is_err() {
            break;
        }
    }
    answers.abort();
}

async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, request: Arc<Mutex<Vec<u8>>>, shared: Shared) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = server.read(&mut chunk).await {
        let received = &chunk[..read];
        let request = std::mem::take(&mut *request.lock().unwrap());
        let is_hit = received.starts_with(b"VA ") && request.starts_with(b"mg ");
        let fault = *shared.fault.lock().unwrap();
        let response: Vec<u8> = match fault {
            Fault::None => received.to_vec(),
            Fault::Cut => received[..read / 2].to_vec(),
            Fault::Garbage => b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            Fault::Late => {
                tokio::time::sleep(DELAY).await;
                received.to_vec()
            }
            Fault::LateOnce => {
                *shared.fault.lock().unwrap() = Fault::None;
                tokio::time::sleep(DELAY).await;
                received.to_vec()
            }
            Fault::Swapped if is_hit => shared.hit_of_another(received),
            Fault::Swapped => received.to_vec(),
            Fault::Silence | Fault::Unheard => continue,
            Fault::Full if request.starts_with(b"ms ") => b"SERVER_ERROR out of memory storing object\r\n".to_vec(),
            Fault::Full => received.to_vec(),
        };
        if is_hit {
            shared.hits.lock().unwrap().push(received.to_vec());
        }
        if client.write_all(&response).await.is_err() || fault == Fault::Cut {
            return;
        }
    }
}
