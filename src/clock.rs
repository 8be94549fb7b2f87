//! Time as a value: every module is given a [`Clock`] or a [`UnixTime`], and none reads the system clock itself. A test can
//! therefore move time forward instead of sleeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(u64);

/// The system's wall clock, which a test may push forward.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds that a test has added; shared by all clones.
    pushed: Arc<AtomicU64>,
}

impl Clock {
    /// The present moment. A system clock before 1970 reads as 1970.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the system clock")]
    pub fn now(&self) -> UnixTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_millis(since_epoch.as_millis() as u64 + self.pushed.load(Ordering::Relaxed))
    }

    /// Moves this clock and all its clones forward, as if `by` had passed.
    pub fn advance(&self, by: Duration) {
        self.pushed.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl UnixTime {
    /// The last millisecond of the year 9999, the last date that RFC 3339 can write. No genuine timestamp is
    /// later.
    pub const LATEST: Self = Self(253_402_300_799_999);

    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds, rounded down, as JWT's NumericDate wants them.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Returns the moment `by` before this one; 1970 at the earliest.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Returns how long after `earlier` this moment is; zero when it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Formats the moment by RFC 3339 in UTC with milliseconds, for logs. A moment after [`LATEST`](Self::LATEST) prints as
    /// `LATEST`: the formatter would panic, and such a moment may come from a store that other programs write to.
    pub fn rfc3339(self) -> String {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.min(Self::LATEST).0)).to_string()
    }
}

/// Saturates: a duration may have more milliseconds than 64 bits hold.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_clock_is_ahead_by_that_much_for_all_its_clones() {
        let clock = Clock::default();
        let clone = clock.clone();
        let before = clock.now();
        clock.advance(Duration::from_secs(3600));
        assert!(clone.now().since(before) >= Duration::from_secs(3600));
    }

    #[test]
    fn a_moment_prints_as_rfc_3339() {
        assert_eq!(UnixTime::from_millis(1_700_000_000_123).rfc3339(), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn no_moment_is_too_far_away_to_print_or_to_reckon_with() {
        for beyond in [UnixTime::LATEST.0, UnixTime::LATEST.0 + 1, u64::MAX / 1000, u64::MAX] {
            assert_eq!(UnixTime::from_millis(beyond).rfc3339(), "9999-12-31T23:59:59.999Z", "{beyond}");
        }
        let now = UnixTime::from_seconds(1_700_000_000);
        assert_eq!(now.plus(Duration::MAX).millis(), u64::MAX);
        assert_eq!(now.minus(Duration::MAX), UnixTime::default());
    }
}
