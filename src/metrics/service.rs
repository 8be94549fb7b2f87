//! The metrics of one service, or of requests that no service was found for (`none`).

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::maker::forget;
use super::sign_on::SignOnMetrics;
use super::traffic::TrafficMetrics;

/// Decisions of an outage, by outcome and reason, which an alert is to see from the first one on. There may be thousands of
/// services, so the series of refusals that are everyday begin with the first of a service.
const OUTAGE_DECISIONS: [(&str, &str); 3] =
    [("allowed", "outage_recent"), ("allowed", "outage_token_only"), ("unavailable", "store_away")];

/// The handles of one service, resolved when a snapshot is built so that a request pays no look-up of labels.
#[derive(Clone)]
pub struct ServiceMetrics {
    service: Box<str>,
    /// By status class, 1xx to 5xx.
    requests: [IntCounter; 5],
    pub duration: Histogram,
    pub allowed: IntCounter,
    pub public: IntCounter,
    /// Requests that were refused because the service is in maintenance.
    pub maintenance: IntCounter,
    pub auth_allowed_duration: Histogram,
    /// Decisions other than the two above, which are rarer: their labels are looked up when they are made.
    auth_decisions: IntCounterVec,
    auth_duration: HistogramVec,
}

impl ServiceMetrics {
    pub(super) fn resolve(service: &str, traffic: &TrafficMetrics, sign_on: &SignOnMetrics) -> Self {
        let class = |class: &str| traffic.requests.with_label_values(&[service, class]);
        let of_reason =
            |outcome: &str, reason: &str| sign_on.auth_decisions.with_label_values(&[service, outcome, reason]);
        let decision = |outcome: &str| of_reason(outcome, "none");
        for (outcome, reason) in OUTAGE_DECISIONS {
            of_reason(outcome, reason);
        }
        Self {
            service: service.into(),
            requests: [class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")],
            duration: traffic.request_duration.with_label_values(&[service]),
            allowed: decision("allowed"),
            public: decision("public"),
            maintenance: of_reason("unavailable", "maintenance"),
            auth_allowed_duration: sign_on.auth_duration.with_label_values(&[service, "allowed"]),
            auth_decisions: sign_on.auth_decisions.clone(),
            auth_duration: sign_on.auth_duration.clone(),
        }
    }

    /// Removes the series of a service that is in no configuration any more.
    pub(super) fn forget(service: &str, traffic: &TrafficMetrics, sign_on: &SignOnMetrics) {
        let labels = [("service", service)];
        forget(&traffic.requests, &labels);
        forget(&traffic.request_duration, &labels);
        forget(&sign_on.auth_decisions, &labels);
        forget(&sign_on.auth_duration, &labels);
    }

    /// Counts a response by the class of its status.
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests[class].inc();
    }

    /// Counts a request that an outage policy admitted.
    pub fn allowed_by_policy(&self, reason: &str) {
        self.auth_decisions.with_label_values(&[&*self.service, "allowed", reason]).inc();
    }

    /// Counts a CORS preflight that its route leaves to the application.
    pub fn preflight(&self) {
        self.auth_decisions.with_label_values(&[&*self.service, "public", "preflight"]).inc();
    }

    /// Counts a refusal by a rule of the route, for which nothing was authenticated.
    pub fn refused_by_rule(&self, reason: &str) {
        self.auth_decisions.with_label_values(&[&*self.service, "forbidden", reason]).inc();
    }

    /// Counts a refusal.
    pub fn refused(&self, outcome: &str, reason: &str, seconds: f64) {
        self.auth_decisions.with_label_values(&[&*self.service, outcome, reason]).inc();
        self.auth_duration.with_label_values(&[&*self.service, outcome]).observe(seconds);
    }
}
