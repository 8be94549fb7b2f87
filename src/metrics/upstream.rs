//! Metrics of the servers of pools, and of requests that are sent to another one.

use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::help;
use super::maker::{BUCKETS, Maker, forget};

/// Why servers are ejected: the label `reason`.
const REASONS: [&str; 6] = ["connect", "tls", "timeout", "closed", "malformed", "status"];

/// What an administrator may set: the label `state`.
const STATES: [&str; 3] = ["active", "draining", "disabled"];

pub struct UpstreamFamilies {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    up: IntGaugeVec,
    state: IntGaugeVec,
    responses: IntCounterVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    checks: IntCounterVec,
}

/// The active checks of one server, by their result.
#[derive(Clone)]
pub struct CheckMetrics {
    passed: IntCounter,
    failed: IntCounter,
    timed_out: IntCounter,
}

/// One upstream server's handles.
#[derive(Clone)]
pub struct UpstreamMetrics {
    pub answered: IntCounter,
    pub failed: IntCounter,
    pub duration: Histogram,
    /// Attempts that are under way; a guard in `upstream::Attempt` counts them.
    pub in_flight: IntGauge,
    /// 1, or 0 where none of its addresses is well.
    pub up: IntGauge,
    /// In the order of `STATES`: 1 of the one that is set.
    states: [IntGauge; 3],
    /// By status class, 1xx to 5xx.
    responses: [IntCounter; 5],
    /// In the order of `REASONS`.
    ejections: [IntCounter; 6],
}

impl CheckMetrics {
    /// Counts a check.
    pub fn count(&self, result: CheckResult) {
        match result {
            CheckResult::Passed => self.passed.inc(),
            CheckResult::Failed => self.failed.inc(),
            CheckResult::TimedOut => self.timed_out.inc(),
        }
    }
}

/// What an active check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    Passed,
    Failed,
    TimedOut,
}

/// What became of the requests of one pool that were to be sent again.
#[derive(Clone)]
pub struct RetryMetrics {
    /// A response came.
    pub answered: IntCounter,
    /// It has failed again.
    pub failed: IntCounter,
    /// It was not sent again, as too many others were.
    pub over_budget: IntCounter,
}

impl UpstreamFamilies {
    pub(super) fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let server = &["pool", "server"];
        Ok(Self {
            requests: make.counters(
                "upstream_requests_total",
                help::UPSTREAM_REQUESTS_TOTAL,
                &["pool", "server", "result"],
            )?,
            duration: make.histograms("upstream_duration_seconds", help::UPSTREAM_DURATION_SECONDS, BUCKETS, server)?,
            in_flight: make.int_gauges("upstream_in_flight", help::UPSTREAM_IN_FLIGHT, server)?,
            up: make.int_gauges("upstream_up", help::UPSTREAM_UP, server)?,
            state: make.int_gauges(
                "upstream_server_state",
                help::UPSTREAM_SERVER_STATE,
                &["pool", "server", "state"],
            )?,
            responses: make.counters(
                "upstream_responses_total",
                help::UPSTREAM_RESPONSES_TOTAL,
                &["pool", "server", "class"],
            )?,
            ejections: make.counters(
                "upstream_ejections_total",
                help::UPSTREAM_EJECTIONS_TOTAL,
                &["pool", "server", "reason"],
            )?,
            retries: make.counters("upstream_retries_total", help::UPSTREAM_RETRIES_TOTAL, &["pool", "result"])?,
            checks: make.counters(
                "upstream_health_checks_total",
                help::UPSTREAM_HEALTH_CHECKS_TOTAL,
                &["pool", "server", "result"],
            )?,
        })
    }

    pub(super) fn server(&self, pool: &str, server: &str) -> UpstreamMetrics {
        let request = |result| self.requests.with_label_values(&[pool, server, result]);
        let response = |class| self.responses.with_label_values(&[pool, server, class]);
        UpstreamMetrics {
            answered: request("answered"),
            failed: request("failed"),
            duration: self.duration.with_label_values(&[pool, server]),
            in_flight: self.in_flight.with_label_values(&[pool, server]),
            up: self.up.with_label_values(&[pool, server]),
            states: STATES.map(|state| self.state.with_label_values(&[pool, server, state])),
            responses: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(response),
            ejections: REASONS.map(|reason| self.ejections.with_label_values(&[pool, server, reason])),
        }
    }

    pub(super) fn checks(&self, pool: &str, server: &str) -> CheckMetrics {
        let result = |result| self.checks.with_label_values(&[pool, server, result]);
        CheckMetrics { passed: result("passed"), failed: result("failed"), timed_out: result("timeout") }
    }

    /// Removes the series of the checks of a server that is not checked any more.
    pub(super) fn forget_checks(&self, pool: &str, server: &str) {
        forget(&self.checks, &[("pool", pool), ("server", server)]);
    }

    pub(super) fn retries(&self, pool: &str) -> RetryMetrics {
        let result = |result| self.retries.with_label_values(&[pool, result]);
        RetryMetrics { answered: result("answered"), failed: result("failed"), over_budget: result("over_budget") }
    }

    /// Removes the series of a server that is in no configuration any more.
    pub(super) fn forget_server(&self, pool: &str, server: &str) {
        let labels = [("pool", pool), ("server", server)];
        for family in [&self.requests, &self.responses, &self.ejections, &self.checks] {
            forget(family, &labels);
        }
        forget(&self.duration, &labels);
        forget(&self.in_flight, &labels);
        forget(&self.up, &labels);
        forget(&self.state, &labels);
    }

    /// Removes the series of a pool; those of its servers go with them.
    pub(super) fn forget_pool(&self, pool: &str) {
        forget(&self.retries, &[("pool", pool)]);
    }
}

impl UpstreamMetrics {
    /// Counts a response by the class of its status.
    pub fn responded(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.responses[class].inc();
    }

    /// Shows what an administrator has set.
    pub fn set_state(&self, state: &str) {
        for (gauge, name) in self.states.iter().zip(STATES) {
            gauge.set(i64::from(name == state));
        }
    }

    /// Counts an ejection.
    pub fn ejected(&self, reason: &str) {
        for (counter, _) in self.ejections.iter().zip(REASONS).filter(|(_, known)| *known == reason) {
            counter.inc();
        }
    }

    /// How many attempts have ended.
    pub fn attempts(&self) -> u64 {
        self.answered.get() + self.failed.get()
    }
}
