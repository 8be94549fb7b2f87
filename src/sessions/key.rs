//! The keys of the store. Nothing that a client sent is used as a key directly: it is hashed first.
//!
//! A key is a prefix for its kind and the base64url SHA-256 of the identifier, 45 bytes in all. No identifier can therefore
//! be too long, contain a space, or be read back from a dump of the store.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::SecureRandom;

/// The specification's TokenID, which identifies a session: 192 random bits as 32 base64url characters. It grants no access
/// by itself, but the session can be looked up with it, so it is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

/// The specification's requestID: a UUID in its canonical spelling (lower case, with dashes). `sentry` adds a mark to those
/// that it issues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketId(uuid::Uuid);

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            fn of(identifier: &[u8]) -> Self {
                let hash = digest::digest(&digest::SHA256, identifier);
                let mut key = String::with_capacity($prefix.len() + 43);
                key.push_str($prefix);
                URL_SAFE_NO_PAD.encode_string(hash, &mut key);
                Self(key.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

key!(
    /// The key of a session record.
    SessionKey, "s:"
);
key!(
    /// The key of a ticket.
    TicketKey, "t:"
);
key!(
    /// The key of a browser's record.
    DeviceKey, "d:"
);
key!(
    /// The key of a counter, without its kind.
    CountKey, "c:"
);

/// The key of a counter: failed logins of an account or an address, tickets issued for one page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    key: CountKey,
    kind: &'static str,
}

/// The system's random source failed; nothing may be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

/// Returns `N` bytes from the system's random source, as base64url.
pub fn random_base64url<const N: usize>() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl SessionId {
    const RANDOM_BYTES: usize = 24;

    pub fn random() -> Result<Self, NoRandomness> {
        Ok(Self(random_base64url::<{ Self::RANDOM_BYTES }>()?.into()))
    }

    /// Parses the identifier of a verified token; returns `None` unless it is 22 to 86 base64url characters.
    pub fn parse(text: &str) -> Option<Self> {
        let plausible = (22..=86).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        plausible.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn key(&self) -> SessionKey {
        SessionKey::of(self.0.as_bytes())
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionId(…)")
    }
}

impl DeviceKey {
    /// Makes the key of the browser with this random identifier.
    pub fn new(id: &[u8; 16]) -> Self {
        Self::of(id)
    }
}

impl SessionKey {
    /// Parses a key as a store lists it; returns `None` for anything but the key of a session. memcached lists keys
    /// percent-encoded, which changes only the colon of our keys.
    pub fn parse(text: &str) -> Option<Self> {
        let hash = ["s:", "s%3A", "s%3a"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
        let ours = hash.len() == 43 && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        ours.then(|| Self(format!("s:{hash}").into()))
    }
}

impl TicketId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// Accepts only the canonical spelling: 36 characters, lower case, with dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
        canonical.then(|| uuid::Uuid::try_parse(text).ok()).flatten().map(Self)
    }

    /// Returns the random bits, which only the holder of the ticket knows.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub fn key(&self) -> TicketKey {
        TicketKey::of(self.0.as_bytes())
    }
}

impl std::fmt::Display for TicketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::fmt::Debug for TicketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketId(…)")
    }
}

impl CounterKey {
    /// Makes the key of the counter of this kind for `subject`, e.g. `("account", "ada")`.
    pub fn new(kind: &'static str, subject: &str) -> Self {
        Self { key: CountKey::of(format!("{kind}\0{subject}").as_bytes()), kind }
    }

    pub fn as_str(&self) -> &str {
        self.key.as_str()
    }

    /// Returns the kind. Each kind has its own limit in memory, so one kind does not evict counters of another.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_length_whatever_the_user_sent() {
        for subject in ["", "a b", "a\r\nflush_all", "😀", &"x".repeat(300)] {
            let key = CounterKey::new("account", subject);
            assert_eq!(key.as_str().len(), 45);
            assert!(key.as_str().bytes().all(|b| b.is_ascii_graphic()));
        }
    }

    #[test]
    fn a_key_is_parsed_from_a_list_of_keys_and_others_are_refused() {
        let key = SessionId::random().unwrap().key();
        let hash = &key.as_str()[2..];
        for listed in [key.as_str(), &format!("s%3A{hash}"), &format!("s%3a{hash}")] {
            assert_eq!(SessionKey::parse(listed), Some(key.clone()), "{listed}");
        }
        for other in ["", "s:", "s%3A", "s%3", &format!("t%3A{hash}"), &format!("c:{hash}"), &format!("s%3A{hash}x")] {
            assert_eq!(SessionKey::parse(other), None, "{other}");
        }
        for odd in ["%", " ", "é", "=", "+", "/"] {
            let listed = format!("s:{odd}{}", &hash[odd.len()..]);
            assert_eq!(SessionKey::parse(&listed), None, "{listed}");
        }
    }

    #[test]
    fn a_ticket_has_one_spelling() {
        let ticket = TicketId::random().to_string();
        assert!(TicketId::parse(&ticket).is_some());
        for bad in [ticket.to_uppercase(), format!("{{{ticket}}}"), ticket.replace('-', ""), String::new()] {
            assert!(TicketId::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn session_ids_differ_and_hide_from_debug() {
        let (a, b) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 32);
        assert_eq!(SessionId::parse(a.as_str()), Some(a.clone()));
        assert!(!format!("{a:?}").contains(a.as_str()));
    }
}
