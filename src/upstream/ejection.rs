//! Passive ejection: an address of a server that fails again and again gets no requests for a while (`pools.NAME.eject`).
//!
//! The outcome of requests decides. After its time an ejected address is connected to once, without a request
//! (`probe`), then one request tries it, and only a response to that brings it back. This file is the state of one
//! address; which address may be ejected depends on the others of its pool and is decided in `pool_state`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::config::Eject;

/// Moments are kept in atomics as milliseconds since this one.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What an attempt at a server has failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// There was no response in time, or it stopped in its body.
    Timeout,
    /// The server closed or reset the connection.
    Closed,
    /// What came is no response.
    Malformed,
    /// A response with one of `eject.statuses`.
    Status,
}

impl Failure {
    pub const ALL: [Self; 6] = [Self::Connect, Self::Tls, Self::Timeout, Self::Closed, Self::Malformed, Self::Status];

    /// Returns the label of metrics and log lines.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Status => "status",
        }
    }

    /// Whether there was no connection, so that the server has seen nothing of the request.
    pub const fn is_of_connecting(self) -> bool {
        matches!(self, Self::Connect | Self::Tls)
    }

    /// How often it counts: a server that cannot be connected to costs each request its whole `timeouts.connect`.
    const fn weight(self) -> u32 {
        if self.is_of_connecting() { 2 } else { 1 }
    }
}

/// Whether an address is chosen for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    Good,
    /// It fails, and takes its turns all the same: too many others are ejected, or all of them.
    Kept,
    /// It cannot be connected to, and may not be ejected: it gets the requests that no other address may take.
    LastResort,
    Ejected,
}

impl Standing {
    const fn of(value: u8) -> Self {
        match value {
            0 => Self::Good,
            1 => Self::Kept,
            2 => Self::LastResort,
            _ => Self::Ejected,
        }
    }

    /// Whether requests go to it as if nothing was wrong.
    pub const fn takes_turns(self) -> bool {
        matches!(self, Self::Good | Self::Kept)
    }
}

/// Whether a request may go to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// As the one request that shows whether the address is well again.
    Trial,
    Closed,
}

/// The health of one address, as the outcomes of requests show it.
#[derive(Debug)]
pub struct Health {
    standing: AtomicU8,
    /// Whether a success would change anything. It is read with every response, and false in good times.
    is_troubled: AtomicBool,
    /// From when on a GET or HEAD may be the trial: these can be sent again elsewhere.
    trial_at: AtomicU64,
    /// From when on any request may be it.
    any_trial_at: AtomicU64,
    /// Whether a connection could be made since it was ejected.
    is_probed: AtomicBool,
    is_on_trial: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Consecutive attempts that came to no response, weighted.
    failures: u32,
    /// Consecutive responses that broke off in their body. Apart from the others, as each of them begins with a head,
    /// which is a success.
    broken_off: u32,
    /// Consecutive times that it was ejected.
    times: u32,
    /// When it was ejected last, and what for.
    ejected: Option<(Instant, Failure)>,
    /// When it came back from the last of them.
    returned_at: Option<Instant>,
    /// As the configuration had it when the address was ejected.
    limits: Limits,
    last_failure: Option<(Failure, Instant)>,
}

/// The times of an ejection.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// `eject.for`
    first: Duration,
    /// `eject.at_most`
    at_most: Duration,
    /// `timeouts.connect`, which a probe may take.
    connect: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            standing: AtomicU8::new(Standing::Good as u8),
            is_troubled: AtomicBool::new(false),
            trial_at: AtomicU64::new(0),
            any_trial_at: AtomicU64::new(0),
            is_probed: AtomicBool::new(false),
            is_on_trial: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }
}

impl Health {
    pub fn standing(&self) -> Standing {
        Standing::of(self.standing.load(Ordering::Acquire))
    }

    /// Whether a request may go there now. `is_safe`: it can be sent again, elsewhere. Takes no lock.
    pub fn may_take(&self, now: Instant, is_safe: bool) -> Admission {
        if self.standing().takes_turns() {
            return Admission::Open;
        }
        let from = if is_safe { &self.trial_at } else { &self.any_trial_at };
        let is_due = self.is_probed.load(Ordering::Acquire)
            && !self.is_on_trial.load(Ordering::Acquire)
            && from.load(Ordering::Relaxed) <= millis(now);
        if is_due { Admission::Trial } else { Admission::Closed }
    }

    /// Begins the trial, unless another request has.
    pub fn begin_trial(&self) -> bool {
        !self.is_on_trial.swap(true, Ordering::AcqRel)
    }

    /// The trial has come to nothing, or its request is over.
    pub fn end_trial(&self) {
        self.is_on_trial.store(false, Ordering::Release);
    }

