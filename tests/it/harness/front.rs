//! TLS in front of an application that speaks none: what a pool over TLS leads to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::{Ca, Certificate};
use super::runtime;

/// A handshake that came to something.
#[derive(Clone, Debug)]
pub struct Shaken {
    pub server_name: Option<String>,
    pub protocol: Option<String>,
    /// Whether the edge showed a certificate of its own.
    pub knew_who: bool,
}

pub struct Front {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    shaken: Arc<Mutex<Vec<Shaken>>>,
    protocols: Vec<Vec<u8>>,
    task: tokio::task::JoinHandle<()>,
}

/// Passes on to `to`; offers both versions of HTTP.
pub fn front(to: SocketAddr, certificate: &Certificate) -> Front {
    Front::start(to, config(certificate, None), &["h2", "http/1.1"])
}

impl Front {
    /// Offers these protocols alone.
    pub fn offering(to: SocketAddr, certificate: &Certificate, protocols: &[&str]) -> Self {
        Self::start(to, config(certificate, None), protocols)
    }

    /// Lets in whoever shows a certificate of this CA.
    pub fn asking(to: SocketAddr, certificate: &Certificate, clients: &Ca) -> Self {
        Self::start(to, config(certificate, Some(clients)), &["http/1.1"])
    }

    fn start(to: SocketAddr, mut config: ServerConfig, protocols: &[&str]) -> Self {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.alpn_protocols = protocols.clone();
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (config, shaken) = (Arc::new(Mutex::new(Arc::new(config))), Arc::new(Mutex::new(Vec::new())));
        let (of_the_day, seen) = (Arc::clone(&config), Arc::clone(&shaken));
        let task = runtime().spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (TlsAcceptor::from(of_the_day.lock().unwrap().clone()), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    let session = stream.get_ref().1;
                    seen.lock().unwrap().push(Shaken {
                        server_name: session.server_name().map(str::to_owned),
                        protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                        knew_who: session.peer_certificates().is_some(),
                    });
                    let mut application = TcpStream::connect(to).await.unwrap();
                    tokio::io::copy_bidirectional(&mut stream, &mut application).await.ok();
                });
            }
        });
        Self { address, config, shaken, protocols, task }
    }

    /// From now on.
    pub fn show(&self, certificate: &Certificate) {
        let mut config = config(certificate, None);
        config.alpn_protocols = self.protocols.clone();
        *self.config.lock().unwrap() = Arc::new(config);
    }

    pub fn shaken(&self) -> Vec<Shaken> {
        self.shaken.lock().unwrap().clone()
    }
}

fn config(certificate: &Certificate, clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |ca| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der.clone())).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
    });
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    builder.unwrap().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
