//! What this process remembers of sessions, for an outage of the store: when each was last found active, and which have
//! ended.
//!
//! The memory is kept by session and not by token, so that a logout here takes it from all hosts at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::clock::UnixTime;
use crate::sessions::{Fingerprint, SessionKey};

/// Number of sessions that are remembered, about 100 bytes each. A session that is forgotten is refused, as under
/// `deny`.
const REMEMBERED: usize = 100_000;

/// Number of ended sessions that are remembered, about 100 bytes each.
const ENDED: usize = 100_000;

/// How often the log says that users are allowed by an outage policy.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The sessions that were active when the store last answered, and those that had ended, which no policy may bring
/// back.
pub struct RecentSessions {
    sessions: Cache<SessionKey, Arc<LastSeen>, quick_cache::UnitWeighter, ahash::RandomState>,
    ended: Cache<SessionKey, (), quick_cache::UnitWeighter, ahash::RandomState>,
    /// Time of the last log line in milliseconds; 0 before the first.
    logged_at: AtomicU64,
}

/// When a session was last found active. Each of its tokens shares this value, so that a request records its look-up
/// with one write.
pub struct LastSeen {
    at_millis: AtomicU64,
    fingerprint: Fingerprint,
}

impl LastSeen {
    fn at(&self) -> UnixTime {
        UnixTime::from_millis(self.at_millis.load(Ordering::Relaxed))
    }

    /// Must not be called for a request that an outage policy allowed: such a request does not extend its own time.
    pub fn touch(&self, now: UnixTime) {
        self.at_millis.store(now.millis(), Ordering::Relaxed);
    }
}

impl Default for RecentSessions {
    fn default() -> Self {
        let (weights, hashes) = (quick_cache::UnitWeighter, ahash::RandomState::new());
        let sessions = Cache::with(REMEMBERED, REMEMBERED as u64, weights.clone(), hashes.clone(), Default::default());
        let ended = Cache::with(ENDED, ENDED as u64, weights, hashes, Default::default());
        Self { sessions, ended, logged_at: AtomicU64::new(0) }
    }
}

impl RecentSessions {
    pub fn remember(&self, key: &SessionKey, fingerprint: Fingerprint, now: UnixTime) -> Arc<LastSeen> {
        match self.sessions.get(key) {
            Some(seen) if seen.fingerprint == fingerprint => {
                seen.touch(now);
                seen
            }
            _ => {
                let seen = Arc::new(LastSeen { at_millis: now.millis().into(), fingerprint });
                self.sessions.insert(key.clone(), Arc::clone(&seen));
                seen
            }
        }
    }

    /// Records a sign-on. It knows the fingerprint of the browser, but not the one in the session record.
    pub fn note_sign_on(&self, key: &SessionKey, fingerprint: Fingerprint, now: UnixTime) {
        match self.sessions.get(key) {
            Some(seen) => seen.touch(now),
            None => drop(self.remember(key, fingerprint, now)),
        }
    }

    /// Records that a session has ended here or was found ended.
    pub fn forget(&self, key: &SessionKey) {
        self.sessions.remove(key);
        self.ended.insert(key.clone(), ());
    }

    pub fn has_ended(&self, key: &SessionKey) -> bool {
        self.ended.get(key).is_some()
    }

    /// Returns whether a log line is due: at the first request that is allowed by a policy, and then once a minute.
    /// Each such request is counted in the metrics; which server is unavailable, and that it is back, is logged by its
    /// monitor.
    pub fn is_log_due(&self, now: UnixTime) -> bool {
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        let due = logged_at == 0 || now.since(UnixTime::from_millis(logged_at)) >= LOG_INTERVAL;
        let ours = || self.logged_at.compare_exchange(logged_at, now.millis(), Ordering::Relaxed, Ordering::Relaxed);
        due && ours().is_ok()
    }

    /// Returns the fingerprint of a session that was active no longer ago than `within`. `known` is what its token
    /// shares, which stays valid when there were too many sessions to remember all of them. The caller has checked
    /// before that the session has not ended.
    pub fn fingerprint_within(
        &self,
        key: &SessionKey,
        known: Option<&Arc<LastSeen>>,
        within: Duration,
        now: UnixTime,
    ) -> Option<Fingerprint> {
        let remembered = self.sessions.get(key);
        let seen = [known, remembered.as_ref()].into_iter().flatten().max_by_key(|seen| seen.at())?;
        (now.since(seen.at()) <= within).then_some(seen.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::SessionId;

    #[test]
    fn an_outage_policy_in_use_is_logged_at_first_and_then_once_a_minute() {
        let (seen, now) = (RecentSessions::default(), UnixTime::from_seconds(1000));
        assert!(seen.is_log_due(now));
        assert!(!seen.is_log_due(now.plus(LOG_INTERVAL.saturating_sub(Duration::from_millis(1)))));
        assert!(seen.is_log_due(now.plus(LOG_INTERVAL)));
        assert!(!seen.is_log_due(now.plus(LOG_INTERVAL)));
    }

    #[test]
    fn a_session_that_was_seen_is_remembered_for_the_time_given_and_not_after_a_logout() {
        let (seen, key) = (RecentSessions::default(), SessionId::random().unwrap().key());
        let (print, within) = (Fingerprint::new([1; 16]), Duration::from_secs(60));
        let now = UnixTime::from_seconds(1000);
        let fingerprint_within = |at| seen.fingerprint_within(&key, None, within, at);
        assert_eq!(fingerprint_within(now), None);
        let known = seen.remember(&key, print, now);
        assert_eq!(fingerprint_within(now.plus(within)), Some(print));
        let late = now.plus(within + Duration::from_millis(1));
        assert_eq!(fingerprint_within(late), None);
        known.touch(now.plus(within));
        assert_eq!(fingerprint_within(now.plus(within * 2)), Some(print));
        seen.forget(&key);
        assert_eq!(fingerprint_within(now.plus(within)), None);
        assert_eq!(
            seen.fingerprint_within(&key, Some(&known), within, now.plus(within)),
            Some(print),
            "one that had no more room"
        );
    }
}
