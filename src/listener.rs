//! Sockets: bound by us, accepted from by us, with limits on connections, in all and for each client.
//!
//! Pingora's own listening service has none. What is accepted here is made a stream by `establish`, and handed to
//! Pingora's HTTP application.

pub mod accept;
pub mod client_stream;
pub mod connection_slots;
pub mod h2_flood;
pub mod http2;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod request_framer;
pub mod serve;
pub mod transport;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pingora_core::apps::ServerApp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admin;
use crate::buffers::{Account, Buffers};
use crate::client_prefix::ClientPrefix;
use crate::client_prefix::is_trusted;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::quota::{Permit, Quota};
use crate::server::StartError;
use crate::snapshot::{Ports, Snapshot};
use crate::tls;
use client_stream::Stream;
use connection_slots::{Seats, Taking};
use proxy_header::Caller;
use serve::Application;

/// How often the log says that an address has as many connections as it may.
const CROWDED_SAID_AGAIN: Duration = Duration::from_secs(60);

/// Connections that the kernel may hold for us while we are busy.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a client and cannot send yet. By itself it takes megabytes, of memory that all
/// connections of the machine share: a thousand clients that do not read use it up, and every other connection stalls.
/// What is on its way to a client that reads does not count, so distance costs no speed.
const MOST_UNSENT: u32 = 128 << 10;

/// After a failed accept, which is mostly a lack of descriptors: time for some to be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens already, and where.
pub struct Bound {
    socket: TcpListener,
    pub address: SocketAddr,
    /// Whether connections begin with a header of the PROXY protocol.
    proxy_protocol: bool,
    /// What clients connect to, where the configuration says so.
    pub public_port: Option<u16>,
}

/// What all connections of a listener share.
#[derive(Clone)]
pub struct Service {
    /// For labels.
    pub name: &'static str,
    pub seats: Arc<Seats>,
    pub metrics: Arc<Metrics>,
    /// For a TLS handshake.
    pub handshake: Duration,
    pub guests: Guests,
    /// Of its listener.
    pub public_port: Option<u16>,
    pub closing: watch::Receiver<bool>,
}

/// A listener's TLS.
#[derive(Clone)]
pub struct Secured {
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    pub live: tls::Live,
}

/// Whom a listener serves, and what their connections are held to.
#[derive(Clone)]
pub enum Guests {
    /// To what the configuration of the day says.
    Clients(Clients),
    /// On the admin listener: to limits that never change. Each address has a share, those of this machine too.
    Operators(Arc<Quota<ClientPrefix>>),
    /// To nothing: the edge itself, of which an application of the demonstration is asked.
    Edge,
}

#[derive(Clone)]
pub struct Clients {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub crowd: Arc<Quota<ClientPrefix>>,
    /// When the log last said that an address has too many connections.
    pub crowded_said: Arc<Mutex<Option<Instant>>>,
    /// What they make the edge hold.
    pub buffers: Arc<Buffers>,
}

/// Binds and listens. Must be called within a runtime.
pub fn bind(address: SocketAddr, proxy_protocol: bool) -> Result<Bound, StartError> {
    let bound = || -> std::io::Result<Bound> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for old connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // What is accepted from this socket inherits it.
        socket.set_tcp_notsent_lowat(MOST_UNSENT)?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Bound { socket, address, proxy_protocol, public_port: None })
    };
    bound().map_err(|cause| StartError::Bind { address, cause })
}

/// Every socket of a configuration.
pub struct AllBound {
    /// Each with whether it offers HTTP/2.
    pub https: Vec<(Bound, bool)>,
    pub http: Vec<Bound>,
    pub admin: Bound,
}

impl AllBound {
    pub fn ports(&self) -> Ports {
        Ports::new(self.https.iter().map(|(bound, _)| (bound.address.port(), bound.public_port)))
    }
}

/// Before anything is served, so that a taken port is told at once.
pub fn bind_all(config: &Config, runtime: &Runtime) -> Result<AllBound, StartError> {
    let _inside = runtime.enter();
    let (mut https, mut http) = (Vec::new(), Vec::new());
    for listener in &config.server.listeners {
        let mut bound = bind(listener.address, listener.proxy_protocol)?;
        bound.public_port = listener.public_port;
        match listener.protocol {
            config::Protocol::Https => https.push((bound, listener.http2)),
            config::Protocol::Http => http.push(bound),
        }
    }
    Ok(AllBound { https, http, admin: bind(config.server.admin.address, false)? })
}

