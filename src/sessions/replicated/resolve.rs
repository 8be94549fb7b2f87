//! What follows from the words of all servers that may hold a session. Pure: `cluster` asks and acts.
//!
//! A tombstone outweighs a living copy: whoever holds the copy was not there when the session was ended. A living
//! copy outweighs a miss: whoever misses it was restarted. A miss outweighs silence, but not at once: a server
//! that has only just gone may come back with the session, so for [`PATIENCE`] the answer is that nobody knows.

use std::time::Duration;

use crate::sessions::{Found, Held, SessionRecord, StoreError, Tombstone};

/// How long a silent server keeps the others from saying that a session is gone. Longer than a restart takes;
/// short enough that nobody who has to sign in again waits in vain for a server that stays away.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What one server said.
#[derive(Clone, Debug)]
pub struct ReplicaReply {
    pub said: Result<Option<Held>, StoreError>,
    /// How long it has given no answer at all.
    pub unavailable_for: Duration,
    /// Whether the session is_current there; false of a server that is asked because it belonged there before.
    pub is_current: bool,
}

/// What is known, and what should be done so that all servers know it. Indices are those of the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub found: Result<Found, StoreError>,
    pub repair: Repair,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    Nothing,
    /// The session lives, and these should hold a copy and do not.
    Copy(Vec<usize>),
    /// The session has ended; these answered and do not know it.
    WriteTombstone(Tombstone, Vec<usize>),
}

pub fn resolve(words: &[ReplicaReply]) -> Resolution {
    let held = |word: &ReplicaReply| word.said.as_ref().ok().and_then(Option::as_ref).cloned();
    let tombstones = words.iter().filter_map(held).filter_map(|held| match held {
        Held::Ended(tombstone) => Some(tombstone),
        Held::Session(_) => None,
    });
    if let Some(tombstone) = tombstones.max_by_key(|tombstone| tombstone.until) {
        let unaware = places(words, |word| word.said.as_ref().is_ok_and(|said| *said != Some(Held::Ended(tombstone))));
        return Resolution { found: Ok(Found::Ended), repair: Repair::WriteTombstone(tombstone, unaware) };
    }
    let sessions: Vec<SessionRecord> = words
        .iter()
        .filter_map(held)
        .filter_map(|held| match held {
            Held::Session(record) => Some(record),
            Held::Ended(_) => None,
        })
        .collect();
    if sessions.iter().any(|record| record.user != sessions[0].user) {
        let cause = "two servers hold sessions of different users under one key".to_owned();
        return Resolution { found: Err(StoreError::Protocol { cause }), repair: Repair::Nothing };
    }
    match sessions.into_iter().max_by_key(|record| record.last_accessed) {
        Some(record) => {
            let without = places(words, |word| word.is_current && word.said == Ok(None));
            let repair = if without.is_empty() { Repair::Nothing } else { Repair::Copy(without) };
            Resolution { found: Ok(Found::Active(record)), repair }
        }
        None => Resolution { found: missing(words), repair: Repair::Nothing },
    }
}

/// Nobody holds anything: is it gone, or is nobody there who would know?
fn missing(words: &[ReplicaReply]) -> Result<Found, StoreError> {
    let failures = || words.iter().filter(|word| word.said.is_err());
    let silence = failures().find(|word| word.unavailable_for < PATIENCE);
    let anybody = words.iter().any(|word| word.said.is_ok());
    match silence.or_else(|| failures().next().filter(|_| !anybody)) {
        Some(ReplicaReply { said: Err(error), .. }) => Err(error.clone()),
        _ => Ok(Found::Missing),
    }
}

fn places(words: &[ReplicaReply], which: impl Fn(&ReplicaReply) -> bool) -> Vec<usize> {
    words.iter().enumerate().filter(|(_, word)| which(word)).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::sessions::tests::record;

    const TOMBSTONE: Tombstone = Tombstone { until: UnixTime::from_millis(1_800_000_000_000) };

    fn word(said: Result<Option<Held>, StoreError>) -> ReplicaReply {
        ReplicaReply { said, unavailable_for: Duration::ZERO, is_current: true }
    }
    fn living() -> ReplicaReply {
        word(Ok(Some(Held::Session(record("ada")))))
    }
    fn ended() -> ReplicaReply {
        word(Ok(Some(Held::Ended(TOMBSTONE))))
    }
    fn miss() -> ReplicaReply {
        word(Ok(None))
    }
    fn silent(since: Duration) -> ReplicaReply {
        ReplicaReply { unavailable_for: since, ..word(Err(StoreError::TimedOut)) }
    }
    fn found(words: &[ReplicaReply]) -> Result<Found, StoreError> {
        resolve(words).found
    }

    #[test]
    fn a_tombstone_outweighs_whatever_the_others_say() {
        for other in [living(), miss(), ended(), silent(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), ended()]), Ok(Found::Ended));
            assert_eq!(found(&[ended(), other]), Ok(Found::Ended));
        }
        assert_eq!(resolve(&[living(), ended()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![0]));
        assert_eq!(resolve(&[ended(), miss()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![1]));
        assert_eq!(resolve(&[ended(), ended()]).repair, Repair::WriteTombstone(TOMBSTONE, vec![]));
        assert_eq!(
            resolve(&[silent(PATIENCE), ended()]).repair,
            Repair::WriteTombstone(TOMBSTONE, vec![]),
            "who is away hears later"
        );
    }

    #[test]
    fn a_living_copy_is_enough_and_goes_to_who_misses_it() {
        let lives = Ok(Found::Active(record("ada")));
        for other in [living(), miss(), silent(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), living()]), lives);
            assert_eq!(found(&[living(), other]), lives);
        }
        assert_eq!(resolve(&[miss(), living()]).repair, Repair::Copy(vec![0]));
        assert_eq!(resolve(&[living(), silent(PATIENCE)]).repair, Repair::Nothing);
        let formerly = ReplicaReply { is_current: false, ..miss() };
        assert_eq!(resolve(&[living(), formerly]).repair, Repair::Nothing, "it does not belong there any more");
    }

    #[test]
    fn of_two_copies_the_later_is_told() {
        let mut later = record("ada");
        later.last_accessed = later.last_accessed.plus(PATIENCE);
        let words = [living(), word(Ok(Some(Held::Session(later.clone())))), living()];
        assert_eq!(found(&words), Ok(Found::Active(later)));
    }

    #[test]
    fn copies_that_name_different_users_vouch_for_neither() {
        let other = word(Ok(Some(Held::Session(record("eve")))));
        assert!(matches!(found(&[living(), other]), Err(StoreError::Protocol { .. })));
    }

    #[test]
    fn a_miss_counts_when_nobody_is_silent_or_only_who_has_been_for_long() {
        let short = PATIENCE.saturating_sub(Duration::from_millis(1));
        assert_eq!(found(&[miss(), miss()]), Ok(Found::Missing));
        assert_eq!(found(&[miss(), silent(short)]), Err(StoreError::TimedOut));
        assert_eq!(found(&[silent(short), miss()]), Err(StoreError::TimedOut));
        assert_eq!(found(&[miss(), silent(PATIENCE)]), Ok(Found::Missing));
        assert_eq!(found(&[silent(PATIENCE), silent(PATIENCE)]), Err(StoreError::TimedOut), "nobody said it");
        assert_eq!(found(&[silent(PATIENCE), miss(), silent(short)]), Err(StoreError::TimedOut));
    }
}
