//! A client that sends bytes as they are, over HTTP/1.1 or as HTTP/2 frames, and takes the answers apart by itself.
//!
//! For what no well-behaved client would send. It waits for answers and for the end of a connection, never for
//! silence, so that it is as fast as the edge.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::client::{connect, connect_after};
use super::{DEADLINE, runtime};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Raw {
    stream: Box<dyn Stream>,
    /// Received, and not yet looked at.
    received: Vec<u8>,
}

/// One response over HTTP/1.1.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A connection over TLS under a server name, for HTTP/1.1.
pub fn raw(edge: SocketAddr, name: &str) -> Raw {
    let stream = runtime().block_on(connect(edge, name, &[b"http/1.1"])).unwrap();
    Raw { stream: Box::new(stream), received: Vec::new() }
}

/// A connection without TLS.
pub fn raw_plain(address: SocketAddr) -> Raw {
    let stream = runtime().block_on(TcpStream::connect(address)).unwrap();
    Raw { stream: Box::new(stream), received: Vec::new() }
}

/// The same, from another address of this machine.
pub fn raw_plain_from(source: [u8; 4], address: SocketAddr) -> Raw {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((source, 0)))?;
        socket.connect(address).await
    };
    Raw { stream: Box::new(runtime().block_on(connect).unwrap()), received: Vec::new() }
}

impl Raw {
    /// Over a stream that stands already.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    /// A connection over TLS for HTTP/1.1 that a balancer announces with these bytes.
    pub fn announced(header: &[u8], edge: SocketAddr, name: &str) -> std::io::Result<Self> {
        let stream = runtime().block_on(connect_after(header, edge, name))?;
        Ok(Self { stream: Box::new(stream), received: Vec::new() })
    }

    /// A connection over TLS that has agreed on HTTP/2.
    pub fn http2(edge: SocketAddr, name: &str) -> Self {
        let stream = runtime().block_on(connect(edge, name, &[b"h2"])).unwrap();
        Self { stream: Box::new(stream), received: Vec::new() }
    }

    /// Listens for so long whether the connection ends; what comes meanwhile is kept.
    pub fn has_ended(&mut self, within: Duration) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = runtime().block_on(async { tokio::time::timeout(within, self.stream.read(&mut chunk)).await });
        let Ok(read) = read else { return false };
        let read = read.unwrap_or(0);
        self.received.extend_from_slice(&chunk[..read]);
        read == 0
    }

    /// Reads once, so much at most, and answers how much there was; 0 at the end.
    pub fn read_some(&mut self, most: usize) -> usize {
        let mut chunk = vec![0; most];
        let read = async { tokio::time::timeout(DEADLINE, self.stream.read(&mut chunk)).await };
        runtime().block_on(read).unwrap().unwrap_or(0)
    }

    /// Sends what the edge takes within so long.
    pub fn send_within(&mut self, bytes: &[u8], within: Duration) {
        runtime().block_on(async {
            let sent = async {
                self.stream.write_all(bytes).await?;
                self.stream.flush().await
            };
            tokio::time::timeout(within, sent).await.ok()
        });
    }

    /// The edge may have closed already, having seen enough; then its answer tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        runtime().block_on(async {
            self.stream.write_all(bytes.as_ref()).await.ok();
            self.stream.flush().await.ok();
        });
        self
    }

    /// The same; answers whether the connection still took it.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = async { self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok() };
        runtime().block_on(async { tokio::time::timeout(DEADLINE, sent).await }).unwrap_or(false)
    }

    /// The next response; `None` when the connection ends without one.
    pub fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.received) {
                self.received.drain(..length);
                return Some(answer);
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// The status of the next response, 0 when the connection ends without one.
    pub fn status(&mut self) -> u16 {
        self.answer().map_or(0, |answer| answer.status)
    }

    /// Waits for these words, and leaves what comes after them.
    pub fn hear(&mut self, words: &str) {
        loop {
            if let Some(at) = find(&self.received, words.as_bytes()) {
                self.received.drain(..at + words.len());
                return;
            }
            assert!(self.read_more(), "the connection ended before {words:?}");
        }
    }

    /// Waits for the end of a line; answers it, and leaves what comes after it.
    pub fn first_line(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.received, b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..at]).into_owned();
                self.received.drain(..at + 2);
                return line;
            }
            assert!(self.read_more(), "the connection ended within a line");
        }
    }

    /// Waits for the end of the connection; answers what came before it and was not yet looked at.
    pub fn rest(mut self) -> Vec<u8> {
        while self.read_more() {}
        self.received
    }

    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = runtime().block_on(async { tokio::time::timeout(DEADLINE, self.stream.read(&mut chunk)).await });
        let read = read.expect("the edge neither answered nor closed").unwrap_or(0);
        self.received.extend_from_slice(&chunk[..read]);
        read > 0
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.clone().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// The response that the bytes begin with, and its length; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: Vec::new() };
    if (100..200).contains(&status) || status == 204 || status == 304 {
        return Some((answer, end));
    }
    if answer.header("transfer-encoding").is_some() {
        let (body, length) = unchunk(&bytes[end..])?;
        answer.body = body;
        return Some((answer, end + length));
    }
    let length: usize = answer.header("content-length").unwrap_or("0").parse().unwrap();
    answer.body = bytes.get(end..end + length)?.to_vec();
    Some((answer, end + length))
}

fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if size == 0 {
            return (at <= bytes.len()).then_some((body, at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// How an HTTP/2 request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A response. Of its status we only tell the ones that HPACK has a number for; 0 is any other.
    Answered(u16),
    Reset,
    Closed,
}

/// One HTTP/2 request with exactly these fields, pseudo-headers too, each written out in full.
pub fn http2_request(edge: SocketAddr, name: &str, fields: &[(&str, &str)]) -> Ended {
    Raw::http2(edge, name).http2_request(fields)
}

/// The same, with a body.
pub fn http2_upload(edge: SocketAddr, name: &str, fields: &[(&str, &str)], body: &str) -> Ended {
    Raw::http2(edge, name).http2_upload(fields, body)
}

impl Raw {
    /// The same, on a new connection that has agreed on HTTP/2.
    pub fn http2_request(&mut self, fields: &[(&str, &str)]) -> Ended {
        self.http2_upload(fields, "")
    }

    fn http2_upload(&mut self, fields: &[(&str, &str)], body: &str) -> Ended {
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal field without indexing, no Huffman coding (RFC 7541 §6.2.2).
            block.push(0);
            for text in [name, value] {
                block.extend(length(text.len()));
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(0x4, 0, 0, &[]));
        // HEADERS with END_HEADERS; whichever is last has END_STREAM.
        bytes.extend(frame(0x1, if body.is_empty() { 0x5 } else { 0x4 }, 1, &block));
        if !body.is_empty() {
            bytes.extend(frame(0x0, 0x1, 1, body.as_bytes()));
        }
        self.send(&bytes);
        loop {
            let Some((kind, payload)) = self.frame() else { return Ended::Closed };
            match kind {
                0x1 => return Ended::Answered(status_of(&payload)),
                0x3 => return Ended::Reset,
                0x7 => return Ended::Closed,
                _ => {}
            }
        }
    }
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(number: usize) -> Vec<u8> {
    let Some(mut more) = number.checked_sub(127) else { return vec![number as u8] };
    let mut bytes = vec![127];
    while more >= 128 {
        bytes.push((more % 128) as u8 | 128);
        more /= 128;
    }
    bytes.push(more as u8);
    bytes
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![0, length[0], length[1], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// The status stands first in a block, after changes of the table's size; 8 to 14 are its places in the static table.
fn status_of(block: &[u8]) -> u16 {
    let first = block.iter().find(|byte| **byte & 0xe0 != 0x20);
    first.map_or(0, |byte| match byte {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    })
}

impl Raw {
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if self.received.len() >= 9 {
                let length = usize::from(self.received[1]) << 8 | usize::from(self.received[2]);
                if self.received.len() >= 9 + length {
                    let frame: Vec<u8> = self.received.drain(..9 + length).collect();
                    return Some((frame[3], frame[9..].to_vec()));
                }
            }
            if !self.read_more() {
                return None;
            }
        }
    }
}
