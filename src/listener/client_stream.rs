//! What Pingora reads a client from and writes to: the transport, with a buffer for writes and a deadline for heads.
//!
//! **Writes** are held back until they are flushed, do not fit, or the connection is read from and there is nothing:
//! a head and a short body travel as one TLS record, and nothing is held back while somebody waits.
//! **Reads** go through an [`Intake`] over HTTP/1, and are not buffered over HTTP/2. While a head is due (see
//! [`Watch`]) they end at its deadline, however many bytes still drip.

mod blocked_writes;
mod head_deadline;
mod info;

use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use pingora_core::protocols::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::request_framer::{Intake, Over};
use super::transport::Transport;
use crate::proxy::Connection;
use blocked_writes::Blocked;
use head_deadline::TOO_SLOW;
pub use head_deadline::{Terms, Watch};
pub use info::Facts;

/// What is held back at most. A head and a short body fit; what is longer goes out beside it, uncopied.
const HELD_BACK: usize = 4096;

pub struct Stream {
    transport: Transport,
    facts: Facts,
    /// Written to us and not yet to the transport.
    held_back: Vec<u8>,
    watch: Option<Watch>,
    /// Over HTTP/1.
    intake: Option<Intake>,
    /// Whether something may lie with TLS that has not gone out.
    unflushed: bool,
    /// While the client takes nothing of what it is sent.
    blocked: Blocked,
    /// Given up on: nothing more is read or written.
    over: bool,
}

impl fmt::Debug for Stream {
    /// Without what is kept of either direction, such as cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("descriptor", &self.facts.descriptor).finish_non_exhaustive()
    }
}

impl Stream {
    /// Operators are not watched.
    pub fn new(transport: Transport, facts: Facts, watch: Option<Watch>) -> Self {
        let intake = watch.as_ref().filter(|_| !facts.http2).map(Watch::intake);
        let (unflushed, blocked) = (false, Blocked::default());
        Self { transport, facts, held_back: Vec::new(), watch, intake, unflushed, blocked, over: false }
    }

    pub const fn is_http2(&self) -> bool {
        self.facts.http2
    }

    /// `None` of an operator's.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.watch.as_ref().map(Watch::connection)
    }

    /// Ready when the client has sent something, or never will again. Takes nothing.
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.over {
            return Poll::Ready(false);
        }
        if self.intake.as_ref().is_some_and(Intake::has_more) {
            return Poll::Ready(true);
        }
        let readable = self.transport.poll_readable(context);
        if readable.is_pending() {
            self.write_out(context);
        }
        readable
    }

    /// The last request is over. Over HTTP/2 there are many on their way at once, and nobody says this.
    pub fn head_may_come(&self) {
        if let Some(connection) = self.connection() {
            connection.head_may_come();
        }
    }

    /// `bytes` were read, the last that were, and are to be read again.
    pub fn give_back(&mut self, bytes: &[u8]) {
        if let Some(intake) = &mut self.intake {
            intake.give_back(bytes);
        }
    }

    /// Holds back what is to be written, uncopied, where nothing is held back and it is not too much.
    pub fn take_over(&mut self, bytes: Vec<u8>) -> std::result::Result<(), Vec<u8>> {
        if self.over || !self.held_back.is_empty() || bytes.len() > HELD_BACK {
            return Err(bytes);
        }
        if let Some(watch) = &mut self.watch {
            watch.bytes_go(&bytes);
        }
        self.held_back = bytes;
        Ok(())
    }

    /// Whoever waits for the client must not keep it waiting. Errors show at the next write.
    fn write_out(&mut self, context: &mut Context<'_>) {
        if (self.unflushed || !self.held_back.is_empty()) && self.poll_let_go(context).is_ready() {
            self.unflushed = Pin::new(&mut self.transport).poll_flush(context).is_pending();
        }
    }

    /// Pingora bounds how long a body's bytes may take, and nothing else that is written: heads, last chunks, farewells.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        let Some(watch) = self.watch.as_ref().filter(|_| written.is_pending()) else {
            self.blocked.flows();
            return written;
        };
        if watch.poll_blocked(&mut self.blocked, context).is_ready() {
            self.over = true;
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        written
    }

    /// Hands over what is held back, without waiting for it to arrive.
    fn poll_let_go(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.held_back.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(context, &self.held_back))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.held_back.drain(..written);
            self.blocked.flows();
        }
        // An idle connection holds no memory for what it may be sent one day.
        self.held_back = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// The head did not come in time. Whoever sent a part of one is told, where that can be said.
    fn give_up(&mut self, context: &mut Context<'_>) -> Error {
        let begun = self.watch.as_ref().is_some_and(Watch::gave_up);
        if begun && !self.facts.http2 && self.held_back.is_empty() {
            // Best effort: a client that takes nothing in either is not waited for.
            let mut transport = Pin::new(&mut self.transport);
            if transport.as_mut().poll_write(context, TOO_SLOW).is_ready() {
                let _ = transport.poll_flush(context);
            }
        }
        self.over = true;
        ErrorKind::TimedOut.into()
    }
}

