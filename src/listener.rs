//! The listener: binds sockets and accepts client connections, with a limit on all connections and one for each client.
//!
//! Pingora's own listening service has no such limits. An accepted socket becomes a [`client_stream::ClientStream`] in
//! `accept`, and `serve` hands it to an [`serve::HttpHandler`], request by request.
//!
//! The files are a ladder, and each imports only files below it; this one accepts connections:
//! | step | files |
//! |---|---|
//! | 5 | `http2` |
//! | 4 | `accept`, `client_stream::info`, `serve` |
//! | 3 | `client_stream`, `proxy_header` |
//! | 2 | `bind`, `client_stream::head_deadline`, `state` |
//! | 1 | `client_stream::blocked_writes`, `connection_slots`, `h2_flood`, `inherited`, `proxy_protocol`, `request_framer`, `transport` |

pub mod accept;
mod bind;
pub mod client_stream;
pub mod connection_slots;
pub mod h2_flood;
pub mod http2;
pub mod inherited;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod request_framer;
pub mod serve;
mod state;
pub mod transport;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::admin;
use crate::buffers::Account;
use crate::client_prefix::{ClientPrefix, is_trusted};
use crate::drain::TrackedConnection;
use crate::quota::Permit;
use bind::BACKLOG;
pub use bind::{BindError, BoundListener, BoundListeners, bind, bind_all};
use client_stream::ClientStream;
use connection_slots::ConnectionSlot;
use proxy_header::PeerInfo;
use serve::HttpHandler;
pub use state::{ClientLimits, ListenerContext, ListenerKind, TlsListener};

/// How often the log says that an address has as many connections as it may have.
const LIMIT_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The pause after a failed accept. Mostly descriptors are short then, and some are freed meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Clients that have left before they were accepted, and that a listener that closes passes over.
const MAX_ABORTED: usize = 64;

/// Accepts connections until the listener closes. Those that are open then go on: each is closed with its next response.
pub async fn serve<A>(bound: BoundListener, mut service: ListenerContext, tls: Option<TlsListener>, app: Arc<A>)
where
    A: HttpHandler,
{
    // A drain is not over before the listener has taken what the kernel has accepted.
    let _listening = service.track();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = bound.socket.accept() => accepted,
            _ = service.closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                failing = false;
                let peer = Accepted { address: peer, sends_proxy_header: bound.proxy_protocol };
                admit(socket, peer, &service, tls.clone(), Arc::clone(&app));
            }
            // The client has left before it was accepted. Other connections may be waiting.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => service.count_refused("accept"),
            Err(error) => {
                service.count_refused("accept");
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("listener {}: cannot accept, retrying: {error}", service.name);
                }
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    _ = service.closing.wait_for(|closing| *closing) => break,
                }
            }
        }
    }
    // Their clients take them for open, and closing the socket would reset them.
    for (socket, address) in connected_clients(bound.socket) {
        let peer = Accepted { address, sends_proxy_header: bound.proxy_protocol };
        admit(socket, peer, &service, tls.clone(), Arc::clone(&app));
    }
}

/// The connections that the kernel has established and the edge has not accepted yet. Their number is bounded, as another
/// process may have the socket too, and new ones may come as fast as they are accepted.
fn connected_clients(socket: Arc<TcpListener>) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let socket = Arc::into_inner(socket).and_then(|socket| socket.into_std().ok());
    let mut aborted = 0;
    let accepted = move || {
        let (stream, peer) = loop {
            match socket.as_ref()?.accept() {
                Err(error) if error.kind() == ErrorKind::ConnectionAborted && aborted < MAX_ABORTED => aborted += 1,
                accepted => break accepted.ok()?,
            }
        };
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    };
    std::iter::from_fn(accepted).take(usize::try_from(BACKLOG).unwrap_or_default())
}

/// Gives a connection a task of its own, unless there are too many connections already.
fn admit<A>(socket: TcpStream, peer: Accepted, service: &ListenerContext, tls: Option<TlsListener>, app: Arc<A>)
where
    A: HttpHandler,
{
    let network = ClientPrefix::of(peer.address.ip());
    let slot = service.slots.take(network);
    let service = service.clone();
    let tracked = service.track();
    tokio::spawn(async move {
        let _tracked = tracked;
        let slot = match slot {
            Some(slot) => slot,
            None => match service.slots.wait(network).await {
                Some(slot) => slot,
                None => return service.count_refused("limit"),
            },
        };
        let open = OpenConnection::new(&service, slot);
        let idle_tracker = open.slot.idle_tracker();
        let established = idle_tracker.run_until_evicted(Box::pin(service.make(socket, peer, tls, &open.slot)));
        let Some(stream) = established.await.flatten() else { return };
        service.serve_connection(&app, stream, idle_tracker).await;
    });
}

/// The other end of an accepted socket.
#[derive(Clone, Copy)]
struct Accepted {
    address: SocketAddr,
    /// Whether the connection begins with a header of the PROXY protocol.
    sends_proxy_header: bool,
}

/// One open connection: it holds a slot, and is counted by a gauge until this is dropped.
struct OpenConnection {
    gauge: prometheus::IntGauge,
    slot: ConnectionSlot,
}

