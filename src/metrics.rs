//! Every metric of the process, made once and handed down. Imports nobody; labels come from bounded sets.
//!
//! Rooms get the struct that concerns them ([`StoreMetrics`], [`ServiceMetrics`] …). Requests are counted in
//! Pingora's `logging` phase alone, through handles that were resolved when the snapshot was built.

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Seconds. Authentication takes microseconds; a store round trip tens to hundreds of them.
const AUTH_BUCKETS: &[f64] = &[
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0,
];
/// Seconds. From a cached page to a slow report.
const REQUEST_BUCKETS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    /// `process_*`, which carry no prefix of ours, as everywhere.
    process: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    auth_duration: HistogramVec,
    auth_decisions: IntCounterVec,
    /// Time to verify a token, cached or not.
    pub token_duration: Histogram,
    /// Time to find and slide a session.
    pub session_duration: Histogram,
    pub token_cache: TokenCacheMetrics,
    pub store: StoreMetrics,
    pub tickets: TicketMetrics,
    /// label `result`
    pub logins: IntCounterVec,
    upstream_requests: IntCounterVec,
    upstream_duration: HistogramVec,
    pub connections: IntGaugeVec,
    pub connections_total: IntCounterVec,
    /// labels `listener`, `reason`
    pub connections_refused: IntCounterVec,
    /// labels `version`, `resumed`, `result`
    pub tls_handshakes: IntCounterVec,
    /// label `name`
    pub certificate_expiry: GaugeVec,
    /// Header fields dropped before forwarding, by `reason`: an odd name, or one that only we may say.
    pub headers_dropped: IntCounterVec,
    /// Log lines given up because the writer was behind; label `log`.
    pub log_lines_dropped: IntCounterVec,
    /// Logins that wait for a password worker.
    pub login_queue: IntGauge,
    /// The limit that was met, by `limit`.
    pub limits_reached: IntCounterVec,
    /// label `result`
    pub config_reloads: IntCounterVec,
    pub config_last_reload_successful: IntGauge,
    pub config_last_reload_timestamp: IntGauge,
    start_time: Gauge,
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

/// What the session store reports.
#[derive(Clone)]
pub struct StoreMetrics {
    /// labels `server`, `operation`, `result`
    pub operations: IntCounterVec,
    /// label `operation`
    pub duration: HistogramVec,
    /// label `server`; 1 while the last exchange with it succeeded
    pub up: IntGaugeVec,
}

/// One service's handles, resolved once so that a request pays no label look-up.
#[derive(Clone)]
pub struct ServiceMetrics {
    service: Arc<str>,
    /// By status class, 1xx to 5xx.
    requests: [IntCounter; 5],
    pub duration: Histogram,
    pub allowed: IntCounter,
    pub public: IntCounter,
    pub auth_allowed_duration: Histogram,
}

/// One upstream server's handles.
#[derive(Clone)]
pub struct UpstreamMetrics {
    pub answered: IntCounter,
    pub failed: IntCounter,
    pub duration: Histogram,
}

