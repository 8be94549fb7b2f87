//! When to leave a server alone. The askers of a link look here before they queue, so a dead server costs
//! them one atomic load; the link's owner reports here how each exchange went.
//!
//! The first failure costs no rest: it is mostly one broken connection, and a new one will do. From the second
//! in a row on, everybody is turned away for 10 ms, 20 ms, … 300 ms; after each rest one asker may try. The pauses do
//! not grow during the first second: a server that only stalls is asked again soon, so that the breaker does not make a
//! longer outage of a stall.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;

use super::silence::{STALL, Silence};

const FIRST_REST: Duration = Duration::from_millis(10);
/// Short enough that service is back within a second of the server, with a failed trial between.
const LONGEST_REST: Duration = Duration::from_millis(300);

/// A server that may only have stalled is asked more often.
const LONGEST_REST_OF_STALL: Duration = Duration::from_millis(20);

/// What fails and was begun later than this after the failure before it is another outage, as far as is known: nothing was
/// asked in between.
const LONGEST_GAP: Duration = Duration::from_secs(30);

pub struct Breaker {
    /// What `closed_until` counts from.
    epoch: Instant,
    /// How long one asker may try before another may.
    trial: Duration,
    /// Microseconds after `epoch` before which nobody may ask; 0 while everybody may.
    closed_until: AtomicU64,
    /// Failures since the last success. Only the link's owner writes it.
    failures: AtomicU32,
    /// Microseconds after `epoch` at which the first of them was; 0 while there is none.
    failing_since: AtomicU64,
    /// The same of the last of them.
    failed_at: AtomicU64,
    /// Of the server as a whole.
    silence: Arc<Silence>,
    /// How often everybody was turned away.
    rests: IntCounter,
}

impl Breaker {
    pub fn new(trial: Duration, silence: Arc<Silence>, rests: IntCounter) -> Self {
        // An epoch in the past, so that no moment that is asked about reads as 0.
        let now = Instant::now();
        let epoch = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let [closed_until, failing_since, failed_at] = std::array::from_fn(|_| AtomicU64::new(0));
        let failures = AtomicU32::new(0);
        Self { epoch, trial, closed_until, failures, failing_since, failed_at, silence, rests }
    }

