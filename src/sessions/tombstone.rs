//! What stays in place of a session that was ended: one line, `1 ended 1700043200123⏎`, until no token names the
//! session any more.
//!
//! Where a session has copies, a server that could not be reached at the logout still holds a living one. Whoever
//! asks both learns from the tombstone that it is a ghost.

use std::time::Duration;

use super::SessionRecord;
use crate::clock::UnixTime;

/// What lies under a session's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Session(SessionRecord),
    Ended(Tombstone),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// When it may be forgotten.
    pub until: UnixTime,
}

const BEFORE: &str = "1 ended ";

impl Held {
    /// `None` for anything that this version did not write.
    pub fn decode(value: &[u8]) -> Option<Self> {
        match Tombstone::decode(value) {
            Some(tombstone) => Some(Self::Ended(tombstone)),
            None => SessionRecord::decode(value).map(Self::Session),
        }
    }
}

impl Tombstone {
    pub fn encode(self) -> Vec<u8> {
        format!("{BEFORE}{}\n", self.until.millis()).into_bytes()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let millis = value.strip_prefix(BEFORE.as_bytes())?.strip_suffix(b"\n")?;
        let digits = millis.iter().all(u8::is_ascii_digit);
        let millis = std::str::from_utf8(millis).ok().filter(|_| digits)?.parse().ok()?;
        Some(Self { until: UnixTime::from_millis(millis) })
    }

    /// How long a store has to keep it from `now` on.
    pub fn ttl(self, now: UnixTime) -> Duration {
        self.until.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::record;

    #[test]
    fn a_session_and_what_stays_of_it_are_told_apart() {
        let tombstone = Tombstone { until: UnixTime::from_millis(1_700_043_200_123) };
        assert_eq!(tombstone.encode(), b"1 ended 1700043200123\n");
        assert_eq!(Held::decode(&tombstone.encode()), Some(Held::Ended(tombstone)));
        for user in ["ada", "ended 1", "1 ended 5"] {
            assert_eq!(Held::decode(&record(user).encode()), Some(Held::Session(record(user))));
        }
    }

    #[test]
    fn what_lost_its_end_is_neither() {
        let whole = Tombstone { until: UnixTime::from_millis(17) }.encode();
        for length in 0..whole.len() {
            assert_eq!(Held::decode(&whole[..length]), None, "{length} bytes");
        }
        for odd in ["1 ended \n", "1 ended +5\n", "1 ended 5 5\n", "2 ended 5\n", "1 ended 99999999999999999999\n"] {
            assert_eq!(Held::decode(odd.as_bytes()), None, "{odd:?}");
        }
    }
}
