//! Certificate files: read, matched with their keys and filed under the names they cover.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::UnixTime;
use crate::config::{self, Faults};
use crate::host::HostPattern;
use crate::metrics::Metrics;

/// Certificates by name; exact names win over wildcards.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Shown>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Shown>,
    /// The first name of each, and when it ends.
    ends: Vec<(String, UnixTime)>,
}

/// A certificate, and what it covers.
#[derive(Clone, Debug)]
struct Shown {
    certified: Arc<CertifiedKey>,
    names: Arc<[HostPattern]>,
}

/// A certificate that was read and fits its key.
struct Loaded {
    certified: Arc<CertifiedKey>,
    names: Vec<HostPattern>,
    ends: UnixTime,
}

impl Certificates {
    /// Reads all files; adds a fault for each that is missing, unreadable, ended or not its key's.
    pub fn load(tls: &config::Tls, now: UnixTime, faults: &mut Faults) -> Self {
        let mut certificates = Self::default();
        for files in &tls.certificates {
            let place = &files.place;
            match load(files, now) {
                Ok(loaded) => certificates.file(place, loaded, faults),
                Err(fault) => faults.add(format!("{place}.{}", fault.key), fault.what, fault.write),
            }
        }
        certificates
    }

    fn file(&mut self, place: &str, loaded: Loaded, faults: &mut Faults) {
        let label = loaded.names.first().map(HostPattern::to_string).unwrap_or_default();
        self.ends.push((label, loaded.ends));
        let shown = Shown { certified: loaded.certified, names: loaded.names.into() };
        for name in shown.names.iter() {
            let (map, key) = match name {
                HostPattern::Exact(host) => (&mut self.exact, host.as_str()),
                HostPattern::Wildcard(domain) => (&mut self.wildcard, domain.as_str()),
            };
            if map.insert(key.into(), shown.clone()).is_some() {
                let what = format!("{name} is covered by another certificate already");
                faults.add(format!("{place}.certificate"), what, "remove one of them");
            }
        }
    }

    /// Shows when the certificates end, once they are those that are served.
    pub fn publish(&self, metrics: &Metrics) {
        metrics.traffic.certificate_expiry.reset();
        for (name, ends) in &self.ends {
            metrics.traffic.certificate_expiry.with_label_values(&[name]).set(ends.seconds() as f64);
        }
    }

    /// The first name of each, and when it ends.
    pub fn ends(&self) -> &[(String, UnixTime)] {
        &self.ends
    }

    pub fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.shown(name).map(|shown| Arc::clone(&shown.certified))
    }

    /// All that the certificate covers which a client is shown under this name.
    pub fn covered_beside(&self, name: &str) -> Option<Arc<[HostPattern]>> {
        self.shown(name).map(|shown| Arc::clone(&shown.names))
    }

    fn shown(&self, name: &str) -> Option<&Shown> {
        let wildcard = || name.split_once('.').and_then(|(_, domain)| self.wildcard.get(domain));
        self.exact.get(name).or_else(wildcard)
    }

    /// Whether a client that asks for a host that `pattern` names can be shown a certificate.
    pub fn cover(&self, pattern: &HostPattern) -> bool {
        match pattern {
            HostPattern::Exact(host) => self.shown(host.as_str()).is_some(),
            HostPattern::Wildcard(domain) => self.wildcard.contains_key(domain.as_str()),
        }
    }
}

struct FileFault {
    key: &'static str,
    what: String,
    write: &'static str,
}

fn load(files: &config::Certificate, now: UnixTime) -> Result<Loaded, FileFault> {
    let certificate = |what: String, write| FileFault { key: "certificate", what, write };
    let chain = read_chain(&files.certificate)
        .map_err(|what| certificate(what, "name a PEM file with the certificate and its chain"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| FileFault {
        key: "key",
        what: format!("cannot read a private key from {}: {error}", files.key.display()),
        write: "name a PEM file with the private key of this certificate",
    })?;
    let (names, ends) = describe(&chain[0])
        .map_err(|what| certificate(format!("{}: {what}", files.certificate.display()), "have it issued again"))?;
    if ends <= now {
        return Err(certificate(format!("it ended at {}", ends.rfc3339()), "renew it"));
    }
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| FileFault {
        key: "key",
        what: match error {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".into(),
            other => format!("the key cannot be used: {other}"),
        },
        write: "name the key that the certificate was issued for",
    })?;
    Ok(Loaded { certified: Arc::new(certified), names, ends })
}

/// The certificates of a PEM file, one at least.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot = |error| format!("cannot read {}: {error}", path.display());
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(cannot)?.collect::<Result<_, _>>().map_err(cannot)?;
    if chain.is_empty() { Err(format!("{} holds no certificate", path.display())) } else { Ok(chain) }
}

/// The DNS names that a certificate covers and the moment it ends.
fn describe(der: &CertificateDer<'_>) -> Result<(Vec<HostPattern>, UnixTime), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("no X.509 certificate: {error}"))?;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names: Vec<HostPattern> = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => HostPattern::parse(name).ok(),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err("no DNS name among its subject alternative names".into());
    }
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    Ok((names, UnixTime::from_seconds(ends)))
}
