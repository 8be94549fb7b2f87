//! Authentication and authorization: cookie, token, session, fingerprint, entitlement, in that order.
//!
//! [`Guard::check`] returns a [`Verdict`] and writes nothing to the client. The guard knows no HTTP status and no
//! redirect; `proxy` and `sentry` turn verdicts into replies. The session store is the only thing that it awaits. This
//! file holds the guard; what follows from its inputs is in `evaluate`, and the policy for an outage of the store in
//! `outage`.

pub mod cookie;
mod evaluate;
pub mod fingerprint;
mod identity_headers;
pub mod keys;
pub mod last_access;
pub mod outage;
pub mod recent_sessions;
mod ring_provider;
pub mod stream_check;
pub mod streams;
pub mod token;
mod user_agent;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};

use crate::clock::UnixTime;
use crate::config::{Credentials, OutagePolicy};
use crate::metrics::Metrics;
use crate::sessions::{Fingerprint, Found, SessionKey, SessionRecord, SessionStore, StallRetry, StoreError};
use crate::users::changes::DirectoryChanges;
use cookie::Lookup;
pub use evaluate::Requirement;
use evaluate::{AuthInputs, Request, SessionStatus, evaluate, refusal};
use fingerprint::Fingerprinter;
use last_access::Recorder;
use recent_sessions::RecentSessions;
use streams::Streams;
use token::{Tokens, Verified};

use verdict::is_revoked;
pub use verdict::{Assurance, Identity, Outcome, Reason, Source, Verdict};

/// Installs ring as the cryptography of JSON Web Tokens for the whole process. Calling it again is harmless.
pub fn install_crypto() {
    ring_provider::install();
}

/// Checks which user a request is from, and whether that user may make it.
pub struct Guard {
    tokens: Arc<Tokens>,
    cookie_name: String,
    fingerprints: Fingerprinter,
    sessions: Sessions,
    metrics: Arc<Metrics>,
}

/// Where the guard finds out whether a session is active.
pub struct Sessions {
    pub store: Arc<dyn SessionStore>,
    /// False with `store: none`: the token alone decides.
    pub checked: bool,
    pub seen: Arc<RecentSessions>,
    pub recorder: Recorder,
    /// Changes of users since their tokens were minted.
    pub users: Arc<DirectoryChanges>,
    pub streams: Arc<Streams>,
    /// How often the session of a stream is looked up.
    pub stream_interval: Duration,
}

/// A verdict, with what the logs and metrics need of it.
pub struct AuthDecision {
    pub verdict: Verdict,
    /// The token of a refused request, if its signature was verified: it names the user. It does not prove that the
    /// session is active.
    pub refused: Option<Arc<Verified>>,
    pub took: Duration,
}

impl AuthDecision {
    /// The decision on a route that admits no client. Nothing of the request is looked at.
    pub fn denied() -> Self {
        Self { verdict: Verdict::Refused(Reason::Denied), refused: None, took: Duration::ZERO }
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self.verdict, Verdict::Allowed(_))
    }

    /// Returns the name of the user who was refused, if it is known.
    pub fn refused_user(&self) -> Option<&str> {
        self.refused.as_ref().map(|verified| verified.claims().name.as_str())
    }
}

impl Guard {
    pub fn new(
        tokens: Arc<Tokens>,
        cookie_name: String,
        fingerprints: Fingerprinter,
        sessions: Sessions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { tokens, cookie_name, fingerprints, sessions, metrics }
    }

    /// Runs the whole check. The session is looked up and its expiry extended in the same round trip, and it is
    /// extended only for a request that may pass.
    pub async fn check(&self, headers: &HeaderMap, requirement: &Requirement<'_>, now: UnixTime) -> AuthDecision {
        let started = Instant::now();
        let credential = self.credential(headers, requirement, now);
        let token_checked_at = Instant::now();
        let token_time = token_checked_at.duration_since(started);
        self.metrics.sign_on.token_duration.observe(token_time.as_secs_f64());
        let (verified, source) = match credential {
            Ok(credential) => credential,
            Err(reason) => {
                let refused = self.refused_token(headers, requirement, &reason);
                return AuthDecision { verdict: Verdict::Refused(reason), refused, took: token_time };
            }
        };
        let fingerprint = self.fingerprints.of_cached(headers, verified.session_id(), verified.fingerprint_cache());
        let state = self.sessions.users.state(&verified.claims().sub);
        let refusal = refusal(verified.claims(), state.as_deref(), requirement);
        let request = Request::new(headers, fingerprint, &self.fingerprints);
        let inputs = AuthInputs { verified, source, request, state, refusal };
        let (verdict, refused) = self.decide(inputs, requirement, now).await;
        // One reading of the clock ends both measurements.
        let ended = Instant::now();
        self.metrics.sign_on.session_duration.observe(ended.duration_since(token_checked_at).as_secs_f64());
        AuthDecision { verdict, refused, took: ended.duration_since(started) }
    }

