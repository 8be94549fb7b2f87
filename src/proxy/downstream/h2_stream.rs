//! One request over HTTP/2 and its response. This replaces Pingora's own HTTP/2 session, and adds interim responses.
//!
//! Pingora keeps h2's response handle private and drops interim responses, though HTTP/2 has a place for them (RFC 9113
//! §8.1), and browsers accept `103` over HTTP/2 alone. So the edge owns the handle: the fast path writes with it, and
//! Pingora's proxy gets this type in place of its own session, through its extension point for custom protocols (`Custom`).

mod session;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection as Http2, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Response, StatusCode, header};
use pingora::{Error, ErrorType, OrErr, Result};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::authority::{RawTargetAuthority, raw_target_authority};
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::validate;

/// The largest number of interim responses of one request that are passed on. Nothing slows down an application that sends
/// them, so without a bound they would queue up for a slow client.
const MOST_INTERIM: usize = 16;
/// The largest size of all their fields, as HTTP/2 counts it (RFC 9113 §6.5.2).
const MOST_INTERIM_BYTES: usize = 32 << 10;
/// The part of a request body that is kept for a retry, the same as Pingora keeps.
const KEPT_BYTES: usize = 64 << 10;

pub struct RequestStream {
    request: RequestHeader,
    body: RecvStream,
    sending: Arc<Mutex<Sending>>,
    /// The final head of the response.
    written: Option<Box<ResponseHeader>>,
    /// The response has ended.
    ended: bool,
    interim: usize,
    interim_bytes: usize,
    body_read: usize,
    body_sent: usize,
    kept: Option<FixedBuffer>,
    digest: Arc<Digest>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// h2's handles for the response. They are shared with `ResetWatch`.
struct Sending {
    response: SendResponse<Bytes>,
    /// The handle for the body, once the final head was sent.
    writer: Option<SendStream<Bytes>>,
}

/// Observes from outside of the request whether the client has reset its stream. Pingora checks that in most places, but not
/// while it waits for an HTTP/2 application to accept a chunk of a body.
pub struct ResetWatch(Weak<Mutex<Sending>>);

/// What was accepted on a connection.
pub enum Accepted {
    Request(Box<RequestStream>),
    /// A malformed request, which was refused or reset. The other streams of the connection continue.
    Rejected,
}

impl RequestStream {
    /// Accepts the next request; `None` when the connection has ended. Polling this drives the whole connection; the future
    /// may be dropped at any time.
    pub async fn accept<S>(
        connection: &mut Http2<S, Bytes>,
        digest: &Arc<Digest>,
    ) -> Result<Option<Accepted>, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(accepted) = connection.accept().await else { return Ok(None) };
        let (request, mut response) = accepted?;
        let (parts, body) = request.into_parts();
        let request = RequestHeader::from(parts);
        // As Pingora does before it makes a session: what would be a line's end, or a length in two ways, towards an
        // application over HTTP/1.1, ends the stream (RFC 9113 §8.1.1).
        if has_forbidden_byte(request.raw_path()) || !has_one_length(&request.headers) {
            response.send_reset(Reason::PROTOCOL_ERROR);
            return Ok(Some(Accepted::Rejected));
        }
        if !has_one_authority(&request) {
            let mut refusal = Response::new(());
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            // An error means that the client has left already.
            response.send_response(refusal, true).ok();
            return Ok(Some(Accepted::Rejected));
        }
        Ok(Some(Accepted::Request(Box::new(Self {
            request,
            body,
            sending: Arc::new(Mutex::new(Sending { response, writer: None })),
            written: None,
            ended: false,
            interim: 0,
            interim_bytes: 0,
            body_read: 0,
            body_sent: 0,
            kept: None,
            digest: Arc::clone(digest),
            write_timeout: None,
            drain_timeout: None,
        }))))
    }

    pub fn head(&self) -> &RequestHeader {
        &self.request
    }