/// Accepts until the service closes, and then tells idle connections to go.
pub async fn serve<A>(bound: Bound, mut service: Service, tls: Option<Secured>, app: Arc<A>)
where
    A: Application,
{
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = bound.socket.accept() => accepted,
            _ = service.closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                failing = false;
                let peer = Peer { address: peer, introduces: bound.proxy_protocol };
                admit(socket, peer, &service, tls.clone(), Arc::clone(&app));
            }
            // The client was faster in leaving; there may be others.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => service.refused("accept"),
            Err(error) => {
                service.refused("accept");
                if !std::mem::replace(&mut failing, true) {
                    log::warn!("listener {}: cannot accept, and tries on: {error}", service.name);
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(bound);
    app.cleanup().await;
}

/// Gives a connection a task of its own, unless there are too many already.
fn admit<A>(socket: TcpStream, peer: Peer, service: &Service, tls: Option<Secured>, app: Arc<A>)
where
    A: Application,
{
    let network = ClientPrefix::of(peer.address.ip());
    let taking = service.seats.take(network);
    let service = service.clone();
    tokio::spawn(async move {
        let taking = match taking {
            Some(taking) => taking,
            None => match service.seats.wait(network).await {
                Some(taking) => taking,
                None => return service.refused("limit"),
            },
        };
        let open = Open::new(&service, taking);
        let seat = open.taking.seat();
        let established = seat.unless_given_up(Box::pin(service.make(socket, peer, tls, &open.taking)));
        let Some(stream) = established.await.flatten() else { return };
        service.converse(&app, stream, seat).await;
    });
}

/// The other end of an accepted socket.
#[derive(Clone, Copy)]
struct Peer {
    address: SocketAddr,
    /// Whether it says first for whom it stands.
    introduces: bool,
}

/// One open connection: a place taken, a gauge raised.
struct Open {
    gauge: prometheus::IntGauge,
    taking: Taking,
}

impl Open {
    fn new(service: &Service, taking: Taking) -> Self {
        service.metrics.traffic.connections_total.with_label_values(&[service.name]).inc();
        if taking.in_anothers_place {
            service.gave_up();
        }
        let gauge = service.metrics.traffic.connections.with_label_values(&[service.name]);
        gauge.inc();
        Self { gauge, taking }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The client has as many connections as one may have.
struct Crowded;

impl Clients {
    /// Once a minute at most: an address that is full is refused again and again, and each refusal is counted.
    fn say_crowded(&self, listener: &str, network: ClientPrefix, most: usize) -> Crowded {
        let mut said = self.crowded_said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= CROWDED_SAID_AGAIN) {
            *said = Some(Instant::now());
            log::warn!(
                "listener {listener}: connection refused reason=address client={network} open={most}; \
                 server.limits.connections_per_address allows no more (further ones are counted)"
            );
        }
        Crowded
    }
}

impl Service {
    /// From what was accepted to a stream that can be served; `None` when it came to nothing, which was counted.
    async fn make(&self, mut socket: TcpStream, peer: Peer, tls: Option<Secured>, taking: &Taking) -> Option<Stream> {
        // `None` where it was given up before it was begun with.
        taking.seat().idle()?;
        let caller = match peer.introduces {
            false => Ok(Caller::direct(peer.address)),
            true => self.introduced(&mut socket, peer.address).await,
        };
        let caller = caller.map_err(|reason| self.refused(reason)).ok()?;
        let place = self.place(caller, taking).map_err(|Crowded| self.refused("address")).ok()?;
        let account = self.account(caller, place.is_some());
        taking.holds(place);
        self.establish(socket, caller, taking.seat(), tls, account).await
    }

    /// A trusted proxy's connections stand for many clients, and are not counted. Behind the PROXY protocol each stands
    /// for one client: the named address counts, a trusted one too, and the balancer's where none is named.
    fn place(&self, caller: Caller, taking: &Taking) -> Result<Option<Permit<ClientPrefix>>, Crowded> {
        let address = caller.address.ip();
        let network = ClientPrefix::of(address);
        match &self.guests {
            Guests::Clients(clients @ Clients { snapshot, crowd, .. }) => {
                let snapshot = snapshot.load();
                if !caller.is_introduced && is_trusted(address, &snapshot.trusted_proxies) {
                    return Ok(None);
                }
                let most = snapshot.limits.connections_per_address;
                let place = crowd.acquire(network, most);
                place.map(Some).ok_or_else(|| clients.say_crowded(self.name, network, most))
            }
            // Who asks for the state of things must not be kept from it by others on the same machine that drip.
            Guests::Operators(crowd) => {
                // Of several that come at once another may have what was given up for this one.
                for _ in 0..=admin::PER_ADDRESS {
                    if let Some(place) = crowd.acquire(network, admin::PER_ADDRESS) {
                        return Ok(Some(place));
                    }
                    if !self.seats.give_up_of(network, taking) {
                        break;
                    }
                    self.gave_up();
                }
                Err(Crowded)
            }
            Guests::Edge => Ok(None),
        }
    }

    /// What is counted against a client. A trusted proxy stands for many, and has an account for each connection.
    fn account(&self, caller: Caller, is_counted: bool) -> Option<Arc<Account>> {
        let Guests::Clients(Clients { buffers, .. }) = &self.guests else { return None };
        Some(if is_counted {
            buffers.account(ClientPrefix::of(caller.address.ip()))
        } else {
            buffers.unbounded_account()
        })
    }

    fn gave_up(&self) {
        self.metrics.traffic.idle_connections_closed.with_label_values(&[self.name]).inc();
    }

    pub fn refused(&self, reason: &str) {
        self.metrics.traffic.connections_refused.with_label_values(&[self.name, reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_keeps_little_for_a_client_that_does_not_read() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(bound.address), bound.socket.accept());
        let (socket, _) = accepted.unwrap();
        assert_eq!(socket2::SockRef::from(&socket).tcp_notsent_lowat().unwrap(), MOST_UNSENT);
        // Whoever does not read has been sent what fits its own buffer, and the rest waits with us.
        socket.writable().await.unwrap();
        let mut taken = 0;
        while let Ok(written) = socket.try_write(&[0; 64 << 10]) {
            taken += written;
        }
        assert!((1..1 << 20).contains(&taken), "{taken} bytes");
        drop(client);
    }
}
