//! The terms that a stream has to meet, and why it was ended.

use std::sync::Arc;

use crate::auth::token::TokenError;
use crate::auth::verdict::Reason;
use crate::clock::UnixTime;
use crate::config::Access;
use crate::tls::ClientCertificate;

/// What a stream's route requires of its client.
#[derive(Clone, Debug)]
pub struct Terms {
    pub service: Arc<str>,
    pub access: Access,
    /// Whether bytes that move extend the session.
    pub extends_session: bool,
    /// The client's certificate, if the host requires one.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// How a stream was admitted, so that it can be checked against a newer configuration.
pub trait Admission: Send + Sync {
    /// Returns the terms under the current configuration, and its number; or why a new request like the one of this
    /// stream would be refused.
    fn recheck(&self, now: UnixTime) -> Result<(u64, Terms), EndReason>;
}

/// A stream to be registered.
pub struct NewStream {
    pub terms: Terms,
    pub admission: Box<dyn Admission>,
    /// The number of the configuration that admitted it.
    pub generation: u64,
    /// Maximum number of streams.
    pub most: usize,
}

/// Why the edge ended a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A new request would be refused for this reason.
    Refused(Reason),
    /// The configuration no longer has the service or route, or routes it to another application.
    Rerouted,
    /// The route no longer admits the client's address, or serves the method; holds the label for logs.
    RouteRule(&'static str),
    /// The host requires more of TLS connections than was negotiated on this one.
    Connection,
    /// The client's certificate has expired.
    CertificateEnded,
}

/// A limit of streams was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsFull {
    /// The limit of the whole table.
    Total,
    /// The limit of this session, user or client.
    Share,
}

impl EndReason {
    /// Returns the label for logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.label(),
            Self::Rerouted => "rerouted",
            Self::RouteRule(label) => label,
            Self::Connection => "tls_policy",
            Self::CertificateEnded => "certificate_ended",
        }
    }

    /// Returns the label for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(Reason::NoSession) => "session_ended",
            Self::Refused(Reason::Token(TokenError::Expired)) | Self::CertificateEnded => "expired",
            Self::Refused(_) | Self::Rerouted | Self::RouteRule(_) | Self::Connection => "revoked",
        }
    }
}