    /// Whether a success would change anything.
    pub fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }

    /// Counts a failure, and returns whether there are as many now as the policy allows. `in_body`: a response had begun.
    pub(super) fn count_failure(&self, failure: Failure, in_body: bool, policy: &Eject) -> bool {
        let mut record = self.record();
        record.last_failure = Some((failure, Instant::now()));
        self.is_troubled.store(true, Ordering::Release);
        let count = if in_body { &mut record.broken_off } else { &mut record.failures };
        *count = count.saturating_add(failure.weight());
        *count >= policy.failures
    }

    /// From now on the address is out of turn; returns for how long, at least.
    pub(super) fn eject(
        &self,
        standing: Standing,
        failure: Failure,
        now: Instant,
        policy: &Eject,
        connect: Duration,
    ) -> Duration {
        let mut record = self.record();
        record.ejected = Some((now, failure));
        record.limits = Limits { first: policy.r#for, at_most: policy.at_most, connect };
        if record.returned_at.is_some_and(|at| now.saturating_duration_since(at) > policy.at_most) {
            record.times = 0;
        }
        record.returned_at = None;
        let time = self.begin_time(&mut record, now);
        self.standing.store(standing as u8, Ordering::Release);
        time
    }

    /// The address stays out of turn for longer, as it could not be connected to.
    pub(super) fn prolong(&self, now: Instant) {
        self.begin_time(&mut self.record(), now);
    }

    fn begin_time(&self, record: &mut Record, now: Instant) -> Duration {
        record.times = record.times.saturating_add(1);
        let time = ejection_time(record.limits, record.times, Uuid::new_v4().as_u128() as u32);
        self.trial_at.store(millis(now + time), Ordering::Relaxed);
        self.any_trial_at.store(millis(now + time + record.limits.first), Ordering::Relaxed);
        self.is_probed.store(false, Ordering::Release);
        self.is_on_trial.store(false, Ordering::Release);
        time
    }

    /// The address keeps its turns, though it fails.
    pub(super) fn keep(&self) {
        self.standing.store(Standing::Kept as u8, Ordering::Release);
    }

    /// A response has come to an attempt that began at `begun`. Returns whether the address was not good before and is now:
    /// what began before an ejection does not end it, as it says nothing of what has happened since.
    pub(super) fn succeed(&self, begun: Instant, now: Instant) -> bool {
        let mut record = self.record();
        let was = self.standing();
        if !was.takes_turns() {
            if record.ejected.is_some_and(|(at, _)| begun < at) {
                return false;
            }
            record.returned_at = Some(now);
        }
        record.failures = 0;
        self.standing.store(Standing::Good as u8, Ordering::Release);
        if was != Standing::Good {
            record.broken_off = 0;
        }
        self.is_troubled.store(record.broken_off > 0, Ordering::Release);
        self.is_on_trial.store(false, Ordering::Release);
        was != Standing::Good
    }

    /// A response has come to its end.
    pub(super) fn complete(&self) {
        let mut record = self.record();
        record.broken_off = 0;
        let is_good = self.standing() == Standing::Good && record.failures == 0;
        self.is_troubled.store(!is_good, Ordering::Release);
    }

    /// Whether a connection should be tried now, and how long that may take.
    pub(super) fn probe_due(&self, now: Instant) -> Option<Duration> {
        let is_due = !self.is_probed.load(Ordering::Acquire) && self.trial_at.load(Ordering::Relaxed) <= millis(now);
        is_due.then(|| self.record().limits.connect)
    }

    /// A connection was made: a request may try the address.
    pub(super) fn probed(&self) {
        self.is_probed.store(true, Ordering::Release);
    }

    /// How long the address is still ejected before it may be tried; `None` while it gets requests, if only as the last
    /// resort.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let left = self.trial_at.load(Ordering::Relaxed).saturating_sub(millis(now));
        (self.standing() == Standing::Ejected).then(|| Duration::from_millis(left))
    }

    /// What it was ejected for, last.
    pub(super) fn ejected_by(&self) -> Option<Failure> {
        self.record().ejected.map(|(_, failure)| failure)
    }

    /// By what it last failed, and when.
    pub fn last_failure(&self) -> Option<(Failure, Instant)> {
        self.record().last_failure
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn millis(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*EPOCH).as_millis()).unwrap_or(u64::MAX)
}

