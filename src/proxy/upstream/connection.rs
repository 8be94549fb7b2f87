//! A connection to an application's server: what it is sent, and what is read of it, each in its time.

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

/// Room for a head and the body of a short answer.
const FIRST_READ_BYTES: usize = 4096;
/// Of a body, at once.
const BODY_READ_BYTES: usize = 32 << 10;

pub struct UpstreamConnection {
    stream: Stream,
    patience: Deadline,
}

impl UpstreamConnection {
    pub fn new(stream: Stream) -> Self {
        Self { stream, patience: Deadline::default() }
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Sends a request.
    pub async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        let Self { stream, patience } = self;
        let mut sent = pin!(async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        let sent = poll_fn(|context| {
            let sent = sent.as_mut().poll(context);
            patience.poll_timeout(limit, context, sent)
        });
        match sent.await {
            Some(sent) => sent.or_err(ErrorType::WriteError, "a request's head"),
            None => Err(Error::new(ErrorType::WriteTimedout)),
        }
    }

    /// What comes first.
    pub async fn read_first(&mut self, limit: Duration) -> Result<Bytes> {
        let Self { stream, patience } = self;
        let read = poll_fn(|context| {
            // Not kept while nothing comes, and a copy of what does is as long as that.
            let mut room = [const { MaybeUninit::uninit() }; FIRST_READ_BYTES];
            let mut room = ReadBuf::uninit(&mut room);
            let read = Pin::new(&mut *stream).poll_read(context, &mut room);
            patience.poll_timeout(limit, context, read.map_ok(|()| Bytes::copy_from_slice(room.filled())))
        });
        or_timeout(read.await)
    }

    /// More of it, and at most so much.
    pub async fn read_more(&mut self, most: usize, limit: Duration) -> Result<Bytes> {
        let Self { stream, patience } = self;
        let mut bytes = BytesMut::with_capacity(BODY_READ_BYTES.min(most));
        let mut rest = stream.take(most as u64);
        {
            let mut read = pin!(rest.read_buf(&mut bytes));
            or_timeout(
                poll_fn(|context| {
                    let read = read.as_mut().poll(context);
                    patience.poll_timeout(limit, context, read)
                })
                .await,
            )?;
        }
        // It may be kept for a while, and is to take no more room than it counts for.
        let is_roomy = bytes.len() < bytes.capacity() / 2;
        Ok(if is_roomy { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() })
    }

    /// Whether nothing has come that nobody asked for, as far as is known here; its end is that too.
    pub fn is_idle(&mut self) -> bool {
        let looked = poll_fn(|context| {
            let mut byte = [0];
            Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte))
        });
        // Or a task that has done much in this turn would be told that nothing has come, without a look.
        let looked = pin!(tokio::task::unconstrained(looked));
        looked.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

fn or_timeout<T>(read: Option<std::io::Result<T>>) -> Result<T> {
    match read {
        Some(read) => read.or_err(ErrorType::ReadError, "an application's answer"),
        None => Err(Error::new(ErrorType::ReadTimedout)),
    }
}
