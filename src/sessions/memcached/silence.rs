//! How long a server has not answered, on any of its connections.
//!
//! Commands that users wait for are spread over several connections, and each failure takes as long as users would wait. A
//! single connection, or the times at which exchanges ended, could never tell an outage from many stalls. The silence is
//! therefore measured per server, and it continues while each exchange begins soon after the failure of the one before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A server that has been silent for no longer than this may only have stalled. If no request was sent for this long after a
/// failure, the next failure counts as another silence.
pub const STALL: Duration = Duration::from_secs(1);

pub struct Silence {
    /// The zero of the other moments.
    epoch: Instant,
    /// Microseconds after `epoch` at which the present silence was noticed; 0 when the last exchange was answered.
    since: AtomicU64,
    /// Microseconds after `epoch` at which the last failure happened.
    failed_at: AtomicU64,
}

impl Silence {
    pub fn new() -> Self {
        // The epoch is in the past, so that no later moment reads as 0.
        let now = Instant::now();
        let epoch = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self { epoch, since: AtomicU64::new(0), failed_at: AtomicU64::new(0) }
    }

    pub fn answered(&self) {
        // The value is read first: while all is well, nothing is written to a cache line that is read with each command.
        if self.since.load(Ordering::Relaxed) != 0 {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// Records that an exchange that began at `begun` has failed.
    pub fn failed(&self, begun: Instant, now: Instant) {
        let (begun, now) = (self.micros(begun), self.micros(now));
        let before = self.failed_at.swap(now, Ordering::Relaxed);
        let is_new = self.since.load(Ordering::Relaxed) == 0 || is_over(before, begun);
        if is_new {
            self.since.store(now, Ordering::Relaxed);
        }
    }

    /// Returns how long the silence has lasted; zero when the last exchange was answered, or when no request was sent for a
    /// while.
    pub fn duration(&self, now: Instant) -> Duration {
        let (now, since) = (self.micros(now), self.since.load(Ordering::Relaxed));
        if since == 0 || is_over(self.failed_at.load(Ordering::Relaxed), now) {
            return Duration::ZERO;
        }
        Duration::from_micros(now.saturating_sub(since))
    }

    fn micros(&self, moment: Instant) -> u64 {
        moment.duration_since(self.epoch).as_micros() as u64
    }
}

/// Whether an exchange that began at `begun` came too late to belong to the silence that was last noticed at `failed_at`.
fn is_over(failed_at: u64, begun: u64) -> bool {
    begun.saturating_sub(failed_at) > STALL.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_lasts_while_requests_follow_soon_and_ends_with_an_answer() {
        let short = Duration::from_millis(50);
        for long in [short, STALL, 10 * STALL] {
            let (silence, begun) = (Silence::new(), Instant::now());
            assert_eq!(silence.duration(begun), Duration::ZERO);
            silence.failed(begun, begun + long);
            silence.failed(begun + long + STALL, begun + 2 * long + STALL);
            let met = begun + long;
            let now = begun + 2 * long + 2 * STALL;
            assert_eq!(silence.duration(now), now - met, "exchanges of {long:?}");
            assert_eq!(silence.duration(now + short), Duration::ZERO, "no request was sent for a while");
            silence.failed(now + short, now + short + long);
            assert_eq!(silence.duration(now + short + long), Duration::ZERO, "this may be another stall");
            silence.answered();
            silence.failed(now + short + long, now + 2 * long);
            assert_eq!(silence.duration(now + 2 * long), Duration::ZERO, "there was an answer in between");
        }
    }

    #[test]
    fn of_exchanges_at_once_the_first_failure_begins_the_silence() {
        let (silence, begun) = (Silence::new(), Instant::now());
        for millis in [0, 300, 600] {
            let begun = begun + Duration::from_millis(millis);
            silence.failed(begun, begun + STALL);
        }
        let now = begun + 2 * STALL;
        assert_eq!(silence.duration(now), STALL);
    }
}
