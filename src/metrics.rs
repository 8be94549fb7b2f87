//! Every metric of the process, made once and handed down. Imports no other module; labels come from bounded sets.
//!
//! Modules get the struct that concerns them ([`StoreMetrics`], [`ServiceMetrics`] …). Requests are counted when they
//! end, in one place, through handles that were resolved when the snapshot was built.

mod help;
mod logs;
mod maker;
mod operation;
mod service;
mod sign_on;
mod traffic;
mod upstream;

use prometheus::{Encoder, Registry, TextEncoder};

pub use logs::LogMetrics;
pub use maker::Description;
use maker::Maker;
pub use operation::{OperationMetrics, REJECTIONS, UPGRADE_RESULTS};
pub use service::ServiceMetrics;
pub use sign_on::{DirectoryMetrics, SignOnMetrics, StoreMetrics, TicketMetrics, TokenCacheMetrics};
pub use traffic::{ResolverMetrics, TrafficMetrics};
pub use upstream::{CheckMetrics, CheckResult, RetryMetrics, UpstreamMetrics};

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    /// The metrics `process_*`, which have no prefix, as is usual.
    process: Registry,
    descriptions: Vec<Description>,
    /// Connections, requests, upstream servers.
    pub traffic: TrafficMetrics,
    /// Tokens, sessions, tickets, logins.
    pub sign_on: SignOnMetrics,
    /// The process itself: reloads, logs, version.
    pub operation: OperationMetrics,
}

impl Metrics {
    /// Registers every metric. Returns an error only if a name is registered twice, which is a defect of the edge.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        Self::with_logs(version, &LogMetrics::new(&[])?)
    }

    /// Does the same with the metrics of logs that are open already.
    pub fn with_logs(version: &str, logs: &LogMetrics) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("sentry_edge".into()), None)?;
        let process = Registry::new();
        process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let make = Maker::new(&registry);
        let traffic = TrafficMetrics::register(&make)?;
        let sign_on = SignOnMetrics::register(&make)?;
        let operation = OperationMetrics::register(&make, version)?;
        logs.register(&make)?;
        let descriptions = make.into_descriptions();
        Ok(Self { traffic, sign_on, operation, process, registry, descriptions })
    }

    /// Returns the metrics of the edge as they are registered, for the reference.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// Returns the handles of one service, or of `none` where no service was found.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics::resolve(service, &self.traffic, &self.sign_on)
    }

    /// Removes the series of a service that is in no configuration any more.
    pub fn forget_service(&self, service: &str) {
        ServiceMetrics::forget(service, &self.traffic, &self.sign_on);
    }

    /// Counts a request that reached a limit.
    pub fn limit_reached(&self, limit: &str) {
        self.limit(limit).inc();
    }

    /// Returns the counter of a limit, for code that has no access to the metrics.
    pub fn limit(&self, limit: &str) -> prometheus::IntCounter {
        self.operation.limits_reached.with_label_values(&[limit])
    }

    /// A malformed request was refused. `reason` is a variant of `validate::Malformed`.
    pub fn request_rejected(&self, reason: &str) {
        self.operation.requests_rejected.with_label_values(&[reason]).inc();
    }

    /// Returns all metrics in Prometheus' text format.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}
