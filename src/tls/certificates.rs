//! Certificate files: read, matched with their keys and filed under the names they cover.
//!
//! Parsing a pair and holding one against the other is most of a reload with thousands of them. So a pair whose two
//! files hold what they held is taken over; whether it has ended is checked again.

mod chain;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::expiry::ends_soon;
use crate::clock::UnixTime;
use crate::config::{self, BYTE_ORDER_MARK, Faults};
use crate::host::HostPattern;
use crate::metrics::Metrics;

/// Certificates by name; exact names win over wildcards.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, ServedCertificate>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, ServedCertificate>,
    /// The first name of each, and when it ends.
    ends: Vec<(String, UnixTime)>,
    /// The key of each in the configuration file, in the order of `ends`.
    places: Vec<String>,
    /// The pairs that have been read, for the next reload.
    known: HashMap<PairDigest, ServedCertificate>,
}

/// A certificate that was read and fits its key, and what it covers.
#[derive(Clone, Debug)]
struct ServedCertificate {
    certified: Arc<CertifiedKey>,
    names: Arc<[HostPattern]>,
    ends: UnixTime,
}

/// A digest of both files of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairDigest([u8; SHA256_OUTPUT_LEN]);

impl Certificates {
    /// Reads all files; adds a fault for each that is missing, unreadable, ended or not its key's. What `before`
    /// has read already is not parsed again.
    pub fn load(tls: &config::Tls, now: UnixTime, before: &Self, faults: &mut Faults) -> Self {
        let mut certificates = Self::default();
        for files in &tls.certificates {
            let place = &files.place;
            match load(files, now, before) {
                Ok((print, shown)) => {
                    certificates.file(place, &shown, faults);
                    certificates.known.insert(print, shown);
                }
                Err(fault) => faults.add(format!("{place}.{}", fault.key), fault.what, fault.write),
            }
        }
        certificates
    }

    fn file(&mut self, place: &str, shown: &ServedCertificate, faults: &mut Faults) {
        let label = shown.names.first().map(HostPattern::to_string).unwrap_or_default();
        self.ends.push((label, shown.ends));
        self.places.push(place.to_owned());
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

    /// Adds a warning for each whose end is near.
    pub fn warn_of_ends(&self, now: UnixTime, faults: &mut Faults) {
        for ((_, ends), place) in self.ends.iter().zip(&self.places) {
            if let Some(what) = ends_soon(*ends, now) {
                faults.warn(format!("{place}.certificate"), what, "renew it");
            }
        }
    }

    pub fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.shown(name).map(|shown| Arc::clone(&shown.certified))
    }

    /// All that the certificate covers which a client is shown under this name.
    pub fn covered_beside(&self, name: &str) -> Option<Arc<[HostPattern]>> {
        self.shown(name).map(|shown| Arc::clone(&shown.names))
    }

    fn shown(&self, name: &str) -> Option<&ServedCertificate> {
        let wildcard = || name.split_once('.').and_then(|(_, domain)| self.wildcard.get(domain));
        self.exact.get(name).or_else(wildcard)
    }

    /// Whether a certificate covers the hosts that `pattern` names.
    pub fn cover(&self, pattern: &HostPattern) -> bool {
        match pattern {
            HostPattern::Exact(host) => self.shown(host.as_str()).is_some(),
            HostPattern::Wildcard(domain) => self.wildcard.contains_key(domain.as_str()),
        }
    }
}

/// In the first line of a key with a passphrase, in PKCS #8 form, and in the second of one in OpenSSL's own.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

struct FileError {
    key: &'static str,
    what: String,
    write: &'static str,
}

fn load(
    files: &config::Certificate,
    now: UnixTime,
    before: &Certificates,
) -> Result<(PairDigest, ServedCertificate), FileError> {
    let certificate = |what: String, write| FileError { key: "certificate", what, write };
    let name_chain = "name a PEM file with the certificate and its chain";
    let chain =
        read(&files.certificate).map_err(|error| certificate(unreadable(&files.certificate, &error), name_chain))?;
    let name_key = |error| FileError {
        key: "key",
        what: format!("cannot read a private key from {}: {error}", files.key.display()),
        write: "name a PEM file with the private key of this certificate",
    };
    let key = read(&files.key).map_err(name_key)?;
    let print = PairDigest::of(&chain, &key);
    let shown = match before.known.get(&print) {
        Some(known) => known.clone(),
        None if key.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) => {
            let what = format!("the private key in {} is encrypted", files.key.display());
            return Err(FileError {
                key: "key",
                what,
                write: "write it without a passphrase, as with `openssl pkey -in KEY`",
            });
        }
        None => {
            let chain = certificates_in(&files.certificate, &chain).map_err(|what| certificate(what, name_chain))?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(name_key)?;
            chain::check(&chain, &key).map_err(|bad| FileError { key: bad.key, what: bad.what, write: bad.write })?;
            let (names, ends) = describe(&chain[0]).map_err(|what| {
                certificate(format!("{}: {what}", files.certificate.display()), "have it issued again")
            })?;
            ServedCertificate { certified: Arc::new(certified(chain, key)?), names: names.into(), ends }
        }
    };
    if shown.ends <= now {
        return Err(certificate(format!("it ended at {}", shown.ends.rfc3339()), "renew it"));
    }
    Ok((print, shown))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, FileError> {
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| FileError {
        key: "key",
        what: match error {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".into(),
            other => format!("the key cannot be used: {other}"),
        },
        write: "name the key that the certificate was issued for",
    })
}