    /// Whether an asker may queue. After a rest the first who asks may, and the others when that trial has
    /// succeeded; the time of the trial is the next rest, so a trial that got lost blocks nobody for long.
    ///
    /// The clock is not read in good times.
    pub fn admits(&self, now: impl FnOnce() -> Instant) -> bool {
        let closed_until = self.closed_until.load(Ordering::Relaxed);
        if closed_until == 0 {
            return true;
        }
        let now = now();
        let trial_ends = self.micros(now + self.trial);
        self.micros(now) >= closed_until
            && self
                .closed_until
                .compare_exchange(closed_until, trial_ends, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub fn succeeded(&self) {
        self.silence.answered();
        // Read first: in good times nobody writes to the cache line that every asker reads.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.failing_since.store(0, Ordering::Relaxed);
        }
        if self.closed_until.load(Ordering::Relaxed) != 0 {
            self.closed_until.store(0, Ordering::Relaxed);
        }
    }

    /// An exchange that began at `begun` has failed.
    pub fn failed(&self, begun: Instant, now: Instant) {
        self.silence.failed(begun, now);
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        let micros = self.micros(now);
        let before = self.failed_at.swap(micros, Ordering::Relaxed);
        if failures == 1 || self.micros(begun).saturating_sub(before) > LONGEST_GAP.as_micros() as u64 {
            self.failing_since.store(micros, Ordering::Relaxed);
        }
        if let Some(rest) = rest_after(failures) {
            self.rests.inc();
            let is_stall = self.silence.lasted(now) < STALL;
            let rest = if is_stall { rest.min(LONGEST_REST_OF_STALL) } else { rest };
            self.closed_until.store(self.micros(now + jittered(rest)), Ordering::Relaxed);
        }
    }

    /// Whether the last exchange failed.
    pub fn is_failing(&self) -> bool {
        self.failures.load(Ordering::Relaxed) != 0
    }

    /// Whether the last exchange failed and was not the first to.
    pub fn is_resting(&self) -> bool {
        rest_after(self.failures.load(Ordering::Relaxed)).is_some()
    }

    /// How long an exchange may take.
    pub fn trial(&self) -> Duration {
        self.trial
    }

    /// How long every exchange has failed; zero when the last did not.
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

fn rest_after(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(2)?;
    Some(FIRST_REST.saturating_mul(1 << doublings.min(10)).min(LONGEST_REST))
}

/// Between half of `rest` and the whole, so that edges that lost a server together do not return together.
fn jittered(rest: Duration) -> Duration {
    // Each RandomState has other keys; that is random enough to spread, and needs no generator.
    let random = RandomState::new().hash_one(()) as u32;
    rest / 2 + (rest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Duration = Duration::from_millis(50);

    fn breaker() -> Breaker {
        Breaker::new(TRIAL, Arc::new(Silence::new()), IntCounter::new("rests", "rests").unwrap())
    }

    #[test]
    fn one_failure_costs_no_rest_and_the_second_does() {
        let (breaker, now) = (breaker(), Instant::now());
        breaker.failed(now, now);
        assert!(breaker.admits(|| now) && !breaker.is_resting());
        breaker.failed(now, now);
        assert!(!breaker.admits(|| now) && breaker.is_resting());
        breaker.succeeded();
        assert!(breaker.admits(|| now) && !breaker.is_resting());
    }

    #[test]
    fn after_a_rest_one_may_try_and_after_a_lost_trial_another() {
        let (breaker, now) = (breaker(), Instant::now());
        breaker.failed(now, now);
        breaker.failed(now, now);
        let rested = now + FIRST_REST;
        assert!(breaker.admits(|| rested));
        assert!(!breaker.admits(|| rested));
        assert!(!breaker.admits(|| rested + TRIAL - Duration::from_millis(1)));
        assert!(breaker.admits(|| rested + TRIAL));
    }

    #[test]
    fn it_is_known_for_how_long_a_server_has_failed() {
        let (breaker, now) = (breaker(), Instant::now());
        assert_eq!(breaker.failing_for(now), Duration::ZERO);
        breaker.failed(now, now);
        breaker.failed(now + TRIAL, now + TRIAL);
        assert_eq!(breaker.failing_for(now + 3 * TRIAL), 3 * TRIAL);
        assert_eq!(breaker.rests.get(), 1, "the first failure is no rest");
        let much_later = now + TRIAL + LONGEST_GAP + TRIAL;
        breaker.failed(much_later, much_later);
        assert_eq!(breaker.failing_for(much_later + TRIAL), TRIAL, "of the time between nothing is known");
        breaker.succeeded();
        assert_eq!(breaker.failing_for(much_later + TRIAL), Duration::ZERO);
    }

    #[test]
    fn while_a_server_may_only_have_stalled_the_rests_stay_short() {
        let (breaker, begun) = (breaker(), Instant::now());
        let mut now = begun;
        while now < begun + STALL {
            breaker.failed(now, now);
            assert!(breaker.admits(|| now + LONGEST_REST_OF_STALL), "after {:?}", now - begun);
            assert_eq!(breaker.silence.lasted(now), now - begun);
            now += TRIAL;
        }
        breaker.failed(now, now);
        assert!(!breaker.admits(|| now + LONGEST_REST / 2 - TRIAL), "this is an outage");
        let later = now + STALL + TRIAL;
        assert_eq!(breaker.silence.lasted(later), Duration::ZERO, "nobody has asked for a while");
        breaker.failed(later, later);
        assert_eq!(breaker.silence.lasted(later), Duration::ZERO, "this may be another stall");
        assert_eq!(breaker.failing_for(later), later - begun, "and yet the server was not heard of since the first");
    }

    #[test]
    fn rests_double_up_to_the_longest() {
        let rests = [2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|n| rest_after(n).unwrap().as_millis());
        assert_eq!(rests, [10, 20, 40, 80, 160, 300, 300, 300]);
        for _ in 0..1000 {
            let rest = jittered(LONGEST_REST);
            assert!(rest >= LONGEST_REST / 2 && rest <= LONGEST_REST);
        }
    }
}
