//! How many requests of a pool may be sent again (`pools.NAME.retry.budget_percent`): where a whole pool is overloaded,
//! retries would multiply its load.
//!
//! The part is one of the requests of the last ten to twenty seconds, so that the requests under way at a server that dies
//! may all be sent again. Nothing is counted for a request that goes well: attempts are counted by their metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ejection::millis;

/// How long requests count, at least.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries that are allowed in a window beside the part of its requests, so that a pool with few requests has some.
const LEAST: u64 = 10;

#[derive(Default)]
pub struct RetryBudget {
    windows: Mutex<Option<Windows>>,
    /// When the next window begins, by `millis`. It is read with every request.
    next: AtomicU64,
}

#[derive(Clone, Copy)]
struct Windows {
    begun: Instant,
    /// The number of attempts when the present window began.
    attempts_before: u64,
    retries: u64,
    /// Requests and retries of the window before this one.
    previous: (u64, u64),
}

impl RetryBudget {
    /// Moves on to a new window where the present one is over. Every request that comes in calls it, so that the windows are
    /// those of the last seconds whenever a retry is wanted. `attempts` returns how many there have been at the pool's
    /// servers since the start.
    pub fn roll(&self, attempts: impl FnOnce() -> u64, now: Instant) {
        if self.next.load(Ordering::Relaxed) <= millis(now) {
            drop(self.rolled(attempts(), now));
        }
    }

    /// Takes the permission for one retry.
    pub fn take(&self, attempts: u64, percent: u8, now: Instant) -> bool {
        let mut windows = self.rolled(attempts, now);
        let Some(windows) = &mut *windows else { return false };
        let (requests, retries) = windows.previous;
        let requests = requests + windows.requests(attempts);
        let is_allowed = windows.retries + retries < LEAST + requests * u64::from(percent) / 100;
        windows.retries += u64::from(is_allowed);
        is_allowed
    }

    /// Returns the windows as they are at `now`, which are there from then on.
    fn rolled(&self, attempts: u64, now: Instant) -> MutexGuard<'_, Option<Windows>> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let age = windows.map(|windows| now.saturating_duration_since(windows.begun));
        if age.is_none_or(|age| age >= WINDOW) {
            let recent = windows.filter(|_| age.is_some_and(|age| age < 2 * WINDOW));
            let previous = recent.map_or((0, 0), |recent| (recent.requests(attempts), recent.retries));
            *windows = Some(Windows { begun: now, attempts_before: attempts, retries: 0, previous });
            self.next.store(millis(now + WINDOW), Ordering::Relaxed);
        }
        windows
    }
}

impl Windows {
    /// Requests of the present window. The number of attempts falls when a server is removed.
    fn requests(&self, attempts: u64) -> u64 {
        attempts.saturating_sub(self.attempts_before).saturating_sub(self.retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &RetryBudget, tries: usize, attempts: u64, now: Instant) -> usize {
        (0..tries).filter(|_| budget.take(attempts, 20, now)).count()
    }

    /// A budget to which a first request has come.
    fn begun(now: Instant) -> RetryBudget {
        let budget = RetryBudget::default();
        budget.roll(|| 0, now);
        budget
    }

    #[test]
    fn a_part_of_the_requests_and_a_few_more_may_be_sent_again() {
        let now = Instant::now();
        assert_eq!(taken(&begun(now), 100, 0, now), 10, "without any request");
        assert_eq!(taken(&begun(now), 1000, 1000, now), 175, "a fifth of those that are no retries");
    }

    #[test]
    fn what_was_long_ago_counts_no_more() {
        let now = Instant::now();
        let budget = begun(now);
        assert!(budget.take(0, 20, now));
        assert_eq!(taken(&budget, 100, 10_000, now + WINDOW), 100, "the requests of the window before count");
        let quiet = now + 4 * WINDOW;
        assert_eq!(taken(&budget, 100, 10_000, quiet), 10);
        assert_eq!(taken(&budget, 100, 10_100, quiet), 15, "25 in all");
    }

    #[test]
    fn requests_move_the_windows_on_though_none_was_sent_again() {
        let begin = Instant::now();
        let budget = begun(begin);
        // 100 requests in each window, for long.
        let request = |number: u64| {
            let now = begin + WINDOW / 100 * number as u32;
            budget.roll(|| number, now);
            now
        };
        let last = (1..=100_050).map(request).last().unwrap();
        assert_eq!(taken(&budget, 1000, 100_050, last), 33, "the 150 of the last two windows count, and no others");
        let quiet = last + 10 * WINDOW;
        budget.roll(|| 100_050, quiet);
        assert_eq!(taken(&budget, 1000, 100_051, quiet), 10, "after a silence there are none that count");
    }
}
