//! `pools.NAME.eject` and `pools.NAME.retry`, and limits of single servers.

use super::{defaults, time};
use crate::config::file::failures::{Eject as WrittenKeys, Retry as WrittenRetry, WrittenEject};
use crate::config::{Eject, Faults, MAX_RETRIES, Retry};

/// Statuses that may count as a failure of the server.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;
/// How often a server may fail before it is ejected.
const FAILURES: std::ops::RangeInclusive<u32> = 1..=1000;
const PERCENT: std::ops::RangeInclusive<u8> = 0..=100;

pub(super) fn eject(faults: &mut Faults, pool: &str, written: Option<&WrittenEject>) -> Option<Eject> {
    let default = WrittenKeys::default();
    let written = match written {
        Some(WrittenEject::Switch(false)) => return None,
        Some(WrittenEject::Switch(true)) | None => &default,
        Some(WrittenEject::Keys(keys)) => keys,
    };
    let place = format!("{pool}.eject");
    let failures = written.failures.unwrap_or(defaults::EJECT_FAILURES);
    if !FAILURES.contains(&failures) {
        let what = format!("{failures} failures");
        faults.add(format!("{place}.failures"), what, "write 1 to 1000, or `eject: false`");
    }
    let first = time(written.r#for, defaults::EJECT_FOR);
    if written.at_most.is_some_and(|most| most.0 < first) {
        let least = humantime::format_duration(first);
        faults.add(format!("{place}.at_most"), "shorter than `for`", format!("write {least} or more"));
    }
    let statuses = written.statuses.clone().unwrap_or_else(|| defaults::EJECT_STATUSES.to_vec());
    for (at, status) in statuses.iter().enumerate().filter(|(_, status)| !STATUSES.contains(status)) {
        let what = format!("{status} is no status of a failure");
        faults.add(format!("{place}.statuses[{at}]"), what, "write 400 to 599");
    }
    let percent = written.max_ejection_percent.unwrap_or(defaults::MAX_EJECTION_PERCENT);
    Some(Eject {
        failures,
        r#for: first,
        at_most: time(written.at_most, defaults::EJECT_AT_MOST).max(first),
        max_ejection_percent: in_percent(faults, &format!("{place}.max_ejection_percent"), percent),
        statuses,
    })
}

/// `attempts` is what `retries` says, where that is written.
pub(super) fn retry(faults: &mut Faults, pool: &str, written: &WrittenRetry, retries: Option<usize>) -> Retry {
    let place = format!("{pool}.retry");
    if retries.is_some() && written.attempts.is_some() {
        faults.add(format!("{pool}.retries"), "`retry.attempts` says this already", "remove one of them");
    }
    let key = if retries.is_some() { format!("{pool}.retries") } else { format!("{place}.attempts") };
    let attempts = retries.or(written.attempts).unwrap_or(defaults::RETRY_ATTEMPTS);
    if attempts > MAX_RETRIES {
        faults.add(key, "more attempts only add load to a failing pool", "write 0 to 10");
    }
    let on = written.on.as_deref().unwrap_or(defaults::RETRY_ON);
    let percent = written.budget_percent.unwrap_or(defaults::RETRY_BUDGET_PERCENT);
    let percent = in_percent(faults, &format!("{place}.budget_percent"), percent);
    Retry::new(attempts.min(MAX_RETRIES), on, percent)
}

/// A limit of requests at a time, which has to let one pass.
pub(super) fn at_a_time(faults: &mut Faults, key: String, written: Option<usize>) -> Option<usize> {
    if written == Some(0) {
        faults.add(key, "the server would get no request", "write 1 or more, or remove it");
        return None;
    }
    written
}

fn in_percent(faults: &mut Faults, key: &str, percent: u8) -> u8 {
    if !PERCENT.contains(&percent) {
        faults.add(key, format!("{percent} percent"), "write 0 to 100");
    }
    percent.min(*PERCENT.end())
}
