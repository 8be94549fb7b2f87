//! Metrics and logs of a store: every operation is counted and timed, a gauge shows whether the server is up, and each change
//! is logged once. It decides nothing and retries nothing. [`Instrumented`] is one store with its monitor; a cluster
//! (`replicated`) has a monitor for each of its servers.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::{
    Count, CounterKey, DeviceKey, DeviceRecord, Found, Listing, Redemption, SessionKey, SessionRecord, SessionStore,
    StoreError, Swap, TicketKey,
};
use crate::clock::{Clock, UnixTime};
use crate::metrics::StoreMetrics;

/// A store with a single server, and its monitor.
pub struct Instrumented<S> {
    store: S,
    monitor: StoreMonitor,
}

/// The state and the metrics of one server.
pub struct StoreMonitor {
    server: String,
    state: AtomicU8,
    changing: Mutex<()>,
    clock: Clock,
    /// When the server was found unavailable, in Unix milliseconds; 0 while it answers.
    unavailable_since: AtomicU64,
    up: IntGauge,
    /// Indexed by [`Operation`].
    operations: [OpMetrics; Operation::ALL.len()],
}

/// Creates the monitors for the servers of one store.
#[derive(Clone)]
pub struct StoreMonitors {
    metrics: StoreMetrics,
    clock: Clock,
}

/// The values of the label `operation`.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Insert,
    Find,
    RecordAccess,
    Renew,
    Copy,
    End,
    Device,
    SwapDevice,
    IssueTicket,
    RedeemTicket,
    CounterIncr,
    CounterGet,
    CounterDecr,
    CounterReset,
    List,
    Ping,
}

/// The metrics of one operation, resolved once.
struct OpMetrics {
    duration: Histogram,
    ok: IntCounter,
    /// The server answered that there is none.
    miss: IntCounter,
    away: IntCounter,
    timeout: IntCounter,
    garbled: IntCounter,
    full: IntCounter,
    busy: IntCounter,
}

/// The state of the server. It is unknown at first, because a start is no change to log.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// A change that is logged.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Lost(String),
    Back,
}

impl Operation {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Insert, "insert"),
        (Self::Find, "find"),
        (Self::RecordAccess, "record_access"),
        (Self::Renew, "renew"),
        (Self::Copy, "copy"),
        (Self::End, "end"),
        (Self::Device, "device"),
        (Self::SwapDevice, "swap_device"),
        (Self::IssueTicket, "issue_ticket"),
        (Self::RedeemTicket, "redeem_ticket"),
        (Self::CounterIncr, "add_failure"),
        (Self::CounterGet, "read_failures"),
        (Self::CounterDecr, "take_back_failure"),
        (Self::CounterReset, "forget_failures"),
        (Self::List, "list"),
        (Self::Ping, "ping"),
    ];
}

impl StoreMonitors {
    pub fn new(metrics: &StoreMetrics, clock: &Clock) -> Self {
        Self { metrics: metrics.clone(), clock: clock.clone() }
    }

    /// `server` is the label: a configured name, e.g. `memory` or `10.0.0.1:11211`.
    pub fn monitor(&self, server: &str) -> StoreMonitor {
        let Self { metrics, clock } = self;
        // Counted by the cluster, and there from the start.
        metrics.half_heard.with_label_values(&[server]);
        StoreMonitor {
            server: server.to_owned(),
            state: AtomicU8::new(UNKNOWN),
            changing: Mutex::new(()),
            clock: clock.clone(),
            unavailable_since: AtomicU64::new(0),
            up: metrics.up.with_label_values(&[server]),
            operations: Operation::ALL.map(|(_, label)| OpMetrics::new(server, label, metrics)),
        }
    }
}

