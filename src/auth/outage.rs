//! The operator's policy for an outage of the session store.
//!
//! `recent` allows the users that this process saw with an active session a short while ago; `recent_sessions` is the
//! memory for that.

use std::sync::Arc;

use super::evaluate::{Requirement, SessionStatus};
use super::recent_sessions::{LastSeen, RecentSessions};
use super::verdict::Assurance;
use crate::clock::UnixTime;
use crate::config::OutagePolicy;
use crate::sessions::{SessionKey, StoreError};

/// Returns the status of a session for which the store gave no answer. A session that this process knows to have ended
/// has ended, before any policy is considered. A store that answers with garbage is not unavailable: its data may
/// belong to something else, so no request passes because of it. And a single late answer is no outage, since anyone
/// who keeps the machine busy can cause one: the policy applies when the store has failed several times in a row
/// (`is_out`).
pub(super) fn session_status(
    error: StoreError,
    is_out: bool,
    (key, known): (&SessionKey, Option<&Arc<LastSeen>>),
    seen: &RecentSessions,
    requirement: &Requirement<'_>,
    now: UnixTime,
) -> SessionStatus {
    if seen.has_ended(key) {
        return SessionStatus::Ended;
    }
    if !error.is_unavailable() || !is_out {
        return SessionStatus::Unknown(error);
    }
    let (assurance, fingerprint) = match requirement.on_outage {
        OutagePolicy::Deny => return SessionStatus::Unknown(error),
        OutagePolicy::TokenOnly => (Assurance::OutageTokenOnly, None),
        OutagePolicy::Recent { within } => match seen.fingerprint_within(key, known, within, now) {
            Some(fingerprint) => (Assurance::OutageRecent, Some(fingerprint)),
            None => return SessionStatus::Unknown(error),
        },
    };
    if seen.is_log_due(now) {
        log::warn!("session store: users are allowed by the outage policy reason={}: {error}", assurance.label());
    }
    SessionStatus::AssumedActive { assurance, fingerprint }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sessions::{Fingerprint, SessionId};

    #[test]
    fn a_policy_speaks_when_the_store_is_out_and_never_for_what_has_ended() {
        let (seen, now) = (RecentSessions::default(), UnixTime::from_seconds(1000));
        let (living, ended) = (SessionId::random().unwrap().key(), SessionId::random().unwrap().key());
        let [_, known] = [&living, &ended].map(|key| Some(seen.remember(key, Fingerprint::new([1; 16]), now)));
        seen.forget(&ended);
        let within = Duration::from_secs(60);
        for (policy, speaks) in
            [(OutagePolicy::Deny, false), (OutagePolicy::Recent { within }, true), (OutagePolicy::TokenOnly, true)]
        {
            let requirement = Requirement { on_outage: policy, ..super::super::tests::REQUIREMENT };
            for (error, is_out) in [
                (StoreError::TimedOut, true),
                (StoreError::TimedOut, false),
                (StoreError::Protocol { cause: String::new() }, true),
                (StoreError::Full, true),
            ] {
                let passes = speaks && is_out && error == StoreError::TimedOut;
                let status = session_status(error.clone(), is_out, (&living, None), &seen, &requirement, now);
                assert_eq!(
                    matches!(status, SessionStatus::AssumedActive { .. }),
                    passes,
                    "{policy:?} {error:?} {is_out}"
                );
                assert_eq!(matches!(status, SessionStatus::Unknown(_)), !passes, "{policy:?} {error:?} {is_out}");
                let status = session_status(error, is_out, (&ended, known.as_ref()), &seen, &requirement, now);
                assert!(matches!(status, SessionStatus::Ended), "whatever its token remembers");
            }
        }
    }
}
