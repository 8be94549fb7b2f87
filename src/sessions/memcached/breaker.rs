//! The circuit breaker of a server. The callers of a pipeline check it before they queue, so a dead server costs them one
//! atomic load; the pipeline's worker reports the outcome of each exchange to it.
//!
//! The first failure does not open the breaker: mostly it is one broken connection, and a new one works. From the second
//! failure in a row on, the breaker is open and refuses every request for 10 ms, 20 ms, … 300 ms; after each pause one
//! request may try (half-open). The pauses do not grow during the first second: a server that only stalls is tried again
//! soon, so that the breaker does not turn a stall into a longer outage.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use super::silence::{STALL, Silence};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Short enough that requests succeed again within a second of the server's return, even with a failed trial in between.
const MAX_PAUSE: Duration = Duration::from_millis(300);

/// A server that may only have stalled is tried more often.
const MAX_PAUSE_OF_STALL: Duration = Duration::from_millis(20);

/// A failed exchange that began later than this after the failure before it counts as another outage: no request was sent in
/// between.
const LONGEST_GAP: Duration = Duration::from_secs(30);

pub struct Breaker {
    /// The zero of `open_until` and of the other moments.
    epoch: Instant,
    /// How long a trial may take before another request may try.
    trial: Duration,
    /// Microseconds after `epoch` until which the breaker is open; 0 while it is closed.
    open_until: AtomicU64,
    /// Failures since the last success. Only the pipeline's worker writes it.
    failures: AtomicU32,
    /// Microseconds after `epoch` at which the first of these failures happened; 0 while there is none.
    failing_since: AtomicU64,
    /// Microseconds after `epoch` at which the last of them happened.
    failed_at: AtomicU64,
    /// The silence of the server as a whole.
    silence: Arc<Silence>,
    /// How often the breaker has opened.
    opened: IntCounter,
}

impl Breaker {
    pub fn new(trial: Duration, silence: Arc<Silence>, opened: IntCounter) -> Self {
        // The epoch is in the past, so that no later moment reads as 0.
        let now = Instant::now();
        let epoch = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let [open_until, failing_since, failed_at] = std::array::from_fn(|_| AtomicU64::new(0));
        let failures = AtomicU32::new(0);
        Self { epoch, trial, open_until, failures, failing_since, failed_at, silence, opened }
    }

    /// Whether a request may be queued. After a pause the first one may, and the others once that trial has succeeded. The
    /// duration of the trial is the next pause, so a trial that got lost does not block requests for long.
    ///
    /// The clock is not read while the breaker is closed.
    pub fn allows(&self, now: impl FnOnce() -> Instant) -> bool {
        let open_until = self.open_until.load(Ordering::Relaxed);
        if open_until == 0 {
            return true;
        }
        let now = now();
        let trial_ends = self.micros(now + self.trial);
        self.micros(now) >= open_until
            && self.open_until.compare_exchange(open_until, trial_ends, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub fn succeeded(&self) {
        self.silence.answered();
        // The values are read first: while all is well, nothing is written to the cache line that every caller reads.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.failing_since.store(0, Ordering::Relaxed);
        }
        if self.open_until.load(Ordering::Relaxed) != 0 {
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    /// Records that an exchange that began at `begun` has failed.
    pub fn failed(&self, begun: Instant, now: Instant) {
        self.silence.failed(begun, now);
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        let micros = self.micros(now);
        let before = self.failed_at.swap(micros, Ordering::Relaxed);
        if failures == 1 || self.micros(begun).saturating_sub(before) > LONGEST_GAP.as_micros() as u64 {
            self.failing_since.store(micros, Ordering::Relaxed);
        }
        if let Some(pause) = pause_after(failures) {
            self.opened.inc();
            let is_stall = self.silence.duration(now) < STALL;
            let pause = if is_stall { pause.min(MAX_PAUSE_OF_STALL) } else { pause };
            self.open_until.store(self.micros(now + jittered(pause)), Ordering::Relaxed);
        }
    }

    /// Whether the last exchange failed.
    pub fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) != 0
    }

    /// Whether the breaker is open: the last exchange failed, and so did the one before it.
    pub fn is_open(&self) -> bool {
        pause_after(self.failures.load(Ordering::Relaxed)).is_some()
    }

    /// Returns how long an exchange may take.
    pub fn trial(&self) -> Duration {
        self.trial
    }

    /// Returns how long every exchange has failed; zero when the last one succeeded.
    pub fn failing_for(&self, now: Instant) -> Duration {
        match self.failing_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.micros(now).saturating_sub(since)),
        }
    }

    fn micros(&self, moment: Instant) -> u64 {
        moment.duration_since(self.epoch).as_micros() as u64
    }
}

