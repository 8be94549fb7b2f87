//! What follows from the replies of all replicas that may hold a session. Pure: `lookup` sends the requests and acts on
//! the result.
//!
//! A tombstone outranks an active copy: the server with the copy was unreachable when the session was ended. An active
//! copy outranks a miss: the server without it was restarted. A miss outranks a failure, but not at once: a server that
//! has only just become unavailable may come back with the session, so for [`GRACE_PERIOD`] the outcome is an error.

use std::time::Duration;

use crate::sessions::{Found, SessionRecord, StoreError, StoredValue, Tombstone};

/// How long an unavailable server prevents the verdict that a session is missing. It is longer than a restart takes, and
/// short enough that users who have to sign in again do not wait in vain for a server that stays away.
pub const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// The reply of one replica.
#[derive(Clone, Debug)]
pub struct ReplicaReply {
    pub result: Result<Option<StoredValue>, StoreError>,
    /// How long the server has not answered at all.
    pub unavailable_for: Duration,
    /// Whether the session belongs on this server; false when it is read only because the session belonged there in a
    /// previous layout.
    pub is_current: bool,
}

/// The outcome, and what has to be written so that all replicas agree. Indices are those of the replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub found: Result<Found, StoreError>,
    pub repair: Repair,
}

/// The read repair that the replies call for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    Nothing,
    /// The session is active; these replicas should hold a copy and have none.
    Copy(Vec<usize>),
    /// The session has ended; these replicas answered and do not have the tombstone.
    WriteTombstone(Tombstone, Vec<usize>),
}

pub fn resolve(replies: &[ReplicaReply]) -> Resolution {
    let stored = |reply: &ReplicaReply| reply.result.as_ref().ok().and_then(Option::as_ref).cloned();
    let tombstones = replies.iter().filter_map(stored).filter_map(|value| match value {
        StoredValue::Ended(tombstone) => Some(tombstone),
        StoredValue::Session(_) => None,
    });
    if let Some(tombstone) = tombstones.max_by_key(|tombstone| tombstone.until) {
        let has_another = |reply: &ReplicaReply| {
            reply.result.as_ref().is_ok_and(|value| *value != Some(StoredValue::Ended(tombstone)))
        };
        let repair = Repair::WriteTombstone(tombstone, indices(replies, has_another));
        return Resolution { found: Ok(Found::Ended), repair };
    }
    let sessions: Vec<SessionRecord> = replies
        .iter()
        .filter_map(stored)
        .filter_map(|value| match value {
            StoredValue::Session(record) => Some(record),
            StoredValue::Ended(_) => None,
        })
        .collect();
    if sessions.iter().any(|record| record.user != sessions[0].user) {
        let cause = "two servers hold sessions of different users under one key".to_owned();
        return Resolution { found: Err(StoreError::Protocol { cause }), repair: Repair::Nothing };
    }
    match sessions.into_iter().max_by_key(|record| record.last_accessed) {
        Some(record) => {
            let without = indices(replies, |reply| reply.is_current && reply.result == Ok(None));
            let repair = if without.is_empty() { Repair::Nothing } else { Repair::Copy(without) };
            Resolution { found: Ok(Found::Active(record)), repair }
        }
        None => Resolution { found: missing(replies), repair: Repair::Nothing },
    }
}

/// The outcome when no replica holds anything: the session is missing, unless a server that may hold it has only just
/// become unavailable, or no server answered at all.
fn missing(replies: &[ReplicaReply]) -> Result<Found, StoreError> {
    let failures = || replies.iter().filter(|reply| reply.result.is_err());
    let recent_failure = failures().find(|reply| reply.unavailable_for < GRACE_PERIOD);
    let any_answered = replies.iter().any(|reply| reply.result.is_ok());
    match recent_failure.or_else(|| failures().next().filter(|_| !any_answered)) {
        Some(ReplicaReply { result: Err(error), .. }) => Err(error.clone()),
        _ => Ok(Found::Missing),
    }
}

