//! From a TCP connection to a stream that Pingora serves: TLS done in time, and what is to be known of it.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::tls::SslDigest;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::caller::Caller;
use super::listener::{Secured, Service};
use super::stream::{Facts, Stream, Terms, Watch};
use super::transport::Transport;
use crate::proxy::Connection;

impl Service {
    /// `None` when it came to nothing; that was counted.
    pub async fn establish(&self, socket: TcpStream, caller: Caller, tls: Option<Secured>) -> Option<Stream> {
        // Fails only on a socket that is gone already; the first read will tell.
        socket.set_nodelay(true).ok();
        let descriptor = socket.as_raw_fd();
        let digest = SocketDigest::from_raw_fd(descriptor);
        digest.peer_addr.set(Some(caller.address.into())).ok();
        let mut connection = Connection::default();
        let (transport, tls, http2) = match tls {
            None => (Transport::Plain(socket), None, false),
            Some(Secured { acceptor, live }) => {
                let stream = self.shake_hands(socket, acceptor).await?;
                let session = stream.get_ref().1;
                if let Some(name) = session.server_name() {
                    connection = Connection::shown(name, live.certificates().covered_beside(name));
                }
                let (tls, http2) = (ssl_digest(session), session.alpn_protocol() == Some(b"h2"));
                (Transport::Tls(Box::new(stream)), Some(Arc::new(tls)), http2)
            }
        };
        connection.is_anonymous = caller.is_anonymous;
        let connection = Arc::new(connection);
        // Errors on no input there is: the response in it is ours.
        let proxy = connection.digest().ok();
        let watch = self.clients.as_ref().map(|clients| {
            let limits = clients.snapshot.load().limits;
            let terms = Terms {
                header_timeout: limits.header_timeout,
                header_bytes: limits.header_bytes,
                too_slow: self.metrics.limit("header_timeout"),
                floods: self.metrics.limit("http2_flood"),
            };
            Watch::new(terms, connection, http2)
        });
        let facts = Facts { socket: Arc::new(digest), tls, proxy, http2, descriptor };
        Some(Stream::new(transport, facts, watch))
    }

    async fn shake_hands(
        &self,
        socket: TcpStream,
        acceptor: TlsAcceptor,
    ) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        match tokio::time::timeout(self.handshake, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let resumed = match session.handshake_kind() {
                    Some(HandshakeKind::Resumed) => "true",
                    _ => "false",
                };
                self.handshaken(version(session), resumed, "ok");
                Some(stream)
            }
            // Scanners fail handshakes all day: they are counted, and not logged one by one.
            Ok(Err(_)) => {
                self.handshaken("none", "false", "failed");
                None
            }
            Err(_) => {
                self.handshaken("none", "false", "timeout");
                None
            }
        }
    }

    fn handshaken(&self, version: &str, resumed: &str, result: &str) {
        self.metrics.traffic.tls_handshakes.with_label_values(&[version, resumed, result]).inc();
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
