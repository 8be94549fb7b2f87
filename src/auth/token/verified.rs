//! A token that verified, and what is remembered with it for its next requests.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::super::fingerprint::CachedFingerprint;
use super::super::recent_sessions::LastSeen;
use super::Claims;
use crate::auth::identity_headers::IdentityHeaders;
use crate::clock::UnixTime;
use crate::sessions::{Fingerprint, SessionId, SessionKey};

/// A token whose signature, issuer, type and times are right. Not yet: whether its session lives.
pub struct Verified {
    pub(super) token: Box<str>,
    pub(super) claims: Claims,
    pub(super) session_id: SessionId,
    pub(super) session_key: SessionKey,
    pub(super) identity_headers: IdentityHeaders,
    pub(super) fingerprint_cache: CachedFingerprint,
    /// Seconds: from when on it is over, by `exp` or by the lifetime that the configuration has now.
    pub(super) ends: u64,
    /// The fingerprint that the session was found with, once it was.
    pub(super) session_fingerprint: OnceLock<Fingerprint>,
    /// When the session was last found alive, once it was and where a policy asks for that.
    pub(super) last_seen: OnceLock<Arc<LastSeen>>,
}

impl Verified {
    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    pub fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    pub fn session_key(&self) -> &SessionKey {
        &self.session_key
    }

    pub fn identity_headers(&self) -> &IdentityHeaders {
        &self.identity_headers
    }

    pub(crate) fn fingerprint_cache(&self) -> &CachedFingerprint {
        &self.fingerprint_cache
    }

    /// When the user proved who they are: `auth_time`, or the time of issue for a token of a former version, which has none.
    pub fn authenticated_at(&self) -> UnixTime {
        let claims = self.claims();
        UnixTime::from_seconds(if claims.auth_time == 0 { claims.iat } else { claims.auth_time })
    }

    /// From when on it is over, without a leeway.
    pub fn ends(&self) -> UnixTime {
        UnixTime::from_seconds(self.ends)
    }

    /// The fingerprint that the session was found with before.
    pub(crate) fn session_fingerprint(&self) -> Option<Fingerprint> {
        self.session_fingerprint.get().copied()
    }

    /// Notes the fingerprint that the session has. It has one for as long as it lives.
    pub(crate) fn set_session_fingerprint(&self, fingerprint: Fingerprint) {
        self.session_fingerprint.get_or_init(|| fingerprint);
    }

    /// What is remembered of the session for an outage of the store.
    pub(crate) fn last_seen(&self) -> &OnceLock<Arc<LastSeen>> {
        &self.last_seen
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.claims.idle)
    }

    /// The time to live that a use of the session sets in the store: its idle timeout. It is not cut to what is left until
    /// the token expires, which is checked on every use anyway: each session would get a TTL of its own then, and no two
    /// sessions could share a round trip.
    pub fn idle_ttl(&self) -> Duration {
        self.idle_timeout().max(Duration::from_secs(1))
    }
}

/// The token opens a session: it is not printed.
impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("sub", &self.claims.sub).field("aud", &self.claims.aud).finish_non_exhaustive()
    }
}
