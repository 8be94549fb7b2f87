//! A tombstone replaces a session that was ended: one line, `1 ended 1700043200123⏎`, which is kept until no valid token
//! names the session any more.
//!
//! If a session has copies, a server that could not be reached at the logout still holds an active one. An edge that reads
//! both learns from the tombstone that the session has ended.

use std::time::Duration;

use super::SessionRecord;
use crate::clock::UnixTime;

/// The value under a session's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredValue {
    Session(SessionRecord),
    Ended(Tombstone),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// From this moment on the tombstone may be forgotten.
    pub until: UnixTime,
}

const PREFIX: &str = "1 ended ";

impl StoredValue {
    /// Returns `None` for anything that this version did not write.
    pub fn decode(value: &[u8]) -> Option<Self> {
        match Tombstone::decode(value) {
            Some(tombstone) => Some(Self::Ended(tombstone)),
            None => SessionRecord::decode(value).map(Self::Session),
        }
    }
}

impl Tombstone {
    pub fn encode(self) -> Vec<u8> {
        format!("{PREFIX}{}\n", self.until.millis()).into_bytes()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let millis = value.strip_prefix(PREFIX.as_bytes())?.strip_suffix(b"\n")?;
        let digits = millis.iter().all(u8::is_ascii_digit);
        let millis = std::str::from_utf8(millis).ok().filter(|_| digits)?.parse().ok()?;
        Some(Self { until: UnixTime::from_millis(millis) })
    }

    /// Returns how long a store has to keep the tombstone from `now` on.
    pub fn ttl(self, now: UnixTime) -> Duration {
        self.until.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::record;

    #[test]
    fn a_session_and_its_tombstone_are_distinguished() {
        let tombstone = Tombstone { until: UnixTime::from_millis(1_700_043_200_123) };
        assert_eq!(tombstone.encode(), b"1 ended 1700043200123\n");
        assert_eq!(StoredValue::decode(&tombstone.encode()), Some(StoredValue::Ended(tombstone)));
        for user in ["ada", "ended 1", "1 ended 5"] {
            assert_eq!(StoredValue::decode(&record(user).encode()), Some(StoredValue::Session(record(user))));
        }
    }

    #[test]
    fn a_truncated_value_is_neither() {
        let whole = Tombstone { until: UnixTime::from_millis(17) }.encode();
        for length in 0..whole.len() {
            assert_eq!(StoredValue::decode(&whole[..length]), None, "{length} bytes");
        }
        for odd in ["1 ended \n", "1 ended +5\n", "1 ended 5 5\n", "2 ended 5\n", "1 ended 99999999999999999999\n"] {
            assert_eq!(StoredValue::decode(odd.as_bytes()), None, "{odd:?}");
        }
    }
}
