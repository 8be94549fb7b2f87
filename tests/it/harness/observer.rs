//! A client that notes all there is to see of an exchange, over HTTP/1.0, 1.1 and 2: interim responses, the status line,
//! every field, how the body ended, and what became of the connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::DEADLINE;
use super::client::connect;

/// How long a body is held back.
const A_WHILE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
}

pub const PROTOCOLS: [Protocol; 3] = [Protocol::Http10, Protocol::Http11, Protocol::Http2];

#[derive(Clone, Debug)]
pub struct Asking<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub body: Option<&'a str>,
    /// Further fields.
    pub fields: &'a [(&'a str, &'a str)],
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it said that it would.
    Whole,
    /// Before that, in a way that the client can tell.
    Cut,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Status and fields of each.
    pub interim: Vec<(u16, Vec<String>)>,
    /// `HTTP/1.1`, `HTTP/2`.
    pub version: String,
    /// 0 when there was none.
    pub status: u16,
    /// Over HTTP/1.
    pub reason: String,
    /// `name: value`, the names in lower case, sorted.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
    pub end: End,
}

impl Observed {
    fn none() -> Self {
        Self {
            interim: Vec::new(),
            version: String::new(),
            status: 0,
            reason: String::new(),
            fields: Vec::new(),
            body: Vec::new(),
            end: End::Cut,
        }
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.fields.iter().filter_map(|field| field.split_once(": "));
        values.filter(|(field, _)| *field == name).map(|(_, value)| value).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// When a request's body is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    AtOnce,
    /// When something has come, or in a while.
    Later,
}

/// One connection.
pub enum Observer {
    Http1 { stream: Box<TlsStream<TcpStream>>, received: Vec<u8>, is_old: bool, ended: Option<End> },
    Http2 { sender: h2::client::SendRequest<Bytes> },
}

impl Observer {
    pub async fn connect(edge: SocketAddr, host: &str, protocol: Protocol) -> Self {
        if protocol == Protocol::Http2 {
            let stream = connect(edge, host, &[b"h2"]).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            return Self::Http2 { sender };
        }
        let stream = Box::new(connect(edge, host, &[b"http/1.1"]).await.unwrap());
        Self::Http1 { stream, received: Vec::new(), is_old: protocol == Protocol::Http10, ended: None }
    }

    /// `None` when the connection has ended before this.
    pub async fn ask(&mut self, host: &str, asking: &Asking<'_>) -> Option<Observed> {
        self.ask_with(host, asking, Sending::AtOnce).await
    }

    /// The same for a client that is in no hurry with its body: a response may come first.
    pub async fn ask_slowly(&mut self, host: &str, asking: &Asking<'_>) -> Option<Observed> {
        self.ask_with(host, asking, Sending::Later).await
    }

    async fn ask_with(&mut self, host: &str, asking: &Asking<'_>, sending: Sending) -> Option<Observed> {
        let asked = async {
            match self {
                Self::Http1 { .. } => self.ask_http1(host, asking, sending).await,
                Self::Http2 { sender } => ask_http2(sender, host, asking, sending).await,
            }
        };
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("neither answered nor closed: {asking:?}"))
    }

