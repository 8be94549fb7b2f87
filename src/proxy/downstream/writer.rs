//! An answer on its way to a client, whatever the client speaks.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use pingora::Result;
use pingora_http::ResponseHeader;

use crate::proxy::upstream::parse::{Head, Ordinary};

pub trait Answer: Send {
    /// What the head of an ordinary answer is put together as.
    type Head: Head;

    /// Of the answer whose head was written; 0 before there is one.
    fn status(&self) -> u16;

    /// Of the body, on their way.
    fn bytes(&self) -> usize;

    /// Whether the client may have got something of it.
    fn is_begun(&self) -> bool;

    /// Nothing else is to come on this connection.
    fn close(&mut self);

    /// Ready when nobody waits for it any more. What was written before goes out meanwhile.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// `end`: nothing follows.
    fn head(&mut self, response: Box<ResponseHeader>, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// A head that is passed on as it came.
    fn passed(
        &mut self,
        ordinary: Ordinary<Self::Head>,
        request_id: &HeaderValue,
    ) -> impl Future<Output = Result<()>> + Send;

    /// `end`: it is the last.
    fn piece(&mut self, bytes: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;

    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;
}
