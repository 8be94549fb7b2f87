//! Checked: `tls`, of which the files are yet to be read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;
use crate::host::HostPattern;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub min_version: TlsVersion,
    /// What hosts ask for themselves; every host is here, as an exact one may stand below another's wildcard.
    pub hosts: Vec<HostTls>,
    pub certificates: Vec<Certificate>,
    pub tickets: Tickets,
    /// How often the certificates' files are looked at.
    pub refresh: Duration,
    pub hsts: Option<Hsts>,
}

/// `Strict-Transport-Security` (RFC 6797 §6.1), printed as the field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
}

impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={}", self.max_age.as_secs())?;
        f.write_str(if self.include_subdomains { "; includeSubDomains" } else { "" })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// `None`: one is made when the process starts.
    pub secret: Option<SecretSource>,
    /// How long a key is in use.
    pub rotation: Duration,
}

/// What the hosts of a service, or the sign-on host, ask of connections to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTls {
    /// Where it stands in the file, for faults that reading it brings to light.
    pub place: String,
    pub hosts: Vec<HostPattern>,
    pub min_version: TlsVersion,
    pub clients: Option<ClientCertificates>,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM: whoever issues them.
    pub ca: PathBuf,
    /// Else a client may come without one.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where it stands in the file, for faults that reading it brings to light.
    pub place: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
}
