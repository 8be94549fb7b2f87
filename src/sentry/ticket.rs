//! What is stored behind a ticket: the token, whom it was made for, and what must be shown to redeem it.

use crate::host::Host;
use crate::sessions::Fingerprint;

use super::state::StateHash;

/// The stored value of a ticket. Lives seconds; opens one host, once, for one browser.
pub struct Ticket {
    pub host: Host,
    pub state: StateHash,
    pub fingerprint: Fingerprint,
    pub token: String,
}

impl Ticket {
    /// `1 HOST STATE FINGERPRINT TOKEN`; none of them can hold a space.
    pub fn encode(&self) -> Vec<u8> {
        format!("1 {} {} {} {}", self.host, self.state.as_str(), self.fingerprint.encode(), self.token).into_bytes()
    }

    /// `None` when the bytes are of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        let ("1", host, state, fingerprint, token) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?)
        else {
            return None;
        };
        parts.next().is_none().then_some(())?;
        Some(Self {
            host: Host::parse(host).ok()?,
            state: StateHash::parse(state)?,
            fingerprint: Fingerprint::decode(fingerprint)?,
            token: token.into(),
        })
    }
}

/// It opens a session: nothing of it is printed but where.
impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_round_trips_and_damage_is_noticed() {
        let ticket = Ticket {
            host: Host::parse("iqueue.leantaas.com").unwrap(),
            state: StateHash::parse(&"a".repeat(43)).unwrap(),
            fingerprint: Fingerprint::new([7; 16]),
            token: "a.b.c".into(),
        };
        let bytes = ticket.encode();
        let back = Ticket::decode(&bytes).unwrap();
        assert_eq!((back.host, back.state, back.token), (ticket.host, ticket.state, ticket.token));
        for cut in 0..bytes.len() - 5 {
            assert!(Ticket::decode(&bytes[..cut]).is_none(), "{cut}");
        }
        assert!(Ticket::decode(b"2 a b c d").is_none());
        assert!(Ticket::decode(&[bytes, b" x".to_vec()].concat()).is_none());
    }
}
