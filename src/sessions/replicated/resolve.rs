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
pub struct Word {
    pub said: Result<Option<Held>, StoreError>,
    /// How long it has given no answer at all.
    pub silent_for: Duration,
    /// Whether the session belongs there; false of a server that is asked because it belonged there before.
    pub belongs: bool,
}

/// What is known, and what should be done so that all servers know it. Indices are those of the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub found: Result<Found, StoreError>,
    pub mend: Mend,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    Nothing,
    /// The session lives, and these should hold a copy and do not.
    Copy(Vec<usize>),
    /// The session has ended; these answered and do not know it.
    Bury(Tombstone, Vec<usize>),
}

pub fn judge(words: &[Word]) -> Judgement {
    let held = |word: &Word| word.said.as_ref().ok().and_then(Option::as_ref).cloned();
    let tombstones = words.iter().filter_map(held).filter_map(|held| match held {
        Held::Ended(tombstone) => Some(tombstone),
        Held::Session(_) => None,
    });
    if let Some(tombstone) = tombstones.max_by_key(|tombstone| tombstone.until) {
        let unaware = places(words, |word| word.said.as_ref().is_ok_and(|said| *said != Some(Held::Ended(tombstone))));
        return Judgement { found: Ok(Found::Ended), mend: Mend::Bury(tombstone, unaware) };
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
        return Judgement { found: Err(StoreError::Garbled { cause }), mend: Mend::Nothing };
    }
    match sessions.into_iter().max_by_key(|record| record.last_accessed) {
        Some(record) => {
            let without = places(words, |word| word.belongs && word.said == Ok(None));
            let mend = if without.is_empty() { Mend::Nothing } else { Mend::Copy(without) };
            Judgement { found: Ok(Found::Lives(record)), mend }
        }
        None => Judgement { found: missing(words), mend: Mend::Nothing },
    }
}

/// Nobody holds anything: is it gone, or is nobody there who would know?
fn missing(words: &[Word]) -> Result<Found, StoreError> {
    let failures = || words.iter().filter(|word| word.said.is_err());
    let silence = failures().find(|word| word.silent_for < PATIENCE);
    let anybody = words.iter().any(|word| word.said.is_ok());
    match silence.or_else(|| failures().next().filter(|_| !anybody)) {
        Some(Word { said: Err(error), .. }) => Err(error.clone()),
        _ => Ok(Found::Missing),
    }
}

fn places(words: &[Word], which: impl Fn(&Word) -> bool) -> Vec<usize> {
    words.iter().enumerate().filter(|(_, word)| which(word)).map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::sessions::tests::record;

    const TOMBSTONE: Tombstone = Tombstone { until: UnixTime::from_millis(1_800_000_000_000) };

    fn word(said: Result<Option<Held>, StoreError>) -> Word {
        Word { said, silent_for: Duration::ZERO, belongs: true }
    }
    fn living() -> Word {
        word(Ok(Some(Held::Session(record("ada")))))
    }
    fn ended() -> Word {
        word(Ok(Some(Held::Ended(TOMBSTONE))))
    }
    fn miss() -> Word {
        word(Ok(None))
    }
    fn silent(since: Duration) -> Word {
        Word { silent_for: since, ..word(Err(StoreError::TimedOut)) }
    }
    fn found(words: &[Word]) -> Result<Found, StoreError> {
        judge(words).found
    }

    #[test]
    fn a_tombstone_outweighs_whatever_the_others_say() {
        for other in [living(), miss(), ended(), silent(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), ended()]), Ok(Found::Ended));
            assert_eq!(found(&[ended(), other]), Ok(Found::Ended));
        }
        assert_eq!(judge(&[living(), ended()]).mend, Mend::Bury(TOMBSTONE, vec![0]));
        assert_eq!(judge(&[ended(), miss()]).mend, Mend::Bury(TOMBSTONE, vec![1]));
        assert_eq!(judge(&[ended(), ended()]).mend, Mend::Bury(TOMBSTONE, vec![]));
        assert_eq!(judge(&[silent(PATIENCE), ended()]).mend, Mend::Bury(TOMBSTONE, vec![]), "who is away hears later");
    }

    #[test]
    fn a_living_copy_is_enough_and_goes_to_who_misses_it() {
        let lives = Ok(Found::Lives(record("ada")));
        for other in [living(), miss(), silent(Duration::ZERO)] {
            assert_eq!(found(&[other.clone(), living()]), lives);
            assert_eq!(found(&[living(), other]), lives);
        }
        assert_eq!(judge(&[miss(), living()]).mend, Mend::Copy(vec![0]));
        assert_eq!(judge(&[living(), silent(PATIENCE)]).mend, Mend::Nothing);
        let formerly = Word { belongs: false, ..miss() };
        assert_eq!(judge(&[living(), formerly]).mend, Mend::Nothing, "it does not belong there any more");
    }

    #[test]
    fn of_two_copies_the_later_is_told() {
        let mut later = record("ada");
        later.last_accessed = later.last_accessed.plus(PATIENCE);
        let words = [living(), word(Ok(Some(Held::Session(later.clone())))), living()];
        assert_eq!(found(&words), Ok(Found::Lives(later)));
    }

    #[test]
    fn copies_that_name_different_users_vouch_for_neither() {
        let other = word(Ok(Some(Held::Session(record("eve")))));
        assert!(matches!(found(&[living(), other]), Err(StoreError::Garbled { .. })));
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
