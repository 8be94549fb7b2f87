//! The state cookie on a service host: it binds a ticket to the browser that started the sign-on (RFC 9700 §2.1).
//!
//! Its value is `NONCE.0.SINCE`: the secret half of the state, and the time since when it is one. The number between
//! them was a count in a former version, whose edges read it as long as there are some.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use crate::clock::UnixTime;
use crate::sessions::key::{NoRandomness, random_base64url};

/// Seconds that the cookie, and so an unfinished sign-on, lasts.
pub const LIFETIME_SECONDS: u64 = 600;

#[derive(Clone, PartialEq, Eq)]
pub struct State {
    nonce: String,
    since_seconds: u64,
}

/// What travels in URLs and tickets: base64url of the nonce's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateHash(String);

impl State {
    /// Returns a fresh state: 128 random bits.
    pub fn fresh(now: UnixTime) -> Result<Self, NoRandomness> {
        Ok(Self { nonce: random_base64url::<16>()?, since_seconds: now.seconds() })
    }

    /// Returns `None` for anything that we cannot have set.
    pub fn parse(cookie: &str) -> Option<Self> {
        let mut parts = cookie.split('.');
        let (nonce, count, since) = (parts.next()?, parts.next()?, parts.next()?);
        count.parse::<u8>().ok()?;
        let plain = nonce.len() == 22 && is_base64url(nonce) && parts.next().is_none();
        plain.then_some(())?;
        Some(Self { nonce: nonce.into(), since_seconds: since.parse().ok()? })
    }

    pub fn cookie_value(&self) -> String {
        format!("{}.0.{}", self.nonce, self.since_seconds)
    }

    pub fn hash(&self) -> StateHash {
        let hash = digest::digest(&digest::SHA256, self.nonce.as_bytes());
        StateHash(URL_SAFE_NO_PAD.encode(hash))
    }
}

/// The nonce is a secret of the browser, so it is not printed.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("since_seconds", &self.since_seconds).finish_non_exhaustive()
    }
}

impl StateHash {
    /// Parses the parameter of a URL; `None` unless it has the form of a hash.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 43 && is_base64url(text)).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_round_trips_and_its_hash_does_not_show_the_nonce() {
        let state = State::fresh(UnixTime::from_seconds(5)).unwrap();
        assert_eq!(State::parse(&state.cookie_value()), Some(state.clone()));
        assert!(!state.hash().as_str().contains(&state.nonce));
        for bad in ["", "x", "a.b.c", &format!("{}.1", state.nonce), &format!("{}.300.1", state.nonce)] {
            assert_eq!(State::parse(bad), None, "{bad}");
        }
    }
}