impl StoreMonitor {
    /// Returns how long the server has not answered any operation; zero when it answered the last one.
    pub fn unavailable_for(&self) -> Duration {
        match self.unavailable_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.clock.now().since(UnixTime::from_millis(since)),
        }
    }

    /// Awaits `call` and records its outcome; `is_hit` returns whether a result counts as a hit or as a miss.
    pub async fn observe<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        is_hit: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let metrics = &self.operations[operation as usize];
        let began = Instant::now();
        let outcome = call.await;
        metrics.duration.observe(began.elapsed().as_secs_f64());
        match &outcome {
            Ok(answer) if is_hit(answer) => metrics.ok.inc(),
            Ok(_) => metrics.miss.inc(),
            Err(error) => metrics.failure(error).inc(),
        }
        if let Some(change) = self.record_state(outcome.as_ref().err()) {
            change.log(&self.server);
        }
        outcome
    }

    /// Records the state of the server. A server that is full, or that sends invalid responses, counts as up; one that does
    /// not answer counts as down.
    fn record_state(&self, error: Option<&StoreError>) -> Option<Change> {
        let unavailable = error.filter(|error| error.is_unavailable());
        let present = if unavailable.is_some() { DOWN } else { UP };
        // The state is read first, so that the usual case does not write to memory that requests share.
        if self.state.load(Ordering::Relaxed) == present {
            return None;
        }
        // The lock keeps two concurrent changes from leaving the gauge and the state in disagreement.
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.swap(present, Ordering::Relaxed);
        self.up.set(i64::from(present == UP));
        if before != present {
            let since = if present == DOWN { self.clock.now().millis() } else { 0 };
            self.unavailable_since.store(since, Ordering::Relaxed);
        }
        match unavailable {
            Some(error) if before != DOWN => Some(Change::Lost(error.to_string())),
            None if before == DOWN => Some(Change::Back),
            _ => None,
        }
    }
}

impl Change {
    fn log(&self, server: &str) {
        match self {
            Self::Lost(error) => log::warn!("session store {server}: down: {error}"),
            Self::Back => log::info!("session store {server}: up again"),
        }
    }
}

impl OpMetrics {
    fn new(server: &str, operation: &str, metrics: &StoreMetrics) -> Self {
        let count = |result| metrics.operations.with_label_values(&[server, operation, result]);
        Self {
            duration: metrics.duration.with_label_values(&[operation]),
            ok: count("ok"),
            miss: count("miss"),
            away: count("away"),
            timeout: count("timeout"),
            garbled: count("garbled"),
            full: count("full"),
            busy: count("busy"),
        }
    }

    fn failure(&self, error: &StoreError) -> &IntCounter {
        match error {
            StoreError::Unavailable { .. } => &self.away,
            StoreError::TimedOut => &self.timeout,
            StoreError::Protocol { .. } | StoreError::Unfit { .. } => &self.garbled,
            StoreError::Full => &self.full,
            StoreError::Busy => &self.busy,
        }
    }
}

/// For operations that cannot be a miss.
pub fn always<T>(_: &T) -> bool {
    true
}

impl<S> Instrumented<S> {
    pub fn new(store: S, server: &str, monitors: &StoreMonitors) -> Self {
        Self { store, monitor: monitors.monitor(server) }
    }
}

fn is_active(found: &Found) -> bool {
    matches!(found, Found::Active(_))
}

