//! An application's response to one request, as a sequence of events.
//!
//! A response with one final head and a Content-Length is read here. Every other response is read by Pingora, from its
//! first byte: interim heads, chunked bodies, bodies that last until the connection closes, unusual heads of all kinds.

use bytes::Bytes;
use http::request::Parts;
use pingora::{Error, ErrorType, Result};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;
use pingora_timeout::timeout;

use super::connection::UpstreamConnection;
use super::parse::{self, FixedLengthResponse, Head, HeadRules};
use super::rewind::Rewind;
use crate::config::PoolTimeouts;

/// What of a response has arrived.
pub enum ResponseEvent<H> {
    /// The head of a response that is read here. A length other than 0 is that of the body that follows.
    FixedLength(FixedLengthResponse<H>),
    /// An event in Pingora's form.
    Task(HttpTask),
}

pub struct UpstreamResponse<'a> {
    /// The request as the client sent it.
    request: &'a Parts,
    rules: HeadRules<'a>,
    timeouts: PoolTimeouts,
    /// Whether the head is edited before the client gets it, so that it must not pass through as it is.
    is_edited: bool,
    state: State,
    /// Whether the whole head of the request may have been written.
    is_written: bool,
    /// Whether bytes of a response have come.
    is_answered: bool,
}

enum State {
    /// The request may have been sent, and nothing of the response has been read.
    AwaitingHead(UpstreamConnection),
    FixedLength {
        connection: UpstreamConnection,
        first: Bytes,
        remaining: usize,
        is_reusable: bool,
    },
    Pingora(Box<HttpSession>),
    /// The connection was closed because of an error.
    Lost,
}

impl<'a> UpstreamResponse<'a> {
    pub const fn new(
        connection: UpstreamConnection,
        request: &'a Parts,
        rules: HeadRules<'a>,
        timeouts: PoolTimeouts,
    ) -> Self {
        let state = State::AwaitingHead(connection);
        Self { request, rules, timeouts, is_edited: false, state, is_written: false, is_answered: false }
    }

    /// Has the head read by Pingora, in a form that can be edited.
    pub const fn edit_head(&mut self) {
        self.is_edited = true;
    }

    /// Whether the server cannot have the whole request.
    pub const fn is_unwritten(&self) -> bool {
        !self.is_written
    }

    /// Whether nothing has come in response.
    pub const fn is_unanswered(&self) -> bool {
        !self.is_answered
    }

    /// Sends the request.
    pub async fn send_request(&mut self, head: &[u8]) -> Result<()> {
        let State::AwaitingHead(connection) = &mut self.state else { return connection_lost() };
        connection.send(head, self.timeouts.write).await?;
        self.is_written = true;
        Ok(())
    }

    /// Returns the next event of the response.
    pub async fn next_event<H: Head>(&mut self) -> Result<ResponseEvent<H>> {
        match &mut self.state {
            State::AwaitingHead(_) => self.head().await,
            State::FixedLength { remaining: 0, .. } => Ok(ResponseEvent::Task(HttpTask::Done)),
            State::FixedLength { connection, first, remaining, .. } => {
                let mut bytes = std::mem::take(first);
                if bytes.is_empty() {
                    // At most what is left of the body is read: later bytes do not belong to this response.
                    bytes = connection.read_more(*remaining, self.timeouts.read).await?;
                }
                if bytes.is_empty() {
                    return Err(Error::explain(ErrorType::ConnectionClosed, "the response ended before its length"));
                }
                *remaining = remaining.saturating_sub(bytes.len());
                Ok(ResponseEvent::Task(HttpTask::Body(Some(bytes), *remaining == 0)))
            }
            State::Pingora(session) => session.read_response_task().await.map(ResponseEvent::Task),
            State::Lost => connection_lost(),
        }
    }

    async fn head<H: Head>(&mut self) -> Result<ResponseEvent<H>> {
        let State::AwaitingHead(mut connection) = std::mem::replace(&mut self.state, State::Lost) else {
            return connection_lost();
        };
        let bytes = connection.read_first(self.timeouts.read).await?;
        if bytes.is_empty() {
            return Err(Error::explain(ErrorType::ConnectionClosed, "the connection closed before a response"));
        }
        self.is_answered = true;
        let passes_through = || parse::parse(&bytes, &self.request.method, self.rules);
        let parsed = if self.is_edited { None } else { passes_through() };
        let Some(response) = parsed else {
            return self.read_by_pingora(connection, bytes).await;
        };
        let FixedLengthResponse { body, length, .. } = response;
        let after_head = bytes.len() - body;
        let first = bytes.slice(body..body + after_head.min(length));
        // Bytes after the response belong to no request, so the connection is not used again.
        let is_reusable = response.is_reusable && after_head <= length;
        self.state = State::FixedLength { connection, first, remaining: length, is_reusable };
        Ok(ResponseEvent::FixedLength(response))
    }

    async fn read_by_pingora<H: Head>(
        &mut self,
        connection: UpstreamConnection,
        bytes: Bytes,
    ) -> Result<ResponseEvent<H>> {
        let mut session = Box::new(HttpSession::new(Box::new(Rewind::new(connection.into_stream(), bytes))));
        session.read_timeout = Some(self.timeouts.read);
        // `Rewind` discards what is written, as the request has been sent already. Pingora has to know the request to which
        // it reads the response.
        session.write_request_header(Box::new(RequestHeader::from(self.request.clone()))).await?;
        let task = session.read_response_task().await;
        self.state = State::Pingora(session);
        task.map(ResponseEvent::Task)
    }

    /// Returns the connection, if it can be used again.
    pub async fn into_reusable(self) -> Option<UpstreamConnection> {
        match self.state {
            State::FixedLength { connection, remaining: 0, is_reusable: true, .. } => Some(connection),
            State::Pingora(mut session) => {
                session.respect_keepalive();
                // A connection that cannot be used again is closed, which is a write over TLS, hence the timeout.
                let stream = timeout(self.timeouts.write, session.reuse()).await.ok()??;
                let rewind: Box<Rewind> = stream.into_any().downcast().ok()?;
                rewind.into_inner().map(UpstreamConnection::new)
            }
            State::FixedLength { .. } | State::AwaitingHead(_) | State::Lost => None,
        }
    }
}

fn connection_lost<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "the connection was closed after an error"))
}
