//! The response writer for clients that speak HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;

use super::client_conn::Client;
use super::writer::ResponseWriter;
use crate::deadline::Deadline;
use crate::drain::Drain;
use crate::framing::is_bodiless;
use crate::proxy::headers;
use crate::proxy::upstream::parse::FixedLengthResponse;

/// Most heads are shorter.
const HEAD: usize = 1024;

pub struct Http1<'a, C> {
    client: &'a mut C,
    method: &'a Method,
    /// The timeout of one write.
    timeout: Duration,
    deadline: Deadline,
    /// The status of the final head; 0 before it is written.
    status: u16,
    body: Body,
    /// Body bytes that were written.
    body_bytes: usize,
    keeps_alive: bool,
    drain: &'a Drain,
    /// The client has sent another request before this response is complete.
    is_pipelining: bool,
    headers_sent: bool,
    is_complete: bool,
}

/// How the client knows where the body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    /// Content-Length says it.
    Length,
    Chunked,
}

impl<'a, C: Client> Http1<'a, C> {
    /// `keeps_alive`: whether the connection may be used again, unless the process drains when the head is written.
    /// `timeout` is for one write.
    pub fn new(client: &'a mut C, method: &'a Method, keeps_alive: bool, drain: &'a Drain, timeout: Duration) -> Self {
        Self {
            client,
            method,
            timeout,
            deadline: Deadline::default(),
            status: 0,
            body: Body::None,
            body_bytes: 0,
            keeps_alive,
            drain,
            is_pipelining: false,
            headers_sent: false,
            is_complete: false,
        }
    }

    pub const fn keeps_alive(&self) -> bool {
        self.keeps_alive
    }

    /// Returns whether the whole response was written.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    async fn finish_head(&mut self, mut wire: Vec<u8>, is_dated: bool, status: StatusCode) -> Result<()> {
        // RFC 9110 §6.6.1: a recipient with a clock adds a missing Date.
        if !is_dated {
            wire.extend_from_slice(b"Date: ");
            wire.extend_from_slice(get_cached_date().as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        self.keeps_alive = self.drain.keeps_alive(self.keeps_alive);
        let connection: &[u8] =
            if self.keeps_alive { b"Connection: keep-alive\r\n\r\n" } else { b"Connection: close\r\n\r\n" };
        wire.extend_from_slice(connection);
        if let Err(wire) = self.client.take_over(wire) {
            self.write(&wire).await?;
        }
        self.status = status.as_u16();
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut written = pin!(self.client.write_all(bytes));
        let written = poll_fn(|context| {
            let written = written.as_mut().poll(context);
            self.deadline.poll_timeout(self.timeout, context, written)
        });
        match written.await {
            Some(written) => written.map_err(to_write_error),
            // The write did not complete in time, even where the client takes a few bytes now and then.
            None => Err(Error::new_down(ErrorType::WriteTimedout)),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.client.flush().await.map_err(to_write_error)
    }
}

impl<C: Client> ResponseWriter for Http1<'_, C> {
    type Head = Vec<u8>;

    fn status(&self) -> u16 {
        self.status
    }

    fn body_bytes_sent(&self) -> usize {
        self.body_bytes
    }

    fn headers_sent(&self) -> bool {
        self.headers_sent
    }

    fn disable_keep_alive(&mut self) {
        self.keeps_alive = false;
    }

    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_pipelining {
            match self.client.poll_readable(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(false) => return Poll::Ready(()),
                // The next request waits for its turn. Whether the client has closed cannot be seen behind its bytes.
                Poll::Ready(true) => self.is_pipelining = true,
            }
        }
        // An error shows at the next write.
        let _ = Pin::new(&mut *self.client).poll_flush(context);
        Poll::Pending
    }

    async fn write_head(&mut self, mut response: Box<ResponseHeader>, end: bool) -> Result<()> {
        let is_interim = response.status.is_informational();
        if !is_interim {
            self.body = framing(self.method, &mut response, end)?;
            self.headers_sent = true;
        }
        let mut wire = Vec::with_capacity(HEAD);
        wire.extend_from_slice(b"HTTP/1.1 ");
        wire.extend_from_slice(response.status.as_str().as_bytes());
        wire.push(b' ');
        wire.extend_from_slice(response.get_reason_phrase().unwrap_or_default().as_bytes());
        wire.extend_from_slice(b"\r\n");
        response.header_to_h1_wire(&mut wire);
        if is_interim {
            wire.extend_from_slice(b"\r\n");
            self.write(&wire).await?;
            return self.flush().await;
        }
        let is_dated = response.headers.contains_key(header::DATE);
        self.finish_head(wire, is_dated, response.status).await
    }

    async fn write_passthrough_head(
        &mut self,
        response: FixedLengthResponse<Vec<u8>>,
        request_id: &HeaderValue,
    ) -> Result<()> {
        let FixedLengthResponse { status, head: mut wire, is_dated, .. } = response;
        self.body = if is_bodiless(status, self.method) { Body::None } else { Body::Length };
        self.headers_sent = true;
        for part in [headers::REQUEST_ID.as_str().as_bytes(), b": ", request_id.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
        self.finish_head(wire, is_dated, status).await
    }

    async fn write_body(&mut self, bytes: Bytes, _end: bool) -> Result<()> {
        if bytes.is_empty() || self.body == Body::None {
            return Ok(());
        }
        if self.body == Body::Chunked {
            self.write(format!("{:X}\r\n", bytes.len()).as_bytes()).await?;
        }
        self.write(&bytes).await?;
        self.body_bytes += bytes.len();
        if self.body == Body::Chunked { self.write(b"\r\n").await } else { Ok(()) }
    }

    async fn finish(&mut self) -> Result<()> {
        if self.body == Body::Chunked {
            self.write(b"0\r\n\r\n").await?;
        }
        self.is_complete = true;
        self.flush().await
    }
}

fn to_write_error(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "a response to a client", error).into_down()
}

/// Adds the field that frames the body where the head has none (RFC 9112 §6): `response_rules` have checked what it has.
fn framing(method: &Method, response: &mut ResponseHeader, end: bool) -> Result<Body> {
    if is_bodiless(response.status, method) {
        return Ok(Body::None);
    }
    if response.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(Body::Chunked);
    }
    if response.headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(Body::Length);
    }
    let (name, value) = if end { (header::CONTENT_LENGTH, "0") } else { (header::TRANSFER_ENCODING, "chunked") };
    response.insert_header(name, value).or_err(ErrorType::InternalError, "a body's end")?;
    Ok(if end { Body::Length } else { Body::Chunked })
}