impl Metrics {
    /// Registers everything. Errors only if a name is registered twice, which is a defect of ours.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("sentry_edge".into()), None)?;
        let make = Maker(&registry);
        let tickets = make.counters("tickets_total", "Tickets by what became of them", &["event"])?;
        let cache = make.counters("token_cache_total", "Look-ups of verified tokens", &["result"])?;
        let phases = make.histograms(
            "auth_phase_duration_seconds",
            "Time of one part of authentication",
            AUTH_BUCKETS,
            &["phase"],
        )?;
        make.gauges("build_info", "1, with the version", &["version"])?.with_label_values(&[version]).set(1.0);
        let start_time = make.gauges("start_time_seconds", "When the process began, Unix time", &[])?;
        let metrics = Self {
            requests: make.counters("requests_total", "Requests answered", &["service", "status"])?,
            request_duration: make.histograms(
                "request_duration_seconds",
                "From the request's head to the end of the response",
                REQUEST_BUCKETS,
                &["service"],
            )?,
            auth_duration: make.histograms(
                "auth_duration_seconds",
                "Time to decide whether a request may pass, the session store included",
                AUTH_BUCKETS,
                &["service", "outcome"],
            )?,
            auth_decisions: make.counters(
                "auth_decisions_total",
                "Decisions by outcome and reason",
                &["service", "outcome", "reason"],
            )?,
            token_duration: phases.with_label_values(&["token"]),
            session_duration: phases.with_label_values(&["session"]),
            token_cache: TokenCacheMetrics {
                hit: cache.with_label_values(&["hit"]),
                miss: cache.with_label_values(&["miss"]),
            },
            store: StoreMetrics {
                operations: make.counters(
                    "session_store_operations_total",
                    "Operations on the session store",
                    &["server", "operation", "result"],
                )?,
                duration: make.histograms(
                    "session_store_duration_seconds",
                    "Time of an operation on the session store",
                    AUTH_BUCKETS,
                    &["operation"],
                )?,
                up: make.int_gauges("session_store_up", "1 while the server answers", &["server"])?,
            },
            tickets: TicketMetrics {
                issued: tickets.with_label_values(&["issued"]),
                redeemed: tickets.with_label_values(&["redeemed"]),
                replayed: tickets.with_label_values(&["replayed"]),
                expired: tickets.with_label_values(&["expired"]),
                mismatched: tickets.with_label_values(&["mismatched"]),
            },
            logins: make.counters("logins_total", "Login attempts", &["result"])?,
            upstream_requests: make.counters(
                "upstream_requests_total",
                "Attempts on an upstream server",
                &["pool", "server", "result"],
            )?,
            upstream_duration: make.histograms(
                "upstream_duration_seconds",
                "From choosing a server to the end of its response",
                REQUEST_BUCKETS,
                &["pool", "server"],
            )?,
            connections: make.int_gauges("connections", "Open client connections", &["listener"])?,
            connections_total: make.counters("connections_total", "Client connections accepted", &["listener"])?,
            connections_refused: make.counters(
                "connections_refused_total",
                "Client connections closed unserved",
                &["listener", "reason"],
            )?,
            tls_handshakes: make.counters(
                "tls_handshakes_total",
                "TLS handshakes with clients",
                &["version", "resumed", "result"],
            )?,
            certificate_expiry: make.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate ends, Unix time",
                &["name"],
            )?,
            headers_dropped: make.counters(
                "headers_dropped_total",
                "Request header fields dropped before forwarding",
                &["reason"],
            )?,
            log_lines_dropped: make.counters(
                "log_lines_dropped_total",
                "Log lines given up because the writer was behind",
                &["log"],
            )?,
            login_queue: make.gauge("login_queue", "Logins that wait for a worker")?,
            limits_reached: make.counters("limits_reached_total", "Requests that met a limit", &["limit"])?,
            config_reloads: make.counters("config_reloads_total", "Reloads of the configuration", &["result"])?,
            config_last_reload_successful: make.gauge(
                "config_last_reload_successful",
                "1 unless the last reload was refused",
            )?,
            config_last_reload_timestamp: make.gauge(
                "config_last_reload_timestamp_seconds",
                "When a configuration was last taken up by reload, Unix time",
            )?,
            start_time: start_time.with_label_values::<&str>(&[]),
            process: Registry::new(),
            registry,
        };
        metrics.config_last_reload_successful.set(1);
        metrics.process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Handles for one service, or for `none` where no service is known.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        let class = |class: &str| self.requests.with_label_values(&[service, class]);
        let decision = |outcome: &str| self.auth_decisions.with_label_values(&[service, outcome, "none"]);
        ServiceMetrics {
            service: service.into(),
            requests: [class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")],
            duration: self.request_duration.with_label_values(&[service]),
            allowed: decision("allowed"),
            public: decision("public"),
            auth_allowed_duration: self.auth_duration.with_label_values(&[service, "allowed"]),
        }
    }

    /// A refusal: rarer than a pass, so its labels are looked up when it happens.
    pub fn refused(&self, service: &ServiceMetrics, outcome: &str, reason: &str, seconds: f64) {
        self.auth_decisions.with_label_values(&[&service.service, outcome, reason]).inc();
        self.auth_duration.with_label_values(&[&*service.service, outcome]).observe(seconds);
    }

    pub fn upstream(&self, pool: &str, server: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            answered: self.upstream_requests.with_label_values(&[pool, server, "answered"]),
            failed: self.upstream_requests.with_label_values(&[pool, server, "failed"]),
            duration: self.upstream_duration.with_label_values(&[pool, server]),
        }
    }

    pub fn started(&self, at_seconds: u64) {
        self.start_time.set(at_seconds as f64);
    }

    /// Prometheus' text format, with the process metrics.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

impl ServiceMetrics {
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests[class].inc();
    }

    pub fn service(&self) -> &str {
        &self.service
    }
}

/// Makes and registers, so that the list above reads as a table.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let metric = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(opts, labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
