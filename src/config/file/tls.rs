//! The `tls` part of the document, and what hosts require beyond it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::Secret;
use crate::config::reading::Sealed;
use crate::config::units::{Time, word_or_off};

/// Certificates and TLS versions of the public listeners.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tls {
    /// The lowest version of TLS that is accepted: `"1.2"` or `"1.3"`, Mozilla's "intermediate" or "modern"
    /// configuration. A service may require more.
    pub min_version: Option<String>,
    /// The certificates. Each is served for every DNS name that it covers, an exact name before a wildcard; together
    /// they have to cover every configured host. Example: `[{certificate: tls/edge.pem, key: tls/edge.key}]`.
    pub certificates: Vec<Certificate>,
    /// Resumption of TLS sessions.
    pub tickets: Sealed<Tickets>,
    /// How often the files of the certificates are looked at. Changed ones are taken up when they have no fault,
    /// without a signal; else each fault is logged, and the certificates that were in use stay.
    pub refresh: Option<Time>,
    /// `Strict-Transport-Security` on replies of the edge's own, where the host's service has none of its own; not on
    /// those of applications.
    pub hsts: Option<Hsts>,
}

/// What the hosts of a service, or the sign-on host, require of connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostTls {
    /// The lowest version of TLS for these hosts, `"1.2"` or `"1.3"`.
    pub min_version: Option<String>,
    /// A PEM file with the CAs whose certificates clients are requested to present: see [mutual
    /// TLS](concepts/mutual-tls.md). It is read at the start and with each reload. Example: `clients-ca.pem`.
    pub client_ca: Option<String>,
    /// Whether a client without a certificate is served; for hosts with a `client_ca`.
    pub client_certificate: Option<ClientCertificate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// A client without a certificate of one of the CAs gets no handshake.
    Required,
    /// A client without a certificate is served as well.
    Optional,
}

/// `off`, or for how long browsers use https alone.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`off`, `{max_age: 365d}` or `{max_age: 365d, include_subdomains: true}`")]
pub enum Hsts {
    Off(Off),
    On(HstsSettings),
}

#[derive(Clone, Copy, Debug, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// The field is not sent.
    Off,
}

impl<'de> Deserialize<'de> for Off {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word_or_off(deserializer, "`off`", |word| (word == "off").then_some(Self::Off))
    }
}

/// The parameters of `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HstsSettings {
    /// How long browsers remember it, in whole seconds on the wire.
    pub max_age: Time,
    /// Whether it holds for every host below this one as well.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether the host may be in the lists that browsers come with, see <https://hstspreload.org>: a host does not get
    /// out of them for months.
    #[serde(default)]
    pub preload: bool,
}

/// Resumption of TLS sessions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tickets {
    /// A secret of 32 bytes or more, the same on all edges: sessions are then resumed on any of them and after a
    /// restart. Without it, one is made when the process starts. After a reload with another, tickets of the one before
    /// it are still accepted, for two rotations at most. Anyone who has it can read TLS 1.2 traffic that was recorded,
    /// so change it now and then. Example: `{file: tls/tickets.key}`.
    pub secret: Option<Secret>,
    /// How long a key that is derived from the secret is in use, `1m` to `3d`; a ticket is good for one to two of
    /// these. The same on all edges. *Restart*
    pub rotation: Option<Time>,
}

/// A certificate with its private key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Certificate {
    /// A PEM file: the certificate, then its chain.
    pub certificate: Option<String>,
    /// A PEM file: the private key of the certificate, without a passphrase.
    pub key: Option<String>,
}
