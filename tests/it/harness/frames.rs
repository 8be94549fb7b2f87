//! HTTP/2 frame by frame (RFC 9113 §4), for what no library would send. What comes back is read beside the test, so
//! that nobody waits for anybody.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::connect;
use super::{eventually, runtime};

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The fields of a request in HPACK: the short ones by their place in the static table (RFC 7541, appendix A), others
/// written out.
pub fn head(method: &str, host: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![if method == "GET" { 0x82 } else { 0x83 }, 0x87, 0x84, 0x01];
    block.push(u8::try_from(host.len()).unwrap());
    block.extend(host.as_bytes());
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// What the edge has sent.
#[derive(Clone, Default)]
pub struct Heard {
    /// Kind, flags, stream and payload of each frame; of DATA the payload is not kept.
    frames: Vec<(u8, u8, u32, Vec<u8>)>,
    pub data_bytes: usize,
    pub closed: bool,
}

/// A connection over TLS that speaks HTTP/2.
pub struct Wire {
    host: String,
    writer: WriteHalf<TlsStream<TcpStream>>,
    heard: Arc<Mutex<Heard>>,
    reader: Option<tokio::task::JoinHandle<()>>,
    /// Where nobody listens: it is kept so that the connection stays open.
    _unread: Option<ReadHalf<TlsStream<TcpStream>>>,
}

impl Drop for Wire {
    /// Both halves, so that the connection ends.
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Wire {
    /// Says nothing yet.
    pub fn silent(edge: SocketAddr, host: &str) -> Self {
        let (reader, writer) = tokio::io::split(runtime().block_on(connect(edge, host, &[b"h2"])).unwrap());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let reader = Some(runtime().spawn(listen(reader, Arc::clone(&heard))));
        Self { host: host.into(), writer, heard, reader, _unread: None }
    }

    /// One that says nothing yet and never reads.
    pub fn deaf(edge: SocketAddr, host: &str) -> Self {
        let stream = runtime().block_on(connect(edge, host, &[b"h2"])).unwrap();
        let (reader, writer) = tokio::io::split(stream);
        Self { host: host.into(), writer, heard: Arc::default(), reader: None, _unread: Some(reader) }
    }

    /// With the preface and these settings, by number and value.
    pub fn open(edge: SocketAddr, host: &str, settings: &[(u16, u32)]) -> Self {
        let mut wire = Self::silent(edge, host);
        wire.begin(settings);
        wire
    }

    /// Sends the preface and these settings, by number and value.
    pub fn begin(&mut self, settings: &[(u16, u32)]) {
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        assert!(self.send([PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()));
    }

    /// Whether the edge has taken it. It may have closed, or may take no more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        runtime().block_on(async {
            let sent = async {
                self.writer.write_all(bytes.as_ref()).await?;
                self.writer.flush().await
            };
            matches!(tokio::time::timeout(Duration::from_secs(5), sent).await, Ok(Ok(())))
        })
    }

    /// Ends the connection, as far as it is this side's.
    pub fn close(&mut self) {
        runtime().block_on(self.writer.shutdown()).ok();
    }

    /// A request without a body, and without its end if `flags` do not say so.
    pub fn ask(&mut self, stream: u32, flags: u8, method: &str, fields: &[(&str, &str)]) -> bool {
        self.send(frame(HEADERS, END_HEADERS | flags, stream, &head(method, &self.host.clone(), fields)))
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    pub fn is_closed(&self) -> bool {
        self.heard.lock().unwrap().closed
    }

    pub fn is_closed_by_the_edge(&self) {
        eventually("the edge closes the connection", || self.is_closed());
    }
}

impl Heard {
    pub fn all(&self, kind: u8) -> impl Iterator<Item = (u32, &[u8])> {
        self.frames
            .iter()
            .filter(move |(other, ..)| *other == kind)
            .map(|(_, _, stream, payload)| (*stream, &payload[..]))
    }

    /// Whether a stream has come to its end: answered, or reset.
    pub fn is_over(&self, stream: u32) -> bool {
        self.was_reset(stream)
            || self
                .frames
                .iter()
                .any(|(kind, flags, of, _)| *kind <= HEADERS && *of == stream && flags & END_STREAM != 0)
    }

    pub fn was_reset(&self, stream: u32) -> bool {
        self.all(RST_STREAM).any(|(of, _)| of == stream)
    }

    pub fn is_answered(&self, stream: u32) -> bool {
        self.all(HEADERS).any(|(of, _)| of == stream)
    }

    /// A setting of the edge's, by its number.
    pub fn setting(&self, name: u16) -> Option<u32> {
        let (_, payload) = self.all(SETTINGS).next()?;
        let found = payload.chunks_exact(6).find(|entry| entry[..2] == name.to_be_bytes())?;
        Some(u32::from_be_bytes(found[2..6].try_into().unwrap()))
    }
}

async fn listen(mut reader: ReadHalf<TlsStream<TcpStream>>, heard: Arc<Mutex<Heard>>) {
    let (mut received, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = reader.read(&mut chunk).await {
        received.extend_from_slice(&chunk[..read]);
        let mut heard = heard.lock().unwrap();
        let mut at = 0;
        while let Some(head) = received.get(at..at + 9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some(payload) = received.get(at + 9..at + 9 + length) else { break };
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
            let payload = if head[3] == DATA {
                heard.data_bytes += length;
                Vec::new()
            } else {
                payload.to_vec()
            };
            heard.frames.push((head[3], head[4], stream, payload));
            at += 9 + length;
        }
        received.drain(..at);
    }
    heard.lock().unwrap().closed = true;
}