    pub fn head_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn peer(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    pub fn bytes_sent(&self) -> usize {
        self.body_sent
    }

    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    /// Resets the stream with a reason.
    pub fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.sending().response.send_reset(reason);
        }
    }

    /// Whether the request has no body.
    pub fn is_without_body(&self) -> bool {
        let length = self.request.headers.get(header::CONTENT_LENGTH);
        self.body_read == 0 && (self.body.is_end_stream() || length.is_some_and(|length| length.as_bytes() == b"0"))
    }

    /// Whether all of the request has been read.
    pub fn is_read(&self) -> bool {
        self.is_without_body() || self.body.is_end_stream()
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let what = "while reading downstream request body";
        let Some(bytes) = self.body.data().await.transpose().or_err(ErrorType::ReadError, what)? else {
            return Ok(None);
        };
        self.body_read += bytes.len();
        if let Some(kept) = &mut self.kept {
            kept.write_to_buffer(&bytes);
        }
        // This fails on a stream that has ended, which the next read reports.
        self.body.flow_control().release_capacity(bytes.len()).ok();
        Ok(Some(bytes))
    }

    /// Is ready when the client has reset the stream.
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.sending().poll_reset(context)
    }

    pub fn reset_watch(&self) -> ResetWatch {
        ResetWatch(Arc::downgrade(&self.sending))
    }

    /// Locks the handles for one call of h2, which has locks of its own. These calls do not panic, so a poisoned lock can be
    /// used.
    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the final head, or an interim one. `end`: there is no body.
    pub fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        // HTTP/2 forbids connection-specific fields (RFC 9113 §8.2.2). The rules for responses have removed those of the
        // application; what may be left here is the framing that is added for HTTP/1.1.
        head.remove_header(&header::TRANSFER_ENCODING);
        head.remove_header(&header::CONNECTION);
        head.remove_header(&header::UPGRADE);
        head.remove_header("keep-alive");
        head.remove_header("proxy-connection");
        if head.status.is_informational() {
            self.write_interim(&head);
            return Ok(());
        }
        // RFC 9110 §6.6.1: a recipient with a clock adds a missing Date, and an origin's own stays.
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        let response = Response::from_parts(head.as_owned_parts(), ());
        let mut sending = self.sending();
        let writer = sending.response.send_response(response, end);
        sending.writer = Some(writer.or_err(ErrorType::WriteError, "while writing h2 response to downstream")?);
        drop(sending);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    /// Writes an interim response. A failure is ignored, as no client waits for one.
    fn write_interim(&mut self, head: &ResponseHeader) {
        self.interim += 1;
        self.interim_bytes += validate::bytes(&head.headers);
        let is_bounded = self.interim <= MOST_INTERIM && self.interim_bytes <= MOST_INTERIM_BYTES;
        // RFC 9113 §8.6: there is no switch of protocols.
        if is_bounded && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.sending().response.send_informational(Response::from_parts(head.as_owned_parts(), ())).ok();
        }
    }

    pub async fn write_piece(&mut self, bytes: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let length = bytes.len();
        let writing = self.write_all(bytes, end);
        let written = match self.write_timeout {
            // The limit is for the whole chunk, however few bytes the client accepts at a time.
            Some(limit) => timeout(limit, writing).await.unwrap_or_else(|_| Err(Error::new(ErrorType::WriteTimedout))),
            None => writing.await,
        };
        written.map_err(Error::into_down)?;
        self.body_sent += length;
        self.ended = end;
        Ok(())
    }

    async fn write_all(&self, mut bytes: Bytes, end: bool) -> Result<()> {
        // Each turn waits until the client's flow-control windows have room, and sends as much as they allow (RFC 9113 §5.2).
        loop {
            let length = bytes.len();
            let room = match length {
                // An empty DATA frame needs no window.
                0 => 0,
                _ => {
                    // 1. The rest of the chunk is requested from the windows of the stream and of the connection.
                    self.sending().writer()?.reserve_capacity(length);
                    // 2. The client opens its windows by WINDOW_UPDATE. The lock is taken for one poll at a time.
                    let capacity = poll_fn(|context| match self.sending().writer() {
                        Ok(writer) => writer.poll_capacity(context).map(Some),
                        Err(_) => Poll::Ready(None),
                    });
                    let Some(Some(capacity)) = capacity.await else {
                        return Err(Error::explain(ErrorType::H2Error, "cannot reserve capacity"));
                    };
                    capacity.or_err(ErrorType::H2Error, "while waiting for capacity")?
                }
            };
            // 3. What fits is sent. END_STREAM goes with the last frame of the last chunk.
            let piece = bytes.split_to(room.min(length));
            let is_last = bytes.is_empty();
            let what = "while writing h2 response body to downstream";
            self.sending().writer()?.send_data(piece, is_last && end).or_err(ErrorType::WriteError, what)?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let what = "while writing h2 response trailers to downstream";
        self.sending().writer()?.send_trailers(trailers).or_err(ErrorType::WriteError, what)?;
        self.ended = true;
        Ok(())
    }

    /// Ends the stream. Without a final head there is nothing to end: the stream is reset when it is dropped.
    pub fn end(&mut self) -> Result<()> {
        if self.ended || self.written.is_none() {
            return Ok(());
        }
        let what = "while writing h2 response body to downstream";
        self.sending().writer()?.send_data(Bytes::new(), true).or_err(ErrorType::WriteError, what)?;
        self.ended = true;
        Ok(())
    }
}

