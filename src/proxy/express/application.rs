//! An application's connection during one exchange: the request goes out, and the answer comes in parts.
//!
//! An ordinary answer, with one head and a length, is read here. Whatever is not sure to be one is read by Pingora, from
//! its first byte: interim heads, chunked bodies, bodies that last until the connection ends, odd heads of all kinds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, request};
use pingora::{Error, ErrorType, OrErr, Result, RetryType};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::response::{self, Ordinary};
use super::rewound::Rewound;

/// Room for a head and the body of a short answer.
const FIRST_READ: usize = 4096;
/// Of a body, at once.
const READ: usize = 32 << 10;

pub struct Application {
    read_timeout: Duration,
    write_timeout: Duration,
    /// Kept for Pingora, which has to know what it reads the answer to.
    request: Option<Box<RequestHeader>>,
    state: State,
}

enum State {
    /// The request may be on its way, and nothing of an answer was read.
    Asked(Stream),
    Ordinary {
        stream: Stream,
        first: Bytes,
        left: usize,
        keeps: bool,
    },
    ByPingora(Box<HttpSession>),
    /// The connection is lost.
    Over,
}

impl Application {
    /// Every peer of ours has these timeouts.
    pub fn new(stream: Stream, peer: &HttpPeer) -> Self {
        let (read, write) = (peer.options.read_timeout, peer.options.write_timeout);
        Self {
            read_timeout: read.unwrap_or_default(),
            write_timeout: write.unwrap_or_default(),
            request: None,
            state: State::Asked(stream),
        }
    }

    /// Sends the request.
    pub async fn ask(&mut self, head: request::Parts) -> Result<()> {
        let State::Asked(stream) = &mut self.state else { return lost() };
        let mut wire = Vec::with_capacity(FIRST_READ / 2);
        wire.extend_from_slice(head.method.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
        wire.extend_from_slice(b" HTTP/1.1\r\n");
        let head = RequestHeader::from(head);
        head.header_to_h1_wire(&mut wire);
        wire.extend_from_slice(b"\r\n");
        self.request = Some(Box::new(head));
        let written = async {
            stream.write_all(&wire).await?;
            stream.flush().await
        };
        match timeout(self.write_timeout, written).await {
            Ok(written) => written.or_err(ErrorType::WriteError, "a request's head"),
            Err(_) => Err(Error::new(ErrorType::WriteTimedout)),
        }
    }

    /// The next part of the answer.
    pub async fn part(&mut self) -> Result<HttpTask> {
        match &mut self.state {
            State::Asked(_) => self.head().await,
            State::Ordinary { left: 0, .. } => Ok(HttpTask::Done),
            State::Ordinary { stream, first, left, .. } => {
                let bytes = if first.is_empty() {
                    let mut bytes = BytesMut::with_capacity(READ.min(*left));
                    // What comes behind the answer is not a part of it.
                    read(&mut stream.take(*left as u64), &mut bytes, self.read_timeout).await?;
                    bytes.freeze()
                } else {
                    std::mem::take(first)
                };
                if bytes.is_empty() {
                    return Err(Error::explain(ErrorType::ConnectionClosed, "an answer broke off"));
                }
                *left = left.saturating_sub(bytes.len());
                Ok(HttpTask::Body(Some(bytes), *left == 0))
            }
            State::ByPingora(session) => session.read_response_task().await,
            State::Over => lost(),
        }
    }

    async fn head(&mut self) -> Result<HttpTask> {
        let State::Asked(mut stream) = std::mem::replace(&mut self.state, State::Over) else { return lost() };
        let mut bytes = BytesMut::with_capacity(FIRST_READ);
        let read = read(&mut stream, &mut bytes, self.read_timeout).await;
        // A connection that was kept may have been closed meanwhile, before there was an answer.
        let read = read.map_err(|mut error| {
            if *error.etype() != ErrorType::ReadTimedout {
                error.retry = RetryType::ReusedOnly;
            }
            error
        })?;
        if read == 0 {
            let mut error = Error::explain(ErrorType::ConnectionClosed, "no answer");
            error.retry = RetryType::ReusedOnly;
            return Err(error);
        }
        let bytes = bytes.freeze();
        let method = self.request.as_ref().map_or(&Method::GET, |request| &request.method);
        let Some(Ordinary { head, length, body, keeps }) = response::parse(&bytes, method) else {
            return self.by_pingora(stream, bytes).await;
        };
        let behind = bytes.len() - body;
        let first = bytes.slice(body..body + behind.min(length));
        // Whatever came behind the answer belongs to nobody.
        let keeps = keeps && behind <= length;
        self.state = State::Ordinary { stream, first, left: length, keeps };
        Ok(HttpTask::Header(Box::new(head), length == 0))
    }

    async fn by_pingora(&mut self, stream: Stream, bytes: Bytes) -> Result<HttpTask> {
        let Some(request) = self.request.take() else { return lost() };
        let mut session = Box::new(HttpSession::new(Box::new(Rewound::new(stream, bytes))));
        session.read_timeout = Some(self.read_timeout);
        // Goes nowhere: it has gone out already.
        session.write_request_header(request).await?;
        let part = session.read_response_task().await;
        self.state = State::ByPingora(session);
        part
    }

    /// The connection, if it can be used again.
    pub async fn into_kept(self) -> Option<Stream> {
        match self.state {
            State::Ordinary { stream, left: 0, keeps: true, .. } => Some(stream),
            State::ByPingora(mut session) => {
                session.respect_keepalive();
                // One that cannot be used again is closed, and over TLS that is a write.
                let stream = timeout(self.write_timeout, session.reuse()).await.ok()??;
                let rewound: Box<Rewound> = stream.into_any().downcast().ok()?;
                rewound.into_inner()
            }
            State::Ordinary { .. } | State::Asked(_) | State::Over => None,
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), into: &mut BytesMut, limit: Duration) -> Result<usize> {
    match timeout(limit, stream.read_buf(into)).await {
        Ok(read) => read.or_err(ErrorType::ReadError, "an application's answer"),
        Err(_) => Err(Error::new(ErrorType::ReadTimedout)),
    }
}

fn lost<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "an application's connection that is lost"))
}