    /// Returns the token that was refused for `reason`, if this edge signed it: times and audience are checked after
    /// the signature has been verified.
    #[cold]
    fn refused_token(
        &self,
        headers: &HeaderMap,
        requirement: &Requirement<'_>,
        reason: &Reason,
    ) -> Option<Arc<Verified>> {
        let (token, _) = self.find_token(headers, requirement.credentials).ok().filter(|_| reason.names_a_user())?;
        self.tokens.remembered(token)
    }

    /// A refused request must not extend the session: a thief's requests would keep it from expiring, and so would the
    /// polling browser of a disabled user. Everything that decides, except the session, is known before the look-up,
    /// and the fingerprint is remembered from the first time that the session was found with this token. So an allowed
    /// request needs one round trip. The first request of a token cannot be distinguished from a thief's before the
    /// look-up, so it needs a second round trip that extends the session.
    async fn decide(
        &self,
        inputs: AuthInputs<'_>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> (Verdict, Option<Arc<Verified>>) {
        let verified = &*inputs.verified;
        let idle_ttl = requirement.extends_session.then(|| verified.idle_ttl());
        let may_extend = inputs.refusal.is_none()
            && verified.session_fingerprint().is_some_and(|bound| inputs.is_same_browser(bound));
        let mut status = self.session_status(verified, idle_ttl.filter(|_| may_extend), requirement, now).await;
        let mut result = evaluate(&inputs, &status);
        if !may_extend && idle_ttl.is_some() && result.is_ok() && matches!(status, SessionStatus::Active(_)) {
            let extended = self.session_status(verified, idle_ttl, requirement, now).await;
            // The session may have ended in between. If the store gives no answer now, its first answer holds.
            if matches!(extended, SessionStatus::Active(_) | SessionStatus::Ended) {
                result = evaluate(&inputs, &extended);
                status = extended;
            }
        }
        match result {
            Ok(assurance) => {
                if let SessionStatus::Active(record) = &status {
                    self.record_admission(verified, record, idle_ttl, requirement, now);
                }
                (Verdict::Allowed(Identity::new(inputs.verified, inputs.source, assurance, inputs.state)), None)
            }
            Err(reason) => (Verdict::Refused(reason), Some(inputs.verified)),
        }
    }

    async fn session_status(
        &self,
        verified: &Verified,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let Sessions { store, checked, .. } = &self.sessions;
        if !checked {
            return SessionStatus::AssumedActive { assurance: Assurance::Token, fingerprint: None };
        }
        let key = verified.session_key();
        match store.find(key, idle_ttl).await {
            Ok(Found::Active(record)) => SessionStatus::Active(record),
            Ok(Found::Ended | Found::Missing) => {
                self.forget(key);
                SessionStatus::Ended
            }
            Err(error) => match self.status_without_store(error, verified, requirement, now) {
                // This future is large and rarely needed, so it is boxed.
                SessionStatus::Unknown(error) if error.is_unavailable() => {
                    Box::pin(self.wait(error, verified, idle_ttl, requirement, now)).await
                }
                status => status,
            },
        }
    }

    /// Returns the status of a session after the store has failed.
    fn status_without_store(
        &self,
        error: StoreError,
        verified: &Verified,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let Sessions { store, seen, .. } = &self.sessions;
        let key = verified.session_key();
        outage::session_status(error, store.is_down(key), (key, verified.last_seen().get()), seen, requirement, now)
    }