impl Sending {
    fn writer(&mut self) -> Result<&mut SendStream<Bytes>> {
        self.writer.as_mut().ok_or_else(|| Error::explain(ErrorType::H2Error, "a body without a head"))
    }

    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match &mut self.writer {
            Some(writer) => writer.poll_reset(context),
            None => self.response.poll_reset(context),
        }
    }
}

impl ResetWatch {
    /// Is ready when the client has reset the stream. It must be polled by the task that polls the request: h2 wakes only one.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sending) = self.0.upgrade() else { return Poll::Pending };
        let polled = sending.lock().unwrap_or_else(PoisonError::into_inner).poll_reset(context);
        // An error means that the stream has ended in another way.
        if matches!(polled, Poll::Ready(Ok(_))) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Whether a target has a byte that would split a request line of HTTP/1.1.
fn has_forbidden_byte(target: &[u8]) -> bool {
    target.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r' | b' '))
}

/// Whether a request has at most one Content-Length: a single one, or several equal ones (RFC 9110 §8.6).
fn has_one_length(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return false;
    }
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|length| number(length.trim_ascii()));
    match lengths.next() {
        None => true,
        Some(first) => first.is_some() && lengths.all(|length| length == first),
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// Whether a request is for one authority (RFC 9113 §8.3.1): `:authority` and Host are one and the same, there is one of
/// them, and the path is none that names another.
fn has_one_authority(request: &RequestHeader) -> bool {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.map(|host| host.as_bytes());
    let has_user = |text: Option<&[u8]>| text.is_some_and(|text| text.contains(&b'@'));
    let differ = host.zip(authority).is_some_and(|(host, authority)| host != authority);
    if another.is_some() || has_user(host) || has_user(authority) || differ || (host.is_none() && authority.is_none()) {
        return false;
    }
    // CONNECT has no path (RFC 9113 §8.5), and is refused as a method.
    request.method == Method::CONNECT || matches!(raw_target_authority(request.raw_path()), RawTargetAuthority::None)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Request};

    use super::*;

    fn request(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut parts = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0;
        for (name, value) in fields {
            parts.headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        RequestHeader::from(parts)
    }

    #[test]
    fn a_length_is_said_in_one_way_or_not_at_all() {
        for (lengths, expected) in [
            (&[][..], true),
            (&["5"], true),
            (&["0"], true),
            (&["5", "5"], true),
            (&["5, 5"], true),
            (&["5,5", " 05"], true),
            (&["5", "6"], false),
            (&["5, 6"], false),
            (&["5,"], false),
            (&[""], false),
            (&["+5"], false),
            (&["-5"], false),
            (&["0x5"], false),
            (&["5 5"], false),
            (&["99999999999999999999"], false),
        ] {
            let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            let headers = request("POST", "https://a.test/", &fields).headers.clone();
            assert_eq!(has_one_length(&headers), expected, "{lengths:?}");
        }
        assert!(!has_one_length(&request("POST", "https://a.test/", &[("transfer-encoding", "chunked")]).headers));
    }

    #[test]
    fn a_request_is_for_one_authority() {
        for (uri, hosts, expected) in [
            ("https://a.test/", &[][..], true),
            ("https://a.test/", &["a.test"], true),
            ("/", &["a.test"], true),
            ("https://a.test/?x=//b.test", &[], true),
            ("/", &[], false),
            ("https://a.test/", &["b.test"], false),
            ("https://a.test/", &["A.test"], false),
            ("https://a.test/", &["a.test:443"], false),
            ("https://a.test/", &["a.test", "a.test"], false),
            ("/", &["a.test", "b.test"], false),
            ("/", &["x@a.test"], false),
            ("https://x@a.test/", &[], false),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(has_one_authority(&request("GET", uri, &fields)), expected, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn what_divides_a_request_line_is_in_no_target() {
        for (target, expected) in [
            (&b"/a?b"[..], false),
            (b"/a b", true),
            (b"/a\r", true),
            (b"/a\n", true),
            (b"/\0", true),
            (b"/\xe9", false),
        ] {
            assert_eq!(has_forbidden_byte(target), expected, "{}", target.escape_ascii());
        }
    }
}
