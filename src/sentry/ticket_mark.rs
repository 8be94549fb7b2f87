//! The mark that distinguishes a ticket of ours from any other UUID under its name in a URL.
//!
//! A ticket is a UUID of version 8 (RFC 9562 §5.8): 74 random bits, and 48 bits of a MAC over them. So an application's
//! own UUIDs are left alone, and a made-up ticket costs no look-up in the store. The MAC covers the round of the flow
//! as well: the round is not part of the ticket, it is the one for which the MAC is valid.

use ring::hmac;
use ring::rand::SecureRandom;

use super::loop_guard::RedirectRound;
use crate::auth::keys::Keys;
use crate::sessions::TicketId;
use crate::sessions::key::NoRandomness;

/// Random bytes of a UUID, except for the 6 bits of version and variant among them.
const RANDOM_BYTES: usize = 10;

/// A foreign UUID of version 8 has a valid mark by chance once in about 10^14 times.
const MARK_BYTES: usize = 6;

/// The keys of the marks: the one derived from the signing key first, and then those of the other keys. Edges that have
/// each other's keys agree on them.
pub struct TicketMarks(Vec<hmac::Key>);

impl TicketMarks {
    pub fn new(keys: &Keys) -> Self {
        Self(keys.derive_all("ticket mark"))
    }

    /// Uses these keys themselves, the first of which marks; for tests.
    pub fn of_secrets(secrets: &[&[u8]]) -> Self {
        Self(secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect())
    }

    /// Returns a fresh ticket for this round.
    pub fn issue(&self, round: RedirectRound) -> Result<TicketId, NoRandomness> {
        let mut random = [0; RANDOM_BYTES];
        ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
        random[6] = random[6] & 0x0f | 0x80;
        random[8] = random[8] & 0x3f | 0x80;
        let mut bytes = [0; RANDOM_BYTES + MARK_BYTES];
        bytes[..RANDOM_BYTES].copy_from_slice(&random);
        let key = self.0.first().ok_or(NoRandomness)?;
        bytes[RANDOM_BYTES..].copy_from_slice(&mark(key, round, &random));
        Ok(TicketId::from_bytes(bytes))
    }

    /// Returns the round of a ticket; `None` for a UUID that none of our keys has marked.
    pub fn round_of(&self, id: &TicketId) -> Option<RedirectRound> {
        let (random, marked) = id.as_bytes().split_first_chunk::<RANDOM_BYTES>()?;
        if random[6] >> 4 != 8 || random[8] >> 6 != 2 {
            return None;
        }
        let is_of = |round: &RedirectRound| self.0.iter().any(|key| is_equal(&mark(key, *round, random), marked));
        RedirectRound::ALL.into_iter().find(is_of)
    }
}

fn mark(key: &hmac::Key, round: RedirectRound, random: &[u8; RANDOM_BYTES]) -> [u8; MARK_BYTES] {
    let mut context = hmac::Context::with_key(key);
    context.update(&[round.number()]);
    context.update(random);
    // The tag of SHA-256 has 32 bytes.
    context.sign().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Compares in constant time.
fn is_equal(mark: &[u8; MARK_BYTES], marked: &[u8]) -> bool {
    marked.len() == MARK_BYTES && mark.iter().zip(marked).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(secrets: &[&str]) -> TicketMarks {
        TicketMarks::of_secrets(&secrets.iter().map(|secret| secret.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn a_ticket_bears_its_mark_and_its_round_and_no_other_uuid_does() {
        let marks = marks(&["secret"]);
        for round in RedirectRound::ALL {
            let ticket = marks.issue(round).unwrap();
            assert_eq!(marks.round_of(&ticket), Some(round));
            assert_eq!(uuid::Uuid::from_bytes(*ticket.as_bytes()).get_version_num(), 8);
            assert_eq!(uuid::Uuid::from_bytes(*ticket.as_bytes()).get_variant(), uuid::Variant::RFC4122);
            for bit in 0..128 {
                let mut bytes = *ticket.as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(marks.round_of(&TicketId::from_bytes(bytes)), None, "bit {bit}");
            }
        }
        for _ in 0..1000 {
            let mut bytes = *TicketId::random().as_bytes();
            assert_eq!(marks.round_of(&TicketId::from_bytes(bytes)), None);
            // With our version too, so that only its MAC distinguishes it from a ticket.
            bytes[6] = bytes[6] & 0x0f | 0x80;
            assert_eq!(marks.round_of(&TicketId::from_bytes(bytes)), None);
        }
        assert_ne!(marks.issue(RedirectRound::FIRST).unwrap(), marks.issue(RedirectRound::FIRST).unwrap());
    }

    #[test]
    fn a_mark_outlives_a_change_of_keys_and_another_house_does_not_know_it() {
        let (former, both, other) = (marks(&["old"]), marks(&["new", "old"]), marks(&["other"]));
        let ticket = former.issue(RedirectRound::LAST).unwrap();
        assert_eq!(both.round_of(&ticket), Some(RedirectRound::LAST));
        assert_eq!(other.round_of(&ticket), None);
        assert_eq!(
            former.round_of(&both.issue(RedirectRound::FIRST).unwrap()),
            None,
            "it does not know the new key yet"
        );
    }
}
