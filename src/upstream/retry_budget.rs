//! How many requests of a pool may be sent again (`pools.NAME.retry.budget_percent`): where a whole pool is overloaded,
//! retries would multiply its load.
//!
//! The part is one of the requests of the last ten to twenty seconds, so that the requests under way at a server that dies
//! may all be sent again. Nothing is counted for a request that goes well: attempts are counted by their metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long requests count, at least.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries that are allowed in a window beside the part of its requests, so that a pool with few requests has some.
const LEAST: u64 = 10;

#[derive(Default)]
pub struct RetryBudget(Mutex<Option<Windows>>);

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
    /// Takes the permission for one retry. `attempts` is how many there have been at the pool's servers since the start.
    pub fn take(&self, attempts: u64, percent: u8, now: Instant) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Windows { begun: now, attempts_before: 0, retries: 0, previous: (0, 0) };
        let windows = windows.get_or_insert(new);
        let age = now.saturating_duration_since(windows.begun);
        if age >= WINDOW {
            let recent = (windows.requests(attempts), windows.retries);
            let previous = if age < 2 * WINDOW { recent } else { (0, 0) };
            *windows = Windows { begun: now, attempts_before: attempts, retries: 0, previous };
        }
        let (requests, retries) = windows.previous;
        let requests = requests + windows.requests(attempts);
        let is_allowed = windows.retries + retries < LEAST + requests * u64::from(percent) / 100;
        windows.retries += u64::from(is_allowed);
        is_allowed
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

    #[test]
    fn a_part_of_the_requests_and_a_few_more_may_be_sent_again() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        assert_eq!(taken(&budget, 100, 0, now), 10, "without any request");
        let budget = RetryBudget::default();
        assert_eq!(taken(&budget, 1000, 1000, now), 175, "a fifth of those that are no retries");
    }

    #[test]
    fn what_was_long_ago_counts_no_more() {
        let (budget, now) = (RetryBudget::default(), Instant::now());
        assert!(budget.take(0, 20, now));
        assert_eq!(taken(&budget, 100, 10_000, now + WINDOW), 100, "the requests of the window before count");
        let quiet = now + 4 * WINDOW;
        assert_eq!(taken(&budget, 100, 10_000, quiet), 10);
        assert_eq!(taken(&budget, 100, 10_100, quiet), 15, "25 in all");
    }
}
