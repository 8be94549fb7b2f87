//! What the connections of a listener share: its settings, its limits and its place among all connections.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::connection_slots::ConnectionSlots;
use crate::buffers::Buffers;
use crate::client_prefix::ClientPrefix;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::snapshot::Snapshot;
use crate::tls;

/// What all connections of a listener share.
#[derive(Clone)]
pub struct ListenerContext {
    /// For labels.
    pub name: &'static str,
    pub slots: Arc<ConnectionSlots>,
    pub metrics: Arc<Metrics>,
    /// For a TLS handshake.
    pub handshake: Duration,
    pub kind: ListenerKind,
    /// Of its listener.
    pub public_port: Option<u16>,
    pub closing: watch::Receiver<bool>,
}

/// A listener's TLS.
#[derive(Clone)]
pub struct TlsListener {
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    pub live: tls::TlsState,
}

/// Whom a listener serves, and what their connections are held to.
#[derive(Clone)]
pub enum ListenerKind {
    /// To what the configuration of the day says.
    Clients(ClientLimits),
    /// On the admin listener: to limits that never change. Each address has a share, those of this machine too.
    Admin(Arc<Quota<ClientPrefix>>),
    /// To nothing: the edge itself, of which an application of the demonstration is asked.
    Internal,
}

#[derive(Clone)]
pub struct ClientLimits {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub quota: Arc<Quota<ClientPrefix>>,
    /// When the log last said that an address has too many connections.
    pub limit_logged_at: Arc<Mutex<Option<Instant>>>,
    /// What they make the edge hold.
    pub buffers: Arc<Buffers>,
}
