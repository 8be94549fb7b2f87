//! How near the end of a certificate is: reported by `check`, at start, and by the task that watches certificate files.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::UnixTime;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpiryLevel {
    Far,
    Month,
    Week,
    Ended,
}

impl ExpiryLevel {
    pub fn of(ends: UnixTime, now: UnixTime) -> Self {
        match ends.since(now) {
            left if left.is_zero() => Self::Ended,
            left if left <= 7 * DAY => Self::Week,
            left if left <= 30 * DAY => Self::Month,
            _ => Self::Far,
        }
    }
}

/// Whole days until then.
pub fn days_left(ends: UnixTime, now: UnixTime) -> u64 {
    ends.since(now).as_secs() / DAY.as_secs()
}

/// Returns the warning for a certificate that ends soon.
pub fn ends_soon(ends: UnixTime, now: UnixTime) -> Option<String> {
    let near = ExpiryLevel::of(ends, now) > ExpiryLevel::Far;
    near.then(|| format!("it ends in {} days, at {}", days_left(ends, now), ends.rfc3339()))
}

/// `None` when it is no X.509 certificate.
pub fn end_of(der: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(UnixTime::from_seconds(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_near_in_steps() {
        let now = UnixTime::from_seconds(1_000_000_000);
        for (left, level) in
            [(31, ExpiryLevel::Far), (30, ExpiryLevel::Month), (7, ExpiryLevel::Week), (0, ExpiryLevel::Ended)]
        {
            let ends = now.plus(left * DAY);
            assert_eq!(ExpiryLevel::of(ends, now), level, "{left}");
            assert_eq!(ends_soon(ends, now).is_some(), level > ExpiryLevel::Far, "{left}");
        }
        assert!(ends_soon(now.plus(12 * DAY), now).unwrap().starts_with("it ends in 12 days, at "));
    }
}
