//! The stored value of a ticket: the token, for which host and browser it was issued, and what must be shown to redeem
//! it.
//!
//! The store can read none of that. The value is sealed (ChaCha20-Poly1305, RFC 8439) under a key that is derived from
//! the ticket's own UUID (HKDF-SHA-256, RFC 5869), and a store has only the SHA-256 of the UUID. So what is read from a
//! store, or on the way to it, opens nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{aead, hkdf};

use crate::host::Host;
use crate::sessions::{Fingerprint, TicketId};

use super::state::StateHash;

/// The version of this format. The one before it, `1 HOST STATE FINGERPRINT TOKEN`, was not encrypted; it is no longer
/// accepted. A ticket lives for seconds, so while edges are upgraded one after another some sign-ons need another
/// round, without a password.
const VERSION: &str = "2 ";

/// The stored value of a ticket. It lives for seconds, and opens one host, once, for one browser.
pub struct Ticket {
    pub host: Host,
    pub state: StateHash,
    pub fingerprint: Fingerprint,
    pub token: String,
}

impl Ticket {
    /// Returns `2 ` and, sealed for `id` alone and in base64url, `HOST STATE FINGERPRINT TOKEN`; none of them can have
    /// a space. An `id` must be used for one ticket only, because its key may seal one value only. Returns `None` if
    /// the cipher fails, which it cannot for so few bytes.
    pub fn seal(&self, id: &TicketId) -> Option<Vec<u8>> {
        let Self { host, state, fingerprint, token } = self;
        let mut bytes = format!("{host} {} {} {token}", state.as_str(), fingerprint.encode()).into_bytes();
        key(id)?.seal_in_place_append_tag(one_nonce(), aad(), &mut bytes).ok()?;
        Some(format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes())
    }

    /// Returns `None` if the bytes are of another version, of another ticket, or damaged.
    pub fn open(id: &TicketId, stored: &[u8]) -> Option<Self> {
        let mut sealed = URL_SAFE_NO_PAD.decode(stored.strip_prefix(VERSION.as_bytes())?).ok()?;
        let opened = key(id)?.open_in_place(one_nonce(), aad(), &mut sealed).ok()?;
        let mut parts = std::str::from_utf8(opened).ok()?.split(' ');
        let (host, state, fingerprint, token) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(())?;
        Some(Self {
            host: Host::parse(host).ok()?,
            state: StateHash::parse(state)?,
            fingerprint: Fingerprint::decode(fingerprint)?,
            token: token.into(),
        })
    }
}

/// Returns the key of a ticket. The random bits of the UUID are the only secret. The store's key is a plain SHA-256 of
/// them, from which this key does not follow.
fn key(id: &TicketId) -> Option<aead::LessSafeKey> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"sentry-edge ticket");
    let material = salt.extract(id.as_bytes());
    let derived = material.expand(&[b"value"], &aead::CHACHA20_POLY1305).ok()?;
    Some(aead::LessSafeKey::new(aead::UnboundKey::from(derived)))
}

/// Each key seals one value, so the nonce may always be the same.
fn one_nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

fn aad() -> aead::Aad<&'static str> {
    aead::Aad::from(VERSION)
}

/// A ticket gives access to a session, so only its host is printed.
impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            host: Host::parse("iqueue.leantaas.com").unwrap(),
            state: StateHash::parse(&"a".repeat(43)).unwrap(),
            fingerprint: Fingerprint::new([7; 16]),
            token: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl".into(),
        }
    }

    #[test]
    fn a_ticket_opens_with_its_own_id_and_damage_is_noticed() {
        let (ticket, id) = (ticket(), TicketId::random());
        let stored = ticket.seal(&id).unwrap();
        let back = Ticket::open(&id, &stored).unwrap();
        assert_eq!((back.host, back.state, back.token), (ticket.host, ticket.state, ticket.token));
        assert!(Ticket::open(&TicketId::random(), &stored).is_none(), "of another ticket");
        for at in 0..stored.len() {
            assert!(Ticket::open(&id, &stored[..at]).is_none(), "{at} bytes");
            let mut damaged = stored.clone();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(Ticket::open(&id, &damaged).is_none(), "byte {at} changed");
        }
        assert!(Ticket::open(&id, &[&stored[..], b"AAAA"].concat()).is_none());
    }

    #[test]
    fn what_is_stored_shows_nothing_of_the_ticket_and_a_former_form_is_not_taken() {
        let (ticket, id) = (ticket(), TicketId::random());
        let stored = String::from_utf8(ticket.seal(&id).unwrap()).unwrap();
        for part in ["iqueue", "eyJ", "aaaa", &ticket.fingerprint.encode(), &id.to_string()[..8]] {
            assert!(!stored.contains(part), "{part}: {stored}");
        }
        let before = format!("1 iqueue.leantaas.com {} {} a.b.c", "a".repeat(43), ticket.fingerprint.encode());
        assert!(Ticket::open(&id, before.as_bytes()).is_none());
    }
}
