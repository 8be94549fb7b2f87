//! The record of a browser in the store: its one current session, when that session's password was entered, and when the
//! browser last signed out. It is one line, `1 7 s:HASH 1700000000000 1700000360456⏎`; `-` means no session, 0 means never.
//!
//! It contains no identity and grants no access: a session's key is a hash of the session's identifier. `sentry` decides
//! what follows from the record; a store keeps it, and replaces it by compare-and-swap.

use super::SessionKey;
use crate::clock::UnixTime;

/// Records of another version count as none, as if their browsers had never signed in.
const VERSION: &str = "1";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Counts the changes. A timestamp would not do: the clocks of edges differ, and two changes may happen in one second.
    pub number: u64,
    /// The key of the browser's current session.
    pub session: Option<SessionKey>,
    /// When that session's password was entered, in whole seconds, as in the token.
    pub auth_time: UnixTime,
    /// When the browser last signed out.
    pub signed_out: UnixTime,
}

/// The result of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    Done,
    /// Nothing was written, because this record was found instead of the expected one.
    Found(Option<DeviceRecord>),
}

impl DeviceRecord {
    pub fn encode(&self) -> Vec<u8> {
        let session = self.session.as_ref().map_or("-", SessionKey::as_str);
        format!("{VERSION} {} {session} {} {}\n", self.number, self.auth_time.millis(), self.signed_out.millis())
            .into_bytes()
    }

    /// Returns `None` for anything that [`encode`](Self::encode) of this version did not write.
    pub fn decode(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let mut parts = text.split(' ').skip(1);
        let number = parts.next()?.parse().ok()?;
        let session = match parts.next()? {
            "-" => None,
            key => Some(SessionKey::parse(key)?),
        };
        let mut moment = || {
            let moment = UnixTime::from_millis(parts.next()?.parse().ok()?);
            (moment <= UnixTime::LATEST).then_some(moment)
        };
        let record = Self { number, session, auth_time: moment()?, signed_out: moment()? };
        // Only the canonical spelling is accepted.
        (record.encode() == line).then_some(record)
    }

    /// Returns the number of the change that follows `seen`.
    pub fn after(seen: Option<&Self>) -> u64 {
        seen.map_or(0, |seen| seen.number).saturating_add(1)
    }
}

/// Returns the later of the records of two servers.
pub fn later(one: Option<DeviceRecord>, other: Option<DeviceRecord>) -> Option<DeviceRecord> {
    match (one, other) {
        (Some(one), Some(other)) if other.number > one.number => Some(other),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::tests::session;

    fn record() -> DeviceRecord {
        let (auth_time, signed_out) = (UnixTime::from_seconds(1_700_000_000), UnixTime::from_millis(1_600_000_000_123));
        DeviceRecord { number: 7, session: Some(session()), auth_time, signed_out }
    }

    #[test]
    fn a_record_is_one_readable_line_and_comes_back_as_it_was() {
        let record = record();
        let key = record.session.clone().unwrap();
        let line = format!("1 7 {} 1700000000000 1600000000123\n", key.as_str());
        assert_eq!(record.encode(), line.as_bytes());
        for record in [record, DeviceRecord::default()] {
            assert_eq!(DeviceRecord::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn any_other_value_is_no_record() {
        let whole = record().encode();
        for length in 0..whole.len() {
            assert_eq!(DeviceRecord::decode(&whole[..length]), None, "{length} bytes");
        }
        let line = String::from_utf8(whole).unwrap();
        for odd in [
            line.replacen('1', "2", 1),
            line.replace("s:", "t:"),
            line.replace("s:", "s%3A"),
            line.replace(" 17", " +17"),
            line.replace(" 17", " 017"),
            line.replace(" 17", "  17"),
            line.replace('\n', " 5\n"),
            line.replace("1700000000000", "99999999999999999999"),
            line.replace("1700000000000", "9999999999999999999"),
            "\u{e9}".into(),
        ] {
            assert_eq!(DeviceRecord::decode(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn of_two_servers_the_later_record_counts_and_any_before_none() {
        let signed_in = record();
        let signed_out = DeviceRecord { number: 8, session: None, ..record() };
        for (one, other) in [(&signed_in, &signed_out), (&signed_out, &signed_in)] {
            assert_eq!(later(Some(one.clone()), Some(other.clone())), Some(signed_out.clone()));
            assert_eq!(later(None, Some(one.clone())), Some(one.clone()));
            assert_eq!(later(Some(one.clone()), None), Some(one.clone()));
        }
    }
}