impl Stream {
    /// Reads until there is something that Pingora may have, the client has ended, or there is nothing more for now.
    fn poll_take(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        loop {
            let before = into.filled().len();
            ready!(Pin::new(&mut self.transport).poll_read(context, into))?;
            let came = &into.filled()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(watch) = &mut self.watch
                && watch.bytes_came(came).is_err()
            {
                self.over = true;
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            let Some(intake) = &mut self.intake else { return Poll::Ready(Ok(())) };
            if intake.after(into, before).map_err(over)? {
                return Poll::Ready(Ok(()));
            }
            if !intake.is_open() {
                // Whoever asks ahead is heard when the next head is due, and that begins with a read.
                return Poll::Pending;
            }
        }
    }
}

fn over(_: Over) -> Error {
    ErrorKind::InvalidData.into()
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if this.watch.as_mut().is_some_and(Watch::is_over) {
            return Poll::Ready(Err(this.give_up(context)));
        }
        let mut may_take = true;
        if let Some(intake) = &mut this.intake {
            if intake.before(into).map_err(over)? {
                return Poll::Ready(Ok(()));
            }
            may_take = intake.is_open();
        }
        if may_take && let Poll::Ready(read) = this.poll_take(context, into) {
            return Poll::Ready(read);
        }
        this.write_out(context);
        if this.watch.as_mut().is_some_and(|watch| watch.poll_timer(context).is_ready()) {
            return Poll::Ready(Err(this.give_up(context)));
        }
        Poll::Pending
    }
}

impl Stream {
    /// Holds back what fits, and hands over the rest beside what was held back.
    fn poll_pass(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.held_back.len() + bytes.len() <= HELD_BACK {
            if self.held_back.capacity() == 0 {
                self.held_back.reserve_exact(HELD_BACK);
            }
            self.held_back.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.unflushed = true;
        while !self.held_back.is_empty() {
            let parts = [IoSlice::new(&self.held_back), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(context, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.blocked.flows();
            let of_bytes = written.saturating_sub(self.held_back.len());
            self.held_back.drain(..written.min(self.held_back.len()));
            if of_bytes > 0 {
                return Poll::Ready(Ok(of_bytes));
            }
        }
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let passed = this.poll_pass(context, bytes);
        if let (Some(watch), Poll::Ready(Ok(passed))) = (&mut this.watch, &passed) {
            watch.bytes_go(&bytes[..*passed]);
        }
        this.in_time(context, passed)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut flushed = self.poll_let_go(context);
        if let Poll::Ready(Ok(())) = flushed {
            flushed = Pin::new(&mut self.transport).poll_flush(context);
            self.unflushed = flushed.is_pending();
        }
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let shut = match self.poll_let_go(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_shutdown(context),
            other => other,
        };
        self.in_time(context, shut)
    }
}

impl Drop for Stream {
    /// What was written and not flushed goes out as far as the kernel takes it: Pingora drops a stream so when a
    /// response breaks off.
    fn drop(&mut self) {
        if !self.held_back.is_empty() {
            let _ = Pin::new(self).poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        // A client that is gone already needs no farewell.
        AsyncWriteExt::shutdown(self).await.ok();
    }
}
