//! A store that is watched: every operation is counted and timed, and whether the server is up is shown, and told
//! in the log once per change. Decides nothing and repeats nothing. [`Instrumented`] is one store with its monitor;
//! a `cluster` gives each of its servers one.

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

/// A store of one place.
pub struct Instrumented<S> {
    store: S,
    monitor: StoreMonitor,
}

/// What is known of one server, and what is told of it.
pub struct StoreMonitor {
    server: String,
    state: AtomicU8,
    changing: Mutex<()>,
    clock: Clock,
    /// Milliseconds: when the server was found away; 0 while it answers.
    silent_since: AtomicU64,
    up: IntGauge,
    /// In the order of [`Operation`].
    watches: [OpMetrics; Operation::ALL.len()],
}

/// Makes the monitors of the servers of one store.
#[derive(Clone)]
pub struct StoreMonitors {
    metrics: StoreMetrics,
    clock: Clock,
}

/// Label `operation`.
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
    AddFailure,
    ReadFailures,
    TakeBackFailure,
    ForgetFailures,
    List,
    Ping,
}

/// The handles of one operation, resolved once.
struct OpMetrics {
    duration: Histogram,
    ok: IntCounter,
    /// Answered, with "not there".
    miss: IntCounter,
    away: IntCounter,
    timeout: IntCounter,
    garbled: IntCounter,
    full: IntCounter,
    busy: IntCounter,
}

/// What is known of the server. Nothing at first: a start is no change to log.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const AWAY: u8 = 2;

/// What is worth a line in the log.
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
        (Self::AddFailure, "add_failure"),
        (Self::ReadFailures, "read_failures"),
        (Self::TakeBackFailure, "take_back_failure"),
        (Self::ForgetFailures, "forget_failures"),
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
        StoreMonitor {
            server: server.to_owned(),
            state: AtomicU8::new(UNKNOWN),
            changing: Mutex::new(()),
            clock: clock.clone(),
            silent_since: AtomicU64::new(0),
            up: metrics.up.with_label_values(&[server]),
            watches: Operation::ALL.map(|(_, label)| OpMetrics::new(server, label, metrics)),
        }
    }
}

impl StoreMonitor {
    /// For how long the server has not answered whatever it was asked; zero when it has answered the last time.
    pub fn unavailable_for(&self) -> Duration {
        match self.silent_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.clock.now().since(UnixTime::from_millis(since)),
        }
    }

    /// Awaits `call` and notes what came of it; `hit` tells an answer that found something from one that did not.
    pub async fn observe<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
        hit: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let watch = &self.watches[operation as usize];
        let began = Instant::now();
        let outcome = call.await;
        watch.duration.observe(began.elapsed().as_secs_f64());
        match &outcome {
            Ok(answer) if hit(answer) => watch.ok.inc(),
            Ok(_) => watch.miss.inc(),
            Err(error) => watch.failure(error).inc(),
        }
        if let Some(change) = self.note(outcome.as_ref().err()) {
            change.log(&self.server);
        }
        outcome
    }

    /// A server that is full or tells garbage is there; one that does not answer is not.
    fn note(&self, error: Option<&StoreError>) -> Option<Change> {
        let away = error.filter(|error| error.is_unavailable());
        let present = if away.is_some() { AWAY } else { UP };
        // Read first, so that the usual case writes to nothing that requests share.
        if self.state.load(Ordering::Relaxed) == present {
            return None;
        }
        // Under a lock, or of two changes at once the gauge could show one and the state the other.
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state.swap(present, Ordering::Relaxed);
        self.up.set(i64::from(present == UP));
        if before != present {
            let since = if present == AWAY { self.clock.now().millis() } else { 0 };
            self.silent_since.store(since, Ordering::Relaxed);
        }
        match away {
            Some(error) if before != AWAY => Some(Change::Lost(error.to_string())),
            None if before == AWAY => Some(Change::Back),
            _ => None,
        }
    }
}

impl Change {
    fn log(&self, server: &str) {
        match self {
            Self::Lost(error) => log::warn!("session store {server}: {error}"),
            Self::Back => log::info!("session store {server}: answers again"),
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

/// An answer that cannot be a miss.
pub fn always<T>(_: &T) -> bool {
    true
}

impl<S> Instrumented<S> {
    pub fn new(store: S, server: &str, monitors: &StoreMonitors) -> Self {
        Self { store, monitor: monitors.monitor(server) }
    }
}

fn lives(found: &Found) -> bool {
    matches!(found, Found::Active(_))
}

#[async_trait]
impl<S: SessionStore> SessionStore for Instrumented<S> {
    async fn insert(&self, key: &SessionKey, record: &SessionRecord, ttl: Duration) -> Result<(), StoreError> {
        self.monitor.observe(Operation::Insert, self.store.insert(key, record, ttl), always).await
    }

    async fn find(&self, key: &SessionKey, slide: Option<Duration>) -> Result<Found, StoreError> {
        self.monitor.observe(Operation::Find, self.store.find(key, slide), lives).await
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
        self.monitor.observe(Operation::AddFailure, self.store.counter_incr(key, window), always).await
    }

    async fn counter_get(&self, key: &CounterKey) -> Result<Count, StoreError> {
        let counted = |count: &Count| count.count > 0;
        self.monitor.observe(Operation::ReadFailures, self.store.counter_get(key), counted).await
    }

    async fn counter_decr(&self, key: &CounterKey, counted: &Count) -> Result<(), StoreError> {
        self.monitor.observe(Operation::TakeBackFailure, self.store.counter_decr(key, counted), always).await
    }

    async fn counter_reset(&self, key: &CounterKey) -> Result<(), StoreError> {
        self.monitor.observe(Operation::ForgetFailures, self.store.counter_reset(key), always).await
    }

    async fn list(&self, user: Option<&str>, limit: usize) -> Listing {
        let listed = async { Ok(self.store.list(user, limit).await) };
        let listing = self.monitor.observe(Operation::List, listed, |listing| !listing.sessions.is_empty()).await;
        // A store of one place tells its failures in the listing.
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
    async fn every_operation_is_counted_by_what_came_of_it() {
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
    fn a_change_of_state_is_told_once() {
        let metrics = Metrics::new("test").unwrap();
        let store = observed(&metrics, 1);
        let up = metrics.sign_on.store.up.with_label_values(&["memory"]);
        let away = StoreError::Unavailable { cause: "refused".to_owned() };
        let garbled = StoreError::Protocol { cause: "odd".to_owned() };

        assert_eq!(store.monitor.note(None), None, "a start is no change");
        assert_eq!(up.get(), 1);
        assert_eq!(store.monitor.note(Some(&garbled)), None, "it answers");
        assert_eq!(store.monitor.note(Some(&StoreError::Full)), None, "it answers");
        assert_eq!(store.monitor.note(Some(&away)), Some(Change::Lost(away.to_string())));
        assert_eq!(store.monitor.note(Some(&StoreError::TimedOut)), None, "it was away before");
        assert_eq!(up.get(), 0);
        store.monitor.clock.advance(Duration::from_secs(40));
        assert!(store.unavailable_for() >= Duration::from_secs(40));
        assert_eq!(store.monitor.note(None), Some(Change::Back));
        assert_eq!(store.unavailable_for(), Duration::ZERO);
        store.monitor.note(Some(&away));
        assert!(store.unavailable_for() < Duration::from_secs(40), "an earlier silence is not counted in");
        store.monitor.note(None);
        assert_eq!(store.monitor.note(None), None);
        assert_eq!(up.get(), 1);
    }
}