impl PairDigest {
    fn of(chain: &[u8], key: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        // Without the length, bytes could move from one file to the other unseen.
        context.update(&(chain.len() as u64).to_be_bytes());
        context.update(chain);
        context.update(key);
        let mut print = [0; SHA256_OUTPUT_LEN];
        print.copy_from_slice(context.finish().as_ref());
        Self(print)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, pem::Error> {
    let mut bytes = std::fs::read(path).map(Zeroizing::new).map_err(pem::Error::Io)?;
    // Editors on Windows write it before the first line, which is no line of PEM then.
    if bytes.starts_with(BYTE_ORDER_MARK.as_bytes()) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &pem::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// The certificates of a PEM file, one at least.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(path, &read(path).map_err(|error| unreadable(path, &error))?)
}

/// `path` is what the bytes were read from.
fn certificates_in(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|error| unreadable(path, &error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a pair for `a.test`, and the settings that name it.
    fn pair() -> (tempfile::TempDir, config::Tls) {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        let tls = config::Tls {
            min_version: config::TlsVersion::V1_2,
            hosts: Vec::new(),
            certificates: vec![config::Certificate { place: "tls.certificates[0]".into(), certificate, key }],
            tickets: config::Tickets { secret: None, rotation: std::time::Duration::ZERO },
            refresh: std::time::Duration::ZERO,
            hsts: None,
        };
        write(&tls, &rcgen::KeyPair::generate().unwrap());
        (folder, tls)
    }

    fn write(tls: &config::Tls, key: &rcgen::KeyPair) {
        let certificate = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(key).unwrap();
        std::fs::write(&tls.certificates[0].certificate, certificate.pem()).unwrap();
        std::fs::write(&tls.certificates[0].key, key.serialize_pem()).unwrap();
    }

    /// rcgen's own certificates end in the year 4096.
    const SECONDS_IN_2026: u64 = 1_790_000_000;
    const SECONDS_IN_5000: u64 = 95_600_000_000;

    fn load(tls: &config::Tls, seconds: u64, before: &Certificates) -> (Certificates, String) {
        let mut faults = Faults::new(Path::new("edge.yaml"), "");
        let certificates = Certificates::load(tls, UnixTime::from_seconds(seconds), before, &mut faults);
        (certificates, faults.to_string())
    }

    fn shown(certificates: &Certificates) -> Arc<CertifiedKey> {
        certificates.for_name("a.test").unwrap()
    }

    #[test]
    fn what_has_not_changed_is_taken_over_and_what_has_is_read_anew() {
        let (_folder, tls) = pair();
        let (first, faults) = load(&tls, SECONDS_IN_2026, &Certificates::default());
        assert_eq!(faults, "");
        let (second, faults) = load(&tls, SECONDS_IN_2026, &first);
        assert_eq!(faults, "");
        assert!(Arc::ptr_eq(&shown(&first), &shown(&second)));
        assert_eq!(first.ends(), second.ends());
        write(&tls, &rcgen::KeyPair::generate().unwrap());
        let (third, faults) = load(&tls, SECONDS_IN_2026, &second);
        assert_eq!(faults, "");
        assert!(shown(&third).cert != shown(&second).cert);
    }

    #[test]
    fn what_was_good_once_is_refused_with_another_key_and_after_its_end() {
        let (_folder, tls) = pair();
        let (before, _) = load(&tls, SECONDS_IN_2026, &Certificates::default());
        let (_, faults) = load(&tls, SECONDS_IN_5000, &before);
        assert!(faults.contains("tls.certificates[0].certificate: it ended at"), "{faults}");
        std::fs::write(&tls.certificates[0].key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let (_, faults) = load(&tls, SECONDS_IN_2026, &before);
        assert!(faults.contains("the key does not belong to the certificate"), "{faults}");
        std::fs::remove_file(&tls.certificates[0].key).unwrap();
        let (_, faults) = load(&tls, SECONDS_IN_2026, &before);
        assert!(faults.contains("cannot read a private key"), "{faults}");
    }
}
