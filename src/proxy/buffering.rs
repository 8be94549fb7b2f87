//! Accounting of the memory that bodies in transit take, at the points where they pass.

use std::time::Duration;

use bytes::Bytes;
use http::Version;
use pingora::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::cancel;
use super::client_connection::ClientConnection;
use super::context::RequestContext;
use super::gateway::Gateway;
use super::request::RequestView;

/// How much Pingora reads of a response while a chunk of it waits for the client: four pieces in a channel and one on its
/// way into it, of 64 KiB each.
const READ_AHEAD_BYTES: usize = 5 * (64 << 10);
/// The same over HTTP/1, with the pieces that are copied together to be written, and the reader's buffer.
const HTTP1_AHEAD_BYTES: usize = 2 * READ_AHEAD_BYTES + (64 << 10);
/// How much of a request body Pingora keeps for a retry.
const RETRY_BYTES: usize = 64 << 10;
/// How much its reader of HTTP/1 bodies keeps in addition.
const READER_BYTES: usize = 64 << 10;

/// Before a request is sent to its application: waits while its client's requests are to go on one after the other.
/// Responses are read ahead before they can be counted here, so this limits how many are at once.
pub async fn throttle(session: &Session) {
    let account = ClientConnection::of(session.as_downstream()).and_then(|connection| connection.account.as_ref());
    let wait = account.map_or(Duration::ZERO, |account| account.pace());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

impl Gateway {
    /// The application says how much is to come.
    pub(super) fn store_content_length(response: &ResponseHeader, ctx: &mut RequestContext) {
        let length = response.headers.get(http::header::CONTENT_LENGTH);
        ctx.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    }

    /// A piece of an application's response, on its way to the client.
    pub(super) fn hold_response(&self, session: &Session, body: &mut Option<Bytes>, ctx: &mut RequestContext) {
        if session.req_header().version != Version::HTTP_2 {
            // Pingora copies pieces together for HTTP/1, and what waits shows at the socket alone.
            if let Some(connection) = ClientConnection::of(session.as_downstream()) {
                connection.reads_ahead(ctx.length.map_or(HTTP1_AHEAD_BYTES, |length| length.min(HTTP1_AHEAD_BYTES)));
            }
            return;
        }
        let Some(bytes) = body.take_if(|bytes| !bytes.is_empty()) else { return };
        let left = ctx.length.map_or(READ_AHEAD_BYTES, |length| length.saturating_sub(ctx.bytes_sent));
        *body = Some(self.hold(&RequestView::of(session), bytes, left.min(READ_AHEAD_BYTES), ctx));
    }

    /// A piece of a request's body, on its way to the application. An error where there is no room for it.
    pub(super) fn hold_request_body(
        &self,
        session: &Session,
        body: &mut Option<Bytes>,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let Some(bytes) = body.take_if(|bytes| !bytes.is_empty()) else { return Ok(()) };
        let request = RequestView::of(session);
        let kept = ctx.body_bytes.min(RETRY_BYTES);
        if request.head.version == Version::HTTP_2 {
            cancel::reserve(kept)?;
            if let Some(connection) = ClientConnection::of(session.as_downstream()) {
                connection.received(bytes.len());
            }
        } else {
            cancel::reserve(kept + ctx.body_bytes.min(READER_BYTES))?;
        }
        *body = Some(self.hold(&request, bytes, 0, ctx));
        Ok(())
    }

    /// Counts a piece until it has gone. From then on its request may be cut.
    pub(super) fn hold(
        &self,
        request: &RequestView<'_>,
        bytes: Bytes,
        ahead: usize,
        ctx: &mut RequestContext,
    ) -> Bytes {
        match cancel::track_chunk(bytes, ahead) {
            Ok(counted) => {
                self.record_if_cancelled(request, ctx);
                counted
            }
            Err(bytes) => bytes,
        }
    }
}
