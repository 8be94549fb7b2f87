//! The gateway: what the requests of all listeners share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;

use super::compressors::CompressionSlots;
use crate::access_log::AccessLog;
use crate::acme::Challenges;
use crate::audit_log::AuditLog;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// One for each listener; what they share stands behind `Arc`s.
#[derive(Clone)]
pub struct Gateway {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub access: Arc<AccessLog>,
    pub audit: Arc<AuditLog>,
    pub drain: Arc<Drain>,
    /// What certificate authorities ask for.
    pub challenges: Arc<Challenges>,
    /// Trusted proxies whose clients cannot be made out.
    pub unknown_clients: Arc<UnknownClients>,
    /// One for each response that is being compressed.
    pub compressors: Arc<CompressionSlots>,
}

/// What has been said of trusted proxies that name no client, which is said once; further ones are counted.
#[derive(Default)]
pub struct UnknownClients {
    pub said: AtomicBool,
}
