//! Turns a TCP connection into a [`ClientStream`]: the TLS handshake within its deadline, and what is known of the
//! connection.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::tls::SslDigest;
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_stream::{ClientStream, ConnectionInfo, ConnectionLimits, ConnectionMonitor};
use super::proxy_header::PeerInfo;
use super::transport::Transport;
use super::{ClientLimits, ListenerContext, ListenerKind, TlsListener};
use crate::admin;
use crate::buffers::Account;
use crate::proxy::{ClientConnection, IdleTracker};
use crate::tls::{ClientHelloChoice, failure};

/// Bytes that TLS buffers while the socket takes nothing. The default is 64 KiB.
const MAX_UNSENT_TLS_BYTES: usize = 32 << 10;

/// A fatal alert in a record of TLS 1.2, the version that is used before one is negotiated (RFC 8446 §5.1, §6).
const UNRECOGNIZED_NAME_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

impl ListenerContext {
    /// Performs the TLS handshake where the listener has TLS. Returns `None` when that fails; the failure has been
    /// counted.
    pub async fn accept_connection(
        &self,
        socket: TcpStream,
        peer: PeerInfo,
        idle_tracker: &Arc<IdleTracker>,
        tls: Option<TlsListener>,
        account: Option<Arc<Account>>,
    ) -> Option<ClientStream> {
        // This fails only on a socket that is closed; the first read reports that.
        socket.set_nodelay(true).ok();
        let descriptor = socket.as_raw_fd();
        let digest = SocketDigest::from_raw_fd(descriptor);
        digest.peer_addr.set(Some(peer.address.into())).ok();
        let mut connection = ClientConnection::default();
        let (transport, tls, http2) = match tls {
            None => (Transport::Plain(socket), None, false),
            Some(secured) => {
                let (stream, greeting) = self.handshake(socket, &secured).await?;
                let session = stream.get_ref().1;
                // A server name is there: a handshake without one was refused.
                let name = session.server_name().unwrap_or_default();
                let names = secured.live.certificates().covered_beside(name);
                connection = ClientConnection::with_tls(name, names, greeting.agreed(session));
                let (tls, http2) = (ssl_digest(session), session.alpn_protocol() == Some(b"h2"));
                (Transport::Tls(Box::new(stream)), Some(Arc::new(tls)), http2)
            }
        };
        connection.is_introduced = peer.via_proxy_protocol;
        connection.idle_tracker = Arc::clone(idle_tracker);
        connection.public_port = self.public_port;
        connection.account = account;
        let connection = Arc::new(connection);
        // Building the digest does not fail: the response in it is a constant.
        let proxy = connection.digest().ok();
        let monitor = self.connection_limits().map(|limits| ConnectionMonitor::new(limits, connection, http2));
        let info = ConnectionInfo { socket: Arc::new(digest), tls, proxy, http2, descriptor };
        Some(ClientStream::new(transport, info, monitor))
    }

    /// Returns the limits of this connection, from the current configuration.
    fn connection_limits(&self) -> Option<ConnectionLimits> {
        let (head_timeouts, floods) = (self.metrics.limit("header_timeout"), self.metrics.limit("http2_flood"));
        let buffers = self.metrics.limit("buffers");
        Some(match &self.kind {
            ListenerKind::Clients(ClientLimits { snapshot, .. }) => {
                let snapshot = snapshot.load();
                let limits = snapshot.limits;
                // Pingora bounds the writes of bodies by the same time, and is to notice first, as it knows what it is
                // writing.
                let write_timeout = snapshot.timeouts.write * 5 / 4;
                let (header_timeout, header_bytes) = (limits.header_timeout, limits.header_bytes);
                ConnectionLimits { header_timeout, header_bytes, write_timeout, head_timeouts, floods, buffers }
            }
            ListenerKind::Admin(_) => {
                let (header_timeout, header_bytes) = (admin::HEADER_TIMEOUT, admin::HEADER_BYTES);
                ConnectionLimits {
                    header_timeout,
                    header_bytes,
                    write_timeout: admin::WRITE_TIMEOUT,
                    head_timeouts,
                    floods,
                    buffers,
                }
            }
            ListenerKind::Internal => return None,
        })
    }

    async fn handshake(
        &self,
        socket: TcpStream,
        secured: &TlsListener,
    ) -> Option<(TlsStream<TcpStream>, ClientHelloChoice)> {
        let reason = match tokio::time::timeout(self.handshake, secured.handshake(socket)).await {
            Ok(Ok((stream, greeting))) => {
                let session = stream.get_ref().1;
                let resumed = match session.handshake_kind() {
                    Some(HandshakeKind::Resumed) => "true",
                    _ => "false",
                };
                self.count_handshake(version(session), resumed, "ok");
                return Some((stream, greeting));
            }
            Ok(Err(reason)) => {
                self.count_handshake("none", "false", "failed");
                reason
            }
            Err(_) => {
                self.count_handshake("none", "false", "timeout");
                "timeout"
            }
        };
        self.metrics.traffic.tls_handshake_failures.with_label_values(&[reason]).inc();
        None
    }

    fn count_handshake(&self, version: &str, resumed: &str, result: &str) {
        self.metrics.traffic.tls_handshakes.with_label_values(&[version, resumed, result]).inc();
    }
}

impl TlsListener {
    /// Reads the ClientHello and continues with the TLS settings of the host that it names. Returns the reason of a
    /// failure, as a label.
    async fn handshake(&self, socket: TcpStream) -> Result<(TlsStream<TcpStream>, ClientHelloChoice), &'static str> {
        let reason = |error: io::Error| failure::reason(&error);
        let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(reason)?;
        let greeting = self.live.greet(begun.client_hello().server_name(), self.http2);
        if !greeting.is_ours {
            // rustls would send `access_denied`, but RFC 6066 §3 defines `unrecognized_name`. The client may have left
            // already, so errors are ignored.
            let mut socket = begun.io;
            socket.write_all(UNRECOGNIZED_NAME_ALERT).await.ok();
            socket.shutdown().await.ok();
            return Err("server_name");
        }
        let mut stream = begun.into_stream(Arc::clone(&greeting.settings)).await.map_err(reason)?;
        stream.get_mut().1.set_buffer_limit(Some(MAX_UNSENT_TLS_BYTES));
        Ok((stream, greeting))
    }
}

fn version(session: &ServerConnection) -> &'static str {
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "none",
    }
}

/// The presence of this digest tells `proxy` that a request came over TLS.
fn ssl_digest(session: &ServerConnection) -> SslDigest {
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    SslDigest::new(cipher, version(session), None, None, Vec::new())
}
