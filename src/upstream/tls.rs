//! TLS to applications: whose certificates their servers have to show, and what the edge shows of itself.
//!
//! Pingora shakes hands, with rustls, and verifies by what is loaded here: the chain up to the pool's CAs, or the
//! system's, its time, and the server's name. Nothing turns that off. Files are read when a snapshot is built.

use std::sync::Arc;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use ring::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::UnixTime;
use crate::config::{ClientKey, Faults, PoolTls};
use crate::tls::expiry::{end_of, ends_soon};

/// What a pool's files hold, read and found good.
#[derive(Debug)]
pub struct UpstreamTls {
    server_name: Option<String>,
    /// `None`: the system's CAs, which Pingora read when the process started.
    issuers: Option<Arc<[WrappedX509]>>,
    client: Option<Arc<CertKey>>,
    /// Connections that were made under other files are not used again.
    group: u64,
}

struct FileError {
    key: &'static str,
    what: String,
    write: &'static str,
}

impl UpstreamTls {
    /// `None` when a fault was added.
    pub fn load(written: &PoolTls, now: UnixTime, faults: &mut Faults) -> Option<Self> {
        let mut context = Context::new(&SHA256);
        let issuers = load_issuers(written, &mut context);
        let client = written.client.as_ref().map(|files| load_client(files, now, &mut context)).transpose();
        let (issuers, client) = match (issuers, client) {
            (Ok(issuers), Ok(client)) => (issuers, client),
            (issuers, client) => {
                for fault in [issuers.err(), client.err()].into_iter().flatten() {
                    faults.add(format!("{}.{}", written.place, fault.key), fault.what, fault.write);
                }
                return None;
            }
        };
        if let Some(what) = client.as_ref().and_then(|(_, ends)| ends_soon((*ends)?, now)) {
            faults.warn(format!("{}.client_certificate", written.place), what, "renew it");
        }
        let client = client.map(|(pair, _)| pair);
        let mut group = [0; 8];
        group.copy_from_slice(&context.finish().as_ref()[..8]);
        Some(Self { server_name: written.server_name.clone(), issuers, client, group: u64::from_ne_bytes(group) })
    }

    /// `host` is that of the server's address as it is written.
    pub(super) fn secure(&self, mut peer: HttpPeer, host: &str) -> HttpPeer {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Never empty: Pingora takes that for "verify nothing".
        peer.sni = self.server_name.as_deref().unwrap_or(host).to_owned();
        peer.options.ca = self.issuers.clone();
        peer.client_cert_key = self.client.clone();
        // The lowest bit is for upgrades.
        peer.group_key = self.group & !super::UPGRADES;
        peer
    }
}

/// Adds a fault where the system's CAs cannot be read. Pingora reads them when the process starts, whether a pool speaks
/// TLS or not, and panics without them.
pub fn check_system(faults: &mut Faults) {
    if let Err(error) = rustls_native_certs::load_native_certs() {
        let write = "install them (Debian's ca-certificates), or mend SSL_CERT_FILE and SSL_CERT_DIR";
        faults.add("", format!("the CA certificates of this system cannot be read: {error}"), write);
    }
}

fn load_issuers(written: &PoolTls, context: &mut Context) -> Result<Option<Arc<[WrappedX509]>>, FileError> {
    let fault = |what| FileError { key: "ca", what, write: "name a PEM file with the CA of the servers' certificates" };
    let Some(path) = &written.ca else {
        let system = rustls_native_certs::load_native_certs().unwrap_or_default();
        let none = || fault("the system has no CA certificates that the servers' could be verified by".into());
        return if system.is_empty() { Err(none()) } else { Ok(None) };
    };
    let chain = read_chain("ca", path)?;
    for issuer in &chain {
        let added = RootCertStore::empty().add(issuer.clone());
        added.map_err(|error| fault(format!("{}: no certificate of a CA: {error}", path.display())))?;
        context.update(issuer);
    }
    let wrapped: Vec<WrappedX509> = chain.iter().map(|issuer| WrappedX509::new(issuer.to_vec(), parse_x509)).collect();
    Ok(Some(wrapped.into()))
}

/// The pair, and when the certificate ends.
fn load_client(
    files: &ClientKey,
    now: UnixTime,
    context: &mut Context,
) -> Result<(Arc<CertKey>, Option<UnixTime>), FileError> {
    let chain = read_chain("client_certificate", &files.certificate)?;
    let ends = end_of(&chain[0]);
    if ends.is_some_and(|ends| ends <= now) {
        let what = format!("{} has ended", files.certificate.display());
        return Err(FileError { key: "client_certificate", what, write: "renew it" });
    }
    let fault =
        |what| FileError { key: "client_key", what, write: "name a PEM file with the certificate's private key" };
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| fault(format!("cannot read a private key from {}: {error}", files.key.display())))?;
    let provider = rustls::crypto::ring::default_provider();
    // Pingora takes the two as they are, and would fail at every connection.
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|error| {
        fault(match error {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".into(),
            other => format!("the key cannot be used: {other}"),
        })
    })?;
    chain.iter().for_each(|certificate| context.update(certificate));
    let pair = CertKey::new(chain.iter().map(|der| der.to_vec()).collect(), key.secret_der().to_vec());
    Ok((Arc::new(pair), ends))
}

/// The certificates of a PEM file, one at least, which Pingora parses as well, and does not expect to fail.
fn read_chain(key: &'static str, path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let fault = |what| FileError { key, what, write: "name a PEM file with certificates" };
    let cannot = |error| fault(format!("cannot read {}: {error}", path.display()));
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(cannot)?.collect::<Result<_, _>>().map_err(cannot)?;
    if chain.is_empty() || chain.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(fault(format!("{} holds no certificate, or something else", path.display())));
    }
    Ok(chain)
}
