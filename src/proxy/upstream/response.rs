//! An application's answer to one request, in parts.
//!
//! An ordinary answer, with one head and a length, is read here. Whatever is not sure to be one is read by Pingora, from
//! its first byte: interim heads, chunked bodies, bodies that last until the connection ends, odd heads of all kinds.

use bytes::Bytes;
use http::request::Parts;
use pingora::{Error, ErrorType, Result, RetryType};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;
use pingora_timeout::timeout;

use super::connection::UpstreamConnection;
use super::parse::{self, FixedLengthResponse, Head};
use super::rewind::Rewind;
use crate::config::PoolTimeouts;

/// What of an answer has come.
pub enum ResponseEvent<H> {
    /// Its head. Any length but 0 is that of the body that follows.
    FixedLength(FixedLengthResponse<H>),
    /// As Pingora tells it.
    Task(HttpTask),
}

pub struct UpstreamResponse<'a> {
    /// As the client sent it.
    request: &'a Parts,
    /// What it must not set.
    our_cookies: &'a [String],
    timeouts: PoolTimeouts,
    state: State,
}

enum State {
    /// The request may be on its way, and nothing of an answer was read.
    AwaitingHead(UpstreamConnection),
    FixedLength {
        connection: UpstreamConnection,
        first: Bytes,
        remaining: usize,
        is_reusable: bool,
    },
    Pingora(Box<HttpSession>),
    /// The connection is lost.
    Lost,
}

impl<'a> UpstreamResponse<'a> {
    pub const fn new(
        connection: UpstreamConnection,
        request: &'a Parts,
        our_cookies: &'a [String],
        timeouts: PoolTimeouts,
    ) -> Self {
        Self { request, our_cookies, timeouts, state: State::AwaitingHead(connection) }
    }

    /// Sends the request. On a connection that was kept it may come to nothing, and as it has no body it may go out again.
    pub async fn send_request(&mut self, head: &[u8]) -> Result<()> {
        let State::AwaitingHead(connection) = &mut self.state else { return connection_lost() };
        connection.send(head, self.timeouts.write).await.map_err(retry_if_reused)
    }

    /// The next part of the answer.
    pub async fn next_event<H: Head>(&mut self) -> Result<ResponseEvent<H>> {
        match &mut self.state {
            State::AwaitingHead(_) => self.head().await,
            State::FixedLength { remaining: 0, .. } => Ok(ResponseEvent::Task(HttpTask::Done)),
            State::FixedLength { connection, first, remaining, .. } => {
                let mut bytes = std::mem::take(first);
                if bytes.is_empty() {
                    // What comes behind the answer is not a part of it.
                    bytes = connection.read_more(*remaining, self.timeouts.read).await?;
                }
                if bytes.is_empty() {
                    return Err(Error::explain(ErrorType::ConnectionClosed, "an answer broke off"));
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
        let bytes = connection.read_first(self.timeouts.read).await.map_err(retry_if_reused)?;
        if bytes.is_empty() {
            return Err(retry_if_reused(Error::explain(ErrorType::ConnectionClosed, "no answer")));
        }
        let Some(response) = parse::parse(&bytes, &self.request.method, self.our_cookies) else {
            return self.read_by_pingora(connection, bytes).await;
        };
        let FixedLengthResponse { body, length, .. } = response;
        let after_head = bytes.len() - body;
        let first = bytes.slice(body..body + after_head.min(length));
        // Whatever came behind the answer belongs to nobody.
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
        // Goes nowhere, as it has gone out already: Pingora has to know what it reads the answer to.
        session.write_request_header(Box::new(RequestHeader::from(self.request.clone()))).await?;
        let task = session.read_response_task().await;
        self.state = State::Pingora(session);
        task.map(ResponseEvent::Task)
    }

    /// The connection, if it can be used again.
    pub async fn into_reusable(self) -> Option<UpstreamConnection> {
        match self.state {
            State::FixedLength { connection, remaining: 0, is_reusable: true, .. } => Some(connection),
            State::Pingora(mut session) => {
                session.respect_keepalive();
                // One that cannot be used again is closed, and over TLS that is a write.
                let stream = timeout(self.timeouts.write, session.reuse()).await.ok()??;
                let rewind: Box<Rewind> = stream.into_any().downcast().ok()?;
                rewind.into_inner().map(UpstreamConnection::new)
            }
            State::FixedLength { .. } | State::AwaitingHead(_) | State::Lost => None,
        }
    }
}

/// A connection that was kept may have been closed meanwhile, before there was an answer.
fn retry_if_reused(mut error: Box<Error>) -> Box<Error> {
    if ![ErrorType::ReadTimedout, ErrorType::WriteTimedout].contains(error.etype()) {
        error.retry = RetryType::ReusedOnly;
    }
    error
}

fn connection_lost<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "an application's connection that is lost"))
}