    /// Repeats the look-up for as long as the store may only have stalled: a request that waits for half a second is
    /// better than a refused one. It ends with an answer of the store, or when the outage policy applies.
    async fn wait(
        &self,
        mut error: StoreError,
        verified: &Verified,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> SessionStatus {
        let (store, key) = (&*self.sessions.store, verified.session_key());
        let stall = StallRetry::new(store, key);
        while stall.pause().await {
            match store.find(key, idle_ttl).await {
                Ok(Found::Active(record)) => return SessionStatus::Active(record),
                Ok(Found::Ended | Found::Missing) => {
                    self.forget(key);
                    return SessionStatus::Ended;
                }
                Err(again) => match self.status_without_store(again, verified, requirement, now) {
                    SessionStatus::Unknown(again) if again.is_unavailable() => error = again,
                    status => return status,
                },
            }
        }
        SessionStatus::Unknown(error)
    }

    /// Records an allowed request: for an outage, for the last access in the session record, and for the next request
    /// with this token.
    fn record_admission(
        &self,
        verified: &Verified,
        record: &SessionRecord,
        idle_ttl: Option<Duration>,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) {
        let Sessions { seen, recorder, .. } = &self.sessions;
        verified.set_session_fingerprint(record.fingerprint);
        if matches!(requirement.on_outage, OutagePolicy::Recent { .. }) {
            match verified.last_seen().get() {
                Some(found) => found.touch(now),
                None => drop(verified.last_seen().set(seen.remember(verified.session_key(), record.fingerprint, now))),
            }
        }
        if let Some(ttl) = idle_ttl {
            recorder.note(verified.session_key(), record, now, ttl);
        }
    }

    /// Records that a login or a redemption has just opened or found this session, so that an outage policy knows it
    /// before its first request.
    pub fn note_sign_on(&self, session: &SessionKey, fingerprint: Fingerprint, now: UnixTime) {
        self.sessions.seen.note_sign_on(session, fingerprint, now);
    }

    /// Returns false with `sessions.store: none`, where the token alone decides.
    pub fn checks_sessions(&self) -> bool {
        self.sessions.checked
    }

    /// Returns whether the user directory has ended the session of this token.
    pub fn is_revoked(&self, verified: &Verified) -> bool {
        let claims = verified.claims();
        self.sessions.users.state(&claims.sub).is_some_and(|state| is_revoked(&state, claims))
    }

    /// Records that a session has ended, here or elsewhere: no outage policy may assume it active from now on, and its
    /// streams end.
    pub fn forget(&self, session: &SessionKey) {
        self.sessions.seen.forget(session);
        self.sessions.streams.end_session(session);
    }

    /// Returns the token of this request, verified and meant for this audience. The store is not needed for that.
    pub fn credential(
        &self,
        headers: &HeaderMap,
        requirement: &Requirement<'_>,
        now: UnixTime,
    ) -> Result<(Arc<Verified>, Source), Reason> {
        let (token, source) = self.find_token(headers, requirement.credentials)?;
        let verified = self.tokens.verify(token, now).map_err(Reason::Token)?;
        if verified.claims().aud != requirement.audience {
            return Err(Reason::Token(token::TokenError::WrongAudience));
        }
        Ok((verified, source))
    }

    /// Finds the bearer token, if the route accepts one, or else the cookie. Two cookies of our name count as none: a
    /// sibling host may have planted one of them.
    fn find_token<'a>(&self, headers: &'a HeaderMap, credentials: Credentials) -> Result<(&'a str, Source), Reason> {
        if credentials.bearer
            && let Some(token) = bearer(headers)
        {
            return Ok((token, Source::Bearer));
        }
        if !credentials.cookie {
            return Err(Reason::NoToken);
        }
        match cookie::find(headers, &self.cookie_name) {
            Lookup::One(token) => Ok((token, Source::Cookie)),
            Lookup::Absent => Err(Reason::NoToken),
            Lookup::Several => Err(Reason::SeveralCookies),
        }
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub fn fingerprints(&self) -> &Fingerprinter {
        &self.fingerprints
    }

    pub fn cookie_name(&self) -> &str {
        &self.cookie_name
    }
}

/// Returns the token of `Authorization: Bearer TOKEN`; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// Returns whether a request has a bearer token, in any of its `Authorization` fields.
pub fn has_bearer(headers: &HeaderMap) -> bool {
    let scheme =
        |field: &HeaderValue| field.as_bytes().get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"bearer "));
    headers.get_all(header::AUTHORIZATION).iter().any(scheme)
}

/// Returns whether a request is authenticated as a program's: it has a bearer token and the route accepts one, or the
/// route accepts nothing else. A refusal is then about that token and not about a person's cookie.
pub fn is_by_bearer(headers: &HeaderMap, credentials: Credentials) -> bool {
    credentials.bearer && (!credentials.cookie || bearer(headers).is_some())
}
