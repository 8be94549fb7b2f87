//! A connection to an application's server, with a timeout for each write and each read.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::deadline::Deadline;

/// The buffer of the first read: enough for the head and the body of a short response.
const FIRST_READ_BYTES: usize = 4096;
/// The largest read of a body.
const BODY_READ_BYTES: usize = 32 << 10;

pub struct UpstreamConnection {
    stream: Stream,
    deadline: Deadline,
}

impl UpstreamConnection {
    pub fn new(stream: Stream) -> Self {
        Self { stream, deadline: Deadline::default() }
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Sends a request within `limit`.
    pub async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        let Self { stream, deadline } = self;
        let mut sent = pin!(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        let sent = poll_fn(|context| {
            let sent = sent.as_mut().poll(context);
            deadline.poll_timeout(limit, context, sent)
        });
        match sent.await {
            Some(sent) => sent.or_err(ErrorType::WriteError, "a request's head"),
            None => Err(Error::new(ErrorType::WriteTimedout)),
        }
    }

    /// Reads the first bytes of a response.
    pub async fn read_first(&mut self, limit: Duration) -> Result<Bytes> {
        let Self { stream, deadline } = self;
        let read = poll_fn(|context| {
            // The buffer is on the stack, so a connection holds no memory while it waits, and the copy is as long as what
            // was read.
            let mut room = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
            let mut room = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut *stream).poll_read(context, &mut room);
            deadline.poll_timeout(limit, context, read.map_ok(|()| Bytes::copy_from_slice(room.filled())))
        });
        or_timeout(read.await)
    }

    /// Reads more of a response, at most `most` bytes.
    pub async fn read_more(&mut self, most: usize, limit: Duration) -> Result<Bytes> {
        let Self { stream, deadline } = self;
        let mut bytes = BytesMut::with_capacity(BODY_READ_BYTES.min(most));
        let mut rest = stream.take(most as u64);
        {
            let mut read = pin!(rest.read_buf(&mut bytes));
            or_timeout(
                poll_fn(|context| {
                    let read = read.as_mut().poll(context);
                    deadline.poll_timeout(limit, context, read)
                })
                .await,
            )?;
        }
        // The bytes may wait for a slow client, so they are to take no more memory than is accounted for.
        let is_roomy = bytes.len() < bytes.capacity() / 2;
        Ok(if is_roomy { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() })
    }

    /// Returns whether the connection is open and has no unsolicited bytes, as far as the kernel knows.
    pub fn is_idle(&mut self) -> bool {
        let looked = poll_fn(|context| {
            let mut byte = [0];
            Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte))
        });
        // `unconstrained`: a task that has used up tokio's cooperative budget would get `Pending` without a system call,
        // and a closed connection would pass for an idle one.
        let looked = pin!(tokio::task::unconstrained(looked));
        looked.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

fn or_timeout<T>(read: Option<std::io::Result<T>>) -> Result<T> {
    match read {
        Some(read) => read.or_err(ErrorType::ReadError, "an application's response"),
        None => Err(Error::new(ErrorType::ReadTimedout)),
    }
}
