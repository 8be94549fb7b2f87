//! Metrics of traffic: connections, requests, upstream servers.

use prometheus::{Error, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::help;
use super::maker::{BUCKETS, Maker, preset, preset_values};
use super::upstream::{CheckMetrics, RetryMetrics, UpstreamFamilies, UpstreamMetrics};

/// The listeners that take client connections over TCP.
const LISTENERS: [&str; 3] = ["https", "http", "admin"];
/// The control socket, as a listener.
const CONTROL: &str = "control";
/// Why connections are refused, by listener.
const REFUSALS: [(&str, &[&str]); 4] = [
    ("https", &["limit", "address", "accept", "untrusted_proxy", "proxy_header"]),
    ("http", &["limit", "address", "accept", "untrusted_proxy", "proxy_header"]),
    ("admin", &["limit", "address", "accept"]),
    (CONTROL, &["limit", "accept", "user"]),
];
/// Version, `resumed` and result of handshakes.
const HANDSHAKES: [&[&str]; 6] = [
    &["1.3", "false", "ok"],
    &["1.3", "true", "ok"],
    &["1.2", "false", "ok"],
    &["1.2", "true", "ok"],
    &["none", "false", "failed"],
    &["none", "false", "timeout"],
];
/// Why handshakes fail: `tls::failure`, and what `listener` knows of it.
const HANDSHAKE_FAILURES: [&str; 10] = [
    "timeout",
    "gone",
    "malformed",
    "server_name",
    "version",
    "parameters",
    "alpn",
    "client_certificate",
    "refused",
    "other",
];
/// Why streams are cut: the kinds of `auth::streams::EndReason`.
const STREAM_ENDS: [&str; 3] = ["session_ended", "expired", "revoked"];

pub struct TrafficMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    upstreams: UpstreamFamilies,
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

impl TrafficMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let metrics = Self::families(make)?;
        preset_values(&metrics.connections, &LISTENERS);
        preset_values(&metrics.connections_total, &LISTENERS);
        preset_values(&metrics.connections_total, &[CONTROL]);
        preset_values(&metrics.idle_connections_closed, &LISTENERS);
        for (listener, reasons) in REFUSALS {
            reasons.iter().for_each(|reason| preset(&metrics.connections_refused, &[&[listener, reason]]));
        }
        preset(&metrics.tls_handshakes, &HANDSHAKES);
        preset_values(&metrics.tls_handshake_failures, &HANDSHAKE_FAILURES);
        preset_values(&metrics.streams_closed, &STREAM_ENDS);
        Ok(metrics)
    }

    fn families(make: &Maker<'_>) -> Result<Self, Error> {
        Ok(Self {
            requests: make.counters("requests_total", help::REQUESTS_TOTAL, &["service", "status"])?,
            request_duration: make.histograms(
                "request_duration_seconds",
                help::REQUEST_DURATION_SECONDS,
                BUCKETS,
                &["service"],
            )?,
            upstreams: UpstreamFamilies::register(make)?,
            connections: make.int_gauges("connections", help::CONNECTIONS, &["listener"])?,
            connections_total: make.counters("connections_total", help::CONNECTIONS_TOTAL, &["listener"])?,
            connections_refused: make.counters(
                "connections_refused_total",
                help::CONNECTIONS_REFUSED_TOTAL,
                &["listener", "reason"],
            )?,
            idle_connections_closed: make.counters(
                "idle_connections_closed_total",
                help::IDLE_CONNECTIONS_CLOSED_TOTAL,
                &["listener"],
            )?,
            tls_handshakes: make.counters(
                "tls_handshakes_total",
                help::TLS_HANDSHAKES_TOTAL,
                &["version", "resumed", "result"],
            )?,
            tls_handshake_failures: make.counters(
                "tls_handshake_failures_total",
                help::TLS_HANDSHAKE_FAILURES_TOTAL,
                &["reason"],
            )?,
            certificate_expiry: make.gauges(
                "certificate_expiry_timestamp_seconds",
                help::CERTIFICATE_EXPIRY_TIMESTAMP_SECONDS,
                &["name"],
            )?,
            headers_dropped: HeadersDropped::register(make)?,
            unknown_clients: UnknownClients::register(make)?,
            buffer_bytes: make.gauge("buffer_bytes", help::BUFFER_BYTES)?,
            streams: make.gauge("streams", help::STREAMS)?,
            names: ResolverMetrics::register(make)?,
            maintenance: make.int_gauges("maintenance", help::MAINTENANCE, &["service"])?,
            streams_closed: make.counters("streams_closed_total", help::STREAMS_CLOSED_TOTAL, &["reason"])?,
        })
    }

    /// Returns the metrics of the active checks of a server.
    pub fn checks(&self, pool: &str, server: &str) -> CheckMetrics {
        self.upstreams.checks(pool, server)
    }

    /// Removes the series of the checks of a server that is not checked any more.
    pub fn forget_checks(&self, pool: &str, server: &str) {
        self.upstreams.forget_checks(pool, server);
    }

    pub fn upstream(&self, pool: &str, server: &str) -> UpstreamMetrics {
        self.upstreams.server(pool, server)
    }

    pub fn retries(&self, pool: &str) -> RetryMetrics {
        self.upstreams.retries(pool)
    }

    /// Removes the series of an upstream server that is in no configuration any more.
    pub fn forget_server(&self, pool: &str, server: &str) {
        self.upstreams.forget_server(pool, server);
    }

    /// Removes the series of a pool that is in no configuration any more.
    pub fn forget_pool(&self, pool: &str) {
        self.upstreams.forget_pool(pool);
    }
}

impl UnknownClients {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let unknown = make.counters("unknown_clients_total", help::UNKNOWN_CLIENTS_TOTAL, &["reason"])?;
        let reason = |reason: &str| unknown.with_label_values(&[reason]);
        Ok(Self { unreadable: reason("unreadable"), other_field: reason("other_field") })
    }
}

impl HeadersDropped {
    fn register(make: &Maker<'_>) -> Result<Self, Error> {
        let dropped = make.counters("headers_dropped_total", help::HEADERS_DROPPED_TOTAL, &["reason"])?;
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
        let resolutions =
            make.counters("upstream_name_resolutions_total", help::UPSTREAM_NAME_RESOLUTIONS_TOTAL, &["result"])?;
        let addresses = make.int_gauges("upstream_name_addresses", help::UPSTREAM_NAME_ADDRESSES, &["name"])?;
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