#[async_trait]
impl<S: SessionStore> SessionStore for Instrumented<S> {
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        self.monitor.observe(Operation::Insert, self.store.insert(key, record, ttl), always).await
    }

    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        self.monitor.observe(Operation::Find, self.store.find(key, slide), is_active).await
    }

    async fn record_access(&self, key: &SessionKey, now: UnixTime, ttl: Duration) -> Result<bool, StoreError> {
        self.monitor.observe(Operation::RecordAccess, self.store.record_access(key, now, ttl), |written| *written).await
    }

    async fn end(&self, key: &SessionKey, until: UnixTime) -> Result<(), StoreError> {
        self.monitor.observe(Operation::End, self.store.end(key, until), always).await
    }

    async fn renew(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<bool, StoreError> {
        self.monitor.observe(Operation::Renew, self.store.renew(key, record, ttl), |renewed| *renewed).await
    }

    async fn device(&self, key: &DeviceKey) -> Result<Option<DeviceRecord>, StoreError> {
        self.monitor.observe(Operation::Device, self.store.device(key), Option::is_some).await
    }

    async fn swap_device(
        &self,
        key: &DeviceKey,
        seen: Option<&DeviceRecord>,
        next: &DeviceRecord,
        ttl: Duration,
    ) -> Result<Swap, StoreError> {
        let swapped = self.store.swap_device(key, seen, next, ttl);
        self.monitor.observe(Operation::SwapDevice, swapped, |swap| *swap == Swap::Done).await
    }

    async fn issue_ticket(&self, key: &TicketKey, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        self.monitor.observe(Operation::IssueTicket, self.store.issue_ticket(key, value, ttl), always).await
    }

    async fn redeem_ticket(&self, key: &TicketKey, remember: Duration) -> Result<Redemption, StoreError> {
        let won = |redemption: &Redemption| matches!(redemption, Redemption::Won(_));
        self.monitor.observe(Operation::RedeemTicket, self.store.redeem_ticket(key, remember), won).await
    }

    async fn counter_incr(&self, key: &CounterKey, window: Duration) -> Result<Count, StoreError> {
        self.monitor.observe(Operation::CounterIncr, self.store.counter_incr(key, window), always).await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let counted = |count: &Count| count.count > 0;
        self.monitor.observe(Operation::CounterGet, self.store.counter_get(key), counted).await
    }

    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        self.monitor.observe(Operation::CounterDecr, self.store.counter_decr(key, counted), always).await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.monitor.observe(Operation::CounterReset, self.store.counter_reset(key), always).await
    }

    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        let listed = async { Ok(self.store.list(user, limit).await) };
        let listing = self.monitor.observe(Operation::List, listed, |listing| !listing.sessions.is_empty()).await;
        // A store with a single server reports its failures in the listing.
        listing.unwrap_or_default()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.monitor.observe(Operation::Ping, self.store.ping(), always).await
    }

    fn unavailable_for(&self) -> Duration {
        self.monitor.unavailable_for()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::sessions::memory::MemoryStore;
    use crate::sessions::tests::{record, session};
    use crate::sessions::{CounterKey, SessionId};

    fn observed(metrics: &Metrics, capacity: usize) -> Instrumented<MemoryStore> {
        let clock = Clock::default();
        let monitors = StoreMonitors::new(&metrics.sign_on.store, &clock);
        Instrumented::new(MemoryStore::new(clock, capacity), "memory", &monitors)
    }

    #[tokio::test]
    async fn every_operation_is_counted_by_its_outcome() {
        let metrics = Metrics::new("test").unwrap();
        let store = observed(&metrics, 1);
        let window = Duration::from_secs(60);
        store.ping().await.unwrap();
        store.find(&SessionId::random().unwrap().key(), None).await.unwrap();
        store.counter_incr(&CounterKey::new("account", "ada"), window).await.unwrap();
        store.insert(&session(), &record("ada"), window).await.unwrap();
        store.insert(&session(), &record("eve"), window).await.unwrap_err();

        let count = |operation, result| {
            metrics.sign_on.store.operations.with_label_values(&["memory", operation, result]).get()
        };
        assert_eq!((count("ping", "ok"), count("ping", "miss")), (1, 0));
        assert_eq!((count("find", "ok"), count("find", "miss")), (0, 1));
        assert_eq!(count("add_failure", "ok"), 1);
        assert_eq!((count("insert", "ok"), count("insert", "full")), (1, 1));
        assert_eq!(metrics.sign_on.store.duration.with_label_values(&["insert"]).get_sample_count(), 2);
        assert_eq!(metrics.sign_on.store.up.with_label_values(&["memory"]).get(), 1);
    }

    #[test]
    fn a_change_of_state_is_logged_once() {
        let metrics = Metrics::new("test").unwrap();
        let store = observed(&metrics, 1);
        let up = metrics.sign_on.store.up.with_label_values(&["memory"]);
        let away = StoreError::Unavailable { cause: "refused".to_owned() };
        let garbled = StoreError::Protocol { cause: "odd".to_owned() };

        assert_eq!(store.monitor.record_state(None), None, "a start is no change");
        assert_eq!(up.get(), 1);
        assert_eq!(store.monitor.record_state(Some(&garbled)), None, "it answers");
        assert_eq!(store.monitor.record_state(Some(&StoreError::Full)), None, "it answers");
        assert_eq!(store.monitor.record_state(Some(&away)), Some(Change::Lost(away.to_string())));
        assert_eq!(store.monitor.record_state(Some(&StoreError::TimedOut)), None, "it was down before");
        assert_eq!(up.get(), 0);
        store.monitor.clock.advance(Duration::from_secs(40));
        assert!(store.unavailable_for() >= Duration::from_secs(40));
        assert_eq!(store.monitor.record_state(None), Some(Change::Back));
        assert_eq!(store.unavailable_for(), Duration::ZERO);
        store.monitor.record_state(Some(&away));
        assert!(store.unavailable_for() < Duration::from_secs(40), "an earlier silence is not counted in");
        store.monitor.record_state(None);
        assert_eq!(store.monitor.record_state(None), None);
        assert_eq!(up.get(), 1);
    }
}
