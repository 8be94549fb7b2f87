//! The state of one server of a pool, and of each of its addresses. It outlives reloads: `pool_state` keeps it by pool and
//! by the server as the configuration writes it.
//!
//! Whatever decides whether a server may take a request stands here and is read without a lock: what an administrator has
//! set ([`ServerState::administrative`]), how many requests it has ([`ServerState::in_flight`]), and the health of each of
//! its addresses ([`AddressState::health`]).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::IntGauge;

use super::ejection::{Admission, Health, Standing};
use super::slow_start::SlowStart;
use crate::metrics::UpstreamMetrics;

/// What an administrator has set for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Administrative {
    Active,
    /// Requests that are under way end; new ones go elsewhere.
    Draining,
    Disabled,
}

impl Administrative {
    pub const ALL: [Self; 3] = [Self::Active, Self::Draining, Self::Disabled];

    const fn of(value: u8) -> Self {
        match value {
            0 => Self::Active,
            1 => Self::Draining,
            _ => Self::Disabled,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// One server of a pool, as the configuration writes it.
pub struct ServerState {
    pool: Box<str>,
    name: Box<str>,
    administrative: AtomicU8,
    /// `servers[].backup` of the configuration in use.
    is_backup: AtomicBool,
    load: Arc<Load>,
    pub metrics: UpstreamMetrics,
    addresses: ArcSwap<Addresses>,
    /// Held while `addresses` is replaced.
    following: Mutex<()>,
}

/// The requests that are under way at a server.
#[derive(Debug)]
struct Load {
    count: AtomicUsize,
    /// The metric `upstream_in_flight`.
    gauge: IntGauge,
}

/// The addresses of a server, and the resolution that they are from.
#[derive(Default)]
pub struct Addresses {
    resolved: Option<Arc<Vec<SocketAddr>>>,
    states: Vec<Arc<AddressState>>,
}

/// One address of a server.
pub struct AddressState {
    pub target: Target,
    /// What its requests show.
    pub health: Health,
    /// Whether it fails its active checks.
    is_down: AtomicBool,
    pub slow_start: SlowStart,
    load: Arc<Load>,
    server: Weak<ServerState>,
}

/// Where a connection to a server leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(SocketAddr),
    /// A Unix socket.
    Path(PathBuf),
}

impl Target {
    /// `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Path(_) => None,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Address(_) => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl ServerState {
    pub(super) fn new(pool: &str, name: &str, metrics: UpstreamMetrics) -> Self {
        let load = Arc::new(Load { count: AtomicUsize::new(0), gauge: metrics.in_flight.clone() });
        metrics.up.set(1);
        metrics.set_state(Administrative::Active.name());
        Self {
            pool: pool.into(),
            name: name.into(),
            administrative: AtomicU8::new(Administrative::Active as u8),
            is_backup: AtomicBool::new(false),
            load,
            metrics,
            addresses: ArcSwap::default(),
            following: Mutex::default(),
        }
    }

    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// As the configuration writes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn administrative(&self) -> Administrative {
        Administrative::of(self.administrative.load(Ordering::Acquire))
    }

    /// Sets what an administrator wants, for as long as the process runs. Returns what it was before.
    pub fn set_administrative(&self, state: Administrative) -> Administrative {
        let was = Administrative::of(self.administrative.swap(state as u8, Ordering::AcqRel));
        self.metrics.set_state(state.name());
        if was != state {
            let (pool, name, state) = (&self.pool, &self.name, state.name());
            log::warn!("upstream: server state set by an administrator pool={pool} server={name} state={state}");
        }
        was
    }

    /// Whether it takes new requests, as far as administrators are concerned.
    pub fn is_active(&self) -> bool {
        self.administrative.load(Ordering::Acquire) == Administrative::Active as u8
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.load.count.load(Ordering::Relaxed)
    }

    pub fn is_backup(&self) -> bool {
        self.is_backup.load(Ordering::Relaxed)
    }

    pub(super) fn set_backup(&self, is_backup: bool) {
        self.is_backup.store(is_backup, Ordering::Relaxed);
    }

    /// Returns the state of the server's one address.
    pub(super) fn fixed(self: &Arc<Self>, target: Target) -> Arc<AddressState> {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.addresses.load();
        if let Some(state) = known.states.iter().find(|state| state.target == target) {
            return Arc::clone(state);
        }
        let state = self.address(target);
        self.addresses.store(Arc::new(Addresses { resolved: None, states: vec![Arc::clone(&state)] }));
        state
    }

    /// Returns the states of the addresses that the server's name resolves to, in their order. As long as the resolution
    /// is the same, this takes no lock.
    pub(super) fn resolved(
        self: &Arc<Self>,
        resolved: &Arc<Vec<SocketAddr>>,
        port: u16,
    ) -> arc_swap::Guard<Arc<Addresses>> {
        let known = self.addresses.load();
        if known.resolved.as_ref().is_some_and(|known| Arc::ptr_eq(known, resolved)) {
            return known;
        }
        self.follow(resolved, port);
        self.addresses.load()
    }

    /// Takes up a new resolution. An address that was there before keeps its state.
    #[cold]
    fn follow(self: &Arc<Self>, resolved: &Arc<Vec<SocketAddr>>, port: u16) {
        let _following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.addresses.load();
        // The first addresses of a name are those of the start.
        let is_known = !known.states.is_empty();
        let of = |address: &SocketAddr| {
            // Keeps the zone of a link-local address (RFC 4007).
            let mut address = *address;
            address.set_port(port);
            let target = Target::Address(address);
            let kept = known.states.iter().find(|state| state.target == target);
            kept.cloned().unwrap_or_else(|| {
                let state = self.address(target);
                if is_known {
                    state.slow_start.begin(Instant::now());
                }
                state
            })
        };
        let states: Vec<_> = resolved.iter().map(of).collect();
        self.addresses.store(Arc::new(Addresses { resolved: Some(Arc::clone(resolved)), states }));
        self.publish_up();
    }

    fn address(self: &Arc<Self>, target: Target) -> Arc<AddressState> {
        Arc::new(AddressState {
            target,
            health: Health::default(),
            is_down: AtomicBool::new(false),
            slow_start: SlowStart::default(),
            load: Arc::clone(&self.load),
            server: Arc::downgrade(self),
        })
    }

    /// Returns the addresses that are known at the moment.
    pub fn addresses(&self) -> arc_swap::Guard<Arc<Addresses>> {
        self.addresses.load()
    }

    /// Sets the metric `upstream_up`: whether one of its addresses is well.
    pub(super) fn publish_up(&self) {
        let addresses = self.addresses.load();
        let is_up = addresses.iter().any(|address| address.is_good());
        self.metrics.up.set(i64::from(is_up));
    }
}

impl std::ops::Deref for Addresses {
    type Target = [Arc<AddressState>];

