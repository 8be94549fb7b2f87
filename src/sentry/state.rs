//! The state cookie on a service host: what ties a ticket to the browser that asked for it (RFC 9700 §2.1).
//!
//! Its value is `NONCE.COUNT.SINCE`: the secret half of the state, how often this browser was sent away to sign
//! on, and since when; the count breaks redirect loops. A browser that alters its own count only harms itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;

use crate::clock::UnixTime;
use crate::sessions::key::{NoRandomness, random_base64url};

/// Seconds that the cookie, and so an unfinished sign-on, lives.
pub const LIFETIME_SECONDS: u64 = 600;

/// Redirects within [`WINDOW_SECONDS`] after which the next one would only go round in a circle.
const MOST_REDIRECTS: u8 = 6;
const WINDOW_SECONDS: u64 = 60;

#[derive(Clone, PartialEq, Eq)]
pub struct State {
    nonce: String,
    redirects: u8,
    since_seconds: u64,
}

/// What travels in URLs and tickets: base64url of the nonce's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateHash(String);

impl State {
    /// A fresh one: 128 random bits, no redirect yet.
    pub fn fresh(now: UnixTime) -> Result<Self, NoRandomness> {
        Ok(Self { nonce: random_base64url::<16>()?, redirects: 0, since_seconds: now.seconds() })
    }

    /// `None` for anything that we cannot have set.
    pub fn parse(cookie: &str) -> Option<Self> {
        let mut parts = cookie.split('.');
        let (nonce, redirects, since) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = nonce.len() == 22 && is_base64url(nonce) && parts.next().is_none();
        plain.then_some(())?;
        Some(Self { nonce: nonce.into(), redirects: redirects.parse().ok()?, since_seconds: since.parse().ok()? })
    }

    pub fn cookie_value(&self) -> String {
        format!("{}.{}.{}", self.nonce, self.redirects, self.since_seconds)
    }

    pub fn hash(&self) -> StateHash {
        let hash = digest::digest(&digest::SHA256, self.nonce.as_bytes());
        StateHash(URL_SAFE_NO_PAD.encode(hash))
    }

    /// The state after one more redirect; `None` when there were too many within a minute.
    pub fn count_redirect(mut self, now: UnixTime) -> Option<Self> {
        if now.seconds().saturating_sub(self.since_seconds) >= WINDOW_SECONDS {
            (self.redirects, self.since_seconds) = (0, now.seconds());
        }
        if self.redirects >= MOST_REDIRECTS {
            return None;
        }
        self.redirects += 1;
        Some(self)
    }
}

/// The nonce is a secret of the browser's.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("redirects", &self.redirects).finish_non_exhaustive()
    }
}

impl StateHash {
    /// Takes what a URL brings; `None` unless it has the form of a hash.
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
    use std::time::Duration;

    #[test]
    fn the_cookie_round_trips_and_its_hash_does_not_show_the_nonce() {
        let state = State::fresh(UnixTime::from_seconds(5)).unwrap();
        assert_eq!(State::parse(&state.cookie_value()), Some(state.clone()));
        assert!(!state.hash().as_str().contains(&state.nonce));
        for bad in ["", "x", "a.b.c", &format!("{}.1", state.nonce), &format!("{}.300.1", state.nonce)] {
            assert_eq!(State::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_seventh_redirect_within_a_minute_is_refused_and_a_later_one_is_not() {
        let now = UnixTime::from_seconds(1000);
        let mut state = State::fresh(now).unwrap();
        for _ in 0..6 {
            state = state.count_redirect(now).unwrap();
        }
        assert_eq!(state.clone().count_redirect(now), None);
        assert!(state.count_redirect(now.plus(Duration::from_secs(60))).is_some());
    }
}
