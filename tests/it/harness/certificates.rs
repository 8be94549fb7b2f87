//! A CA for the whole test run, and certificates from it.

use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

pub struct Ca {
    pub pem: String,
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
pub struct Certificate {
    pub pem: String,
    pub key: String,
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

pub fn ca() -> &'static Ca {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(Ca::new)
}

impl Ca {
    /// One more, which nobody trusts yet.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "sentry-edge tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// One that this one vouches for.
    pub fn issue_ca(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, names: &[&str]) -> Certificate {
        // Browsers take no certificate that lasts longer than 398 days.
        self.issue_until(names, std::time::SystemTime::now() + 300 * DAY)
    }

    /// A certificate that ended an hour ago.
    pub fn issue_ended(&self, names: &[&str]) -> Certificate {
        self.issue_until(names, std::time::SystemTime::now() - DAY / 24)
    }

    /// A certificate for somebody who calls, by this name.
    pub fn issue_client(&self, name: &str) -> Certificate {
        self.issue_client_until(name, std::time::SystemTime::now() + DAY)
    }

    pub fn issue_client_until(&self, name: &str, end: std::time::SystemTime) -> Certificate {
        self.issue_for(name, rcgen::ExtendedKeyUsagePurpose::ClientAuth, end)
    }

    /// A certificate that is good for a server alone.
    pub fn issue_server(&self, name: &str) -> Certificate {
        self.issue_for(name, rcgen::ExtendedKeyUsagePurpose::ServerAuth, std::time::SystemTime::now() + DAY)
    }

    fn issue_for(&self, name: &str, usage: rcgen::ExtendedKeyUsagePurpose, end: std::time::SystemTime) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = (std::time::SystemTime::now() - DAY).into();
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { pem: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn issue_until(&self, names: &[&str], end: std::time::SystemTime) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = (std::time::SystemTime::now() - DAY).into();
        params.not_after = end.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate { pem: certificate.pem(), key: key.serialize_pem() }
    }
}
