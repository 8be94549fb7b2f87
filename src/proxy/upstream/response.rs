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

use super::connection::Link;
use super::parse::{self, Head, Ordinary};
use super::rewind::Rewound;
use crate::config::PoolTimeouts;

/// What of an answer has come.
pub enum Part<H> {
    /// Its head. Any length but 0 is that of the body that follows.
    Ordinary(Ordinary<H>),
    /// As Pingora tells it.
    Task(HttpTask),
}

pub struct Application<'a> {
    /// As the client asked.
    asked: &'a Parts,
    /// What it must not set.
    our_cookies: &'a [String],
    timeouts: PoolTimeouts,
    state: State,
}

enum State {
    /// The request may be on its way, and nothing of an answer was read.
    Asked(Link),
    Ordinary {
        link: Link,
        first: Bytes,
        left: usize,
        keeps: bool,
    },
    ByPingora(Box<HttpSession>),
    /// The connection is lost.
    Over,
}

impl<'a> Application<'a> {
    pub const fn new(link: Link, asked: &'a Parts, our_cookies: &'a [String], timeouts: PoolTimeouts) -> Self {
        Self { asked, our_cookies, timeouts, state: State::Asked(link) }
    }

    /// Sends the request. On a connection that was kept it may come to nothing, and as it has no body it may go out again.
    pub async fn ask(&mut self, head: &[u8]) -> Result<()> {
        let State::Asked(link) = &mut self.state else { return lost() };
        link.send(head, self.timeouts.write).await.map_err(perhaps_closed)
    }

    /// The next part of the answer.
    pub async fn part<H: Head>(&mut self) -> Result<Part<H>> {
        match &mut self.state {
            State::Asked(_) => self.head().await,
            State::Ordinary { left: 0, .. } => Ok(Part::Task(HttpTask::Done)),
            State::Ordinary { link, first, left, .. } => {
                let mut bytes = std::mem::take(first);
                if bytes.is_empty() {
                    // What comes behind the answer is not a part of it.
                    bytes = link.more(*left, self.timeouts.read).await?;
                }
                if bytes.is_empty() {
                    return Err(Error::explain(ErrorType::ConnectionClosed, "an answer broke off"));
                }
                *left = left.saturating_sub(bytes.len());
                Ok(Part::Task(HttpTask::Body(Some(bytes), *left == 0)))
            }
            State::ByPingora(session) => session.read_response_task().await.map(Part::Task),
            State::Over => lost(),
        }
    }

    async fn head<H: Head>(&mut self) -> Result<Part<H>> {
        let State::Asked(mut link) = std::mem::replace(&mut self.state, State::Over) else { return lost() };
        let bytes = link.first(self.timeouts.read).await.map_err(perhaps_closed)?;
        if bytes.is_empty() {
            return Err(perhaps_closed(Error::explain(ErrorType::ConnectionClosed, "no answer")));
        }
        let Some(ordinary) = parse::parse(&bytes, &self.asked.method, self.our_cookies) else {
            return self.by_pingora(link, bytes).await;
        };
        let Ordinary { body, length, .. } = ordinary;
        let behind = bytes.len() - body;
        let first = bytes.slice(body..body + behind.min(length));
        // Whatever came behind the answer belongs to nobody.
        let keeps = ordinary.keeps && behind <= length;
        self.state = State::Ordinary { link, first, left: length, keeps };
        Ok(Part::Ordinary(ordinary))
    }

    async fn by_pingora<H: Head>(&mut self, link: Link, bytes: Bytes) -> Result<Part<H>> {
        let mut session = Box::new(HttpSession::new(Box::new(Rewound::new(link.into_stream(), bytes))));
        session.read_timeout = Some(self.timeouts.read);
        // Goes nowhere, as it has gone out already: Pingora has to know what it reads the answer to.
        session.write_request_header(Box::new(RequestHeader::from(self.asked.clone()))).await?;
        let task = session.read_response_task().await;
        self.state = State::ByPingora(session);
        task.map(Part::Task)
    }

    /// The connection, if it can be used again.
    pub async fn into_kept(self) -> Option<Link> {
        match self.state {
            State::Ordinary { link, left: 0, keeps: true, .. } => Some(link),
            State::ByPingora(mut session) => {
                session.respect_keepalive();
                // One that cannot be used again is closed, and over TLS that is a write.
                let stream = timeout(self.timeouts.write, session.reuse()).await.ok()??;
                let rewound: Box<Rewound> = stream.into_any().downcast().ok()?;
                rewound.into_inner().map(Link::new)
            }
            State::Ordinary { .. } | State::Asked(_) | State::Over => None,
        }
    }
}

/// A connection that was kept may have been closed meanwhile, before there was an answer.
fn perhaps_closed(mut error: Box<Error>) -> Box<Error> {
    if ![ErrorType::ReadTimedout, ErrorType::WriteTimedout].contains(error.etype()) {
        error.retry = RetryType::ReusedOnly;
    }
    error
}

fn lost<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "an application's connection that is lost"))
}