fn indices(replies: &[ReplicaReply], which: impl Fn(&ReplicaReply) -> bool) -> Vec<usize> {
    replies.iter().enumerate().filter(|(_, reply)| which(reply)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::sessions::tests::record;

    const TOMBSTONE: Tombstone = Tombstone { until: UnixTime::from_millis(1_800_000_000_000) };

    fn reply(result: Result<Option<StoredValue>, StoreError>) -> ReplicaReply {
        ReplicaReply { result, unavailable_for: Duration::ZERO, is_current: true }
    }
    fn active() -> ReplicaReply {
        reply(Ok(Some(StoredValue::Session(record("ada")))))
    }
    fn ended() -> ReplicaReply {
        reply(Ok(Some(StoredValue::Ended(TOMBSTONE))))
    }
    fn miss() -> ReplicaReply {
        reply(Ok(None))
    }
    fn unavailable(since: Duration) -> ReplicaReply {
        ReplicaReply { unavailable_for: since, ..reply(Err(StoreError::TimedOut)) }
    }
    fn found(replies: &[ReplicaReply]) -> Result<Found, StoreError> {
        resolve(replies).found
    }

    #[test]
    fn a_tombstone_outranks_every_other_reply() {
        for other in [active(), miss(), ended(), unavailable(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), ended()]), Ok(Found::Ended));
            assert_eq!(found(&[ended(), other]), Ok(Found::Ended));
        }
        assert_eq!(resolve(&[active(), ended()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![0]));
        assert_eq!(resolve(&[ended(), miss()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![1]));
        assert_eq!(resolve(&[ended(), ended()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![]));
        let repair = resolve(&[unavailable(GRACE_PERIOD), ended()]).repair;
        assert_eq!(repair, Repair::WriteTombstone(TOMBSTONE, vec![]), "an unavailable server gets it later, by a hint");
    }

    #[test]
    fn an_active_copy_is_enough_and_is_copied_to_a_replica_without_it() {
        let active_record = Ok(Found::Active(record("ada")));
        for other in [active(), miss(), unavailable(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), active()]), active_record);
            assert_eq!(found(&[active(), other]), active_record);
        }
        assert_eq!(resolve(&[miss(), active()]).repair, Repair::Copy(vec![0]));
        assert_eq!(resolve(&[active(), unavailable(GRACE_PERIOD)]).repair, Repair::Nothing);
        let previous = ReplicaReply { is_current: false, ..miss() };
        assert_eq!(resolve(&[active(), previous]).repair, Repair::Nothing, "it does not belong there any more");
    }

    #[test]
    fn of_two_copies_the_later_is_returned() {
        let mut later = record("ada");
        later.last_accessed = later.last_accessed.plus(GRACE_PERIOD);
        let replies = [active(), reply(Ok(Some(StoredValue::Session(later.clone())))), active()];
        assert_eq!(found(&replies), Ok(Found::Active(later)));
    }

    #[test]
    fn copies_that_name_different_users_are_an_error() {
        let other = reply(Ok(Some(StoredValue::Session(record("eve")))));
        assert!(matches!(found(&[active(), other]), Err(StoreError::Protocol { .. })));
    }

    #[test]
    fn a_miss_counts_when_all_servers_answered_or_the_others_have_been_unavailable_for_long() {
        let short = GRACE_PERIOD.saturating_sub(Duration::from_millis(1));
        assert_eq!(found(&[miss(), miss()]), Ok(Found::Missing));
        assert_eq!(found(&[miss(), unavailable(short)]), Err(StoreError::TimedOut));
        assert_eq!(found(&[unavailable(short), miss()]), Err(StoreError::TimedOut));
        assert_eq!(found(&[miss(), unavailable(GRACE_PERIOD)]), Ok(Found::Missing));
        let replies = [unavailable(GRACE_PERIOD), unavailable(GRACE_PERIOD)];
        assert_eq!(found(&replies), Err(StoreError::TimedOut), "no server said so");
        assert_eq!(found(&[unavailable(GRACE_PERIOD), miss(), unavailable(short)]), Err(StoreError::TimedOut));
    }
}
