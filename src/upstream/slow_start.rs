//! Slow start (`pools.NAME.slow_start`): an address that has come back, or that DNS has added, gets its share of the
//! requests little by little.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::balancer::WHOLE;
use super::ejection::millis;

/// When an address has come back.
#[derive(Debug, Default)]
pub struct SlowStart {
    /// In milliseconds, plus one; 0 where it has not, or is past its slow start.
    begun: AtomicU64,
}

impl SlowStart {
    pub fn begin(&self, now: Instant) {
        self.begun.store(millis(now) + 1, Ordering::Relaxed);
    }

    /// Returns the share of its weight that an address has: it grows evenly, and is whole after `duration`.
    pub fn share(&self, now: Instant, duration: Duration) -> u8 {
        let begun = self.begun.load(Ordering::Relaxed);
        if begun == 0 {
            return WHOLE;
        }
        let (past, whole) = (millis(now).saturating_sub(begun - 1), duration.as_millis() as u64);
        if past >= whole {
            // It need not be worked out again.
            self.begun.store(0, Ordering::Relaxed);
            return WHOLE;
        }
        // Never 0: the address may be chosen.
        ((past * u64::from(WHOLE) / whole) as u8).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_evenly_to_the_whole() {
        let (slow_start, begun, duration) = (SlowStart::default(), Instant::now(), Duration::from_secs(100));
        let share = |seconds| slow_start.share(begun + Duration::from_secs(seconds), duration);
        assert_eq!(share(0), WHOLE, "one that was never away has no slow start");
        slow_start.begin(begun);
        assert_eq!([0, 1, 10, 50, 99].map(share), [1, 2, 25, 127, 252]);
        assert_eq!([100, 0].map(share), [WHOLE, WHOLE], "and then it is over");
    }

    #[test]
    fn without_a_duration_there_is_none() {
        let slow_start = SlowStart::default();
        slow_start.begin(Instant::now());
        assert_eq!(slow_start.share(Instant::now(), Duration::ZERO), WHOLE);
    }
}
