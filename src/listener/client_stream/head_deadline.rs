//! Limits of a client's connection while bytes are received: heads are complete in time, and HTTP/2 frames are no
//! flood.

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

/// The limits of a connection, and the counters of those that exceeded them.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// The time limit for a complete head.
    pub header_timeout: Duration,
    pub header_bytes: usize,
    /// The time within which a client must take some of what it is sent.
    pub write_timeout: Duration,
    /// Counts connections that exceeded it.
    pub head_timeouts: IntCounter,
    /// Counts connections that sent too many frames that carry nothing.
    pub floods: IntCounter,
    /// Counts connections that were closed because their client makes the edge hold too much.
    pub buffers: IntCounter,
}

/// Tracks the deadline of the current or next head, and over HTTP/2 the frames.
#[derive(Debug)]
pub struct ConnectionMonitor {
    limits: ConnectionLimits,
    connection: Arc<ClientConnection>,
    /// Set over HTTP/2: only the frames show where a later head begins, as many requests are in flight at once.
    frames: Option<FrameScanner>,
    /// When the current head must be complete. Set at the first read that waits for it.
    at: Option<Instant>,
    /// The timer for that deadline, created when a head does not come in one piece.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether any byte of the current head was received.
    begun: bool,
}

impl ConnectionMonitor {
    /// `connection` reports where heads begin and end. The first one is due now.
    pub fn new(limits: ConnectionLimits, connection: Arc<ClientConnection>, http2: bool) -> Self {
        let at = Some(Instant::now() + limits.header_timeout);
        Self { limits, connection, frames: http2.then(FrameScanner::default), at, timer: None, begun: false }
    }

    pub const fn connection(&self) -> &Arc<ClientConnection> {
        &self.connection
    }

    /// Creates the framer for HTTP/1.
    pub fn framer(&self) -> RequestFramer {
        RequestFramer::new(Arc::clone(&self.connection), self.limits.header_bytes)
    }

    /// Called before a read: returns whether the deadline of the head has passed. A head that comes in one piece never
    /// gets here while it is due.
    pub fn head_deadline_passed(&mut self) -> bool {
        if self.connection.read_state() == ReadState::Idle {
            // The deadline was that of a head that is complete.
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

    /// Called after a read that received bytes.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let read_state = self.connection.read_state();
        match read_state {
            ReadState::Body | ReadState::Upgraded => {}
            ReadState::Head => self.begun = true,
            ReadState::Idle => {
                self.connection.head_begins();
                self.begun = true;
                // The new deadline is set before the next read, if there is one before the head is complete.
                self.at = None;
            }
        }
        let Some(frames) = &mut self.frames else { return Ok(()) };
        let heads = frames.heads();
        let taken = frames.received(bytes, std::time::Instant::now);
        // The deadline of the first head began with the connection.
        if heads > 0 && frames.heads() != heads {
            self.at = None;
        }
        taken.inspect_err(|_| self.limits.floods.inc())
    }

    /// Counts bytes that are sent to the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        let of_bodies = match &mut self.frames {
            Some(frames) => frames.sent(bytes),
            None => bytes.len(),
        };
        self.connection.sent(of_bodies);
    }

    /// Called while the client's socket takes nothing: ready when that has lasted too long.
    pub fn poll_blocked(&self, blocked: &mut BlockedWrites, context: &mut Context<'_>) -> Poll<()> {
        let over = ready!(blocked.poll(context, &self.connection, self.limits.write_timeout));
        if over == CloseReason::Buffers {
            self.limits.buffers.inc();
        }
        Poll::Ready(())
    }

    /// Called after a read that received nothing: ready when the deadline has passed.
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

    /// Counts a head that was not complete in time. Returns whether a part of it was received.
    pub fn count_head_timeout(&self) -> bool {
        if self.begun {
            self.limits.head_timeouts.inc();
        }
        self.begun
    }
}
