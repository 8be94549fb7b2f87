//! What each host requires of the connections of its requests: a minimum version, a client's certificate.
//!
//! A connection is made under the policy of its server name. Requests name their host themselves, so
//! each is held against its own host's policy again ([`Policy::admits`]), whatever its connection was made for.
//! Called by `snapshot`, `server` and `proxy`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, SupportedProtocolVersion};

use super::certificates::read_chain;
use super::client_certificate::ClientCertificate;
use crate::config::{self, Faults, TlsVersion};
use crate::host::{Host, HostTable};

const MODERN: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The policies of all hosts.
#[derive(Clone, Debug)]
pub struct Policies {
    /// The policy of hosts without requirements of their own.
    plain: Arc<Policy>,
    /// The policies of all hosts; empty where no host has requirements of its own.
    hosts: HostTable<Arc<Policy>>,
}

#[derive(Debug)]
pub struct Policy {
    min_version: TlsVersion,
    clients: Option<Clients>,
}

/// The client certificates that a host requests.
#[derive(Clone)]
struct Clients {
    issuers: Issuers,
    required: bool,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Tells two sets of issuers apart: SHA-256 over their certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issuers([u8; 32]);

/// What was agreed on when a connection was made.
#[derive(Clone, Debug)]
pub struct NegotiatedTls {
    pub version: TlsVersion,
    /// The CAs whose certificates were requested of the client, if any.
    pub requested_issuers: Option<Issuers>,
    /// The verified certificate of the client.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Policies {
    /// Reads the files of issuers; adds a fault for each that is missing or holds nothing of use.
    pub fn load(tls: &config::Tls, faults: &mut Faults) -> Self {
        let plain = Arc::new(Policy { min_version: tls.min_version, clients: None });
        let mut hosts = HostTable::default();
        // Hosts with the same requirements share a policy, because each policy has settings of its own in rustls.
        let mut known = BTreeMap::from([((tls.min_version, None), (Arc::clone(&plain), None))]);
        if tls.hosts.iter().any(|host| host.clients.is_some() || host.min_version != tls.min_version) {
            for written in &tls.hosts {
                let clients = written.clients.as_ref();
                let required = (written.min_version, clients.map(|clients| (clients.ca.clone(), clients.required)));
                let (policy, fault) = known.entry(required).or_insert_with(|| {
                    let (clients, fault) = match clients.map(Clients::load).transpose() {
                        Ok(clients) => (clients, None),
                        Err(what) => (None, Some(what)),
                    };
                    (Arc::new(Policy { min_version: written.min_version, clients }), fault)
                });
                if let Some(what) = fault {
                    let write = "name a PEM file with the CA certificates of clients";
                    faults.add(format!("{}.client_ca", written.place), what.as_str(), write);
                }
                for pattern in &written.hosts {
                    hosts.insert(pattern.clone(), Arc::clone(policy));
                }
            }
        }
        Self { plain, hosts }
    }

    pub fn of(&self, host: &Host) -> &Arc<Policy> {
        self.hosts.find(host).unwrap_or(&self.plain)
    }

    /// Returns every policy, some of them more than once.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Policy>> {
        std::iter::once(&self.plain).chain(self.hosts.values())
    }
}

impl Policy {
    /// Whether a request may come on a connection with these negotiated properties. A client that was requested another
    /// CA's certificate, or none, needs another connection.
    pub fn admits(&self, agreed: &NegotiatedTls) -> bool {
        let clients = self.clients.as_ref().is_none_or(|clients| {
            agreed.requested_issuers == Some(clients.issuers) && (agreed.certificate.is_some() || !clients.required)
        });
        clients && agreed.version >= self.min_version
    }

    /// Whether certificates are requested of clients.
    pub fn requests_certificates(&self) -> bool {
        self.clients.is_some()
    }

    pub(super) fn issuers(&self) -> Option<Issuers> {
        self.clients.as_ref().map(|clients| clients.issuers)
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.clients.as_ref().map_or_else(WebPkiClientVerifier::no_client_auth, |clients| Arc::clone(&clients.verifier))
    }

    /// Mozilla "intermediate" from 1.2 on, "modern" from 1.3: rustls offers AEAD suites with forward secrecy alone.
    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.min_version {
            TlsVersion::V1_2 => rustls::ALL_VERSIONS,
            TlsVersion::V1_3 => MODERN,
        }
    }
}

impl Clients {
    fn load(written: &config::ClientCertificates) -> Result<Self, String> {
        let issuers = read_chain(&written.ca)?;
        let mut roots = RootCertStore::empty();
        let mut context = Context::new(&SHA256);
        for issuer in issuers {
            context.update(&issuer);
            roots
                .add(issuer)
                .map_err(|error| format!("{}: no certificate of an issuer: {error}", written.ca.display()))?;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider());
        let builder = if written.required { builder } else { builder.allow_unauthenticated() };
        let verifier = builder.build().map_err(|error| format!("{}: {error}", written.ca.display()))?;
        Ok(Self { issuers: Issuers(digest), required: written.required, verifier })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("issuers", &self.issuers).field("required", &self.required).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Issuers = Issuers([1; 32]);
    const THEIRS: Issuers = Issuers([2; 32]);

    fn policy(min_version: TlsVersion, required: Option<bool>) -> Policy {
        let verifier = WebPkiClientVerifier::no_client_auth();
        let clients = required.map(|required| Clients { issuers: OURS, required, verifier });
        Policy { min_version, clients }
    }

    fn agreed(version: TlsVersion, requested_issuers: Option<Issuers>, shown: bool) -> NegotiatedTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let certificate = shown.then(|| Arc::new(ClientCertificate::of(certificate.der()).unwrap()));
        NegotiatedTls { version, requested_issuers, certificate }
    }

    #[test]
    fn a_version_has_to_be_the_least_one_or_a_later_one() {
        use TlsVersion::{V1_2, V1_3};
        for (min_version, version, admitted) in
            [(V1_2, V1_2, true), (V1_2, V1_3, true), (V1_3, V1_2, false), (V1_3, V1_3, true)]
        {
            assert_eq!(policy(min_version, None).admits(&agreed(version, None, false)), admitted);
        }
    }

    #[test]
    fn the_certificates_that_were_requested_must_be_those_that_the_host_wants() {
        let version = TlsVersion::V1_3;
        for (issuers, shown, optional, required) in [
            (None, false, false, false),
            (Some(THEIRS), true, false, false),
            (Some(OURS), false, true, false),
            (Some(OURS), true, true, true),
        ] {
            let agreed = agreed(version, issuers, shown);
            assert!(policy(version, None).admits(&agreed), "a host without requirements takes any");
            assert_eq!(policy(version, Some(false)).admits(&agreed), optional, "{issuers:?} {shown}");
            assert_eq!(policy(version, Some(true)).admits(&agreed), required, "{issuers:?} {shown}");
        }
    }
}
