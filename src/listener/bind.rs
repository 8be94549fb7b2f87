//! Sockets that listen: bound here, or inherited.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::inherited::{InheritedSocket, InheritedSockets};
use crate::config::{self, Config};
use crate::snapshot::Ports;

/// Connections that the kernel may hold until the edge accepts them.
pub const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a client and cannot send yet (TCP_NOTSENT_LOWAT). Without a limit it takes
/// megabytes, of memory that all connections of the machine share: a thousand clients that do not read use it up, and
/// every other connection stalls. Bytes in flight to a client that reads do not count, so a long round trip costs no
/// speed.
const MAX_UNSENT_BYTES: u32 = 128 << 10;

/// The protocols of listeners.
const HTTPS: &str = "https";
const HTTP: &str = "http";
const ADMIN: &str = "admin";

/// A socket that listens, and its address.
pub struct BoundListener {
    /// Shared with what hands it to another process.
    pub(super) socket: Arc<TcpListener>,
    pub address: SocketAddr,
    /// As the configuration has it, where the port may be 0.
    pub configured: SocketAddr,
    /// Whether the service manager has bound it.
    pub is_activated: bool,
    /// Whether connections begin with a header of the PROXY protocol.
    pub(super) proxy_protocol: bool,
    /// What clients connect to, where the configuration says so.
    pub public_port: Option<u16>,
}

/// Why a socket could not be bound.
#[derive(Debug)]
pub struct BindError {
    pub address: SocketAddr,
    pub cause: std::io::Error,
}

/// Binds and listens. Must be called within a runtime.
pub fn bind(address: SocketAddr, proxy_protocol: bool) -> Result<BoundListener, BindError> {
    bind_beside(address, proxy_protocol, false)
}

fn bind_beside(address: SocketAddr, proxy_protocol: bool, only_v6: bool) -> Result<BoundListener, BindError> {
    let bound = bind_socket(address, only_v6).and_then(|socket| BoundListener::new(socket, address, proxy_protocol));
    bound.map_err(|cause| BindError { address, cause })
}

fn bind_socket(address: SocketAddr, only_v6: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Takes the inherited socket of a listener, and binds one where there is none.
fn open(
    protocol: &str,
    address: SocketAddr,
    proxy_protocol: bool,
    all: &[SocketAddr],
    inherited: &mut InheritedSockets,
) -> Result<BoundListener, BindError> {
    let Some(InheritedSocket { socket, is_activated, .. }) = inherited.take(protocol, address) else {
        if inherited.is_inherited {
            log::info!("listener {address}: no socket was passed for it, so it is bound here");
        }
        return bind_beside(address, proxy_protocol, is_only_v6(address, all));
    };
    let from = if is_activated { "the service manager" } else { "the process before this one" };
    log::info!("listener {address}: {from} has bound it");
    let bound = BoundListener::new(socket, address, proxy_protocol).map_err(|cause| BindError { address, cause })?;
    Ok(BoundListener { is_activated, ..bound })
}

/// Whether a socket takes IPv6 alone: where an IPv4 one of the same port is beside it, as nginx does. Otherwise `[::]` takes
/// both, which would leave nothing to the other. Any other address is one alone, and one that has an IPv4 address in it
/// (`[::ffff:10.0.0.1]`) cannot be bound for IPv6 alone.
fn is_only_v6(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_beside = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    let is_every_v6 = address.is_ipv6() && address.ip().is_unspecified();
    is_every_v6 && address.port() != 0 && all.iter().any(is_beside)
}

impl BoundListener {
    fn new(socket: Socket, configured: SocketAddr, proxy_protocol: bool) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        // What is accepted from this socket inherits it.
        socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
        let socket = Arc::new(TcpListener::from_std(socket.into())?);
        let address = socket.local_addr()?;
        Ok(Self { socket, address, configured, is_activated: false, proxy_protocol, public_port: None })
    }

    /// Returns the socket for as long as it is listened on here.
    pub fn share(&self) -> Weak<TcpListener> {
        Arc::downgrade(&self.socket)
    }
}

/// Every socket of a configuration.
pub struct BoundListeners {
    /// Each with whether it offers HTTP/2.
    pub https: Vec<(BoundListener, bool)>,
    pub http: Vec<BoundListener>,
    pub admin: BoundListener,
}

impl BoundListeners {
    pub fn ports(&self) -> Ports {
        Ports::new(self.https.iter().map(|(bound, _)| (bound.address.port(), bound.public_port)))
    }

    /// Returns all of them, each with its protocol.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &BoundListener)> {
        let https = self.https.iter().map(|(bound, _)| (HTTPS, bound));
        https.chain(self.http.iter().map(|bound| (HTTP, bound))).chain([(ADMIN, &self.admin)])
    }
}

/// Binds every socket that is not inherited before anything is served, so that a port that is in use is reported at
/// once.
pub fn bind_all(
    config: &Config,
    runtime: &Runtime,
    inherited: &mut InheritedSockets,
) -> Result<BoundListeners, BindError> {
    let _inside = runtime.enter();
    let (mut https, mut http) = (Vec::new(), Vec::new());
    let admin = config.server.admin.address;
    let all: Vec<SocketAddr> = config.server.listeners.iter().map(|listener| listener.address).chain([admin]).collect();
    for listener in &config.server.listeners {
        let protocol = match listener.protocol {
            config::Protocol::Https => HTTPS,
            config::Protocol::Http => HTTP,
        };
        let mut bound = open(protocol, listener.address, listener.proxy_protocol, &all, inherited)?;
        bound.public_port = listener.public_port;
        match listener.protocol {
            config::Protocol::Https => https.push((bound, listener.http2)),
            config::Protocol::Http => http.push(bound),
        }
    }
    let admin = open(ADMIN, admin, false, &all, inherited)?;
    Ok(BoundListeners { https, http, admin })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn every_address_of_ipv6_leaves_those_of_ipv4_to_a_listener_beside_it() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = ["[::]:443", "0.0.0.0:443", "[::]:80", "127.0.0.1:9090", "[::]:0", "127.0.0.1:0"].map(address);
        for (of, expected) in [("[::]:443", true), ("[::]:80", false), ("0.0.0.0:443", false), ("[::]:0", false)] {
            assert_eq!(is_only_v6(address(of), &all), expected, "{of}");
        }
        // One that has an IPv4 address in it cannot be bound for IPv6 alone.
        for other in ["[::ffff:10.0.0.1]:443", "[::1]:443", "[fe80::1%2]:443"] {
            assert!(!is_only_v6(address(other), &all), "{other}");
        }
    }

    #[tokio::test]
    async fn the_kernel_keeps_little_for_a_client_that_does_not_read() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(bound.address), bound.socket.accept());
        let (socket, _) = accepted.unwrap();
        assert_eq!(socket2::SockRef::from(&socket).tcp_notsent_lowat().unwrap(), MAX_UNSENT_BYTES);
        // The client reads nothing: its own buffer fills, and the kernel holds no more than the limit beside it.
        socket.writable().await.unwrap();
        let mut taken = 0;
        while let Ok(written) = socket.try_write(&[0; 64 << 10]) {
            taken += written;
        }
        assert!((1..1 << 20).contains(&taken), "{taken} bytes");
        drop(client);
    }
}
