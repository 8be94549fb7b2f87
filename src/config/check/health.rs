//! `pools.NAME.health`: what is checked, how often, and how many checks decide.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};

use super::{defaults, time};
use crate::config::file::{self, HttpCheck};
use crate::config::{Faults, Health, HealthCheck};

/// How often a server may be checked.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const COUNTS: RangeInclusive<u32> = 1..=100;
/// Final responses have these (RFC 9110 §15).
const STATUSES: RangeInclusive<u16> = 200..=599;

pub(super) fn health(faults: &mut Faults, pool: &str, written: Option<&file::Health>) -> Option<Health> {
    let written = written?;
    let place = format!("{pool}.health");
    let check = match (&written.http, written.tcp.unwrap_or_default()) {
        (Some(http), false) => http_check(faults, &format!("{place}.http"), http),
        (None, true) => HealthCheck::Tcp,
        (Some(_), true) => {
            faults.add(format!("{place}.tcp"), "`http` makes a connection anyway", "write one of the two");
            HealthCheck::Tcp
        }
        (None, false) => {
            faults.add(&place, "says nothing of what is checked", "write `http: {path: /healthz}` or `tcp: true`");
            HealthCheck::Tcp
        }
    };
    let interval = time(written.interval, defaults::HEALTH_INTERVAL);
    if interval < MIN_INTERVAL {
        faults.add(format!("{place}.interval"), "too short: checks are load too", "write 100ms or more");
    }
    if written.timeout.is_some_and(|timeout| timeout.0 > interval) {
        let most = humantime::format_duration(interval);
        faults.add(format!("{place}.timeout"), "longer than `interval`", format!("write {most} or less"));
    }
    Some(Health {
        check,
        interval: interval.max(MIN_INTERVAL),
        timeout: time(written.timeout, defaults::HEALTH_TIMEOUT).min(interval),
        fall: checks(faults, format!("{place}.fall"), written.fall.unwrap_or(defaults::HEALTH_FALL)),
        rise: checks(faults, format!("{place}.rise"), written.rise.unwrap_or(defaults::HEALTH_RISE)),
    })
}

fn checks(faults: &mut Faults, key: String, count: u32) -> u32 {
    if !COUNTS.contains(&count) {
        faults.add(key, format!("{count} checks"), "write 1 to 100");
    }
    count.clamp(*COUNTS.start(), *COUNTS.end())
}

fn http_check(faults: &mut Faults, place: &str, written: &HttpCheck) -> HealthCheck {
    let path = written.path.clone().unwrap_or_else(|| defaults::HEALTH_PATH.into());
    let is_target = path.starts_with('/') && !path.contains('#') && PathAndQuery::try_from(path.as_str()).is_ok();
    if !is_target {
        let what = format!("`{}` is no path of a request", path.escape_debug());
        faults.add(format!("{place}.path"), what, "write it as it is requested, such as /healthz");
    }
    let status = written.status.clone().map_or(defaults::HEALTH_STATUS, |status| status.0);
    if !STATUSES.contains(status.start()) || !STATUSES.contains(status.end()) || status.is_empty() {
        let what = format!("{}-{} is no range of statuses", status.start(), status.end());
        faults.add(format!("{place}.status"), what, "write one from 200 to 599, or a range such as 200-399");
    }
    let is_host = |host: &String| {
        host.parse::<Authority>().is_ok_and(|parsed| parsed.as_str() == host && !host.contains('@'))
            && HeaderValue::from_str(host).is_ok()
    };
    if let Some(host) = written.host.as_ref().filter(|host| !is_host(host)) {
        let what = format!("`{}` is no host", host.escape_debug());
        faults.add(format!("{place}.host"), what, "write a host name, with a port where it needs one");
    }
    HealthCheck::Http { path, status, host: written.host.clone() }
}
