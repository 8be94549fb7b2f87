//! Checked: `tls`, of which the files are yet to be read.

use std::path::PathBuf;
use std::time::Duration;

use super::SecretSource;

#[derive(Clone, Debug)]
pub struct Tls {
    pub min_version: TlsVersion,
    pub certificates: Vec<Certificate>,
    pub tickets: Tickets,
}

#[derive(Clone, Debug)]
pub struct Tickets {
    /// `None`: one is made when the process starts.
    pub secret: Option<SecretSource>,
    /// How long a key is in use.
    pub rotation: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Clone, Debug)]
pub struct Certificate {
    /// Where it stands in the file, for faults that reading it brings to light.
    pub place: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
}
