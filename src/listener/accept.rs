//! From a TCP connection to a stream that Pingora serves: TLS done in time, and what is to be known of it.

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
use crate::proxy::{ClientConnection, Seat};
use crate::tls::{ClientHelloChoice, failure};

/// What TLS keeps of what was written and the socket does not take. It would be 64 KiB.
const MAX_UNSENT_TLS_BYTES: usize = 32 << 10;

/// A fatal alert, in a record of TLS 1.2, as before any agreement (RFC 8446 §5.1, §6).
const UNRECOGNIZED_NAME_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

impl ListenerContext {
    /// `None` when it came to nothing; that was counted.
    pub async fn accept_connection(
        &self,
        socket: TcpStream,
        peer: PeerInfo,
        seat: &Arc<Seat>,
        tls: Option<TlsListener>,
        account: Option<Arc<Account>>,
    ) -> Option<ClientStream> {
        // Fails only on a socket that is gone already; the first read will tell.
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
                // There is one, or there was no handshake; without one nothing would be served.
                let name = session.server_name().unwrap_or_default();
                let names = secured.live.certificates().covered_beside(name);
                connection = ClientConnection::with_tls(name, names, greeting.agreed(session));
                let (tls, http2) = (ssl_digest(session), session.alpn_protocol() == Some(b"h2"));
                (Transport::Tls(Box::new(stream)), Some(Arc::new(tls)), http2)
            }
        };
        connection.is_introduced = peer.via_proxy_protocol;
        connection.seat = Arc::clone(seat);
        connection.public_port = self.public_port;
        connection.account = account;
        let connection = Arc::new(connection);
        // Errors on no input there is: the response in it is ours.
        let proxy = connection.digest().ok();
        let monitor = self.connection_limits().map(|limits| ConnectionMonitor::new(limits, connection, http2));
        let info = ConnectionInfo { socket: Arc::new(digest), tls, proxy, http2, descriptor };
        Some(ClientStream::new(transport, info, monitor))
    }

    /// What this connection is held to, as the configuration of the day has it.
    fn connection_limits(&self) -> Option<ConnectionLimits> {
        let (head_timeouts, floods) = (self.metrics.limit("header_timeout"), self.metrics.limit("http2_flood"));
        let buffers = self.metrics.limit("buffers");
        Some(match &self.kind {
            ListenerKind::Clients(ClientLimits { snapshot, .. }) => {
                let snapshot = snapshot.load();
                let limits = snapshot.limits;
                // Pingora has the same for bodies, and is to be first where it knows what it waits for.
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
    /// Reads whom the client wants, and goes on as that host asks. `Err` is the reason, for a label.
    async fn handshake(&self, socket: TcpStream) -> Result<(TlsStream<TcpStream>, ClientHelloChoice), &'static str> {
        let reason = |error: io::Error| failure::reason(&error);
        let begun = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(reason)?;
        let greeting = self.live.greet(begun.client_hello().server_name(), self.http2);
        if !greeting.is_ours {
            // rustls would say `access_denied`; RFC 6066 §3 has a word of its own. The client may be gone already.
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

/// That there is one tells `proxy` that a request came over TLS.
fn ssl_digest(session: &ServerConnection) -> SslDigest {
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    SslDigest::new(cipher, version(session), None, None, Vec::new())
}
