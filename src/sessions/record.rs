//! The session record, the specification's `JWTSession`, and its encoding as one line.
//!
//! The line, readable in a debugger, is about 80 bytes and the user's name:
//!
//! ```text
//! 1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada⏎
//! │ │             │             │       │             │                      └ user
//! │ │             │             │       │             └ FINGER_PRINT
//! │ │             │             │       └ absolute end
//! │ │             │             └ SESSION_TIME_OUT
//! │ │             └ LAST_ACCESSED_TIME
//! │ └ created
//! └ version of this form
//! ```
//!
//! Times and durations are in milliseconds. The line break is part of the encoding: without it a truncated record would still
//! be valid, as that of another user. `auth` decides whether a session grants access.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::UnixTime;

/// Records of another version cannot be read. A release that changes the encoding must read both, for rolling upgrades.
const VERSION: &str = "1";

/// A keyed hash over stable properties of the browser. It is only compared, and cannot be reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; Self::BYTES]);

/// A session, from the login to the logout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    pub user: String,
    pub created: UnixTime,
    /// The specification's LAST_ACCESSED_TIME.
    pub last_accessed: UnixTime,
    /// The specification's SESSION_TIME_OUT: the idle timeout, the least over the user's services.
    pub idle_timeout: Duration,
    /// The specification's FINGER_PRINT.
    pub fingerprint: Fingerprint,
    /// When the session ends, even if it is in use.
    pub expires: UnixTime,
}

impl Fingerprint {
    pub const BYTES: usize = 16;
    const TEXT_BYTES: usize = 22;

    pub const fn new(hash: [u8; Self::BYTES]) -> Self {
        Self(hash)
    }

    /// Returns 22 characters of base64url.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    pub fn decode(text: impl AsRef<[u8]>) -> Option<Self> {
        let text = text.as_ref();
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        // The decoder estimates generously, and needs room for two bytes more than 22 characters can hold.
        let mut bytes = [0; Self::BYTES + 2];
        URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        bytes.first_chunk().copied().map(Self)
    }
}

impl SessionRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut line = String::with_capacity(96 + self.user.len());
        // Writing to a string cannot fail.
        let _ = writeln!(
            line,
            "{VERSION} {} {} {} {} {} {}",
            self.created.millis(),
            self.last_accessed.millis(),
            self.idle_timeout.as_millis(),
            self.expires.millis(),
            self.fingerprint.encode(),
            self.user,
        );
        line.into_bytes()
    }

    /// Returns `None` for anything that [`encode`](Self::encode) of this version did not write. A moment after the year 9999
    /// was written by another program.
    pub fn decode(line: &[u8]) -> Option<Self> {
        // The user comes last because a name may contain spaces.
        let mut rest = line.strip_suffix(b"\n")?.strip_prefix(VERSION.as_bytes())?.strip_prefix(b" ")?;
        let [created, last_accessed, idle_timeout, expires] =
            [moment(&mut rest)?, moment(&mut rest)?, moment(&mut rest)?, moment(&mut rest)?];
        let (fingerprint, rest) = rest.split_at_checked(Fingerprint::TEXT_BYTES)?;
        let user = std::str::from_utf8(rest.strip_prefix(b" ")?).ok().filter(|user| !user.is_empty())?;
        Some(Self {
            user: user.into(),
            created,
            last_accessed,
            idle_timeout: Duration::from_millis(idle_timeout.millis()),
            fingerprint: Fingerprint::decode(fingerprint)?,
            expires,
        })
    }
}

/// Takes the next number, in milliseconds: since 1970, or of a duration, which is shorter.
fn moment(rest: &mut &[u8]) -> Option<UnixTime> {
    number(rest).map(UnixTime::from_millis).filter(|moment| *moment <= UnixTime::LATEST)
}

/// Takes digits and the blank after them. Only the canonical spelling is accepted: the standard parser would also accept a
/// leading `+`, and leading zeros.
fn number(rest: &mut &[u8]) -> Option<u64> {
    /// A number with more digits might not fit. Those that we write have thirteen.
    const MOST_DIGITS: usize = 19;
    let (mut sum, mut digits) = (0, 0);
    loop {
        match rest.get(digits)? {
            b' ' => break,
            byte @ b'0'..=b'9' if digits < MOST_DIGITS => sum = sum * 10 + u64::from(byte - b'0'),
            _ => return None,
        }
        digits += 1;
    }
    let is_canonical = digits == 1 || (digits > 1 && rest[0] != b'0');
    *rest = &rest[digits + 1..];
    is_canonical.then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: &str) -> SessionRecord {
        SessionRecord {
            user: user.to_owned(),
            created: UnixTime::from_millis(1_700_000_000_123),
            last_accessed: UnixTime::from_millis(1_700_000_360_456),
            idle_timeout: Duration::from_secs(1800),
            fingerprint: Fingerprint::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            expires: UnixTime::from_millis(1_700_043_200_123),
        }
    }

    #[test]
    fn a_record_is_one_readable_line() {
        let line = String::from_utf8(record("ada").encode()).unwrap();
        assert_eq!(line, "1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n");
    }

    #[test]
    fn what_was_encoded_decodes_whatever_the_name() {
        for user in ["ada", "Ada Lovelace", " ", "a\r\nEND\r\n", "é😀", &"x".repeat(300), "1 2 3 4 5 6 7 8"] {
            assert_eq!(SessionRecord::decode(&record(user).encode()), Some(record(user)), "{user:?}");
        }
    }

    #[test]
    fn a_record_without_its_end_is_no_record() {
        let line = record("ada lovelace").encode();
        for length in 0..line.len() {
            assert_eq!(SessionRecord::decode(&line[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn another_version_or_damage_is_no_record() {
        for damaged in [
            "",
            "\n",
            "used",
            "2 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 +700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 01700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 -1 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 99999999999999999999 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 9999999999999999999 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 1700000000123 253402300800000 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 1700000000123 1700000360456 253402300800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 1700000000123 1700000360456 1800000 253402300800000 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1  1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw ada\n",
            "1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0OD ada\n",
            "1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0OD= ada\n",
            "1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw \n",
            "1 1700000000123 1700000360456 1800000 1700043200123 AAECAwQFBgcICQoLDA0ODw\n",
        ] {
            assert_eq!(SessionRecord::decode(damaged.as_bytes()), None, "{damaged:?}");
        }
    }

    /// A small fuzz test for every run of the tests: records with bytes changed at random, and random bytes.
    #[test]
    fn decoding_never_panics_and_what_it_accepts_is_what_would_be_written() {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            // xorshift64: the same bytes at every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..50_000 {
            let mut bytes = record("ada").encode();
            if round % 4 == 0 {
                bytes.iter_mut().for_each(|byte| *byte = next() as u8);
            }
            for _ in 0..next() % 4 {
                let place = next() as usize % bytes.len();
                bytes[place] = next() as u8;
            }
            bytes.truncate(next() as usize % (2 * bytes.len()));
            if let Some(accepted) = SessionRecord::decode(&bytes) {
                assert_eq!(accepted.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_fingerprint_has_one_spelling() {
        let fingerprint = Fingerprint::new([0xFF; 16]);
        assert_eq!(fingerprint.encode(), "_____________________w");
        assert_eq!(Fingerprint::decode("_____________________w"), Some(fingerprint));
        for bad in ["", "_____________________x", "/////////////////////w", "______________________w", "__________w"] {
            assert_eq!(Fingerprint::decode(bad), None, "{bad:?}");
        }
    }
}
