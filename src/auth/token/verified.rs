//! A verified token, and what is cached with it for the next requests that have it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::super::fingerprint::CachedFingerprint;
use super::super::recent_sessions::LastSeen;
use super::Claims;
use crate::auth::identity_headers::IdentityHeaders;
use crate::clock::UnixTime;
use crate::sessions::{Fingerprint, SessionId, SessionKey};

/// A token whose signature, issuer, type and times are valid. Whether its session is active is not known yet.
pub struct Verified {
    pub(super) token: Box<str>,
    pub(super) claims: Claims,
    pub(super) session_id: SessionId,
    pub(super) session_key: SessionKey,
    pub(super) identity_headers: IdentityHeaders,
    pub(super) fingerprint_cache: CachedFingerprint,
    /// When it expires, in seconds: by `exp`, or by the login lifetime that the configuration has now.
    pub(super) ends: u64,
    /// The fingerprint of the session, after it was first found.
    pub(super) session_fingerprint: OnceLock<Fingerprint>,
    /// When the session was last found active. It is set only if the outage policy needs it.
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

    /// Returns when it expires, without the leeway.
    pub fn ends(&self) -> UnixTime {
        UnixTime::from_seconds(self.ends)
    }

    /// Returns the fingerprint that the session was found with before.
    pub(crate) fn session_fingerprint(&self) -> Option<Fingerprint> {
        self.session_fingerprint.get().copied()
    }

    /// Sets the fingerprint of the session, which does not change as long as the session lives.
    pub(crate) fn set_session_fingerprint(&self, fingerprint: Fingerprint) {
        self.session_fingerprint.get_or_init(|| fingerprint);
    }

    /// Returns what is remembered of the session for an outage of the store.
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

/// The text of the token gives access to a session, so it is not printed.
impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("sub", &self.claims.sub).field("aud", &self.claims.aud).finish_non_exhaustive()
    }
}
