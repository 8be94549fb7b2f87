//! What Pingora reads a client from and writes to: the transport, with a buffer for writes and a deadline for heads.
//!
//! **Writes** are buffered until they are flushed, do not fit, or a read has to wait: a head and a short body travel as
//! one TLS record, and no byte is kept back while the edge waits for the client. **Reads** go through a
//! [`RequestFramer`] over HTTP/1, and are not buffered over HTTP/2. While a head is due (see [`ConnectionMonitor`])
//! they end at its deadline, however many bytes still drip.

mod blocked_writes;
mod head_deadline;
mod info;

use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{Shutdown, SocketDigest};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::request_framer::{Desync, RequestFramer};
use super::transport::Transport;
use crate::proxy::ClientConnection;
use blocked_writes::BlockedWrites;
use head_deadline::REQUEST_TIMEOUT;
pub use head_deadline::{ConnectionLimits, ConnectionMonitor};

/// Bytes that are buffered at most. A head and a short body fit; longer data is sent beside the buffer, without a copy.
const WRITE_BUF_BYTES: usize = 4096;

/// What is known of a connection once it is accepted.
#[derive(Debug)]
pub struct ConnectionInfo {
    pub socket: Arc<SocketDigest>,
    pub tls: Option<Arc<SslDigest>>,
    pub proxy: Option<Arc<ProxyDigest>>,
    pub http2: bool,
    pub descriptor: i32,
}

/// A client's connection, as Pingora and the fast path read from it and write to it.
pub struct ClientStream {
    transport: Transport,
    info: ConnectionInfo,
    /// Bytes that were written to this stream and not yet to the transport.
    write_buf: Vec<u8>,
    monitor: Option<ConnectionMonitor>,
    /// Over HTTP/1.
    framer: Option<RequestFramer>,
    /// Whether TLS may hold bytes that have not been sent.
    unflushed: bool,
    /// Tracks how long the client has taken nothing of what it is sent.
    blocked: BlockedWrites,
    /// Over HTTP/2.
    turn: ReadTurn,
    /// Nothing more is read or written.
    closed: bool,
}

/// Bytes that an HTTP/2 connection reads before everything else that is ready has its turn. Each of them may be a header
/// field (RFC 7541 §6.1), and the work of what a client sends at once would otherwise come before that of all others.
const BYTES_IN_A_TURN: usize = 16 * 1024;

/// Counts the bytes that a connection reads in a turn.
#[derive(Default)]
struct ReadTurn(usize);

impl ReadTurn {
    /// Pending where others go first; the task is then at the end of the queue.
    fn poll_begin(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.0 < BYTES_IN_A_TURN {
            return Poll::Ready(());
        }
        self.0 = 0;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl fmt::Debug for ClientStream {
    /// Buffers of either direction are left out, as they may hold cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("descriptor", &self.info.descriptor).finish_non_exhaustive()
    }
}

impl ClientStream {
    /// `monitor` is `None` for connections that have no limits.
    pub fn new(transport: Transport, info: ConnectionInfo, monitor: Option<ConnectionMonitor>) -> Self {
        let framer = monitor.as_ref().filter(|_| !info.http2).map(ConnectionMonitor::framer);
        let (unflushed, blocked, turn) = (false, BlockedWrites::default(), ReadTurn::default());
        Self { transport, info, write_buf: Vec::new(), monitor, framer, unflushed, blocked, turn, closed: false }
    }

    pub const fn is_http2(&self) -> bool {
        self.info.http2
    }

    /// Returns `None` for a connection that has no limits.
    pub fn connection(&self) -> Option<&Arc<ClientConnection>> {
        self.monitor.as_ref().map(ConnectionMonitor::connection)
    }

    /// Ready when the client has sent something, or never will again. Reads nothing.
    pub fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.closed {
            return Poll::Ready(false);
        }
        if self.framer.as_ref().is_some_and(RequestFramer::has_buffered) {
            return Poll::Ready(true);
        }
        let readable = self.transport.poll_readable(context);
        if readable.is_pending() {
            self.try_drain(context);
        }
        readable
    }

    /// Notes that the last request is over. Over HTTP/2 many requests are in flight at once, and this is not called.
    pub fn head_may_come(&self) {
        if let Some(connection) = self.connection() {
            connection.head_may_come();
        }
    }

    /// Returns `bytes` to the framer. They were the last that were read, and are to be read again.
    pub fn give_back(&mut self, bytes: &[u8]) {
        if let Some(framer) = &mut self.framer {
            framer.give_back(bytes);
        }
    }

    /// Buffers `bytes` without a copy where the buffer is empty and they are not too long; returns them otherwise.
    pub fn write_owned(&mut self, bytes: Vec<u8>) -> std::result::Result<(), Vec<u8>> {
        if self.closed || !self.write_buf.is_empty() || bytes.len() > WRITE_BUF_BYTES {
            return Err(bytes);
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.sent(&bytes);
        }
        self.write_buf = bytes;
        Ok(())
    }

    /// Sends what is buffered, because the edge is about to wait for the client, who may be waiting for these bytes.
    /// Errors are reported by the next write.
    fn try_drain(&mut self, context: &mut Context<'_>) {
        if (self.unflushed || !self.write_buf.is_empty()) && self.poll_drain(context).is_ready() {
            self.unflushed = Pin::new(&mut self.transport).poll_flush(context).is_pending();
        }
    }

