//! An answer on its way to a client, whatever the client speaks.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use pingora::Result;
use pingora_http::ResponseHeader;

use crate::proxy::upstream::parse::{FixedLengthResponse, Head};

pub trait ResponseWriter: Send {
    /// What the head of an ordinary answer is put together as.
    type Head: Head;

    /// Of the answer whose head was written; 0 before there is one.
    fn status(&self) -> u16;

    /// Of the body, on their way.
    fn body_bytes_sent(&self) -> usize;

    /// Whether the client may have got something of it.
    fn headers_sent(&self) -> bool;

    /// Nothing else is to come on this connection.
    fn disable_keep_alive(&mut self);

    /// Ready when nobody waits for it any more. What was written before goes out meanwhile.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// `end`: nothing follows.
    fn write_head(&mut self, response: Box<ResponseHeader>, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// A head that is passed on as it came.
    fn write_passthrough_head(
        &mut self,
        response: FixedLengthResponse<Self::Head>,
        request_id: &HeaderValue,
    ) -> impl Future<Output = Result<()>> + Send;

    /// `end`: it is the last.
    fn write_body(&mut self, bytes: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;

    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;
}
