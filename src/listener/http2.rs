//! HTTP/2 connections of clients: how much they send, how many requests they have at once, and the loop that takes the
//! requests in.
//!
//! The loop does what Pingora's does, which cannot be told to look at a request before it has a task of its own. Here
//! what is too large is replaced by a small request that stands for it before anything waits, and nothing is taken in
//! from a client who makes the edge hold as much as it may already.

use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::Request;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options, handshake};
use pingora_core::protocols::{GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl};
use pingora_http::RequestHeader;
use tokio::task::JoinSet;

use super::client_stream::ClientStream;
use super::serve::HttpHandler;
use super::{ListenerContext, ListenerKind};
use crate::buffers::{Account, Fill, Reservation};
use crate::config::Limits;
use crate::proxy::{Accepted, ClientConnection, RequestStream};
use crate::validate;

/// What a client may send of one body before we have taken it. With the 64 KiB of RFC 9113 §6.9.2 an upload waits for
/// us after every 64 KiB: at 50 ms a round trip, that is 1.3 MB a second and no more.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same for all bodies of a connection, once an application has been seen to take them: what a client can make us
/// hold while applications take nothing.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The same before.
const FIRST_WINDOW_BYTES: u32 = 128 << 10;
/// h2 keeps a place of some 250 bytes for each DATA frame that nobody has read, however short. It bounds how many short
/// ones it keeps by what they lack to 256 bytes each; this is a thousand of them, as a stream of gRPC may bring at once.
const SHORT_FRAMES_BUDGET: usize = 256 << 10;
/// What h2 keeps of one response for a client whose socket takes nothing. It would be 400 KiB.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// What a request holds that has been taken in and waits for its first turn: others may be taken in meanwhile.
const QUEUED_BYTES: usize = 16 << 10;
/// Requests that are refused while they are taken in, as their `:path` is none, or their lengths differ. Pingora's own
/// loop ends a connection at the same number.
const MAX_MALFORMED: usize = 32;

fn options(limits: &Limits) -> H2Options {
    // Pingora's bound on requests at once holds only where its options are the beginning.
    let mut options = default_h2_options();
    options
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(FIRST_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .data_frame_budget(SHORT_FRAMES_BUDGET)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    options
}

/// How long the requests of a connection that has ended have to notice it and to be settled. One that waits for its
/// application to take a body does not notice.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until no request is in flight and none has been for so long. Takes out those that have ended.
async fn idle_for(requests: &mut JoinSet<()>, limit: Duration) {
    while requests.join_next().await.is_some() {}
    tokio::time::sleep(limit).await;
}

impl ListenerContext {
    /// Serves a connection until it ends.
    pub async fn serve_http2<A: HttpHandler>(&self, app: &Arc<A>, stream: ClientStream) {
        let (ListenerKind::Clients(clients), Some(connection)) = (&self.kind, stream.connection().cloned()) else {
            return;
        };
        let digest = Arc::new(Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let snapshot = clients.snapshot.load_full();
        let (options, limit) = (options(&snapshot.limits), snapshot.timeouts.keepalive);
        drop(snapshot);
        let Ok(mut http2) = handshake(Box::new(stream), Some(options)).await else { return };
        let mut requests = JoinSet::new();
        let (mut closing, mut malformed, mut window) = (self.closing.clone(), 0, None::<Reservation>);
        let mut is_closing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing), if !is_closing => {
                    http2.graceful_shutdown();
                    is_closing = true;
                    continue;
                }
                () = connection.receives(), if window.is_none() => {
                    if let Some(share) = connection.account.as_ref().and_then(reserve_larger_window) {
                        http2.set_target_window_size(CONNECTION_WINDOW_BYTES);
                        window = Some(share);
                    }
                    continue;
                }
                accepted = RequestStream::accept(&mut http2, &digest) => accepted,
                () = idle_for(&mut requests, limit), if !is_closing => break,
            };
            match accepted {
                Ok(Some(Accepted::Request(stream))) => {
                    let Some(stream) = self.admit_request(stream, &connection) else { continue };
                    let (app, closing) = (Arc::clone(app), self.closing.clone());
                    let until_begun = connection.account.as_ref().map(|account| account.reserve(QUEUED_BYTES));
                    requests.spawn(async move {
                        // It counts by itself from here on.
                        drop(until_begun);
                        app.process_stream(stream, &closing).await;
                    });
                }
                Ok(Some(Accepted::Rejected)) if malformed + 1 < MAX_MALFORMED => malformed += 1,
                // The client has left, or broken the protocol.
                _ => break,
            }
        }
        drop(http2);
        tokio::time::timeout(END_TIMEOUT, async { while requests.join_next().await.is_some() {} }).await.ok();
    }

    /// Whether a request may begin. One that may not is reset in a way that tells the client to try again
    /// (RFC 9113 §8.7).
    fn admit_request(
        &self,
        mut stream: Box<RequestStream>,
        connection: &ClientConnection,
    ) -> Option<Box<RequestStream>> {
        if let Some(account) = &connection.account
            && account.fill() >= Fill::Full
        {
            connection.head_read();
            self.metrics.limit_reached("buffers");
            stream.reset(Reason::REFUSED_STREAM);
            return None;
        }
        if let ListenerKind::Clients(clients) = &self.kind {
            let limits = &clients.snapshot.load().limits;
            // Their bytes are bounded by h2.
            if validate::has_too_many(&stream.head().headers, limits) {
                replace_with_placeholder(&mut stream);
            }
        }
        Some(stream)
    }
}

/// The memory for a client that may run further ahead with its bodies, if there is some to spare.
fn reserve_larger_window(account: &Arc<Account>) -> Option<Reservation> {
    let more = (CONNECTION_WINDOW_BYTES - FIRST_WINDOW_BYTES) as usize;
    (account.fill() == Fill::Low).then(|| account.reserve(more))
}

/// Puts a request that is known for what it was in the place of one whose head is too large, so that the head is gone
/// while the reply waits for the client.
fn replace_with_placeholder(stream: &mut RequestStream) {
    let head = stream.head();
    let mut placeholder = Request::new(()).into_parts().0;
    placeholder.method = head.method.clone();
    placeholder.uri = head.uri.clone();
    placeholder.version = head.version;
    for name in [http::header::HOST, http::header::ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            placeholder.headers.insert(name, value.clone());
        }
    }
    placeholder.extensions.insert(validate::Malformed::HeaderTooLarge);
    *stream.head_mut() = RequestHeader::from(placeholder);
}
