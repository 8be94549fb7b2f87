//! A client that shakes hands as it is told: versions, protocol, a certificate of its own.

use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Certificate, ca};
use super::raw::Raw;
use super::{DEADLINE, runtime};

#[derive(Clone)]
pub struct Visitor(ClientConfig);

/// One that trusts the tests' CA, speaks HTTP/1.1 and shows nothing.
pub fn visitor() -> Visitor {
    Visitor::made(rustls::ALL_VERSIONS, None)
}

impl Visitor {
    fn made(versions: &[&'static SupportedProtocolVersion], shown: Option<&Certificate>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca().der.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(Certificate { pem, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(config)
    }

    /// One that speaks this version alone.
    pub fn of(version: &'static SupportedProtocolVersion) -> Self {
        Self::made(&[version], None)
    }

    /// One that shows this certificate where it is asked for one, whoever is asked for.
    pub fn showing(certificate: &Certificate) -> Self {
        Self::made(rustls::ALL_VERSIONS, Some(certificate))
    }

    /// The same, over this version alone.
    pub fn showing_over(version: &'static SupportedProtocolVersion, certificate: &Certificate) -> Self {
        Self::made(&[version], Some(certificate))
    }

    pub fn http2(mut self) -> Self {
        self.0.alpn_protocols = vec![b"h2".to_vec()];
        self
    }

    pub fn shake_hands(&self, edge: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>> {
        runtime().block_on(async {
            let socket = TcpStream::connect(edge).await?;
            let name = ServerName::try_from(name.to_owned()).unwrap();
            TlsConnector::from(Arc::new(self.0.clone())).connect(name, socket).await
        })
    }

    pub fn visit(&self, edge: SocketAddr, name: &str) -> Raw {
        Raw::over(self.shake_hands(edge, name).unwrap())
    }

    /// Why the edge refused: over TLS 1.3 a client learns that only when it listens.
    pub fn refusal(&self, edge: SocketAddr, name: &str) -> String {
        let refused = self.shake_hands(edge, name).and_then(|mut stream| {
            let heard = runtime().block_on(async { tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1])).await });
            heard.expect("the edge neither refused nor spoke")
        });
        refused.err().map_or_else(|| "nothing was refused".into(), |error| error.to_string())
    }
}
