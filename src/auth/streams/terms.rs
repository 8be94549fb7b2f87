//! What a stream is held to, and why it was ended.

use std::sync::Arc;

use crate::auth::token::TokenError;
use crate::auth::verdict::Reason;
use crate::clock::UnixTime;
use crate::config::Access;
use crate::tls::ClientCertificate;

/// What a stream's route asks of its client.
#[derive(Clone, Debug)]
pub struct Terms {
    pub service: Arc<str>,
    pub access: Access,
    /// Whether bytes that move keep the session from idling out.
    pub extends_session: bool,
    /// The client's, where the host asks for one.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What a stream was let in by, to be held against a newer configuration.
pub trait Admission: Send + Sync {
    /// The terms under the configuration of the day, and its generation; or why a new request like the stream's own
    /// would not be let in.
    fn recheck(&self, now: UnixTime) -> Result<(u64, Terms), EndReason>;
}

/// What is known of a stream when it opens.
pub struct NewStream {
    pub terms: Terms,
    pub admission: Box<dyn Admission>,
    /// The generation of the configuration that it was let in under.
    pub generation: u64,
    /// How many there may be.
    pub most: usize,
}

/// Why a stream was ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A new request would be refused for this.
    Refused(Reason),
    /// The configuration has no such service or route any more, or it leads to another application.
    Rerouted,
    /// The host asks more of connections than was agreed on for this one.
    Connection,
    /// The client's certificate has ended.
    CertificateEnded,
}

/// There is no place for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsFull {
    /// In the whole table.
    Total,
    /// For this session, user or client, who have a share of it.
    Share,
}

impl EndReason {
    /// For logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(reason) => reason.label(),
            Self::Rerouted => "rerouted",
            Self::Connection => "tls_policy",
            Self::CertificateEnded => "certificate_ended",
        }
    }

    /// The kind of end, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(Reason::NoSession) => "session_ended",
            Self::Refused(Reason::Token(TokenError::Expired)) | Self::CertificateEnded => "expired",
            Self::Refused(_) | Self::Rerouted | Self::Connection => "revoked",
        }
    }
}