fn pause_after(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(2)?;
    Some(FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(MAX_PAUSE))
}

/// Returns between half of `pause` and all of it, so that edges that lost a server together do not return together.
fn jittered(pause: Duration) -> Duration {
    // Each RandomState has other keys, which is random enough to spread the pauses, and needs no generator.
    let random = RandomState::new().hash_one(()) as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Duration = Duration::from_millis(50);

    fn breaker() -> Breaker {
        Breaker::new(TRIAL, Arc::new(Silence::new()), IntCounter::new("opened", "opened").unwrap())
    }

    #[test]
    fn the_second_failure_in_a_row_opens_the_breaker() {
        let (breaker, now) = (breaker(), Instant::now());
        breaker.failed(now, now);
        assert!(breaker.allows(|| now) && !breaker.is_open());
        breaker.failed(now, now);
        assert!(!breaker.allows(|| now) && breaker.is_open());
        breaker.succeeded();
        assert!(breaker.allows(|| now) && !breaker.is_open());
    }

    #[test]
    fn after_a_pause_one_request_may_try_and_after_a_lost_trial_another() {
        let (breaker, now) = (breaker(), Instant::now());
        breaker.failed(now, now);
        breaker.failed(now, now);
        let later = now + FIRST_PAUSE;
        assert!(breaker.allows(|| later));
        assert!(!breaker.allows(|| later));
        assert!(!breaker.allows(|| later + TRIAL - Duration::from_millis(1)));
        assert!(breaker.allows(|| later + TRIAL));
    }

    #[test]
    fn the_breaker_knows_how_long_a_server_has_failed() {
        let (breaker, now) = (breaker(), Instant::now());
        assert_eq!(breaker.failing_for(now), Duration::ZERO);
        breaker.failed(now, now);
        breaker.failed(now + TRIAL, now + TRIAL);
        assert_eq!(breaker.failing_for(now + 3 * TRIAL), 3 * TRIAL);
        assert_eq!(breaker.opened.get(), 1, "the first failure does not open it");
        let much_later = now + TRIAL + LONGEST_GAP + TRIAL;
        breaker.failed(much_later, much_later);
        assert_eq!(breaker.failing_for(much_later + TRIAL), TRIAL, "nothing is known about the time between");
        breaker.succeeded();
        assert_eq!(breaker.failing_for(much_later + TRIAL), Duration::ZERO);
    }

    #[test]
    fn while_a_server_may_only_have_stalled_the_pauses_stay_short() {
        let (breaker, begun) = (breaker(), Instant::now());
        let mut now = begun;
        while now < begun + STALL {
            breaker.failed(now, now);
            assert!(breaker.allows(|| now + MAX_PAUSE_OF_STALL), "after {:?}", now - begun);
            assert_eq!(breaker.silence.duration(now), now - begun);
            now += TRIAL;
        }
        breaker.failed(now, now);
        assert!(!breaker.allows(|| now + MAX_PAUSE / 2 - TRIAL), "this is an outage");
        let later = now + STALL + TRIAL;
        assert_eq!(breaker.silence.duration(later), Duration::ZERO, "no request was sent for a while");
        breaker.failed(later, later);
        assert_eq!(breaker.silence.duration(later), Duration::ZERO, "this may be another stall");
        assert_eq!(breaker.failing_for(later), later - begun, "and yet the server has not answered since the first");
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|n| pause_after(n).unwrap().as_millis());
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
        for _ in 0..1000 {
            let pause = jittered(MAX_PAUSE);
            assert!(pause >= MAX_PAUSE / 2 && pause <= MAX_PAUSE);
        }
    }
}
