//! TLS towards clients: certificates, chosen by server name, what each host requires of connections, and tickets.
//!
//! Requests are routed by their authority, never by the server name that chose certificate and policy. Loaded when a
//! snapshot is built, so that a fault is reported before anything is swapped. Called by `snapshot`, `server` and `proxy`.

mod certificates;
mod client_certificate;
pub mod expiry;
pub mod failure;
mod policies;
mod tickets;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, ServerConnection,
};
use rustls::sign::CertifiedKey;

pub use certificates::Certificates;
pub use client_certificate::ClientCertificate;
pub use policies::{NegotiatedTls, Policies, Policy};
pub use tickets::Root as TicketRoot;
use tickets::Tickets;

use crate::clock::Clock;
use crate::config::TlsVersion;
use crate::host::Host;

/// Answers a ClientHello from the current certificates.
#[derive(Debug)]
struct ByServerName(Arc<ArcSwap<Certificates>>);

impl ResolvesServerCert for ByServerName {
    /// rustls has already lower-cased the name and refused address literals. No name, or one that no
    /// certificate covers: no handshake, so that no client sees another tenant's certificate.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().for_name(hello.server_name()?)
    }
}

/// The TLS files of a configuration, read and checked.
pub struct Material {
    pub certificates: Certificates,
    pub policies: Arc<Policies>,
    pub root: TicketRoot,
}

/// The TLS state that all listeners share and a reload replaces.
#[derive(Clone)]
pub struct TlsState {
    certificates: Arc<ArcSwap<Certificates>>,
    tickets: Arc<Tickets>,
    handshakes: Arc<ArcSwap<Handshakes>>,
}

/// The settings of handshakes, by policy.
struct Handshakes {
    policies: Arc<Policies>,
    settings: Vec<Settings>,
}

/// The settings of rustls for one policy.
struct Settings {
    policy: Arc<Policy>,
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

/// The settings of a handshake, chosen by the server name of its ClientHello.
pub struct ClientHelloChoice {
    policy: Arc<Policy>,
    pub settings: Arc<ServerConfig>,
    /// Whether a certificate covers that host.
    pub is_ours: bool,
}

impl TlsState {
    /// Errors come from rustls and mean a defect of this build.
    pub fn new(material: Material, rotation: Duration, clock: &Clock) -> Result<Self, rustls::Error> {
        let Material { certificates, policies, root } = material;
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let tickets = Arc::new(Tickets::new(root, rotation, clock.clone()));
        let handshakes = Handshakes::new(policies, &certificates, &tickets)?;
        Ok(Self { certificates, tickets, handshakes: Arc::new(ArcSwap::from_pointee(handshakes)) })
    }

    /// Takes up new files for the handshakes from now on. Errors as above; then nothing has changed.
    pub fn renew(&self, material: Material) -> Result<(), rustls::Error> {
        let handshakes = Handshakes::new(material.policies, &self.certificates, &self.tickets)?;
        self.renew_certificates(material.certificates);
        self.tickets.renew(material.root);
        self.handshakes.store(Arc::new(handshakes));
        Ok(())
    }

    pub fn renew_certificates(&self, certificates: Certificates) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Returns the certificates that are served now.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.certificates.load_full()
    }

    /// Chooses the handshake for a server name, on a listener with or without HTTP/2.
    pub fn greet(&self, server_name: Option<&str>, http2: bool) -> ClientHelloChoice {
        let handshakes = self.handshakes.load();
        let host = server_name.and_then(|name| Host::parse(name).ok());
        let settings = handshakes.settings(host.as_ref());
        ClientHelloChoice {
            policy: Arc::clone(&settings.policy),
            settings: Arc::clone(if http2 { &settings.http2 } else { &settings.http1 }),
            is_ours: server_name.is_some_and(|name| self.certificates.load().for_name(name).is_some()),
        }
    }
}

impl Handshakes {
    fn new(
        policies: Arc<Policies>,
        certificates: &Arc<ArcSwap<Certificates>>,
        tickets: &Arc<Tickets>,
    ) -> Result<Self, rustls::Error> {
        let mut settings: Vec<Settings> = Vec::new();
        for policy in policies.all() {
            if settings.iter().any(|known| Arc::ptr_eq(&known.policy, policy)) {
                continue;
            }
            let mut config = server_config(policy, certificates, tickets)?;
            let http1 = Arc::new(config.clone());
            config.alpn_protocols.insert(0, b"h2".to_vec());
            settings.push(Settings { policy: Arc::clone(policy), http1, http2: Arc::new(config) });
        }
        Ok(Self { policies, settings })
    }

    /// The first settings are those of hosts without requirements of their own.
    fn settings(&self, host: Option<&Host>) -> &Settings {
        let policy = host.map(|host| self.policies.of(host));
        let known = policy.and_then(|policy| self.settings.iter().find(|known| Arc::ptr_eq(&known.policy, policy)));
        known.unwrap_or(&self.settings[0])
    }
}

fn server_config(
    policy: &Policy,
    certificates: &Arc<ArcSwap<Certificates>>,
    tickets: &Arc<Tickets>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(policy.versions())?
        .with_client_cert_verifier(policy.verifier())
        .with_cert_resolver(Arc::new(ByServerName(Arc::clone(certificates))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets hold the whole session, so there is no table of sessions for workers to contend for.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A resumed session does not request the client's certificate again, nor is the one it holds verified again: it would
    // outlive the end of the certificate and the removal of its CA. So where certificates are requested, nothing is resumed.
    if policy.requests_certificates() {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Arc::clone(tickets) as Arc<dyn ProducesTickets>;
    }
    // Early data can be replayed, and with it a ticket or a form.
    config.max_early_data_size = 0;
    Ok(config)
}

impl ClientHelloChoice {
    /// Returns what was negotiated on a connection that was made with these settings.
    pub fn agreed(&self, session: &ServerConnection) -> NegotiatedTls {
        let certificate = session.peer_certificates().and_then(|chain| ClientCertificate::of(chain.first()?));
        NegotiatedTls {
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
                _ => TlsVersion::V1_2,
            },
            requested_issuers: self.policy.issuers(),
            certificate: certificate.map(Arc::new),
        }
    }
}

/// The one crypto library of the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
