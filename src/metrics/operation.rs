//! Metrics of the process itself: reloads, limits, version.

use std::collections::BTreeMap;

use prometheus::{Error, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::help;
use super::maker::{Maker, preset_values};

/// The values of the label `reason` of `requests_rejected_total`: the labels of those variants of
/// `validate::Malformed` that are no limits. Each has a series from the start.
pub const REJECTIONS: [&str; 9] =
    ["host", "path", "target", "framing", "method", "header_name", "expectation", "upgrade", "syntax"];

/// What comes of reloads, of the configuration and of certificates.
const RELOADS: [&str; 2] = ["ok", "refused"];

/// The events that clients cause which are not signed in.
const ANONYMOUS_EVENTS: [&str; 4] = ["ticket_refused", "loop_broken", "login_refused", "api_refused"];

/// What comes of calls of the admin API: the results of `admin::api::response`.
const ADMIN_RESULTS: [&str; 25] = [
    "ok",
    "incomplete",
    "no_token",
    "wrong_token",
    "too_many_guesses",
    "too_many_calls",
    "origin",
    "api_off",
    "wrong_role",
    "wrong_user",
    "wrong_configuration",
    "bad_request",
    "body_too_large",
    "body_too_slow",
    "method",
    "no_such_path",
    "unknown_user",
    "unknown_service",
    "unknown_pool",
    "unknown_server",
    "no_sessions_kept",
    "directory_away",
    "configuration_refused",
    "reload_failed",
    "stopping",
];

/// The limits that are counted.
const LIMITS: [&str; 17] = [
    "header_too_large",
    "header_timeout",
    "body_too_large",
    "body_rate",
    "http2_flood",
    "form",
    "failures_per_account",
    "failures_per_device",
    "failures_per_address",
    "login_queue",
    "redirects",
    "streams",
    "streams_per_user",
    "requests_per_second",
    "buffers",
    "compressors",
    "file_reads",
];

/// The values of the label `result` of `upgrades_total`, each of which has a series from the start.
pub const UPGRADE_RESULTS: [&str; 4] = ["ok", "failed", "timeout", "refused"];

pub struct OperationMetrics {
    /// Upgrades, of the processes before this one as well; label `result`.
    pub upgrades: IntCounterVec,
    /// label `result`
    pub config_reloads: IntCounterVec,
    /// Certificate files that changed; label `result`.
    pub certificate_reloads: IntCounterVec,
    pub config_last_reload_successful: IntGauge,
    pub config_last_reload_timestamp: IntGauge,
    /// Events of clients that are not signed in that came faster than they are written; label `event`.
    pub audit_events_suppressed: IntCounterVec,
    /// Requests that the end of a drain has cut.
    pub drain_cut: IntCounter,
    /// Calls of the admin API by what came of them; label `result`.
    pub admin_api_requests: IntCounterVec,
    /// Requests that reached a limit; label `limit`.
    pub(super) limits_reached: IntCounterVec,
    /// Requests that were refused because they are malformed; label `reason`.
    pub(super) requests_rejected: IntCounterVec,
    start_time: IntGauge,
    /// One series, of the configuration in effect; label `hash`.
    config_info: IntGaugeVec,
}

impl OperationMetrics {
    pub(super) fn register(make: &Maker<'_>, version: &str) -> Result<Self, Error> {
        make.gauges("build_info", help::BUILD_INFO, &["version"])?.with_label_values(&[version]).set(1.0);
        let metrics = Self {
            upgrades: make.counters("upgrades_total", help::UPGRADES_TOTAL, &["result"])?,
            config_reloads: make.counters("config_reloads_total", help::CONFIG_RELOADS_TOTAL, &["result"])?,
            certificate_reloads: make.counters(
                "certificate_reloads_total",
                help::CERTIFICATE_RELOADS_TOTAL,
                &["result"],
            )?,
            config_last_reload_successful: make
                .gauge("config_last_reload_successful", help::CONFIG_LAST_RELOAD_SUCCESSFUL)?,
            config_last_reload_timestamp: make
                .gauge("config_last_reload_timestamp_seconds", help::CONFIG_LAST_RELOAD_TIMESTAMP_SECONDS)?,
            audit_events_suppressed: make.counters(
                "audit_events_suppressed_total",
                help::AUDIT_EVENTS_SUPPRESSED_TOTAL,
                &["event"],
            )?,
            drain_cut: make.counter("drain_cut_total", help::DRAIN_CUT_TOTAL)?,
            admin_api_requests: make.counters(
                "admin_api_requests_total",
                help::ADMIN_API_REQUESTS_TOTAL,
                &["result"],
            )?,
            limits_reached: make.counters("limits_reached_total", help::LIMITS_REACHED_TOTAL, &["limit"])?,
            requests_rejected: make.counters("requests_rejected_total", help::REQUESTS_REJECTED_TOTAL, &["reason"])?,
            start_time: make.gauge("start_time_seconds", help::START_TIME_SECONDS)?,
            config_info: make.int_gauges("config_info", help::CONFIG_INFO, &["hash"])?,
        };
        metrics.config_last_reload_successful.set(1);
        preset_values(&metrics.upgrades, &UPGRADE_RESULTS);
        preset_values(&metrics.config_reloads, &RELOADS);
        preset_values(&metrics.certificate_reloads, &RELOADS);
        preset_values(&metrics.audit_events_suppressed, &ANONYMOUS_EVENTS);
        preset_values(&metrics.admin_api_requests, &ADMIN_RESULTS);
        preset_values(&metrics.limits_reached, &LIMITS);
        preset_values(&metrics.requests_rejected, &REJECTIONS);
        Ok(metrics)
    }

    /// A configuration has come into effect, in the place of another one.
    pub fn config_loaded(&self, hash: &str, former: Option<&str>) {
        self.config_info.with_label_values(&[hash]).set(1);
        if let Some(former) = former.filter(|former| *former != hash) {
            // An error means that it was never set.
            self.config_info.remove_label_values(&[former]).ok();
        }
    }

    /// The process takes over from another one, which has counted so many upgrades of each result.
    pub fn set_upgrades(&self, upgrades: &BTreeMap<String, u64>) {
        for result in UPGRADE_RESULTS {
            self.upgrades.with_label_values(&[result]).inc_by(upgrades.get(result).copied().unwrap_or_default());
        }
    }

    /// The process has begun, with its first configuration.
    pub fn started(&self, at_seconds: u64) {
        let at = i64::try_from(at_seconds).unwrap_or(i64::MAX);
        self.start_time.set(at);
        self.config_last_reload_timestamp.set(at);
    }
}
