//! Metrics of traffic: connections, requests, upstream servers.

use prometheus::{Error, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::maker::Maker;

/// In seconds, from a cached page to a slow report.
const BUCKETS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

pub struct TrafficMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    upstream_requests: IntCounterVec,
    upstream_duration: HistogramVec,
    upstream_in_flight: IntGaugeVec,
    /// label `listener`
    pub connections: IntGaugeVec,
    /// label `listener`
    pub connections_total: IntCounterVec,
    /// labels `listener`, `reason`
    pub connections_refused: IntCounterVec,
    /// label `listener`
    pub idle_connections_closed: IntCounterVec,
    /// labels `version`, `resumed`, `result`
    pub tls_handshakes: IntCounterVec,
    /// label `reason`
    pub tls_handshake_failures: IntCounterVec,
    /// label `name`
    pub certificate_expiry: GaugeVec,
    pub headers_dropped: HeadersDropped,
    pub unknown_clients: UnknownClients,
    /// Memory that clients make the edge hold, see `buffers`.
    pub buffer_bytes: IntGauge,
    /// WebSockets, event streams and long bodies of signed-in users, while they are open.
    pub streams: IntGauge,
    /// Streams that were closed because they are no longer allowed; label `reason`.
    pub streams_closed: IntCounterVec,
    pub names: ResolverMetrics,
    /// 1 while a service is in maintenance; label `service`.
    pub maintenance: IntGaugeVec,
}

/// The metrics of the names of upstream servers.
#[derive(Clone)]
pub struct ResolverMetrics {
    resolved: IntCounter,
    failed: IntCounter,
    /// label `name`
    addresses: IntGaugeVec,
}

/// Request header fields dropped before forwarding; label `reason`.
pub struct HeadersDropped {
    pub spoofed: IntCounter,
    odd_name: IntCounter,
    reserved: IntCounter,
}

/// Requests of trusted proxies whose client could not be made out; label `reason`.
pub struct UnknownClients {
    pub unreadable: IntCounter,
    pub other_field: IntCounter,
}

/// One upstream server's handles.
#[derive(Clone)]
pub struct UpstreamMetrics {
    pub answered: IntCounter,
    pub failed: IntCounter,
    pub duration: Histogram,
    /// Attempts that are under way; a guard in `upstream::Attempt` counts them.
    pub in_flight: IntGauge,
}

impl TrafficMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            requests: make.counters("requests_total", "Requests answered", &["service", "status"])?,
            request_duration: make.histograms(
                "request_duration_seconds",
                "From the request's head to the end of the response",
                BUCKETS,
                &["service"],
            )?,
            upstream_requests: make.counters(
                "upstream_requests_total",
                "Attempts on an upstream server",
                &["pool", "server", "result"],
            )?,
            upstream_duration: make.histograms(
                "upstream_duration_seconds",
                "From choosing a server to the end of its response",
                BUCKETS,
                &["pool", "server"],
            )?,
            upstream_in_flight: make.int_gauges(
                "upstream_in_flight",
                "Attempts on an upstream server that are under way",
                &["pool", "server"],
            )?,
            connections: make.int_gauges("connections", "Open client connections", &["listener"])?,
            connections_total: make.counters("connections_total", "Client connections accepted", &["listener"])?,
            connections_refused: make.counters(
                "connections_refused_total",
                "Client connections closed unserved",
                &["listener", "reason"],
            )?,
            idle_connections_closed: make.counters(
                "idle_connections_closed_total",
                "Idle client connections closed to make room for new ones",
                &["listener"],
            )?,
            tls_handshakes: make.counters(
                "tls_handshakes_total",
                "TLS handshakes with clients",
                &["version", "resumed", "result"],
            )?,
            tls_handshake_failures: make.counters(
                "tls_handshake_failures_total",
                "TLS handshakes with clients that came to nothing",
                &["reason"],
            )?,
            certificate_expiry: make.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate ends, Unix time",
                &["name"],
            )?,
            headers_dropped: HeadersDropped::register(make)?,
            unknown_clients: UnknownClients::register(make)?,
            buffer_bytes: make
                .gauge("buffer_bytes", "Memory counted for requests in flight and what waits of their bodies")?,
            streams: make.gauge("streams", "Open requests that last and whose sessions are watched")?,
            names: ResolverMetrics::register(make)?,
            maintenance: make.int_gauges("maintenance", "1 while the service is in maintenance", &["service"])?,
            streams_closed: make.counters(
                "streams_closed_total",
                "Streams cut because their session, token or user may not go on",
                &["reason"],
            )?,
        })
    }

    pub fn upstream(&self, pool: &str, server: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            answered: self.upstream_requests.with_label_values(&[pool, server, "answered"]),
            failed: self.upstream_requests.with_label_values(&[pool, server, "failed"]),
            duration: self.upstream_duration.with_label_values(&[pool, server]),
            in_flight: self.upstream_in_flight.with_label_values(&[pool, server]),
        }
    }
}

impl UnknownClients {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let help = "Requests of trusted proxies whose client could not be made out";
        let unknown = make.counters("unknown_clients_total", help, &["reason"])?;
        let reason = |reason: &str| unknown.with_label_values(&[reason]);
        Ok(Self { unreadable: reason("unreadable"), other_field: reason("other_field") })
    }
}

impl HeadersDropped {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let help = "Request header fields dropped before forwarding";
        let dropped = make.counters("headers_dropped_total", help, &["reason"])?;
        let reason = |reason: &str| dropped.with_label_values(&[reason]);
        Ok(Self { spoofed: reason("spoofed"), odd_name: reason("odd_name"), reserved: reason("reserved") })
    }

    /// Most requests bring nothing that is dropped, and then nothing that requests share is written to.
    pub fn count(&self, (odd_names, reserved): (u64, u64)) {
        for (counter, dropped) in [(&self.odd_name, odd_names), (&self.reserved, reserved)] {
            if dropped > 0 {
                counter.inc_by(dropped);
            }
        }
    }
}

impl ResolverMetrics {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let help = "Answers to questions for the addresses of names of upstream servers";
        let resolutions = make.counters("upstream_name_resolutions_total", help, &["result"])?;
        let addresses = make.int_gauges(
            "upstream_name_addresses",
            "Addresses known of a name of upstream servers; 0 is one that is left out",
            &["name"],
        )?;
        let result = |result: &str| resolutions.with_label_values(&[result]);
        Ok(Self { resolved: result("ok"), failed: result("failed"), addresses })
    }

    pub fn note(&self, name: &str, failed: bool, addresses: usize) {
        if failed {
            self.failed.inc();
        } else {
            self.resolved.inc();
        }
        self.addresses.with_label_values(&[name]).set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }

    /// Removes the series of a name that is in no configuration any more.
    pub fn forget(&self, name: &str) {
        // An error means that it was never noted.
        self.addresses.remove_label_values(&[name]).ok();
    }
}
