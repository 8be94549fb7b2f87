//! What a client's connection is held to while bytes come: heads that are whole in time, and no flood of HTTP/2 frames.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::{Instant, Sleep};

use super::blocked_writes::{BlockedWrites, CloseReason};
use crate::listener::h2_flood::{Flood, FrameScanner};
use crate::listener::request_framer::RequestFramer;
use crate::proxy::{ClientConnection, ReadState};

/// RFC 9110 §15.5.9: the request was not complete in the time that the server was prepared to wait.
pub const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What clients are held to.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// For the whole of a head.
    pub header_timeout: Duration,
    pub header_bytes: usize,
    /// For a client to take anything of what it is sent.
    pub write_timeout: Duration,
    /// Counts connections that did not keep it.
    pub head_timeouts: IntCounter,
    /// Counts those that sent too many frames that bring nothing.
    pub floods: IntCounter,
    /// Counts those that were given up because their client makes the edge hold too much.
    pub buffers: IntCounter,
}

/// The deadline of the head that is due, or of the next one; and over HTTP/2 what its frames are.
#[derive(Debug)]
pub struct ConnectionMonitor {
    limits: ConnectionLimits,
    connection: Arc<ClientConnection>,
    /// Where HTTP/2 is spoken: only its frames tell where a later head begins, as many requests are on their way at once.
    frames: Option<FrameScanner>,
    /// When the present head has to be there, once that was asked.
    at: Option<Instant>,
    /// Wakes us then; made when a head does not come in one piece.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether there is anything of the present head.
    begun: bool,
}

impl ConnectionMonitor {
    /// `connection` says where heads begin and end. The first one is due now.
    pub fn new(limits: ConnectionLimits, connection: Arc<ClientConnection>, http2: bool) -> Self {
        let at = Some(Instant::now() + limits.header_timeout);
        Self { limits, connection, frames: http2.then(FrameScanner::default), at, timer: None, begun: false }
    }

    pub const fn connection(&self) -> &Arc<ClientConnection> {
        &self.connection
    }

    /// For the messages of HTTP/1.
    pub fn framer(&self) -> RequestFramer {
        RequestFramer::new(Arc::clone(&self.connection), self.limits.header_bytes)
    }

    /// Before a read: whether the time is up. A head that came in one piece never gets here while it is due.
    pub fn head_deadline_passed(&mut self) -> bool {
        if self.connection.read_state() == ReadState::Idle {
            // Whatever deadline there was belonged to a head that is done with.
            self.at = None;
            return false;
        }
        let limit = self.limits.header_timeout;
        self.head_is_due() && Instant::now() >= *self.at.get_or_insert_with(|| Instant::now() + limit)
    }

    fn head_is_due(&self) -> bool {
        match self.connection.read_state() {
            ReadState::Head => true,
            ReadState::Idle | ReadState::Upgraded => false,
            ReadState::Body => self.frames.as_ref().is_some_and(FrameScanner::in_head),
        }
    }

    /// After a read that brought something.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let read_state = self.connection.read_state();
        match read_state {
            ReadState::Body | ReadState::Upgraded => {}
            ReadState::Head => self.begun = true,
            ReadState::Idle => {
                self.connection.head_begins();
                self.begun = true;
                // Asked for before the next read, if there is one before the head is whole.
                self.at = None;
            }
        }
        let Some(frames) = &mut self.frames else { return Ok(()) };
        let heads = frames.heads();
        let taken = frames.received(bytes, std::time::Instant::now);
        // The first head's began with the connection.
        if heads > 0 && frames.heads() != heads {
            self.at = None;
        }
        taken.inspect_err(|_| self.limits.floods.inc())
    }

    /// These go to the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        let of_bodies = match &mut self.frames {
            Some(frames) => frames.sent(bytes),
            None => bytes.len(),
        };
        self.connection.sent(of_bodies);
    }

    /// The client's socket takes nothing: ready when that has lasted too long.
    pub fn poll_blocked(&self, blocked: &mut BlockedWrites, context: &mut Context<'_>) -> Poll<()> {
        let over = ready!(blocked.poll(context, &self.connection, self.limits.write_timeout));
        if over == CloseReason::Buffers {
            self.limits.buffers.inc();
        }
        Poll::Ready(())
    }

    /// After a read that brought nothing: ready when the time is up.
    pub fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.head_is_due() {
            return Poll::Pending;
        }
        let limit = self.limits.header_timeout;
        let at = *self.at.get_or_insert_with(|| Instant::now() + limit);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(context)
    }

    /// The head did not come in time: counts it, and answers whether a part of one was there.
    pub fn count_head_timeout(&self) -> bool {
        if self.begun {
            self.limits.head_timeouts.inc();
        }
        self.begun
    }
}
