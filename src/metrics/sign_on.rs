//! Metrics of the sign-on: decisions, tokens, the session store, tickets, logins.

use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::help;
use super::maker::{Maker, preset, preset_values};

/// Seconds. Authentication takes microseconds; a store round trip tens to hundreds of them.
const BUCKETS: &[f64] =
    &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0];

/// Look-ups in a batch, up to the most that one may have.
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// What comes of logins.
const LOGINS: [&str; 8] =
    ["accepted", "refused", "limited", "forged", "busy", "unavailable", "token_too_large", "unrecorded"];

/// The operations of the user directory, and what comes of them when it answers.
const DIRECTORY_OPERATIONS: [(&str, &[&str]); 6] = [
    ("find", &["ok", "miss"]),
    ("changed_since", &["ok"]),
    ("replace_hash", &["ok", "miss"]),
    ("hash_kinds", &["ok"]),
    ("standing", &["ok"]),
    ("ids", &["ok"]),
];

pub struct SignOnMetrics {
    /// labels `service`, `outcome`
    pub(super) auth_duration: HistogramVec,
    /// labels `service`, `outcome`, `reason`
    pub(super) auth_decisions: IntCounterVec,
    /// The time to verify a token, cached or not.
    pub token_duration: Histogram,
    /// The time to find a session and move its expiry.
    pub session_duration: Histogram,
    pub token_cache: TokenCacheMetrics,
    pub store: StoreMetrics,
    pub tickets: TicketMetrics,
    pub directory: DirectoryMetrics,
    /// label `result`
    pub logins: IntCounterVec,
    /// Logins that wait for a password worker.
    pub login_queue: IntGauge,
}

#[derive(Clone)]
pub struct TokenCacheMetrics {
    pub hit: IntCounter,
    pub miss: IntCounter,
}

#[derive(Clone)]
pub struct TicketMetrics {
    pub issued: IntCounter,
    pub redeemed: IntCounter,
    pub replayed: IntCounter,
    pub expired: IntCounter,
    pub mismatched: IntCounter,
}

/// The metrics of the user directory.
#[derive(Clone)]
pub struct DirectoryMetrics {
    /// labels `operation`, `result`
    operations: IntCounterVec,
    /// 1 while what changes is read.
    pub up: IntGauge,
    pub last_read: IntGauge,
}

/// The metrics of the session store.
#[derive(Clone)]
pub struct StoreMetrics {
    /// labels `server`, `operation`, `result`
    pub operations: IntCounterVec,
    /// label `operation`
    pub duration: HistogramVec,
    /// label `server`; 1 while the last exchange with it succeeded
    pub up: IntGaugeVec,
    /// Times that the circuit breaker of a server opened; label `server`.
    pub breaker_open: IntCounterVec,
    /// Look-ups that shared a round trip.
    pub batch_size: Histogram,
    /// Ended sessions that an unavailable server still has to be sent.
    pub tombstones_owed: IntGauge,
    /// label `server`; ends of sessions that other servers have received and this one has not
    pub half_heard: IntCounterVec,
    /// Look-ups that at most half of a session's servers answered.
    pub minority: IntCounter,
}

impl SignOnMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let phases =
            make.histograms("auth_phase_duration_seconds", help::AUTH_PHASE_DURATION_SECONDS, BUCKETS, &["phase"])?;
        Ok(Self {
            auth_duration: make.histograms(
                "auth_duration_seconds",
                help::AUTH_DURATION_SECONDS,
                BUCKETS,
                &["service", "outcome"],
            )?,
            auth_decisions: make.counters(
                "auth_decisions_total",
                help::AUTH_DECISIONS_TOTAL,
                &["service", "outcome", "reason"],
            )?,
            token_duration: phases.with_label_values(&["token"]),
            session_duration: phases.with_label_values(&["session"]),
            token_cache: TokenCacheMetrics::register(make)?,
            store: StoreMetrics::register(make)?,
            tickets: TicketMetrics::register(make)?,
            directory: DirectoryMetrics::register(make)?,
            logins: logins(make)?,
            login_queue: make.gauge("login_queue", help::LOGIN_QUEUE)?,
        })
    }
}

fn logins(make: &Maker<'_>) -> Result<IntCounterVec, Error> {
    let logins = make.counters("logins_total", help::LOGINS_TOTAL, &["result"])?;
    preset_values(&logins, &LOGINS);
    Ok(logins)
}

impl TokenCacheMetrics {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let total = make.counters("token_cache_total", help::TOKEN_CACHE_TOTAL, &["result"])?;
        Ok(Self { hit: total.with_label_values(&["hit"]), miss: total.with_label_values(&["miss"]) })
    }
}

impl TicketMetrics {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let total = make.counters("tickets_total", help::TICKETS_TOTAL, &["event"])?;
        let event = |event: &str| total.with_label_values(&[event]);
        Ok(Self {
            issued: event("issued"),
            redeemed: event("redeemed"),
            replayed: event("replayed"),
            expired: event("expired"),
            mismatched: event("mismatched"),
        })
    }
}

impl DirectoryMetrics {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let metrics = Self {
            operations: make.counters(
                "user_directory_operations_total",
                help::USER_DIRECTORY_OPERATIONS_TOTAL,
                &["operation", "result"],
            )?,
            up: make.gauge("user_directory_up", help::USER_DIRECTORY_UP)?,
            last_read: make.gauge(
                "user_directory_last_read_timestamp_seconds",
                help::USER_DIRECTORY_LAST_READ_TIMESTAMP_SECONDS,
            )?,
        };
        for (operation, results) in DIRECTORY_OPERATIONS {
            results.iter().chain(&["failed"]).for_each(|result| preset(&metrics.operations, &[&[operation, result]]));
        }
        Ok(metrics)
    }

    pub fn count(&self, operation: &str, result: &str) {
        self.operations.with_label_values(&[operation, result]).inc();
    }
}

impl StoreMetrics {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            operations: make.counters(
                "session_store_operations_total",
                help::SESSION_STORE_OPERATIONS_TOTAL,
                &["server", "operation", "result"],
            )?,
            duration: make.histograms(
                "session_store_duration_seconds",
                help::SESSION_STORE_DURATION_SECONDS,
                BUCKETS,
                &["operation"],
            )?,
            up: make.int_gauges("session_store_up", help::SESSION_STORE_UP, &["server"])?,
            breaker_open: make.counters(
                "session_store_breaker_open_total",
                help::SESSION_STORE_BREAKER_OPEN_TOTAL,
                &["server"],
            )?,
            batch_size: make.histogram("session_store_batch_size", help::SESSION_STORE_BATCH_SIZE, BATCHES)?,
            tombstones_owed: make.gauge("session_store_tombstones_owed", help::SESSION_STORE_TOMBSTONES_OWED)?,
            half_heard: make.counters(
                "session_store_unheard_ends_total",
                help::SESSION_STORE_UNHEARD_ENDS_TOTAL,
                &["server"],
            )?,
            minority: make
                .counters("session_store_minority_total", help::SESSION_STORE_MINORITY_TOTAL, &[])?
                .with_label_values::<&str>(&[]),
        })
    }
}