    async fn ask_http1(&mut self, host: &str, asking: &Asking<'_>, sending: Sending) -> Option<Observed> {
        let Self::Http1 { stream, is_old, .. } = self else { return None };
        let is_old = *is_old;
        let mut request = format!("{} {} HTTP/1.{}\r\nHost: {host}\r\n", asking.method, asking.path, u8::from(!is_old));
        if is_old {
            request.push_str("Connection: keep-alive\r\n");
        }
        for (name, value) in asking.fields {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = asking.body {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let body = asking.body.unwrap_or_default();
        if sending == Sending::AtOnce {
            request.push_str(body);
        }
        // It may have been closed already; then nothing comes.
        if stream.write_all(request.as_bytes()).await.is_ok() {
            stream.flush().await.ok();
        }
        if sending == Sending::Later {
            timeout(A_WHILE, self.more()).await.ok();
            let Self::Http1 { stream, .. } = self else { return None };
            if stream.write_all(body.as_bytes()).await.is_ok() {
                stream.flush().await.ok();
            }
        }
        let mut observed = Observed::none();
        loop {
            let Some(end) = self.until(b"\r\n\r\n").await else {
                let Self::Http1 { received, .. } = self else { return None };
                observed.body = std::mem::take(received);
                return (!observed.interim.is_empty() || !observed.body.is_empty()).then_some(observed);
            };
            let head = self.take(end);
            let head = String::from_utf8_lossy(&head).into_owned();
            let (line, lines) = head.split_once("\r\n").unwrap();
            let mut parts = line.splitn(3, ' ');
            observed.version = parts.next().unwrap_or_default().to_owned();
            let status = parts.next().and_then(|status| status.parse().ok()).unwrap_or(0);
            let reason = parts.next().unwrap_or_default().to_owned();
            let mut fields: Vec<String> = lines.lines().filter(|line| !line.is_empty()).map(lowered).collect();
            fields.sort();
            if (100..200).contains(&status) && status != 101 {
                observed.interim.push((status, fields));
                continue;
            }
            (observed.status, observed.reason, observed.fields) = (status, reason, fields);
            break;
        }
        self.body(&mut observed, asking.method == "HEAD").await;
        Some(observed)
    }

    async fn body(&mut self, observed: &mut Observed, is_head: bool) {
        observed.end = End::Whole;
        if is_head || [204, 304].contains(&observed.status) {
            return;
        }
        if !observed.all("transfer-encoding").is_empty() {
            loop {
                let Some(line) = self.until(b"\r\n").await else { break };
                let line = String::from_utf8_lossy(&self.take(line)).trim_end().to_owned();
                let Ok(size) = usize::from_str_radix(&line, 16) else { break };
                if !self.has(size + 2).await {
                    let Self::Http1 { received, .. } = self else { return };
                    observed.body.append(received);
                    break;
                }
                let mut chunk = self.take(size + 2);
                chunk.truncate(size);
                observed.body.append(&mut chunk);
                if size == 0 {
                    return;
                }
            }
            observed.end = End::Cut;
            return;
        }
        let length = observed.all("content-length").first().and_then(|length| length.parse().ok());
        let whole = match length {
            Some(length) => self.has(length).await,
            None => self.has(usize::MAX).await,
        };
        let Self::Http1 { received, ended, .. } = self else { return };
        let length = length.unwrap_or(usize::MAX).min(received.len());
        observed.body = received.drain(..length).collect();
        observed.end = match (whole, ended) {
            (true, _) => End::Whole,
            // A body that lasts until the connection ends is whole where that end was announced.
            (false, Some(end)) if observed.all("content-length").is_empty() => *end,
            (false, _) => End::Cut,
        };
    }

    /// How many bytes there are up to the end of these.
    async fn until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            let Self::Http1 { received, .. } = self else { return None };
            if let Some(at) = received.windows(mark.len()).position(|window| window == mark) {
                return Some(at + mark.len());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn has(&mut self, bytes: usize) -> bool {
        loop {
            let Self::Http1 { received, .. } = self else { return false };
            if received.len() >= bytes {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let Self::Http1 { stream, received, ended, .. } = self else { return false };
        let mut chunk = vec![0; 16 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) => *ended = Some(End::Whole),
            Ok(read) => received.extend_from_slice(&chunk[..read]),
            Err(_) => *ended = Some(End::Cut),
        }
        ended.is_none()
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let Self::Http1 { received, .. } = self else { return Vec::new() };
        received.drain(..bytes).collect()
    }
}

async fn ask_http2(
    sender: &mut h2::client::SendRequest<Bytes>,
    host: &str,
    asking: &Asking<'_>,
    sending: Sending,
) -> Option<Observed> {
    let mut request = Request::builder().method(asking.method).uri(format!("https://{host}{}", asking.path));
    for (name, value) in asking.fields {
        request = request.header(*name, *value);
    }
    if let Some(body) = asking.body {
        request = request.header("content-length", body.len());
    }
    let mut ready = sender.clone().ready().await.ok()?;
    let (mut response, mut body) = ready.send_request(request.body(()).unwrap(), asking.body.is_none()).ok()?;
    if let Some(text) = asking.body {
        let text = Bytes::copy_from_slice(text.as_bytes());
        match sending {
            Sending::AtOnce => drop(body.send_data(text, true)),
            Sending::Later => drop(tokio::spawn(async move {
                tokio::time::sleep(A_WHILE).await;
                body.send_data(text, true).ok();
            })),
        }
    }
    let mut observed = Observed { version: "HTTP/2".into(), ..Observed::none() };
    while let Some(Ok(interim)) = poll_fn(|context| response.poll_informational(context)).await {
        observed.interim.push((interim.status().as_u16(), listed(interim.headers())));
    }
    let Ok(response) = response.await else { return Some(observed) };
    (observed.status, observed.fields) = (response.status().as_u16(), listed(response.headers()));
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return Some(observed) };
        body.flow_control().release_capacity(piece.len()).ok();
        observed.body.extend_from_slice(&piece);
    }
    if body.trailers().await.is_ok() {
        observed.end = End::Whole;
    }
    Some(observed)
}

fn listed(fields: &HeaderMap) -> Vec<String> {
    let mut fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    fields.sort();
    fields
}

fn lowered(line: &str) -> String {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    format!("{}: {}", name.to_ascii_lowercase(), value.trim())
}
