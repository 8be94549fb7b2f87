//! An HTTP/1.1 application that keeps every byte it is sent, by connection, and parses it as strictly as real ones do.
//!
//! Each whole request is answered with its `X-Test` field; what is not a request is answered with 400, and the
//! connection is closed. A request with `X-Late` is never answered, one with `X-Early` when its head is there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What one connection has brought.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub bytes: Vec<u8>,
    /// The edge has closed it.
    pub closed: bool,
}

pub struct Recorder {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Recorded>>>,
    closes_kept: Arc<AtomicBool>,
}

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
    /// How many bytes it took, with its head and the lines of its chunks.
    pub length: usize,
}

/// What some bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Whole(Received),
    /// The beginning of a request, or nothing.
    Partial,
    Malformed,
}

pub fn recorder() -> Recorder {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<Mutex<Vec<Recorded>>>::default();
    let closes_kept = Arc::<AtomicBool>::default();
    let (kept, closes) = (Arc::clone(&connections), Arc::clone(&closes_kept));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut all = kept.lock().unwrap();
            let (number, kept, closes) = (all.len(), Arc::clone(&kept), Arc::clone(&closes));
            all.push(Recorded::default());
            drop(all);
            std::thread::spawn(move || {
                // The edge may close while it is being answered.
                serve(&socket.unwrap(), number, &kept, &closes).ok();
                kept.lock().unwrap()[number].closed = true;
            });
        }
    });
    Recorder { address, connections, closes_kept }
}

impl Recorder {
    /// All connections so far, the closed ones too.
    pub fn connections(&self) -> Vec<Recorded> {
        self.connections.lock().unwrap().clone()
    }

    /// The next request on a connection that had one before is not read: the connection is closed, once.
    pub fn close_a_kept_connection(&self) {
        self.closes_kept.store(true, Ordering::SeqCst);
    }

    /// Whether that is still to come.
    pub fn is_to_close(&self) -> bool {
        self.closes_kept.load(Ordering::SeqCst)
    }
}

fn serve(
    mut socket: &TcpStream,
    number: usize,
    kept: &Mutex<Vec<Recorded>>,
    closes_kept: &AtomicBool,
) -> std::io::Result<()> {
    let (mut answered, mut continued, mut early, mut chunk) = (0, 0, 0, vec![0; 64 << 10]);
    loop {
        let read = socket.read(&mut chunk)?;
        if read == 0 || (answered > 0 && closes_kept.swap(false, Ordering::SeqCst)) {
            return Ok(());
        }
        let bytes = {
            let mut all = kept.lock().unwrap();
            all[number].bytes.extend_from_slice(&chunk[..read]);
            all[number].bytes[answered..].to_vec()
        };
        let mut at = 0;
        loop {
            match parse(&bytes[at..]) {
                Parsed::Whole(request) => {
                    let begun = answered + at + 1;
                    at += request.length;
                    if field(&request.head, "x-late").is_none() && early != begun {
                        answer(socket, &request.head)?;
                    }
                }
                Parsed::Malformed => {
                    socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
                    return Ok(());
                }
                Parsed::Partial => break,
            }
        }
        let head = String::from_utf8_lossy(&bytes[at..]);
        if let Some((head, _)) = head.split_once("\r\n\r\n").filter(|_| early != answered + at + 1)
            && field(head, "x-early").is_some()
        {
            early = answered + at + 1;
            answer(socket, head)?;
        }
        // Asked for once, when the head is there and the body is not.
        let waits = String::from_utf8_lossy(&bytes[at..]).to_ascii_lowercase().contains("expect: 100-continue\r\n");
        if waits && bytes[at..].ends_with(b"\r\n\r\n") && continued != answered + at + 1 {
            continued = answered + at + 1;
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        answered += at;
    }
}

fn answer(mut socket: &TcpStream, head: &str) -> std::io::Result<()> {
    let text = field(head, "x-test").unwrap_or("");
    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// The first value of a field.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Partial;
    }
    // Strict servers know from the first byte: no blank line may come first.
    if !bytes[0].is_ascii_uppercase() {
        return Parsed::Malformed;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Parsed::Partial };
    let end = end + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let line: Vec<&str> = head.lines().next().unwrap_or_default().split(' ').collect();
    if line.len() != 3 || line[2] != "HTTP/1.1" {
        return Parsed::Malformed;
    }
    let (coding, length) = (field(&head, "transfer-encoding"), field(&head, "content-length"));
    match (coding, length) {
        (Some(_), Some(_)) => Parsed::Malformed,
        (Some("chunked"), None) => chunked(head, bytes, end),
        (Some(_), None) => Parsed::Malformed,
        (None, length) => {
            let Ok(length) = length.unwrap_or("0").parse::<usize>() else { return Parsed::Malformed };
            match bytes.get(end..end + length) {
                Some(body) => Parsed::Whole(Received { head, body: body.to_vec(), length: end + length }),
                None => Parsed::Partial,
            }
        }
    }
}

/// No extensions and no trailers: the edge passes on none.
fn chunked(head: String, bytes: &[u8], begin: usize) -> Parsed {
    let (mut body, mut at) = (Vec::new(), begin);
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Parsed::Partial };
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap_or_default();
        let Ok(size) = usize::from_str_radix(size, 16) else { return Parsed::Malformed };
        at += line + 2;
        let Some(data) = bytes.get(at..at + size + 2) else { return Parsed::Partial };
        if !data.ends_with(b"\r\n") {
            return Parsed::Malformed;
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Parsed::Whole(Received { head, body, length: at });
        }
    }
}