/// Returns how long an address is ejected: `for`, twice as long each further time, `at_most` in the end. Up to a tenth of
/// it is drawn, so that servers that failed together are not tried together.
fn ejection_time(limits: Limits, times: u32, random: u32) -> Duration {
    let doubled = limits.first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(limits.at_most);
    let most = (doubled + doubled / 10).min(limits.at_most);
    let least = most.saturating_sub(most / 11).max(limits.first).min(most);
    least + most.saturating_sub(least).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Eject {
        Eject {
            failures: 3,
            r#for: Duration::from_secs(10),
            at_most: Duration::from_secs(30),
            max_ejection_percent: 50,
            statuses: Vec::new(),
        }
    }

    #[test]
    fn failures_in_a_row_count_and_those_to_connect_count_double() {
        use Failure::{Closed, Connect, Malformed, Timeout, Tls};
        for (failures, reached) in [
            (&[Connect][..], false),
            (&[Connect, Connect], true),
            (&[Tls, Connect], true),
            (&[Timeout, Closed], false),
            (&[Timeout, Closed, Malformed], true),
            (&[Timeout, Connect], true),
        ] {
            let health = Health::default();
            let last = failures.iter().map(|failure| health.count_failure(*failure, false, &policy())).last();
            assert_eq!(last, Some(reached), "{failures:?}");
            assert!(health.is_troubled());
            health.succeed(Instant::now(), Instant::now());
            assert!(!health.is_troubled(), "{failures:?}");
            assert!(!health.count_failure(failures[0], false, &policy()), "{failures:?}: a success resets");
        }
    }

    #[test]
    fn heads_do_not_hide_responses_that_break_off() {
        let health = Health::default();
        for round in 1..=3 {
            health.succeed(Instant::now(), Instant::now());
            assert_eq!(health.count_failure(Failure::Closed, true, &policy()), round == 3);
        }
        health.complete();
        assert!(!health.is_troubled());
        assert!(!health.count_failure(Failure::Closed, true, &policy()), "a whole response resets");
    }

    #[test]
    fn times_grow_up_to_the_most_and_differ() {
        let limits = Limits {
            first: Duration::from_secs(10),
            at_most: Duration::from_secs(30),
            connect: Duration::from_secs(1),
        };
        let most = u32::MAX;
        for (times, shortest, longest) in
            [(1, 10_000, 11_000), (2, 20_000, 22_000), (3, 27_272, 30_000), (9, 27_272, 30_000)]
        {
            assert_eq!(ejection_time(limits, times, 0).as_millis(), shortest, "time {times}");
            assert_eq!(ejection_time(limits, times, most).as_millis(), longest, "time {times}");
        }
        let exact = Limits { at_most: limits.first, ..limits };
        assert_eq!(ejection_time(exact, 5, most / 2), exact.first);
    }

    #[test]
    fn after_its_time_and_a_connection_one_request_tries_an_ejected_address() {
        let (health, policy, now) = (Health::default(), policy(), Instant::now());
        let time = health.eject(Standing::Ejected, Failure::Closed, now, &policy, Duration::from_secs(1));
        let later = now + time + Duration::from_millis(2);
        assert_eq!(health.may_take(later, true), Admission::Closed, "no connection was tried");
        assert_eq!(health.probe_due(now), None);
        assert_eq!(health.probe_due(later), Some(Duration::from_secs(1)));
        health.probed();
        assert_eq!(health.may_take(now, true), Admission::Closed, "its time is not over");
        assert_eq!(health.may_take(later, true), Admission::Trial);
        assert_eq!(health.may_take(later, false), Admission::Closed, "a GET would do");
        assert_eq!(health.may_take(later + policy.r#for, false), Admission::Trial, "but there was none");
        assert!(health.begin_trial() && !health.begin_trial());
        assert_eq!(health.may_take(later, true), Admission::Closed, "one at a time");
        health.end_trial();
        assert_eq!(health.may_take(later, true), Admission::Trial, "the client has gone meanwhile");
        assert!(health.succeed(later, later));
        assert_eq!(health.may_take(later, false), Admission::Open);
        let soon = health.eject(Standing::Ejected, Failure::Closed, later, &policy, Duration::ZERO);
        assert!(soon >= 2 * policy.r#for, "it has failed again soon: {soon:?}");
        health.succeed(later, later);
        let much_later = later + policy.at_most + Duration::from_secs(1);
        let anew = health.eject(Standing::Ejected, Failure::Closed, much_later, &policy, Duration::ZERO);
        assert!(anew < 2 * policy.r#for, "it was well for long: {anew:?}");
    }

    #[test]
    fn a_response_ends_an_ejection_only_if_its_attempt_began_after_it() {
        for standing in [Standing::Ejected, Standing::LastResort] {
            let (health, now) = (Health::default(), Instant::now());
            let second = Duration::from_secs(1);
            health.eject(standing, Failure::Connect, now + second, &policy(), second);
            assert!(!health.succeed(now, now + 2 * second), "{standing:?}: it was under way before");
            assert_eq!(health.standing(), standing);
            assert!(health.succeed(now + 2 * second, now + 3 * second), "{standing:?}");
            assert_eq!(health.standing(), Standing::Good);
        }
    }

    #[test]
    fn what_is_the_last_resort_gets_requests_and_is_not_shown_as_ejected() {
        let now = Instant::now();
        for (standing, is_shown) in [(Standing::Ejected, true), (Standing::LastResort, false)] {
            let health = Health::default();
            health.eject(standing, Failure::Connect, now, &policy(), Duration::ZERO);
            assert_eq!(health.ejected_for(now).is_some(), is_shown, "{standing:?}");
        }
    }
}
