//! The response writer for clients that speak HTTP/2, and the check whether a stream is for the fast path.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method};
use pingora::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::h2_stream::RequestStream;
use super::writer::ResponseWriter;
use crate::framing::is_bodiless;
use crate::proxy::headers;
use crate::proxy::headers::request_rules::{needs_full_path_over_http2, remove_implied};
use crate::proxy::upstream::parse::FixedLengthResponse;

/// Whether a request has no body, and says nothing of one nor wants anything special. Its head stays to be looked at.
pub fn is_plain(stream: &RequestStream) -> bool {
    let request = stream.head();
    let mut fields = request.headers.iter();
    let is_plain = !fields.any(|(name, value)| needs_full_path_over_http2(name, value));
    [Method::GET, Method::HEAD].contains(&request.method) && stream.is_read() && is_plain
}

/// The head, less what belongs to the connection.
pub fn taken(stream: &mut RequestStream) -> Parts {
    let mut head = take_head(stream);
    remove_implied(&mut head.headers);
    head
}

/// Adds something for the full path to the extensions of a head that stays.
pub fn annotate<T: Clone + Send + Sync + 'static>(stream: &mut RequestStream, value: T) {
    let mut head = take_head(stream);
    head.extensions.insert(value);
    *stream.head_mut() = RequestHeader::from(head);
}

fn take_head(stream: &mut RequestStream) -> Parts {
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    Parts::from(std::mem::replace(stream.head_mut(), empty))
}

pub struct Http2<'a> {
    stream: &'a mut RequestStream,
    method: &'a Method,
    /// The status of the final head; 0 before it is written.
    status: u16,
    ended: bool,
}

impl<'a> Http2<'a> {
    pub fn new(stream: &'a mut RequestStream, method: &'a Method) -> Self {
        Self { stream, method, status: 0, ended: false }
    }
}

impl ResponseWriter for Http2<'_> {
    type Head = Box<ResponseHeader>;

    fn status(&self) -> u16 {
        self.status
    }

    fn body_bytes_sent(&self) -> usize {
        self.stream.bytes_sent()
    }

    fn headers_sent(&self) -> bool {
        self.status != 0
    }

    /// Does nothing: other streams of the connection continue (RFC 9113 §5.1).
    fn disable_keep_alive(&mut self) {}

    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(context).map(drop)
    }

    async fn write_head(&mut self, response: Box<ResponseHeader>, end: bool) -> Result<()> {
        let status = response.status;
        let end = end || is_bodiless(status, self.method);
        self.stream.write_head(response, end).map_err(Error::into_down)?;
        if !status.is_informational() {
            self.status = status.as_u16();
            self.ended = end;
        }
        Ok(())
    }

    async fn write_passthrough_head(
        &mut self,
        response: FixedLengthResponse<Self::Head>,
        request_id: &HeaderValue,
    ) -> Result<()> {
        let mut head = response.head;
        head.insert_header(headers::REQUEST_ID.clone(), request_id.clone())?;
        self.write_head(head, response.length == 0).await
    }

    async fn write_body(&mut self, bytes: Bytes, end: bool) -> Result<()> {
        if self.ended || (bytes.is_empty() && !end) {
            return Ok(());
        }
        self.ended = end;
        self.stream.write_piece(bytes, end).await.map_err(Error::into_down)
    }

    async fn finish(&mut self) -> Result<()> {
        self.stream.end().map_err(Error::into_down)
    }
}