impl OpenConnection {
    fn new(service: &ListenerContext, slot: ConnectionSlot) -> Self {
        service.metrics.traffic.connections_total.with_label_values(&[service.name]).inc();
        if slot.evicted_another {
            service.count_eviction();
        }
        let gauge = service.metrics.traffic.connections.with_label_values(&[service.name]);
        gauge.inc();
        Self { gauge, slot }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The client has as many connections as it may have.
struct TooManyConnections;

impl ClientLimits {
    /// Logs once a minute at most that an address has reached its limit: it may be refused again and again, and each
    /// refusal is counted.
    fn log_limit(&self, listener: &str, network: ClientPrefix, most: usize) -> TooManyConnections {
        let mut said = self.limit_logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= LIMIT_LOG_INTERVAL) {
            *said = Some(Instant::now());
            log::warn!(
                "listener {listener}: connection refused reason=address client={network} open={most}; \
                 server.limits.connections_per_address allows no more (further ones are counted)"
            );
        }
        TooManyConnections
    }
}

impl ListenerContext {
    /// Has a drain wait until this is dropped, where clients are served.
    fn track(&self) -> Option<TrackedConnection> {
        matches!(self.kind, ListenerKind::Clients(_)).then(|| self.drain.track_connection())
    }

    /// Turns an accepted socket into a stream that can be served. Returns `None` when that fails; the reason has been
    /// counted.
    async fn make(
        &self,
        mut socket: TcpStream,
        peer: Accepted,
        tls: Option<TlsListener>,
        slot: &ConnectionSlot,
    ) -> Option<ClientStream> {
        // The connection may have been evicted before its task began.
        slot.idle_tracker().idle()?;
        let peer = match peer.sends_proxy_header {
            false => Ok(PeerInfo::direct(peer.address)),
            true => self.read_proxy_header(&mut socket, peer.address).await,
        };
        let peer = peer.map_err(|reason| self.count_refused(reason)).ok()?;
        let place = self.take_share(peer, slot).map_err(|TooManyConnections| self.count_refused("address")).ok()?;
        let account = self.buffer_account(peer, place.is_some());
        slot.holds(place);
        self.accept_connection(socket, peer, slot.idle_tracker(), tls, account).await
    }

    /// Takes the connection's share of what its client may have open. A trusted proxy's connections carry many clients
    /// and are not counted. Behind the PROXY protocol each connection is one client's: the address in the header
    /// counts, a trusted one too, and the balancer's own where the header names none.
    fn take_share(
        &self,
        peer: PeerInfo,
        slot: &ConnectionSlot,
    ) -> Result<Option<Permit<ClientPrefix>>, TooManyConnections> {
        let address = peer.address.ip();
        let network = ClientPrefix::of(address);
        match &self.kind {
            ListenerKind::Clients(clients @ ClientLimits { snapshot, quota, .. }) => {
                let snapshot = snapshot.load();
                if !peer.via_proxy_protocol && is_trusted(address, &snapshot.trusted_proxies) {
                    return Ok(None);
                }
                let most = snapshot.limits.connections_per_address;
                let place = quota.acquire(network, most);
                place.map(Some).ok_or_else(|| clients.log_limit(self.name, network, most))
            }
            // Clients on the same machine that hold connections open must not keep a probe or a scraper out.
            ListenerKind::Admin(quota) => {
                // Where several connections come at once, another one may get the share that was freed for this one.
                for _ in 0..=admin::MAX_PER_ADDRESS {
                    if let Some(place) = quota.acquire(network, admin::MAX_PER_ADDRESS) {
                        return Ok(Some(place));
                    }
                    if !self.slots.evict_idle_of(network, slot) {
                        break;
                    }
                    self.count_eviction();
                }
                Err(TooManyConnections)
            }
            ListenerKind::Internal => Ok(None),
        }
    }

    /// Returns the account of the bytes that the edge holds for a client. A trusted proxy carries many clients, and has
    /// an account for each connection.
    fn buffer_account(&self, peer: PeerInfo, is_counted: bool) -> Option<Arc<Account>> {
        let ListenerKind::Clients(ClientLimits { buffers, .. }) = &self.kind else { return None };
        Some(if is_counted {
            buffers.account(ClientPrefix::of(peer.address.ip()))
        } else {
            buffers.unbounded_account()
        })
    }

    fn count_eviction(&self) {
        self.metrics.traffic.idle_connections_closed.with_label_values(&[self.name]).inc();
    }

    pub fn count_refused(&self, reason: &str) {
        self.metrics.traffic.connections_refused.with_label_values(&[self.name, reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_that_have_connected_are_accepted_before_the_socket_closes() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(bound.address).await.unwrap());
        }
        let address = bound.address;
        let accepted: Vec<SocketAddr> = connected_clients(bound.socket).map(|(_, peer)| peer).collect();
        assert_eq!(accepted, clients.iter().map(|client| client.local_addr().unwrap()).collect::<Vec<_>>());
        assert!(TcpStream::connect(address).await.is_err(), "and then it is closed");
    }
}