    /// Bounds how long a write may be blocked. Pingora bounds the writes of a body only, and not those of heads, last
    /// chunks and closing messages.
    fn with_write_deadline<T>(&mut self, context: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        let Some(monitor) = self.monitor.as_ref().filter(|_| written.is_pending()) else {
            self.blocked.made_progress();
            return written;
        };
        if monitor.poll_blocked(&mut self.blocked, context).is_ready() {
            self.closed = true;
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        written
    }

    /// Writes the buffer to the transport, without waiting for the client to receive it.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.write_buf.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(context, &self.write_buf))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.write_buf.drain(..written);
            self.blocked.made_progress();
        }
        // An idle connection holds no memory for later writes.
        self.write_buf = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// The head was not complete in time. A client that sent a part of one gets a 408, where one can be sent.
    fn head_timed_out(&mut self, context: &mut Context<'_>) -> Error {
        let begun = self.monitor.as_ref().is_some_and(ConnectionMonitor::count_head_timeout);
        if begun && !self.info.http2 && self.write_buf.is_empty() {
            // Best effort: a client that receives nothing either is not waited for.
            let mut transport = Pin::new(&mut self.transport);
            if transport.as_mut().poll_write(context, REQUEST_TIMEOUT).is_ready() {
                let _ = transport.poll_flush(context);
            }
        }
        self.closed = true;
        ErrorKind::TimedOut.into()
    }
}

impl ClientStream {
    /// Reads until there is something to deliver, the client has ended, or there is nothing more for now.
    fn poll_receive(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.info.http2 {
            ready!(self.turn.poll_begin(context));
        }
        loop {
            let before = into.filled().len();
            let Poll::Ready(read) = Pin::new(&mut self.transport).poll_read(context, into) else {
                self.turn = ReadTurn::default();
                return Poll::Pending;
            };
            read?;
            let came = &into.filled()[before..];
            self.turn.0 += came.len();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(monitor) = &mut self.monitor
                && monitor.received(came).is_err()
            {
                self.closed = true;
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            let Some(framer) = &mut self.framer else { return Poll::Ready(Ok(())) };
            if framer.received(into, before).map_err(invalid_data)? {
                return Poll::Ready(Ok(()));
            }
            if !framer.may_read() {
                // A pipelined request is read when the next head is expected, and that begins with a read.
                return Poll::Pending;
            }
        }
    }
}

fn invalid_data(_: Desync) -> Error {
    ErrorKind::InvalidData.into()
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.closed {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        if this.monitor.as_mut().is_some_and(ConnectionMonitor::head_deadline_passed) {
            return Poll::Ready(Err(this.head_timed_out(context)));
        }
        let mut may_take = true;
        if let Some(framer) = &mut this.framer {
            if framer.deliver(into).map_err(invalid_data)? {
                return Poll::Ready(Ok(()));
            }
            may_take = framer.may_read();
        }
        if may_take && let Poll::Ready(read) = this.poll_receive(context, into) {
            return Poll::Ready(read);
        }
        this.try_drain(context);
        if this.monitor.as_mut().is_some_and(|monitor| monitor.poll_timer(context).is_ready()) {
            return Poll::Ready(Err(this.head_timed_out(context)));
        }
        Poll::Pending
    }
}

impl ClientStream {
    /// Buffers what fits, and writes the rest beside the buffer.
    fn poll_write_buffered(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.write_buf.len() + bytes.len() <= WRITE_BUF_BYTES {
            if self.write_buf.capacity() == 0 {
                self.write_buf.reserve_exact(WRITE_BUF_BYTES);
            }
            self.write_buf.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.unflushed = true;
        while !self.write_buf.is_empty() {
            let parts = [IoSlice::new(&self.write_buf), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.transport).poll_write_vectored(context, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.blocked.made_progress();
            let of_bytes = written.saturating_sub(self.write_buf.len());
            self.write_buf.drain(..written.min(self.write_buf.len()));
            if of_bytes > 0 {
                return Poll::Ready(Ok(of_bytes));
            }
        }
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = &mut *self;
        if this.closed {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let passed = this.poll_write_buffered(context, bytes);
        if let (Some(monitor), Poll::Ready(Ok(passed))) = (&mut this.monitor, &passed) {
            monitor.sent(&bytes[..*passed]);
        }
        this.with_write_deadline(context, passed)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut flushed = self.poll_drain(context);
        if let Poll::Ready(Ok(())) = flushed {
            flushed = Pin::new(&mut self.transport).poll_flush(context);
            self.unflushed = flushed.is_pending();
        }
        self.with_write_deadline(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let shut = match self.poll_drain(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_shutdown(context),
            other => other,
        };
        self.with_write_deadline(context, shut)
    }
}

impl Drop for ClientStream {
    /// Sends what was written and not flushed, as far as the kernel takes it: Pingora drops a stream in that state when
    /// a response breaks off.
    fn drop(&mut self) {
        if !self.write_buf.is_empty() {
            let _ = Pin::new(self).poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // The client may have left already, so an error is ignored.
        AsyncWriteExt::shutdown(self).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_ends_with_its_bytes_and_the_next_one_begins_by_itself() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let context = Context::from_waker(&waker);
        let mut turn = ReadTurn(BYTES_IN_A_TURN - 1);
        assert!(turn.poll_begin(&context).is_ready());
        turn.0 += 1;
        assert!(turn.poll_begin(&context).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(turn.poll_begin(&context).is_ready());
    }
}
