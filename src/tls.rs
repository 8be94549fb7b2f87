//! TLS towards clients: certificates, chosen by server name, and rustls' settings for a listener.
//!
//! Requests are routed by their authority, never by the server name that chose the certificate. Loaded when a
//! snapshot is built, so that a fault is told before anything is swapped. Called by `snapshot` and `server`.

mod certificates;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

pub use certificates::Certificates;

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

/// The settings of an HTTPS listener. Errors are rustls' own and mean a defect of this build.
pub fn server_config(
    certificates: Arc<ArcSwap<Certificates>>,
    min_version: TlsVersion,
    http2: bool,
) -> Result<ServerConfig, rustls::Error> {
    // Mozilla "intermediate" from 1.2 on, "modern" from 1.3: rustls offers AEAD suites with forward secrecy alone.
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version {
        TlsVersion::V1_2 => &[&TLS12, &TLS13],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByServerName(certificates)));
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    // Early data can be replayed, and with it a ticket or a form.
    config.max_early_data_size = 0;
    Ok(config)
}

/// The one crypto library of the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
