//! The checked types of `tls`. The files that they name are read later, by `tls`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;
use crate::host::HostPattern;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub min_version: TlsVersion,
    /// The TLS settings of every host: an exact host may be below the wildcard of another service.
    pub hosts: Vec<HostTls>,
    pub certificates: Vec<Certificate>,
    pub tickets: Tickets,
    /// How often the certificate files are checked for changes.
    pub refresh: Duration,
    pub hsts: Option<Hsts>,
}

/// `Strict-Transport-Security` (RFC 6797 §6.1), printed as the field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
    pub preload: bool,
}

impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={}", self.max_age.as_secs())?;
        f.write_str(if self.include_subdomains { "; includeSubDomains" } else { "" })?;
        f.write_str(if self.preload { "; preload" } else { "" })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// `None`: the process makes one when it starts.
    pub secret: Option<SecretSource>,
    /// How long a key derived from the secret is in use.
    pub rotation: Duration,
}

/// What the hosts of a service, or the sign-on host, require of connections to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTls {
    /// The path of the key in the file, for faults that are found when the files are read.
    pub place: String,
    pub hosts: Vec<HostPattern>,
    pub min_version: TlsVersion,
    pub clients: Option<ClientCertificates>,
}

/// The client certificates that a host requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// A PEM file with the CAs of client certificates.
    pub ca: PathBuf,
    /// False: a client without a certificate is served as well.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The path of the key in the file, for faults that are found when the files are read.
    pub place: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
}
