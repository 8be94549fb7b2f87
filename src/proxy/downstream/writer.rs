//! The writer of a response to a client, over HTTP/1.1 or HTTP/2.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use pingora::Result;
use pingora_http::ResponseHeader;

use crate::proxy::upstream::parse::{FixedLengthResponse, Head};

pub trait ResponseWriter: Send {
    /// The form in which the head of a fixed-length response is built.
    type Head: Head;

    /// Returns the status of the response head that was written; 0 before there is one.
    fn status(&self) -> u16;

    /// Returns the number of body bytes that were written.
    fn body_bytes_sent(&self) -> usize;

    /// Returns whether the client may have received a part of the response.
    fn headers_sent(&self) -> bool;

    /// The connection is closed after this response.
    fn disable_keep_alive(&mut self);

    /// Is ready when the client has closed the connection or reset the stream. Flushes what was written before.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Writes a response head, final or interim. `end`: there is no body.
    fn write_head(&mut self, response: Box<ResponseHeader>, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// Writes the head of a fixed-length response, which passes through as it was received.
    fn write_passthrough_head(
        &mut self,
        response: FixedLengthResponse<Self::Head>,
        request_id: &HeaderValue,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Writes a chunk of the body. `end`: it is the last one.
    fn write_body(&mut self, bytes: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// Ends the response and flushes it.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;
}
