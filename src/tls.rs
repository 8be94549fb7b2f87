//! TLS towards clients: certificates, chosen by server name, tickets, and rustls' settings for a listener.
//!
//! Requests are routed by their authority, never by the server name that chose the certificate. Loaded when a
//! snapshot is built, so that a fault is told before anything is swapped. Called by `snapshot` and `server`.

mod certificates;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

pub use certificates::Certificates;
pub use tickets::Root as TicketRoot;
use tickets::Tickets;

use crate::clock::Clock;
use crate::config::TlsVersion;

/// Answers a ClientHello from the certificates of the day.
#[derive(Debug)]
struct ByServerName(Arc<ArcSwap<Certificates>>);

impl ResolvesServerCert for ByServerName {
    /// rustls has already lower-cased the name and refused address literals. No name, or one that no
    /// certificate covers: no handshake, so that nobody sees another tenant's certificate.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().for_name(hello.server_name()?)
    }
}

/// What a configuration names for TLS, read and found good.
pub struct Material {
    pub certificates: Certificates,
    pub root: TicketRoot,
}

/// What all TLS listeners share and a reload replaces.
#[derive(Clone)]
pub struct Live {
    certificates: Arc<ArcSwap<Certificates>>,
    tickets: Arc<Tickets>,
}

impl Live {
    pub fn new(material: Material, rotation: Duration, clock: &Clock) -> Self {
        Self {
            certificates: Arc::new(ArcSwap::from_pointee(material.certificates)),
            tickets: Arc::new(Tickets::new(material.root, rotation, clock.clone())),
        }
    }

    /// For the handshakes from now on.
    pub fn renew(&self, material: Material) {
        self.renew_certificates(material.certificates);
        self.tickets.renew(material.root);
    }

    pub fn renew_certificates(&self, certificates: Certificates) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Those of the day.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.certificates.load_full()
    }

    /// The settings of an HTTPS listener. Errors are rustls' own and mean a defect of this build.
    pub fn server_config(&self, min_version: TlsVersion, http2: bool) -> Result<ServerConfig, rustls::Error> {
        // Mozilla "intermediate" from 1.2 on, "modern" from 1.3: rustls offers AEAD suites with forward secrecy alone.
        let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
            TlsVersion::V1_2 => &[&TLS12, &TLS13],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByServerName(Arc::clone(&self.certificates))));
        config.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        config.ticketer = Arc::clone(&self.tickets) as Arc<dyn ProducesTickets>;
        // Tickets hold all there is: no table of sessions for workers to contend for.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Early data can be replayed, and with it a ticket or a form.
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// The one crypto library of the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
