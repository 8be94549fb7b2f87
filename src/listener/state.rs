//! What the connections of a listener share: its settings, its limits and its place among all connections.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::connection_slots::ConnectionSlots;
use crate::buffers::Buffers;
use crate::client_prefix::ClientPrefix;
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::snapshot::Snapshot;
use crate::tls;

/// What all connections of a listener share.
#[derive(Clone)]
pub struct ListenerContext {
    /// The value of the `listener` label.
    pub name: &'static str,
    pub slots: Arc<ConnectionSlots>,
    pub metrics: Arc<Metrics>,
    /// The time limit of a TLS handshake.
    pub handshake: Duration,
    pub kind: ListenerKind,
    /// The port that clients connect to, where the configuration says so.
    pub public_port: Option<u16>,
    /// Says how responses end while the process drains, and counts the connections that it waits for.
    pub drain: Arc<Drain>,
    /// Becomes true when the listener closes.
    pub closing: watch::Receiver<bool>,
}

/// A listener's TLS.
#[derive(Clone)]
pub struct TlsListener {
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    pub live: tls::TlsState,
}

/// Which clients a listener serves, and the limits that their connections are held to.
#[derive(Clone)]
pub enum ListenerKind {
    /// Clients, held to the limits of the current configuration.
    Clients(ClientLimits),
    /// Operators on the admin listener, held to limits that never change. Each address has a share, those of this
    /// machine too.
    Admin(Arc<Quota<ClientPrefix>>),
    /// The edge itself, which calls an application of the demonstration: no limits.
    Internal,
}

#[derive(Clone)]
pub struct ClientLimits {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub quota: Arc<Quota<ClientPrefix>>,
    /// When the log last said that an address has too many connections.
    pub limit_logged_at: Arc<Mutex<Option<Instant>>>,
    /// Bytes that the edge holds for clients.
    pub buffers: Arc<Buffers>,
}