    fn deref(&self) -> &Self::Target {
        &self.states
    }
}

impl AddressState {
    /// Whether a request may go there now. Takes no lock.
    pub fn may_take(&self, now: Instant, is_safe: bool) -> Admission {
        if self.is_down() { Admission::Closed } else { self.health.may_take(now, is_safe) }
    }

    /// Whether requests go there as if nothing was wrong.
    pub fn takes_turns(&self) -> bool {
        !self.is_down() && self.health.standing().takes_turns()
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        !self.is_down() && self.health.standing() == Standing::Good
    }

    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Notes what active checks have found.
    pub(super) fn set_down(&self, is_down: bool) {
        if self.is_down.swap(is_down, Ordering::Relaxed) != is_down
            && let Some(server) = self.server()
        {
            server.publish_up();
        }
    }

    /// `None` when no configuration has its server any more.
    pub(super) fn server(&self) -> Option<Arc<ServerState>> {
        self.server.upgrade()
    }
}

/// Counts one attempt at a server for as long as it exists, so that an attempt that is cut is counted down like one that
/// ends. The count is kept over a reload, where attempts at the same server are under way in both snapshots.
pub struct InFlight {
    pub address: Arc<AddressState>,
    is_trial: bool,
}

impl InFlight {
    /// `None` where as many as `limit` are under way already, or, for a trial, another request makes it.
    pub(super) fn begin(address: &Arc<AddressState>, limit: usize, is_trial: bool) -> Option<Self> {
        let load = &address.load;
        if load.count.fetch_add(1, Ordering::Relaxed) >= limit || (is_trial && !address.health.begin_trial()) {
            load.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        load.gauge.inc();
        Some(Self { address: Arc::clone(address), is_trial })
    }

    /// Whether this request shows whether the address is well again.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.address.load.count.fetch_sub(1, Ordering::Relaxed);
        self.address.load.gauge.dec();
        if self.is_trial {
            self.address.health.end_trial();
        }
    }
}
