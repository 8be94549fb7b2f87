//! HTTP/2 connections of clients: how much they may send, how many requests they may have at once, and the loop that
//! accepts requests.
//!
//! The loop does what Pingora's does. Pingora's cannot inspect a request before it has a task of its own. This one
//! replaces a request head that is too large by a small placeholder before anything waits, and refuses requests of a
//! client that makes the edge hold as much as it may already.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Connection as Http2;
use http::Request;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options, handshake};
use pingora_core::protocols::{GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl};
use pingora_http::RequestHeader;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::client_stream::ClientStream;
use super::serve::HttpHandler;
use super::{ListenerContext, ListenerKind};
use crate::buffers::{Account, Fill, Reservation};
use crate::config::Limits;
use crate::drain::Drain;
use crate::proxy::{Accepted, ClientConnection, RequestStream};
use crate::validate;

/// Bytes of one body that a client may send before they are read. With the 64 KiB of RFC 9113 §6.9.2 an upload waits
/// for a WINDOW_UPDATE after every 64 KiB: at 50 ms a round trip, that is 1.3 MB a second and no more.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same for all bodies of a connection, once an application has been seen to read them: what a client can make the
/// edge hold while applications read nothing.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// The same before that.
const FIRST_WINDOW_BYTES: u32 = 128 << 10;
/// h2 keeps some 250 bytes for each DATA frame that is not read yet, however short. It bounds the number of short
/// frames by what they lack to 256 bytes each; this is a thousand of them, as a gRPC stream may send at once.
const SHORT_FRAMES_BUDGET: usize = 256 << 10;
/// Bytes of one response that h2 buffers for a client whose socket takes nothing. The default is 400 KiB.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Bytes that an accepted request holds while it waits for its first turn: other requests may be accepted meanwhile.
const QUEUED_BYTES: usize = 16 << 10;
/// Malformed requests of one connection, with an invalid `:path` or differing lengths, that are reset before the
/// connection is closed. Pingora's own loop has the same number.
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

/// How long the requests of a connection that has ended may take to notice it and to be recorded. One that waits for
/// its application to read a body does not notice.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests that a connection begins before everything else that is ready has its turn. A client may send a hundred at once,
/// whose work would otherwise come before that of all other clients.
const REQUESTS_IN_A_TURN: usize = 4;

/// Counts the requests that a connection begins.
#[derive(Default)]
struct Turn(usize);

impl Turn {
    /// Lets others go first after each [`REQUESTS_IN_A_TURN`].
    async fn request_begun(&mut self) {
        self.0 = (self.0 + 1) % REQUESTS_IN_A_TURN;
        if self.0 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// What ends the wait for requests.
enum Lull {
    /// No request is in flight, and none has been for the keep-alive timeout. After the GOAWAY it ends the connection of a
    /// client that has vanished, whose answer h2 would wait for.
    Idle,
    /// A request has ended while the process drains.
    Draining,
}

/// When a connection gets its GOAWAY. One that has had no request gets none before the first, which its client could not
/// send then.
#[derive(Default)]
struct GoAway {
    had_request: bool,
    /// The listener has closed, or a response was written while the process drains.
    is_due: bool,
    is_sent: bool,
}

impl GoAway {
    /// Sends it once. h2 sends it twice, a round trip apart, so that no request that is under way is lost (RFC 9113 §6.8).
    fn send_if_due<T: AsyncRead + AsyncWrite + Unpin>(&mut self, http2: &mut Http2<T, Bytes>) {
        if self.is_due && self.had_request && !self.is_sent {
            self.is_sent = true;
            http2.graceful_shutdown();
        }
    }
}

/// Waits for one of them. Removes finished requests from the set.
async fn lull(requests: &mut JoinSet<()>, limit: Duration, drain: &Drain) -> Lull {
    while requests.join_next().await.is_some() {
        if drain.is_draining() {
            return Lull::Draining;
        }
    }
    tokio::time::sleep(limit).await;
    Lull::Idle
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
        let (mut go_away, mut turn) = (GoAway::default(), Turn::default());
        loop {
            go_away.send_if_due(&mut http2);
            let accepted = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing), if !go_away.is_due => {
                    go_away.is_due = true;
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
                lull = lull(&mut requests, limit, &self.drain) => match lull {
                    Lull::Idle => break,
                    Lull::Draining => {
                        go_away.is_due = true;
                        continue;
                    }
                },
            };
            match accepted {
                Ok(Some(Accepted::Request(stream))) => {
                    go_away.had_request = true;
                    go_away.is_due |= self.drain.is_draining();
                    let Some(stream) = self.admit_request(stream, &connection) else { continue };
                    let (app, closing) = (Arc::clone(app), self.closing.clone());
                    let until_begun = connection.account.as_ref().map(|account| account.reserve(QUEUED_BYTES));
                    requests.spawn(async move {
                        // From here on the request is counted by its own buffers.
                        drop(until_begun);
                        app.process_stream(stream, &closing).await;
                    });
                    turn.request_begun().await;
                }
                Ok(Some(Accepted::Rejected)) if malformed + 1 < MAX_MALFORMED => malformed += 1,
                // The client has left, or violated the protocol.
                _ => break,
            }
        }
        drop(http2);
        tokio::time::timeout(END_TIMEOUT, async { while requests.join_next().await.is_some() {} }).await.ok();
    }

    /// Returns the request if it may begin. One that may not is reset in a way that has the client try again (RFC 9113
    /// §8.7).
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
            // h2 bounds the bytes of the fields, and this their number.
            if validate::has_too_many(&stream.head().headers, limits) {
                replace_with_placeholder(&mut stream);
            }
        }
        Some(stream)
    }
}

/// Reserves memory for a larger window, if the client has some to spare.
fn reserve_larger_window(account: &Arc<Account>) -> Option<Reservation> {
    let more = (CONNECTION_WINDOW_BYTES - FIRST_WINDOW_BYTES) as usize;
    (account.fill() == Fill::Low).then(|| account.reserve(more))
}

/// Replaces a request whose head is too large by a small placeholder that is marked as such, so that the head is freed
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// On one thread, another task runs whenever this one lets it.
    #[tokio::test]
    async fn other_work_waits_for_no_more_than_a_turn_of_requests() {
        let (mut turn, runs) = (Turn::default(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&runs);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let mut seen = Vec::new();
        for _ in 0..3 * REQUESTS_IN_A_TURN {
            turn.request_begun().await;
            seen.push(runs.load(Ordering::Relaxed));
        }
        other.abort();
        assert_eq!(seen, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]);
    }
}
